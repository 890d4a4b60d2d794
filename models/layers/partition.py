"""Where activations live: the axes of a mesh, by the letters of a shape.

Networks name no device. They say which axis of a tensor is which, in the
letters of the legend in models/layers/basic.py, and the mesh that surrounds the
call (`jax.set_mesh`) says what that means; without a mesh it means nothing.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

# A batch is cut along these axes, in this order, where the mesh has them:
# over slices joined by the slow network, plainly, with the parameters cut
# alike (fully sharded), among the holders of the experts and, outside the
# pipeline, among its stages.
BATCH_AXES = ("slice", "data", "fsdp", "expert", "stage")
# The letters that are cut, and over which axes.
LETTERS = {
  "B": BATCH_AXES,
  "T": ("context",),
  "R": ("context", "tensor"),  # T of the residual stream, between the blocks
  "N": ("tensor",),
  "K": ("tensor",),
  "F": ("tensor",),
  "V": ("tensor",),
  "E": ("expert",),
}


def axis_size(name: str) -> int:
  """Devices along an axis of the surrounding mesh; 1 where there is no such.

  An axis that a surrounding shard_map has taken over counts as 1.
  """
  mesh = jax.sharding.get_abstract_mesh()
  return math.prod(mesh.shape[a] for a in _free_axes(mesh, (name,)))


def free_axes() -> tuple[str, ...]:
  """The axes of the surrounding mesh that no shard_map has taken over."""
  mesh = jax.sharding.get_abstract_mesh()
  return _free_axes(mesh, mesh.axis_names)


def platform() -> str:
  """What the program is made for: "cpu", "gpu" or "tpu".

  The surrounding mesh tells, for a program may be compiled elsewhere than it
  runs; without one, the default devices do.
  """
  device = jax.sharding.get_abstract_mesh().abstract_device
  found = jax.default_backend() if device is None else device.platform
  return "gpu" if found in ("cuda", "rocm") else found


def place(x: jax.Array, letters: str) -> jax.Array:
  """Says that `x` is cut as its letters tell, as in `place(q_BTNH, "BTNH")`.

  Axes that the mesh lacks, and dimensions that do not divide, stay whole.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if not free_axes():
    return x
  return jax.lax.with_sharding_constraint(x, spec(x.shape, letters, mesh))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def gather(weights: jax.Array, letters: str) -> jax.Array:
  """Weights as the product needs them: cut as their letters tell, else whole.

  What is fully sharded is gathered here, layer by layer. The gradient is not
  told where to live: XLA then scatters it to the shards as it sums it.
  """
  return place(weights, letters)


def _gather_forward(weights, letters):
  return place(weights, letters), None


def _gather_backward(letters, _, gradient):
  del letters
  return (gradient,)


gather.defvjp(_gather_forward, _gather_backward)


def spec(shape: tuple[int, ...], letters: str, mesh) -> P:
  """The PartitionSpec of a tensor of that shape, as `place` cuts it.

  Raises:
    ValueError: there is not one letter a dimension.
  """
  if len(letters) != len(shape):
    raise ValueError(f"{letters!r} does not name the axes of {shape}")
  parts = []
  for size, letter in zip(shape, letters, strict=True):
    axes = _free_axes(mesh, LETTERS.get(letter, ()))
    while axes and size % math.prod(mesh.shape[a] for a in axes):
      axes = axes[:-1]
    parts.append(axes or None)
  return P(*parts)


def sharded_spec(
  shape: tuple[int, ...], letters: str, mesh
) -> tuple[P, int | None]:
  """(`spec` with one more dimension cut over fsdp, which dimension that is).

  It is the first that is whole and divides; None where there is none.
  """
  parts = list(spec(shape, letters, mesh))
  shards = axis_size("fsdp")
  if shards > 1:
    for i, size in enumerate(shape):
      if not parts[i] and size % shards == 0:
        parts[i] = "fsdp"
        return P(*parts), i
  return P(*parts), None


def on_each_device(function: Callable, in_specs, out_specs) -> Callable:
  """`function` run by each device on its own part: shard_map over free axes.

  Sums over axes are the function's to write, and nobody checks them. Without a
  mesh of several devices it is the function itself.
  """
  mesh = jax.sharding.get_abstract_mesh()
  free = set(mesh.axis_names) - set(mesh.manual_axes)
  if not free_axes():
    return function
  return jax.shard_map(
    function,
    in_specs=in_specs,
    out_specs=out_specs,
    axis_names=free,
    check_vma=False,
  )


def on_shards(
  function: Callable[..., jax.Array],
  arrays: Sequence[jax.Array | None],
  letters: Sequence[str],
  out_letters: str,
) -> jax.Array:
  """function(*arrays), where each device has its part of each array.

  Args:
    function: from the parts of the arrays to the part of the output.
    arrays: the arguments; None stays None.
    letters: for each array, its axes; "." for one that stays whole.
    out_letters: of the output, whose shape is the first array's.
  """
  mesh = jax.sharding.get_abstract_mesh()
  in_specs = tuple(
    None if array is None else spec(array.shape, axes, mesh)
    for array, axes in zip(arrays, letters, strict=True)
  )
  out_spec = spec(arrays[0].shape, out_letters, mesh)
  return on_each_device(function, in_specs, out_spec)(*arrays)


def zigzag(length: int, parts: int) -> np.ndarray:
  """The order in which `parts` devices hold a sequence, int [length].

  Cut in 2 * parts chunks, device i holds chunks i and 2 * parts - 1 - i, so
  that all have the same share of a causal triangle (arXiv:2407.21783, section
  3.3.2). laid_out = natural[order], and order also is the laid-out positions.

  Raises:
    ValueError: the length is no multiple of 2 * parts.
  """
  if parts == 1:
    return np.arange(length)
  if length % (2 * parts):
    raise ValueError(
      f"a sequence of {length} cannot be cut in {2 * parts} equal chunks, two"
      f" for each of {parts} devices"
    )
  chunks = np.arange(length).reshape(2 * parts, -1)
  pairs = [(i, 2 * parts - 1 - i) for i in range(parts)]
  return chunks[np.ravel(pairs)].reshape(-1)


def _free_axes(mesh, names) -> tuple[str, ...]:
  """Those of `names` that `mesh` has, and that no shard_map has taken."""
  return tuple(
    name
    for name in names
    if name in mesh.shape
    and mesh.shape[name] > 1
    and name not in mesh.manual_axes
  )
