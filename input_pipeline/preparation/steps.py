"""The steps of a run: what is done first in one place, then task by task.

Every task leaves files, the last of which says that it is done; whatever has
been done already is not done again.
"""

import json
from collections.abc import Callable
from typing import NamedTuple

from input_pipeline.preparation import files, output, report, shard_work
from input_pipeline.preparation.plan import Plan

# So few bad records are never too many.
_HANDFUL = 5


class Step(NamedTuple):
  """A part of a run that needs all that comes before it.

  title: for the progress bar.
  begin: what is done before any task, in one place.
  tasks: () -> how many there are; known once `begin` is done, else 0.
  done: (task) -> whether it has left its result.
  work: (task) does it.
  """

  title: str
  begin: Callable[[], None]
  tasks: Callable[[], int]
  done: Callable[[int], bool]
  work: Callable[[int], None]


def steps(plan: Plan) -> list[Step]:
  """All steps of a run, in order."""
  found = []
  passes = plan.passes()
  for number in range(len(passes)):
    found.append(_pass(plan, number))
    if passes[number].summarize:
      found.append(_comparing(plan, number))
  found.append(_records(plan))
  if plan.config["output"]["tokenizer"] is not None:
    found.append(_tokens(plan))
  return found


def _pass(plan: Plan, number: int) -> Step:
  current = plan.passes()[number]
  named = [current.judge, *current.stages] if current.judge else current.stages
  names = [each.name for each in named]
  if number == 0:
    names.insert(0, "read")

  def begin() -> None:
    if number and not shard_work.concluded(plan, number - 1):
      shard_work.conclude(plan, number - 1)

  return Step(
    " → ".join(names),
    begin,
    lambda: len(plan.shards),
    lambda shard: shard_work.done(plan, number, shard),
    lambda shard: shard_work.work(plan, number, shard),
  )


def _comparing(plan: Plan, number: int) -> Step:
  name, stage = plan.passes()[number].summarize
  return Step(
    f"{name}: comparing",
    lambda: check_bad(plan, number),
    lambda: stage.partitions,
    lambda partition: shard_work.combined(plan, number, partition),
    lambda partition: shard_work.combine(plan, number, partition),
  )


def _records(plan: Plan) -> Step:
  path = f"{plan.work}/layout.json"

  def begin() -> None:
    check_bad(plan, len(plan.passes()) - 1)
    if not files.exists(path):
      files.write(path, json.dumps(output.layout(plan)).encode())

  def file(task: int) -> output.File:
    return layout(plan)[task]

  return Step(
    "write records",
    begin,
    lambda: len(layout(plan)) if files.exists(path) else 0,
    lambda task: output.written(plan, file(task)),
    lambda task: output.write_records(plan, file(task)),
  )


def _tokens(plan: Plan) -> Step:
  def file(task: int) -> output.File:
    return layout(plan)[task]

  return Step(
    "tokenize",
    lambda: output.learn_tokenizer(plan),
    lambda: len(layout(plan)) if output.has_tokenizer(plan) else 0,
    lambda task: files.exists(output.counts_path(plan, file(task))),
    lambda task: output.write_tokens(plan, file(task)),
  )


def layout(plan: Plan) -> list[output.File]:
  """The files of the output, once it is known how they are cut."""
  found = json.loads(files.read(f"{plan.work}/layout.json"))
  return [
    output.File(split, number, count, tuple(begin), tuple(end))
    for split, number, count, begin, end in found
  ]


def check_bad(plan: Plan, number: int) -> None:
  """Raises ValueError where too many records up to a pass are bad."""
  found = report.records(plan, number)
  most = plan.config["data"]["max_bad_share"]
  if found["bad"] > max(_HANDFUL, most * found["records"]):
    few = "; ".join(sample["reason"] for sample in found["samples"])
    raise ValueError(
      f"{found['bad']:,} of {found['records']:,} records are bad, more than "
      f"config.data.max_bad_share={most:g}: {few}"
    )
