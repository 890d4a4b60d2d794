"""A whole run of `prepare`: pass by pass, each done once, then the output.

State is files alone. A task that has left its result is not done again, so a
run that was killed goes on with the same command, and its output is the same to
the byte: that of one worker or many, killed or not.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from input_pipeline.preparation import (
  output,
  output_tfds,
  report,
  store,
  workers,
)
from input_pipeline.preparation import plan as plans
from input_pipeline.reading import files


def prepare(
  config: Mapping[str, Any],
  folder: str,
  *,
  documents: bool = False,
  by: workers.Workers = workers.Workers(),
  say: Callable[[str], None] = print,
) -> dict[str, Any]:
  """Reads, cleans, judges and cuts what the config names into a folder.

  Args:
    config: see configs/data/.
    folder: of the output; one that holds the work of a run that was killed is
      gone on with.
    documents: whether documents.jsonl is written, too.
    by: who does the work.
    say: takes a line for the user.

  Returns:
    What report.json holds.

  Raises:
    ValueError: one line on what is wrong with the config, the input or the
      folder.
  """
  plan = plans.plan(plans.complete(config), folder, documents)
  identity = plans.identity(plan)
  if _prepared(plan, identity):
    say(f"{plan.folder} is prepared already: nothing to do")
    return json.loads(files.read(f"{plan.folder}/{report.JSON}"))
  workers.run(plans.save(plan, identity), by)
  if plan.documents:
    output.write_documents(plan)
  cut = output.saved_layout(plan)
  if plan.config["output"]["tfds"]:
    output_tfds.finish(plan, cut)
  found = report.collect(plan, cut)
  report.write(plan, found)
  files.sweep(plan.folder)
  index = output.index(plan, cut, identity.whole)
  files.write(f"{plan.folder}/{output.INDEX}", store.to_json(index))
  files.remove_folder(plan.work)
  return found


def _prepared(plan: plans.Plan, identity: plans.Identity) -> bool:
  """Whether it is all done; ValueError where the folder is another's."""
  index = f"{plan.folder}/{output.INDEX}"
  found = files.names(plan.folder)
  if output.INDEX in found:
    if json.loads(files.read(index)).get("identity") == identity.whole:
      files.remove_folder(plan.work)
      return True
    _refuse(plan)
  if found and "work" not in found:
    raise ValueError(f"{plan.folder} holds other files: give an empty folder")
  for name in plans.saved(plan):
    same_passes, same = plans.is_of(name, identity)
    if not same_passes:
      _refuse(plan)
    if not same:  # The long work stays, what was made of it goes.
      output.remove(plan)
      files.remove(f"{plan.work}/{name}")
  return False


def _refuse(plan: plans.Plan) -> None:
  raise ValueError(
    f"{plan.folder} was prepared with another config or from other input: "
    "give another folder, or remove it"
  )
