"""The steps of a run: each has a beginning in one place, and then tasks.

Every task writes files, of which the last one marks it as done. A task that is
done is not repeated.
"""

from collections.abc import Callable
from typing import NamedTuple

from input_pipeline.preparation import (
  output,
  output_tfds,
  report,
  shard_work,
  tally,
)
from input_pipeline.preparation.plan import Plan

# So few bad records are always accepted.
_HANDFUL = 5


class Step(NamedTuple):
  """A part of a run that depends on all earlier steps.

  title: for the progress bar.
  begin: runs in one place before any task.
  tasks: () -> the number of tasks; 0 until `begin` is done.
  done: (task) -> whether its result exists.
  work: (task) runs the task.
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
  if plan.config["output"]["tfds"]:
    found.append(_tfds(plan))
  if plan.config["output"]["tokenizer"] is not None:
    found.append(_tokens(plan))
  return found


def _pass(plan: Plan, number: int) -> Step:
  current = plan.passes()[number]
  names = current.names if number else ["read", *current.names]

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
    f"{name}: compare",
    lambda: check_bad(plan, number),
    lambda: stage.partitions,
    lambda partition: shard_work.combined(plan, number, partition),
    lambda partition: shard_work.combine(plan, number, partition),
  )


def _layout(plan: Plan) -> Callable[[], list[output.File]]:
  """() -> the files of the output; none until the layout is known."""
  known: list[output.File] = []

  def cut() -> list[output.File]:
    if not known and output.has_layout(plan):
      known.extend(output.saved_layout(plan))
    return known

  return cut


def _records(plan: Plan) -> Step:
  cut = _layout(plan)

  def begin() -> None:
    check_bad(plan, len(plan.passes()) - 1)
    output.save_layout(plan)

  return Step(
    "write records",
    begin,
    lambda: len(cut()),
    lambda task: output.written(plan, cut()[task]),
    lambda task: output.write_records(plan, cut()[task]),
  )


def _tfds(plan: Plan) -> Step:
  cut = _layout(plan)
  return Step(
    "write for TFDS",
    lambda: None,
    lambda: len(cut()),
    lambda task: output_tfds.written(plan, cut()[task]),
    lambda task: output_tfds.write(plan, cut()[task]),
  )


def _tokens(plan: Plan) -> Step:
  cut = _layout(plan)
  return Step(
    "tokenize",
    lambda: output.learn_tokenizer(plan),
    lambda: len(cut()) if output.has_tokenizer(plan) else 0,
    lambda task: output.tokenized(plan, cut()[task]),
    lambda task: output.write_tokens(plan, cut()[task]),
  )


def check_bad(plan: Plan, number: int) -> None:
  """Raises ValueError if too many records up to a pass are bad.

  Also if no record can be read, or if a file could not be read to its end,
  unless on_bad_record="skip".
  """
  found = report.records(plan, number)
  if tally.lost(found) and plan.config["data"]["on_bad_record"] == "stop":
    raise ValueError(
      f"{tally.lost(found)}: the rest of the file is lost; replace the file, or"
      ' set config.data.on_bad_record="skip" to keep what could be read'
    )
  if not found["records"]:
    raise ValueError(f"{plan.config['data']['source']}: holds no record")
  few = "; ".join(sample["reason"] for sample in found["samples"])
  if found["bad"] >= found["records"]:
    raise ValueError(f"no record of {found['records']:,} can be read: {few}")
  most = plan.config["data"]["max_bad_share"]
  if found["bad"] > max(_HANDFUL, most * found["records"]):
    raise ValueError(
      f"{found['bad']:,} of {found['records']:,} records are bad, more than "
      f"config.data.max_bad_share={most:g}: {few}"
    )
