"""Sharding: meshes of devices, and regex rules over the paths of arrays."""

import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from common.errors import UserError
from common.leaf import Leaf, Spec
from common.names import nearest
from models.layers import pipeline_parallel
from models.layers.partition import BATCH_AXES, zigzag
from train.types import PyTree

# All axes that models and learners know, from the one that communicates least
# to the one that communicates most; see models.layers.partition.
AXES = ("slice", "stage", "data", "fsdp", "expert", "context", "tensor")


def make_mesh(axes: Mapping[str, int], devices=None) -> Mesh:
  """Returns a mesh of all devices; one size may be -1, for the rest.

  The axis "slice" divides the devices by their slice (or in order, if they have
  none), so that all other axes use the fast network within a slice.

  Raises:
    UserError: an axis is unknown, or the product of the sizes is not the number
      of devices.
  """
  devices = jax.devices() if devices is None else devices
  for name in axes:
    if name not in AXES:
      raise UserError(f"config.mesh.{name}: unknown{nearest(name, AXES)}")
  # In the order of AXES, so that the busiest axis connects neighbors.
  names = tuple(sorted(axes, key=AXES.index))
  sizes = [int(axes[name]) for name in names]
  wanted = ", ".join(f"{name}={n}" for name, n in axes.items())
  known = math.prod(n for n in sizes if n != -1)
  if sizes.count(-1) > 1 or known < 1 or len(devices) % known:
    raise UserError(
      f"config.mesh: {wanted} does not fit {len(devices)} devices (one size may"
      " be -1, the others must divide the number of devices)"
    )
  sizes = [len(devices) // known if n == -1 else n for n in sizes]
  if math.prod(sizes) != len(devices):
    raise UserError(
      f"config.mesh: {wanted} needs {math.prod(sizes)} devices, but there are"
      f" {len(devices)}"
    )
  return _arranged(dict(zip(names, sizes, strict=True)), devices)


def _arranged(sizes: Mapping[str, int], devices) -> Mesh:
  """Returns a mesh whose axes follow the network topology of the devices."""
  names = tuple(sizes)
  auto = (jax.sharding.AxisType.Auto,) * len(names)
  slices = sizes.get("slice", 1)
  if slices == 1:
    shape = tuple(sizes.values())
    try:
      return jax.make_mesh(shape, names, axis_types=auto, devices=devices)
    except NotImplementedError:  # an axis is a part of one of the torus
      laid_out = mesh_utils.create_device_mesh(
        shape, list(devices), allow_split_physical_axes=True
      )
      return Mesh(laid_out, names, axis_types=auto)
  devices = sorted(devices, key=lambda d: getattr(d, "slice_index", 0) or 0)
  inner = {name: n for name, n in sizes.items() if name != "slice"}
  within = [
    _arranged(inner, list(part)).devices
    for part in np.split(np.array(devices), slices)
  ]
  return Mesh(np.stack(within, names.index("slice")), names, axis_types=auto)


def batch_sharding(mesh: Mesh, leaf: Leaf | None = None) -> NamedSharding:
  """Returns the sharding of a leaf of a batch: rows over BATCH_AXES.

  With an axis "context", the axis "time" of a leaf is sharded over it. Without
  a leaf, the sharding is that of the rows alone.
  """
  axes = tuple(name for name in BATCH_AXES if name in mesh.shape)
  time = ("context",) if _has_time(leaf) and "context" in mesh.shape else ()
  return NamedSharding(mesh, PartitionSpec(axes or None, *time))


def batch_parts(mesh: Mesh) -> int:
  """Returns the number of parts into which the rows of a batch are divided."""
  return math.prod(mesh.shape[a] for a in BATCH_AXES if a in mesh.shape)


def bubble(config: Mapping, mesh: Mesh) -> float:
  """Returns the fraction of a step in which pipeline stages are idle."""
  stages = mesh.shape.get("stage", 1)
  microbatches = config["model"].get("stage_microbatches") or stages
  return pipeline_parallel.bubble(stages, microbatches)


def pipeline_note(config: Mapping, mesh: Mesh) -> str:
  """Returns a line that reports the pipeline bubble; "" if there is none."""
  stages = mesh.shape.get("stage", 1)
  if stages == 1:
    return ""
  return (
    f"pipeline of {stages} stages: a bubble of"
    f" {100 * bubble(config, mesh):.1f} % of each pass;"
    " config.model.stage_microbatches makes it smaller"
  )


def _has_time(leaf: Leaf | None) -> bool:
  """Returns whether the first axis of a leaf, after the rows, is time."""
  return leaf is not None and leaf.axes[:1] == ("time",)


def check_lengths(lengths: Sequence[int], mesh: Mesh, where: str) -> None:
  """Raises UserError unless the axis "context" divides each of the lengths.

  Args:
    lengths: the sizes that the axis of time has in batches.
    mesh: the mesh.
    where: the key of the config that sets them.
  """
  parts = mesh.shape.get("context", 1)
  for length in lengths:
    try:
      zigzag(length, parts)
    except ValueError as error:
      raise UserError(
        f"{where}: the bucket of length {length} does not suit"
        f" config.mesh.context={parts}: {error}; set lengths that are multiples"
        f" of {2 * parts}"
      ) from error


def lay_out(
  batch: Mapping[str, np.ndarray], mesh: Mesh, spec: Spec
) -> dict[str, np.ndarray]:
  """Reorders the axis "time" of a host batch for context parallelism.

  Raises:
    UserError: the sequences cannot be divided over the axis.
  """
  parts = mesh.shape.get("context", 1)
  if parts == 1:
    return dict(batch)
  try:
    return {
      name: leaf[:, zigzag(leaf.shape[1], parts)]
      if _has_time(spec.get(name))
      else leaf
      for name, leaf in batch.items()
    }
  except ValueError as error:
    raise UserError(f"config.mesh.context: {error}") from error


def within(mesh: Mesh, function: Callable) -> Callable:
  """Returns `function`, traced within `mesh` unless a mesh is already set."""

  @functools.wraps(function)
  def surrounded(*args):
    if not jax.sharding.get_abstract_mesh().empty:
      return function(*args)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return function(*args)

  return surrounded


def tree_shardings(
  tree: PyTree,
  mesh: Mesh,
  rules: Sequence[tuple[str, object]],
  model_rules: Sequence[tuple[str, PartitionSpec]] = (),
  rows: Mapping[str, str] = MappingProxyType({}),
) -> PyTree:
  """Returns a NamedSharding for each leaf, by the first rule that matches.

  Args:
    tree: arrays or ShapeDtypeStructs.
    mesh: the devices.
    rules: pairs (regex searched in the "/"-joined path, strategy). A strategy
      is "replicate"; "model", the SHARDING of the model file (tensor, expert
      and stage); "fsdp", the same, which also shards the largest remaining
      divisible dimension over the mesh axis fsdp, or over data if there is no
      axis fsdp (ZeRO, arXiv:1910.02054); or a list with an axis name or None
      for each dimension. Leaves that no rule matches are replicated.
    model_rules: SHARDING of the model file.
    rows: {path: axis or "batch"}, as in types.Learner. The first dimension of
      the leaves at or below a path is sharded over that axis, and the rules
      apply to the other dimensions, with the axes that remain.

  Raises:
    UserError: a strategy is invalid.
  """

  def leaf_sharding(path, leaf):
    path, shape = _join(path), tuple(leaf.shape)
    axis = _row_axis(path, rows) if shape else None
    if axis is None:
      spec = _spec(path, shape, mesh, rules, model_rules)
      return NamedSharding(mesh, spec)
    axes = BATCH_AXES if axis == "batch" else (axis,)
    axes = tuple(name for name in axes if name in mesh.shape)
    (lead,) = _fitted((axes[0] if len(axes) == 1 else axes,), shape[:1], mesh)
    spec = _spec(path, shape[1:], mesh, rules, model_rules)
    others = [_without(axes if lead else (), each) for each in spec]
    return NamedSharding(mesh, PartitionSpec(lead, *others))

  return jax.tree_util.tree_map_with_path(leaf_sharding, tree)


def _row_axis(path: str, rows: Mapping[str, str]) -> str | None:
  """Returns the axis of the rows of a leaf, or None if it has no rows."""
  for prefix, axis in rows.items():
    if f"{path}/".startswith(f"{prefix}/"):
      return axis
  return None


def _without(used: tuple[str, ...], axis):
  """Returns the axis or axes of a dimension without those in `used`."""
  names = (axis,) if isinstance(axis, str) else tuple(axis or ())
  left = tuple(name for name in names if name not in used)
  return (left[0] if len(left) == 1 else left) or None


def _join(path) -> str:
  return jax.tree_util.keystr(path, simple=True, separator="/")


def _spec(path, shape, mesh, rules, model_rules) -> PartitionSpec:
  for pattern, strategy in rules:
    if not re.search(pattern, path):
      continue
    if strategy == "replicate":
      return PartitionSpec()
    if strategy in ("model", "fsdp"):
      matches = (spec for regex, spec in model_rules if re.search(regex, path))
      spec = _fitted(next(matches, ()), shape, mesh)
      return spec if strategy == "model" else _fully_sharded(spec, shape, mesh)
    if isinstance(strategy, str):
      raise UserError(
        f"config.sharding: {strategy!r} is none of replicate, fsdp, model or a"
        " list of mesh axes"
      )
    return _fitted(strategy, shape, mesh)
  return PartitionSpec()


def _fully_sharded(spec, shape, mesh) -> PartitionSpec:
  """Returns `spec` with its largest unsharded dimension sharded over fsdp."""
  axis = "fsdp" if "fsdp" in mesh.shape else "data"
  size = mesh.shape.get(axis, 1)
  parts = [*spec, *[None] * (len(shape) - len(spec))]
  fitting = [
    i
    for i, n in enumerate(shape)
    if parts[i] is None and n >= size and n % size == 0
  ]
  if size > 1 and fitting:
    parts[max(fitting, key=lambda i: shape[i])] = axis
  return PartitionSpec(*parts)


def _fitted(spec, shape, mesh) -> PartitionSpec:
  """`spec` without axes that the mesh lacks or that do not divide the shape."""
  if len(spec) > len(shape):
    return PartitionSpec()  # a factored moment of a matrix, say

  def fits(axis, n):
    names = (axis,) if isinstance(axis, str) else tuple(axis or ())
    known = names and all(name in mesh.shape for name in names)
    return known and n % math.prod(mesh.shape[name] for name in names) == 0

  return PartitionSpec(
    *[
      axis if fits(axis, n) else None
      for axis, n in zip(spec, shape, strict=False)
    ]
  )


def in_host_memory(tree: PyTree, shardings: PyTree) -> PyTree:
  """Returns `shardings` of `tree` in host memory, except for scalars."""
  return jax.tree.map(
    lambda x, s: s.with_memory_kind("pinned_host") if x.ndim else s,
    tree,
    shardings,
  )


def in_device_memory(tree: PyTree, shardings: PyTree) -> PyTree:
  """Copies arrays of `tree` from host memory to the device, within jit."""
  return jax.tree.map(
    lambda x, s: (
      jax.device_put(x, s.with_memory_kind("device"))
      if s.memory_kind == "pinned_host"
      else x
    ),
    tree,
    shardings,
  )


def abstract(tree: PyTree, shardings: PyTree) -> PyTree:
  """Returns ShapeDtypeStructs with shardings, for restoring."""
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    tree,
    shardings,
  )


def count(tree: PyTree) -> int:
  """Returns the number of elements of all leaves."""
  return int(
    sum(np.prod(x.shape, dtype=np.int64) for x in jax.tree.leaves(tree))
  )
