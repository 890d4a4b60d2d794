"""The batches that a run skips, which WORKDIR/skipped.jsonl lists.

The file has one JSON object per line. A line is appended before the run rolls
back, and is never rewritten:

  time: Unix seconds.
  step: the step after which the run was found to be unhealthy.
  to: the latest step that the run rolls back to.
  batches: [a, b], the batches a to b - 1, which are no longer used.
  examples: the same as positions in the data.
  reason: a description of what was observed.

Which batch an update uses depends only on these lines and its step.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from common import json_lines, mirror


class Skip(NamedTuple):
  """One line of the file; `batches` is the range [a, b)."""

  step: int
  to: int
  batches: tuple[int, int]
  reason: str


def read(path: str | os.PathLike | None) -> list[Skip]:
  """Returns the lines of the file in order, without damaged ones.

  Raises:
    UserError: the path is not a regular file.
  """
  found = []
  for _, row in json_lines.read(path) if path else ():
    try:
      a, b = row["batches"]
      skip = Skip(row["step"], row["to"], (a, b), row["reason"])
    except (ValueError, KeyError, TypeError):
      continue
    counts = all(map(json_lines.count, (skip.step, skip.to, a, b)))
    if counts and isinstance(skip.reason, str):
      found.append(skip)
  return found


def append(path: str | os.PathLike, skip: Skip, batch_size: int) -> None:
  """Appends a line, which on return is on disk and in the bucket, if any.

  Raises:
    BucketError: the bucket of the workdir cannot be written.
  """
  row = {
    "time": time.time(),
    **skip._asdict(),
    "examples": [batch_size * batch for batch in skip.batches],
  }
  with open(path, "a") as file:
    # On a new line, since a kill may have truncated the previous line.
    file.write(f"\n{json.dumps(row)}\n")
    file.flush()
    os.fsync(file.fileno())
  mirror.push(path)


def batch_of(skips: Sequence[Skip], step: int) -> int:
  """Returns the number of the batch that the update after `step` uses."""
  batch = step
  for start, stop in _gaps(skips):
    if batch < start:
      break
    batch += stop - start
  return batch


def spans(skips: Sequence[Skip], step: int) -> Iterator[tuple[int, int | None]]:
  """Returns the ranges of batches [a, b) used from `step` on, in order.

  The last range has no end: its b is None.
  """
  first = batch_of(skips, step)
  for start, stop in _gaps(skips):
    if start > first:
      yield first, start
      first = stop
  yield first, None


def _gaps(skips: Sequence[Skip]) -> list[tuple[int, int]]:
  """Returns the skipped batches as sorted, separate ranges."""
  gaps: list[tuple[int, int]] = []
  for start, stop in sorted(skip.batches for skip in skips):
    if gaps and start <= gaps[-1][1]:
      gaps[-1] = (gaps[-1][0], max(stop, gaps[-1][1]))
    elif start < stop:
      gaps.append((start, stop))
  return gaps


def stands(skips: Sequence[Skip], step: int, record: dict[str, Any]) -> bool:
  """Returns whether a checkpoint is still valid after all rollbacks."""
  return all(step <= skip.to for skip in skips[record.get("rollbacks", 0) :])
