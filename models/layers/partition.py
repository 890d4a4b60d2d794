"""The sharding of activations: the axes of a mesh, by the letters of a shape.

Networks refer to no device. They name the axes of a tensor by the letters of
the legend in models/layers/basic.py, and the mesh that surrounds the call
(`jax.set_mesh`) maps them to devices; without a mesh they have no effect.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

# A batch is sharded along these axes, in this order, if the mesh has them: over
# slices joined by the slow network, with replicated parameters, with parameters
# sharded along the same axis (fully sharded), over the devices that hold the
# experts and, outside the pipeline, over its stages.
BATCH_AXES = ("slice", "data", "fsdp", "expert", "stage")
# The letters that are sharded, and over which axes.
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
  """Returns the devices along an axis of the surrounding mesh; 1 if absent.

  An axis that a surrounding shard_map makes manual counts as 1.
  """
  mesh = jax.sharding.get_abstract_mesh()
  return math.prod(mesh.shape[a] for a in _free_axes(mesh, (name,)))


def free_axes() -> tuple[str, ...]:
  """Returns the axes of the surrounding mesh that no shard_map makes manual."""
  mesh = jax.sharding.get_abstract_mesh()
  return _free_axes(mesh, mesh.axis_names)


def platform() -> str:
  """Returns the platform of the program: "cpu", "gpu" or "tpu".

  It is that of the surrounding mesh, since a program may be compiled elsewhere
  than it runs; without a mesh, that of the default devices.
  """
  device = jax.sharding.get_abstract_mesh().abstract_device
  found = jax.default_backend() if device is None else device.platform
  return "gpu" if found in ("cuda", "rocm") else found


def place(x: jax.Array, letters: str) -> jax.Array:
  """Shards `x` as its letters specify, as in `place(q_BTNH, "BTNH")`.

  Axes that the mesh lacks, and dimensions that do not divide, are not sharded.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if not free_axes():
    return x
  return jax.lax.with_sharding_constraint(x, spec(x.shape, letters, mesh))


def materialized(x: jax.Array) -> jax.Array:
  """Has `x` computed once, on CPU, where several consumers would repeat it.

  XLA fuses norms and activations into the transpositions before the gradients
  of convolutions on CPU, and so computes them many times. Its compiler keeps
  this barrier in programs that are compiled as train.loop compiles the step.
  """
  return jax.lax.optimization_barrier(x) if platform() == "cpu" else x


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def gather(weights: jax.Array, letters: str) -> jax.Array:
  """Shards weights as the product needs them, by their letters alone.

  Fully sharded weights are gathered here, layer by layer. The sharding of the
  gradient is not constrained: XLA then scatters it to the shards as it is
  summed.
  """
  return place(weights, letters)


def _gather_forward(weights, letters):
  return place(weights, letters), None


def _gather_backward(letters, _, gradient):
  del letters
  return (gradient,)


gather.defvjp(_gather_forward, _gather_backward)


def spec(shape: tuple[int, ...], letters: str, mesh) -> P:
  """Returns the PartitionSpec of a tensor of that shape, as `place` uses it.

  Raises:
    ValueError: the number of letters differs from that of dimensions.
  """
  if len(letters) != len(shape):
    raise ValueError(
      f"{letters!r} does not have one letter per axis of {shape}"
    )
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
  """Returns (`spec` with one more dimension over fsdp, that dimension).

  It is the first unsharded dimension that divides; None if there is none.
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
  """Runs `function` on each device's own part: shard_map over free axes.

  Sums over axes are left to the function, and are not checked. Without a mesh
  of several devices it is the function itself.
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
  """Returns function(*arrays), where each device has its part of each array.

  Args:
    function: from the parts of the arrays to the part of the output.
    arrays: the arguments; None stays None.
    letters: for each array, its axes; "." for one that is not sharded.
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
  """Returns the order in which `parts` devices hold a sequence, int [length].

  The sequence is split into 2 * parts chunks, and device i holds chunks i and 2
  * parts - 1 - i, so that all have the same share of a causal triangle
  (arXiv:2407.21783, section 3.3.2). laid_out = natural[order], and order also
  gives the positions of laid_out.

  Raises:
    ValueError: the length is not a multiple of 2 * parts.
  """
  if parts == 1:
    return np.arange(length)
  if length % (2 * parts):
    raise ValueError(
      f"a sequence of {length} cannot be cut into {2 * parts} equal chunks, two"
      f" for each of {parts} devices"
    )
  chunks = np.arange(length).reshape(2 * parts, -1)
  pairs = [(i, 2 * parts - 1 - i) for i in range(parts)]
  return chunks[np.ravel(pairs)].reshape(-1)


def _free_axes(mesh, names) -> tuple[str, ...]:
  """Returns those of `names` that `mesh` has, and no shard_map makes manual."""
  return tuple(
    name
    for name in names
    if name in mesh.shape
    and mesh.shape[name] > 1
    and name not in mesh.manual_axes
  )
