"""Fills the rows of a step up to a batch, and cuts its axis of time."""

from collections.abc import Sequence

import numpy as np

from common.leaf import Spec
from input_pipeline import bad_records

Rows = dict[str, np.ndarray]


def padded(rows: Rows, indices: np.ndarray, spec: Spec, size: int) -> Rows:
  """Returns a batch of `size` rows: the real ones, and padding after them.

  Args:
    rows: {leaf: [n, ...]} of the real rows; it is {} if there are none.
    indices: int64 [n], of their examples.
    spec: of the batch.
    size: the number of rows.
  """
  real = len(indices)
  kept = rows.pop(bad_records.KEPT, True)
  rows = {"mask": np.ones(real, np.float32), **rows}
  rows["index"] = np.where(kept, indices, -1).astype(np.int32)
  batch = {}
  for name, (shape, dtype, *_) in spec.items():
    if real == size:
      batch[name] = rows[name]
      continue
    batch[name] = np.zeros((size, *shape), dtype)
    if name == "index":
      batch[name][:] = -1
    if real:
      batch[name][:real] = rows[name]
  return batch


def timed(spec: Spec) -> list[str]:
  """Returns the leaves whose first axis is time, or that are lengths."""
  return [name for name, leaf in spec.items() if leaf.axes[:1] == ("time",)]


def lengths(batch: Rows, names: Sequence[str]) -> np.ndarray:
  """Returns the lengths of leaves without padding, int32 [B, leaves].

  A leaf ends with its last element that is not 0; a leaf of scalars has the
  lengths themselves.
  """
  found = np.zeros((len(batch["index"]), len(names)), np.int32)
  for column, name in zip(found.T, names, strict=True):
    leaf = batch[name]
    if leaf.ndim == 1:
      column[:] = leaf
      continue
    real_BT = (leaf != 0).any(tuple(range(2, leaf.ndim)))
    last_B = real_BT.shape[1] - real_BT[:, ::-1].argmax(1)
    column[:] = np.where(real_BT.any(1), last_B, 0)
  return found


def cut(batch: Rows, names: Sequence[str], length: int) -> Rows:
  """Returns the batch with at most `length` elements of time in some leaves.

  Raises:
    ValueError: a row is longer.
  """
  batch = dict(batch)
  for name in names:
    if batch[name][:, length:].any():
      rows = lengths(batch, names).max(1)
      raise ValueError(
        f"example {batch['index'][rows.argmax()]} has the length {rows.max()},"
        f" but had at most {length} when the buckets were made: ops that change"
        " lengths at random do not suit buckets"
      )
    batch[name] = np.ascontiguousarray(batch[name][:, :length])
  return batch
