"""The batches that a run skips: WORKDIR/skipped.jsonl, and its consequences.

The file has one JSON object per line. A line is appended before the run rolls
back, and is never rewritten:

  time: Unix seconds.
  step: the step after which the run was found to be unhealthy.
  to: the latest step that the run rolls back to.
  batches: [a, b], the batches a to b - 1, which are no longer used.
  examples: the same as positions in the data.
  reason: text for people.

Which batch an update uses depends only on these lines and its step.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from common import json_lines


class Skip(NamedTuple):
  """A line of the file; `batches` is [a, b)."""

  step: int
  to: int
  batches: tuple[int, int]
  reason: str


def read(path: str | os.PathLike | None) -> list[Skip]:
  """The lines of the file, in order, without truncated or damaged ones.

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
  """Appends a line; it is on disk when this returns."""
  row = {
    "time": time.time(),
    **skip._asdict(),
    "examples": [batch_size * batch for batch in skip.batches],
  }
  with open(path, "a") as file:
    # On a new line: a kill may have truncated the line before.
    file.write(f"\n{json.dumps(row)}\n")
    file.flush()
    os.fsync(file.fileno())


def batch_of(skips: Sequence[Skip], step: int) -> int:
  """The number of the batch that the update after `step` uses."""
  batch = step
  for start, stop in _gaps(skips):
    if batch < start:
      break
    batch += stop - start
  return batch


def spans(skips: Sequence[Skip], step: int) -> Iterator[tuple[int, int | None]]:
  """The ranges of batches [a, b) that the updates from `step` on use, in order.

  The last range is endless: its b is None.
  """
  first = batch_of(skips, step)
  for start, stop in _gaps(skips):
    if start > first:
      yield first, start
      first = stop
  yield first, None


def _gaps(skips: Sequence[Skip]) -> list[tuple[int, int]]:
  """The skipped batches, as ordered ranges that do not touch."""
  gaps: list[tuple[int, int]] = []
  for start, stop in sorted(skip.batches for skip in skips):
    if gaps and start <= gaps[-1][1]:
      gaps[-1] = (gaps[-1][0], max(stop, gaps[-1][1]))
    elif start < stop:
      gaps.append((start, stop))
  return gaps


def stands(skips: Sequence[Skip], step: int, record: dict[str, Any]) -> bool:
  """Whether a checkpoint is valid after the rollbacks that followed it."""
  return all(step <= skip.to for skip in skips[record.get("rollbacks", 0) :])
