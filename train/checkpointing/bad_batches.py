"""Batches that a run passes over: WORKDIR/skipped.jsonl, and what follows.

One JSON object a row, appended to and never rewritten, before the run goes
back:

  time: Unix seconds.
  step: the update that the run was found unwell after.
  to: the step it goes back to, at the latest.
  batches: [a, b], the batches a to b - 1, which are taken no more.
  examples: the same as positions in the data.
  reason: for people.

Which batch an update takes follows from the rows and its step alone.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from common import json_lines, mirror


class Skip(NamedTuple):
  """A row; `batches` is [a, b)."""

  step: int
  to: int
  batches: tuple[int, int]
  reason: str


def read(path: str | os.PathLike | None) -> list[Skip]:
  """The rows of a ledger, in order; one cut short or damaged is none.

  Raises:
    UserError: it is no file.
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
  """Adds a row; on disk, and in the bucket if any, when this returns.

  Raises:
    BucketError: the bucket of the workdir cannot be written.
  """
  row = {
    "time": time.time(),
    **skip._asdict(),
    "examples": [batch_size * batch for batch in skip.batches],
  }
  with open(path, "a") as file:
    # After an empty line: a kill may have cut the row before short.
    file.write(f"\n{json.dumps(row)}\n")
    file.flush()
    os.fsync(file.fileno())
  mirror.push(path)


def batch_of(skips: Sequence[Skip], step: int) -> int:
  """The batch that the update after `step` takes."""
  batch = step
  for start, stop in _gaps(skips):
    if batch < start:
      break
    batch += stop - start
  return batch


def spans(skips: Sequence[Skip], step: int) -> Iterator[tuple[int, int | None]]:
  """Runs of batches [a, b) that the updates from `step` on take, in order.

  The last one's b is None: it does not end.
  """
  first = batch_of(skips, step)
  for start, stop in _gaps(skips):
    if start > first:
      yield first, start
      first = stop
  yield first, None


def _gaps(skips: Sequence[Skip]) -> list[tuple[int, int]]:
  """The batches passed over, as runs in order that do not touch."""
  gaps: list[tuple[int, int]] = []
  for start, stop in sorted(skip.batches for skip in skips):
    if gaps and start <= gaps[-1][1]:
      gaps[-1] = (gaps[-1][0], max(stop, gaps[-1][1]))
    elif start < stop:
      gaps.append((start, stop))
  return gaps


def stands(skips: Sequence[Skip], step: int, record: dict[str, Any]) -> bool:
  """Whether a checkpoint is of the run as it is since it last went back."""
  return all(step <= skip.to for skip in skips[record.get("rollbacks", 0) :])
