"""Reads the arrays of one folder, which Orbax wrote: all or some of them."""

import json
import math
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore

from train.checkpointing import digests, literal_paths
from train.types import PyTree

literal_paths.install()


def handler() -> ocp.PyTreeCheckpointHandler:
  """Returns the Orbax handler that writes and reads the arrays."""
  # Weights hardly compress, and trying to takes whole cores.
  return ocp.PyTreeCheckpointHandler(use_compression=False)


def read(
  folder: pathlib.Path,
  wanted: Mapping[str, Any] | None = None,
  *,
  frugal: bool = False,
) -> dict[str, jax.Array]:
  """Reads the `wanted` arrays of a folder, and no others.

  Args:
    folder: the folder of the arrays, not of the checkpoint.
    wanted: {path: ShapeDtypeStruct with the sharding to restore to}; None reads
      all arrays to one CPU device.
    frugal: reads one array after another, so that the peak memory hardly
      exceeds the size of the arrays. It takes longer on a fast disk.

  Raises:
    ValueError: the folder lacks one of them, or cannot be read.
    OSError: the folder cannot be read.
  """
  reader = handler()
  saved = reader.metadata(folder).tree
  known = dict(digests.named(saved))
  if wanted is None:
    place = jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])
    args = ocp.args.PyTreeRestore(
      restore_args=jax.tree.map(
        lambda _: ocp.ArrayRestoreArgs(sharding=place), saved
      )
    )
    return dict(digests.named(reader.restore(folder, args=args)))
  missing = set(wanted) - set(known)
  if missing:
    raise ValueError(f"{folder}: has no array {min(missing)}")
  if frugal and not any(_is_key(leaf) for leaf in wanted.values()):
    return _one_by_one(folder, wanted, {k: known[k].name for k in wanted})
  some = jax.tree_util.tree_map_with_path(
    lambda keys, _: wanted.get(digests.path_of(keys), ocp.PLACEHOLDER), saved
  )
  args = ocp.args.PyTreeRestore(
    some,
    restore_args=jax.tree.map(
      lambda x: ocp.checkpoint_utils.construct_restore_args(x), some
    ),
  )
  found = dict(digests.named(reader.restore(folder, args=args)))
  return {path: found[path] for path in wanted}


def _is_key(leaf) -> bool:
  return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _one_by_one(folder, wanted, names) -> dict[str, jax.Array]:
  """Reads arrays straight into the memory in which they stay, if on a CPU.

  TensorStore holds a second copy of the array being read. The largest are read
  first, while the memory of the others is still free.
  """
  metadata = json.loads((folder / "_METADATA").read_text())
  driver = "zarr3" if metadata.get("use_zarr3") else "zarr"
  base = {"driver": "file", "path": f"{folder}/"}
  found = {}
  for path in sorted(wanted, key=lambda p: -wanted[p].size):
    leaf, name = wanted[path], f"{names[path]}/"
    spec = {
      "driver": driver,
      "kvstore": {"driver": "ocdbt", "base": base, "path": name},
    }
    store = tensorstore.open(spec, open=True, read=True).result()
    if store.shape != leaf.shape or store.dtype.numpy_dtype != leaf.dtype:
      raise ValueError(
        f"{folder}: {path} is {store.dtype.numpy_dtype}{list(store.shape)}, not"
        f" {leaf.dtype}{list(leaf.shape)}"
      )

    def part(index, store=store):
      if not index:
        return np.asarray(store.read().result())
      source = store[index][tensorstore.d[:].translate_to[0]]
      out = _aligned(source.shape, source.dtype.numpy_dtype)
      tensorstore.array(out).write(source).result()
      return out

    found[path] = jax.make_array_from_callback(leaf.shape, leaf.sharding, part)
    found[path].block_until_ready()
  return found


def _aligned(shape, dtype) -> np.ndarray:
  """Returns an empty array at an address that JAX takes over without a copy."""
  size = math.prod(shape) * dtype.itemsize
  memory = np.empty(size + 64, np.uint8)
  start = -memory.ctypes.data % 64
  return memory[start : start + size].view(dtype).reshape(shape)


def filled(tree: PyTree, found: Mapping[str, Any]) -> PyTree:
  """Returns `tree` with the arrays of `found`, and blanks for the others.

  A blank has the shape and the dtype of the leaf and takes no memory.

  Args:
    tree: ShapeDtypeStructs.
    found: {path: array}.
  """

  def one(keys, leaf):
    path = digests.path_of(keys)
    if path in found:
      return found[path]
    return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)

  return jax.tree_util.tree_map_with_path(one, tree)


def without(tree: PyTree, paths: Collection[str]) -> PyTree:
  """Returns `tree` with None in place of the leaves at `paths`."""
  return jax.tree_util.tree_map_with_path(
    lambda keys, leaf: None if digests.path_of(keys) in paths else leaf, tree
  )
