"""A whole run of `prepare`: the passes in order, then the output.

All state is in files. A task whose result exists is not repeated, so the same
command resumes a run that was killed. The output has the same bytes for any
number of workers and interruptions.
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
  """Prepares a data set: reads and cleans the input and writes the output.

  Args:
    config: see configs/data/.
    folder: of the output. If it holds the work of a killed run, that run is
      resumed.
    documents: whether to write documents.jsonl as well.
    by: the workers.
    say: called with lines for the user.

  Returns:
    The content of report.json.

  Raises:
    ValueError: the config, the input or the folder is wrong; one line.
  """
  plan = plans.plan(plans.complete(config), folder, documents)
  identity = plans.identity(plan)
  if _prepared(plan, identity):
    say(f"{plan.folder} is already prepared; nothing to do")
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
  """Returns whether the run is complete; ValueError if it is another run."""
  index = f"{plan.folder}/{output.INDEX}"
  found = files.names(plan.folder)
  if output.INDEX in found:
    if json.loads(files.read(index)).get("identity") == identity.whole:
      files.remove_folder(plan.work)
      return True
    _refuse(plan)
  if found and "work" not in found:
    raise ValueError(
      f"{plan.folder} contains other files; give a new or empty folder"
    )
  for name in plans.saved(plan):
    same_passes, same = plans.is_of(name, identity)
    if not same_passes:
      _refuse(plan)
    if not same:  # The passes are kept and the output is made again.
      output.remove(plan)
      files.remove(f"{plan.work}/{name}")
  return False


def _refuse(plan: plans.Plan) -> None:
  raise ValueError(
    f"{plan.folder} was prepared with another config or from other input; give "
    "another folder, or remove it"
  )
