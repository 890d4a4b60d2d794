"""The output as a TFDS data set, with the same files as the JSON lines."""

import json
from typing import Any

from input_pipeline.preparation import (
  output,
  records_tfds,
  shard_work,
  store,
  tally,
)
from input_pipeline.preparation.plan import Plan
from input_pipeline.reading import files

_VERSION = "1.0.0"


def _mark(plan: Plan, file: output.File) -> str:
  return f"{plan.work}/tfds/{file.stem}.json"


def written(plan: Plan, file: output.File) -> bool:
  """Whether a file is done."""
  return files.exists(_mark(plan, file))


def write(plan: Plan, file: output.File) -> None:
  """Writes one file of records."""
  fields = _fields(plan)
  records = (
    _filled(shard_work.record(plan, stored.document), fields)
    for stored in output.documents(plan, file)
  )
  name = plan.config["output"]["name"]
  path = records_tfds.shard_path(
    plan.folder, name, _VERSION, file.split, file.number, file.count
  )
  done = records_tfds.write_shard(path, records, fields)
  files.write(_mark(plan, file), store.to_json(done))


def finish(plan: Plan, cut: list[output.File]) -> None:
  """Writes the metadata after all files."""
  splits: dict[str, dict[str, Any]] = {}
  for file in cut:
    length, size = json.loads(files.read(_mark(plan, file)))
    own = splits.setdefault(file.split, {"shard_lengths": [], "bytes": 0})
    own["shard_lengths"].append(length)
    own["bytes"] += size
  sample = {"string": "", "int64": 0, "float32": 0.0, "json": None}
  if splits:
    records_tfds.write_metadata(
      plan.folder,
      plan.config["output"]["name"],
      _VERSION,
      splits,
      {field: sample[kind] for field, kind in _fields(plan).items()},
    )


def _fields(plan: Plan) -> dict[str, str]:
  """{field: kind} of all records, which TFDS requires to have equal fields."""
  last = len(plan.passes()) - 1
  found: dict[str, dict[str, int]] = {}
  documents = 0
  for shard in range(len(plan.shards)):
    name = shard_work.path(plan, last, shard, "tally")
    counted = json.loads(files.read(name))
    found = tally.merge(found, counted["fields"])
    documents += counted["documents"]
  return {
    field: _kind(set(kinds), sum(kinds.values()) == documents)
    for field, kinds in sorted(found.items())
  }


def _kind(kinds: set[str], everywhere: bool) -> str:
  if kinds == {"string"}:
    return "string"
  if everywhere and kinds == {"int64"}:
    return "int64"
  if everywhere and kinds <= {"int64", "float32"}:
    return "float32"
  return "json"


def _filled(record: dict[str, Any], fields: dict[str, str]) -> dict[str, Any]:
  empty = {
    field: "" if kind == "string" else None for field, kind in fields.items()
  }
  known = {k: v for k, v in record.items() if v is not None}
  return empty | known
