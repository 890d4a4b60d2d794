"""What compilers cannot cut, each device runs on its own part.

The shape legend stands in models/layers.py.
"""

import math
from collections.abc import Callable, Sequence

import jax

from models import partition


def on_shards(
  function: Callable[..., jax.Array],
  arrays: Sequence[jax.Array | None],
  letters: Sequence[str],
  out_letters: str,
) -> jax.Array:
  """function(*arrays), where each device of the mesh has its part of each.

  Args:
    function: from the parts of the arrays to the part of the output; axes of
      the mesh are its to communicate over.
    arrays: the arguments; None stays None.
    letters: for each array, its axes by the letters of models/partition.py;
      "." for one that stays whole.
    out_letters: of the output, whose shape is the first array's.
  """
  mesh = jax.sharding.get_abstract_mesh()
  free = set(mesh.axis_names) - set(mesh.manual_axes)
  if math.prod(mesh.shape[name] for name in free) == 1:
    return function(*arrays)
  return jax.shard_map(
    function,
    in_specs=tuple(
      None if array is None else partition.spec(array.shape, axes, mesh)
      for array, axes in zip(arrays, letters, strict=True)
    ),
    out_specs=partition.spec(arrays[0].shape, out_letters, mesh),
    axis_names=free,
    # Kernels do not say over which axes their outputs differ.
    check_vma=False,
  )(*arrays)
