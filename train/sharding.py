"""Where every array lives: a mesh of devices, and regex rules over paths."""

import math
import re
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from train.errors import UserError
from train.types import PyTree

# Batches are cut along these axes, in this order, where the mesh has them.
DATA_AXES = ("data", "fsdp")


def make_mesh(axes: Mapping[str, int], devices=None) -> Mesh:
  """A mesh of all devices; one size may be -1 for "what is left".

  Raises:
    UserError: the sizes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  names, sizes = tuple(axes), [int(n) for n in axes.values()]
  wanted = ", ".join(f"{name}={n}" for name, n in axes.items())
  known = math.prod(n for n in sizes if n != -1)
  if sizes.count(-1) > 1 or known < 1 or len(devices) % known:
    raise UserError(
      f"config.mesh: {wanted} cannot hold {len(devices)} devices (one size may"
      " be -1, the others must divide the number of devices)"
    )
  sizes = [len(devices) // known if n == -1 else n for n in sizes]
  if math.prod(sizes) != len(devices):
    raise UserError(
      f"config.mesh: {wanted} is {math.prod(sizes)} devices, and there are"
      f" {len(devices)}"
    )
  auto = (jax.sharding.AxisType.Auto,) * len(names)
  return jax.make_mesh(tuple(sizes), names, axis_types=auto, devices=devices)


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Rows over all data axes of the mesh."""
  axes = tuple(name for name in DATA_AXES if name in mesh.shape)
  return NamedSharding(mesh, PartitionSpec(axes or None))


def batch_parts(mesh: Mesh) -> int:
  """How many parts a batch is cut into: the product of the data axes."""
  return math.prod(mesh.shape[a] for a in DATA_AXES if a in mesh.shape)


def tree_shardings(
  tree: PyTree,
  mesh: Mesh,
  rules: Sequence[tuple[str, object]],
  model_rules: Sequence[tuple[str, PartitionSpec]] = (),
) -> PyTree:
  """A NamedSharding for each leaf of `tree`, by the first rule that matches.

  Args:
    tree: arrays or ShapeDtypeStructs.
    mesh: the devices.
    rules: (regex searched in the "/"-joined path, strategy). A strategy is
      "replicate", "fsdp" (the largest dimension that divides is cut over the
      mesh axis fsdp, or data where there is no such axis: ZeRO, Rajbhandari et
      al. 2020), "model" (the model file's own SHARDING), or a list with an
      axis name or None for each dimension. What no rule matches is replicated.
    model_rules: SHARDING of the model file.

  Raises:
    UserError: a strategy is none of these.
  """

  def leaf_sharding(path, leaf):
    spec = _spec(_join(path), tuple(leaf.shape), mesh, rules, model_rules)
    return NamedSharding(mesh, spec)

  return jax.tree_util.tree_map_with_path(leaf_sharding, tree)


def _join(path) -> str:
  return jax.tree_util.keystr(path, simple=True, separator="/")


def _spec(path, shape, mesh, rules, model_rules) -> PartitionSpec:
  for pattern, strategy in rules:
    if not re.search(pattern, path):
      continue
    if strategy == "replicate":
      return PartitionSpec()
    if strategy == "fsdp":
      return _fully_sharded(shape, mesh)
    if strategy == "model":
      matches = (spec for regex, spec in model_rules if re.search(regex, path))
      return _fitted(next(matches, ()), shape, mesh)
    if isinstance(strategy, str):
      raise UserError(
        f"config.sharding: {strategy!r} is none of replicate, fsdp, model or a"
        " list of mesh axes"
      )
    return _fitted(strategy, shape, mesh)
  return PartitionSpec()


def _fully_sharded(shape, mesh) -> PartitionSpec:
  axis = "fsdp" if "fsdp" in mesh.shape else "data"
  size = mesh.shape.get(axis, 1)
  fitting = [i for i, n in enumerate(shape) if n >= size and n % size == 0]
  if size == 1 or not fitting:
    return PartitionSpec()
  largest = max(fitting, key=lambda i: shape[i])
  return PartitionSpec(
    *[axis if i == largest else None for i in range(len(shape))]
  )


def _fitted(spec, shape, mesh) -> PartitionSpec:
  """`spec` without the axes that the mesh lacks or that do not divide."""
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


def abstract(tree: PyTree, shardings: PyTree) -> PyTree:
  """ShapeDtypeStructs that know where they live; what a restore needs."""
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    tree,
    shardings,
  )


def count(tree: PyTree) -> int:
  """The number of elements in all leaves."""
  return int(
    sum(np.prod(x.shape, dtype=np.int64) for x in jax.tree.leaves(tree))
  )
