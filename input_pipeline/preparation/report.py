"""report.json: the input, the effect of each stage, and the output."""

import json
from typing import Any

from input_pipeline.document import Document
from input_pipeline.preparation import output, shard_work, store, tally
from input_pipeline.preparation.plan import Plan
from input_pipeline.reading import files

JSON = "report.json"
HTML = "report.html"
_LARGEST = 50  # the number of sources and domains listed


def _tally(plan: Plan, number: int, shard: int) -> dict[str, Any]:
  return json.loads(files.read(shard_work.path(plan, number, shard, "tally")))


def records(plan: Plan, number: int) -> dict[str, Any]:
  """The numbers of records read and of bad records up to a pass."""
  found = tally.bad()
  for each in range(number + 1):
    for shard in range(len(plan.shards)):
      found = tally.merge(found, _tally(plan, each, shard)["records"])
  return found


def collect(plan: Plan, cut: list[output.File]) -> dict[str, Any]:
  """The content of the report, which depends on neither time nor place."""
  passes = plan.passes()
  stages: dict[str, Any] = {}
  bad, before, after = tally.bad(), tally.profile(), tally.profile()
  for number, current in enumerate(passes):
    merged: dict[str, Any] = {}
    for shard in range(len(plan.shards)):
      found = _tally(plan, number, shard)
      merged = tally.merge(merged, found["stages"])
      bad = tally.merge(bad, found["records"])
      before = tally.merge(before, found["in"])
      after = tally.merge(after, found["out"])
    if current.judge:
      path = f"{plan.work}/pass-{number - 1}/conclusion.json"
      merged[current.judge.name]["summary"] = json.loads(files.read(path))
    stages |= merged
  _redact(plan, stages)
  return {
    "config": plan.config,
    "records": bad,
    "in": _shortened(before),
    "stages": [{"name": name, **each} for name, each in stages.items()],
    "out": _shortened(after),
    "tokens": _tokens(plan, cut),
    "files": _files(plan, cut),
  }


def _redact(plan: Plan, stages: dict[str, Any]) -> None:
  """Redacts the samples of the report, if there is a stage `redact`."""
  redact = [
    named.stage
    for current in plan.passes()
    for named in current.stages
    if named.name == "redact"
  ]

  def redacted(text: str) -> str:
    result = redact[0](Document("", text))
    document = getattr(result, "document", result)
    return getattr(document, "text", "")

  for stage in stages.values() if redact else ():
    samples = stage["samples"]
    for sample in [*samples["changed"], *sum(samples["dropped"].values(), [])]:
      for key in {"before", "after", "text"} & sample.keys():
        sample[key] = redacted(sample[key])


def _shortened(profile: dict[str, Any]) -> dict[str, Any]:
  for key in ("sources", "domains"):
    profile[key] = dict(list(tally.largest(profile[key]).items())[:_LARGEST])
  return profile


def _tokens(plan: Plan, cut: list[output.File]) -> dict[str, Any] | None:
  """Tokens by language and split, and the epochs of the configured run."""
  if plan.config["output"]["tokenizer"] is None:
    return None
  languages: dict[str, Any] = {}
  splits: dict[str, int] = {}
  for file in cut:
    found = json.loads(files.read(output.counts_path(plan, file)))
    languages = tally.merge(languages, found["languages"])
    splits[file.split] = splits.get(file.split, 0) + found["tokens"]
  found = {
    "tokenizer": plan.config["output"]["tokenizer"],
    "languages": languages,
    "splits": splits,
    "epochs": None,
  }
  run = plan.config["run"]
  if all(run.values()) and splits.get("train"):
    read = run["total_steps"] * run["batch_size"] * run["seq_len"]
    found |= {"read": read, "epochs": read / splits["train"]}
  return found


def _files(plan: Plan, cut: list[output.File]) -> dict[str, int]:
  found: dict[str, int] = {}
  for file in cut:
    found[file.split] = found.get(file.split, 0) + 1
  return found


def write(plan: Plan, found: dict[str, Any]) -> None:
  """Writes report.json and report.html."""
  from input_pipeline.preparation import report_page

  files.write(f"{plan.folder}/{JSON}", store.to_json(found) + b"\n")
  page = report_page.render(found)
  files.write(f"{plan.folder}/{HTML}", page.encode(errors="replace"))
