"""metrics.jsonl and examples.jsonl: the rows that a run writes."""

import json
import os
import pathlib
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from common import json_lines


class Files(NamedTuple):
  """The open metrics.jsonl and examples.jsonl of a run.

  start: (step or None, unfinished=()) -> None; opens the files and drops the
    rows of steps after `step`; None drops all rows. `unfinished` has the keys
    of evaluators whose rows of `step` are dropped too, as they run again.
  write: (step, {name: float}) -> None; appends one JSON object, which is on
    disk on return.
  write_examples: (step, ids) -> None; appends {"step": step, "index": ids},
    the ids [B] of the examples that the update after `step` takes.
  close: () -> None; closes the files if they are open.
  """

  start: Callable[..., None]
  write: Callable[[int, dict[str, float]], None]
  write_examples: Callable[[int, Any], None]
  close: Callable[[], None]


def files(workdir: str, log_examples: bool = False) -> Files:
  """Returns the Files of an existing workdir; `start` opens them.

  A resumed run repeats the steps after its checkpoint, so `start` first removes
  their rows.

  Args:
    workdir: the folder of the run.
    log_examples: whether to create examples.jsonl. An existing one is
      shortened in either case.
  """
  metrics_path = pathlib.Path(workdir) / "metrics.jsonl"
  examples_path = metrics_path.with_name("examples.jsonl")
  opened: dict[str, Any] = {}

  def start(step, unfinished=()):
    close()
    last = -1 if step is None else step
    opened["metrics"] = _shortened(metrics_path, last, unfinished=unfinished)
    # The rows of examples.jsonl belong to the update after their step.
    examples = _shortened(examples_path, last - 1, create=log_examples)
    if examples is not None:
      opened["examples"] = examples

  def write(step, scalars):
    file = opened["metrics"]
    file.write(json.dumps({"step": step, **scalars}) + "\n")
    file.flush()
    os.fsync(file.fileno())

  def write_examples(step, ids):
    file = opened["examples"]
    file.write(json.dumps({"step": step, "index": ids.tolist()}) + "\n")
    file.flush()

  def close():
    while opened:
      opened.popitem()[1].close()

  return Files(start, write, write_examples, close)


def _shortened(
  path: pathlib.Path,
  last: int,
  create: bool = True,
  unfinished: Collection[str] = (),
):
  """Opens a file for appending, and removes rows of steps after `last`.

  Rows of `last` itself are removed if all of their keys belong to evaluators in
  `unfinished`. Damaged rows are removed as well. The file is replaced
  atomically. Returns None if it does not exist and `create` is False.
  """
  if not create and not path.exists():
    return None
  temporary = path.with_suffix(".tmp")
  temporary.unlink(missing_ok=True)
  with open(temporary, "xb") as kept:  # "x" does not follow symbolic links
    for line, row in json_lines.read(path):
      if not row or not json_lines.count(row.get("step")) or row["step"] > last:
        continue
      # Rows of evaluators have no other keys; rows of training do.
      keys = {key.split("/")[0] for key in row if key != "step"}
      if row["step"] < last or not keys <= set(unfinished):
        kept.write(line + b"\n")
  os.replace(temporary, path)
  return path.open("a")


def read_metrics(workdir: str) -> list[dict]:
  """Returns the rows of metrics.jsonl without damaged rows and values.

  Raises:
    UserError: metrics.jsonl is not a regular file.
  """
  path = pathlib.Path(workdir) / "metrics.jsonl"
  return [
    {key: value for key, value in row.items() if json_lines.number(value)}
    for _, row in json_lines.read(path)
    if row and json_lines.count(row.get("step"))
  ]
