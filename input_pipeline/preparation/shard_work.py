"""The work on one shard in a pass, and on one partition between two passes.

The results are written to files, of which the last one marks the work as done,
so that a resumed run does not repeat it. They depend on the plan and the shard
only.
"""

import collections
import json
from collections.abc import Callable, Iterator
from typing import Any

from input_pipeline.bad_records import error_line
from input_pipeline.cleaning import language as languages
from input_pipeline.document import Bad, Counted, Document, Dropped, split_of
from input_pipeline.preparation import records_tfds, store, tally
from input_pipeline.preparation.plan import Plan
from input_pipeline.preparation.stages import Pass
from input_pipeline.preparation.store import Stored
from input_pipeline.reading import files
from input_pipeline.reading import open as reading

# Rules in addition to those of the stages.
FAILED = "failed"
EMPTY = "empty"


def path(plan: Plan, number: int, shard: int, what: str) -> str:
  """The path of a result of a shard or partition after a pass."""
  return f"{plan.work}/pass-{number}/{shard:06}.{what}"


def done(plan: Plan, number: int, shard: int) -> bool:
  """Whether a pass of a shard is done."""
  return files.exists(path(plan, number, shard, "tally"))


def work(plan: Plan, number: int, shard: int) -> None:
  """Runs a pass on a shard.

  Writes its documents, their summary for each partition of the next Global, and
  the tally.
  """
  current = plan.passes()[number]
  counted = {
    "stages": {name: tally.stage() for name in current.names},
    "records": tally.bad(),
    "in": tally.profile(),
    "out": tally.profile(),
    "documents": 0,
    "fields": {},
    "sizes": {},
  }
  stream = _through(plan, number, shard, current, counted)
  stream = _counted(plan, number, stream, counted)
  documents = path(plan, number, shard, "documents")
  with store.writing(documents) as write:
    kept = _written(stream, write)
    parts = current.summarize.stage.summarize(kept) if current.summarize else ()
    collections.deque(kept, maxlen=0)
  if current.summarize:
    header = json.dumps([len(part) for part in parts]).encode() + b"\n"
    files.write(path(plan, number, shard, "parts"), header, *parts)
  for profile in (counted["in"], counted["out"]):
    for key in ("sources", "domains", "languages"):
      profile[key] = tally.largest(profile[key])
  files.write(path(plan, number, shard, "tally"), store.to_json(counted))


def _through(
  plan: Plan, number: int, shard: int, current: Pass, counted: dict
) -> Iterator[Stored]:
  """The documents of a shard that the stages of a pass keep."""
  steps = [
    (name, lambda _, document, stage=stage: stage(document))
    for name, stage in current.stages
  ]
  if current.judge:
    verdict = files.read(path(plan, number - 1, shard, "verdict"))
    judge = current.judge.stage.judge(verdict)
    steps.insert(0, (current.judge.name, judge))
  known = any("language" in each.names for each in plan.passes())
  for place, stored in enumerate(_input(plan, number, shard, counted)):
    found = _steps_through(steps, place, stored, counted, known)
    if found is not None:
      yield found


def _steps_through(
  steps, place: int, stored: Stored, counted: dict, identify: bool
):
  """The document after the steps, or None if dropped; counts the results.

  identify: whether another stage identifies the language of documents.
  """
  document, counts = stored
  effects, language = [], ""
  for name, step in steps:
    before = document
    own: dict[str, int] = {}
    try:
      result = step(place, before)
    except Exception as error:  # A library failed on this document.
      reason = error_line(before.id, f"{before.id}: {name}: {error!r}")
      tally.add_bad(counted["records"], before.id, reason)
      result = Dropped(FAILED)
    if isinstance(result, Counted):
      document, own = result
      for key, count in own.items():
        counts = {**counts, key: counts.get(key, 0) + count}
    elif isinstance(result, Dropped):
      document = None
    else:
      document = result
    rule = result.rule if document is None else ""
    effects.append((name, before, document, rule, own))
    if document is None:
      language = result.language
      break
  # Stages before the one that identifies the language count it too.
  language = language or _language(document or before, identify)
  for name, *effect in effects:
    tally.add(counted["stages"][name], *effect, language)
  return None if document is None else Stored(document, counts)


def _language(document: Document, identify: bool) -> str:
  """The language of a document for the report; "" if it is not known."""
  found = document.fields.get("lang")
  if found or not identify or not document.text:
    return str(found or "")
  identified = languages.identify(document.text[: languages.MAX_CHARACTERS])
  return identified[0] if identified else ""


def _input(
  plan: Plan, number: int, shard: int, counted: dict
) -> Iterator[Stored]:
  if number > 0:
    yield from store.read(path(plan, number - 1, shard, "documents"))
    return
  data = plan.config["data"]
  read = reading.reader(data["source"], data["text_key"], plan.policy)
  for file in plan.shards[shard]:
    for record in read(file):
      counted["records"]["records"] += 1
      if isinstance(record, Bad):
        tally.add_bad(counted["records"], record.name, record.reason)
        if record.lost:
          tally.add_lost(counted["records"], record.name, record.reason)
      else:
        tally.add_profile(counted["in"], record)
        yield Stored(record, {})


def _counted(
  plan: Plan, number: int, stream: Iterator[Stored], counted: dict
) -> Iterator[Stored]:
  """Counts the documents; in the last pass drops those without a text."""
  last = number == len(plan.passes()) - 1
  text_key = plan.config["data"]["text_key"]
  if last:
    counted["stages"][EMPTY] = tally.stage()
  for stored in stream:
    if last:
      full = not text_key or bool(stored.document.text.strip())
      after = stored.document if full else None
      tally.add(counted["stages"][EMPTY], stored.document, after, EMPTY)
      if not full:
        continue
      tally.add_profile(counted["out"], stored.document)
      written = record(plan, stored.document)
      _count_kinds(counted["fields"], written)
      sizes = counted["sizes"].setdefault(split_of(stored.document), [])
      sizes.append(len(line(written)))
    counted["documents"] += 1
    yield stored


def _count_kinds(fields: dict, found: dict[str, Any]) -> None:
  """Counts the records with each field, by the kind of the value."""
  known = {k: v for k, v in found.items() if v is not None}
  for field, kind in records_tfds.kinds(known).items():
    kinds = fields.setdefault(field, {})
    kinds[kind] = kinds.get(kind, 0) + 1


def record(plan: Plan, document: Document) -> dict[str, Any]:
  """A document as a record of the output."""
  text_key = plan.config["data"]["text_key"]
  found = {"id": document.id}
  if text_key:
    found[text_key] = document.text
  # The split is in the name of the file.
  known = {*found, "split"}
  return found | {k: v for k, v in document.fields.items() if k not in known}


def line(record: dict[str, Any]) -> bytes:
  """A record as a line of JSON."""
  return store.to_json(record) + b"\n"


def _written(
  stream: Iterator[Stored], write: Callable[[Stored], None]
) -> Iterator[Document]:
  """Yields the documents after writing each."""
  for stored in stream:
    write(stored)
    yield stored.document


def combined(plan: Plan, number: int, partition: int) -> bool:
  """Whether a partition has been combined."""
  return files.exists(path(plan, number, partition, "combined"))


def combine(plan: Plan, number: int, partition: int) -> None:
  """Compares the summaries of all shards in one partition."""
  stage = plan.passes()[number].summarize.stage
  parts = [
    _part(path(plan, number, shard, "parts"), partition)
    for shard in range(len(plan.shards))
  ]
  found = stage.combine(partition, parts)
  files.write(path(plan, number, partition, "combined"), found)


def _part(name: str, partition: int) -> bytes:
  with files.opened(name) as file:
    sizes = json.loads(file.readline())
    file.seek(file.tell() + sum(sizes[:partition]))
    return file.read(sizes[partition])


def concluded(plan: Plan, number: int) -> bool:
  """Whether the verdicts of the Global after a pass were written."""
  return files.exists(f"{plan.work}/pass-{number}/conclusion.json")


def conclude(plan: Plan, number: int) -> None:
  """Concludes a Global and writes the verdict of each shard."""
  stage = plan.passes()[number].summarize.stage
  found = [
    files.read(path(plan, number, partition, "combined"))
    for partition in range(stage.partitions)
  ]
  sizes = [
    json.loads(files.read(path(plan, number, shard, "tally")))["documents"]
    for shard in range(len(plan.shards))
  ]
  conclusion = stage.conclude(found, sizes)
  for shard, verdict in enumerate(conclusion.verdicts):
    files.write(path(plan, number, shard, "verdict"), verdict)
  for name, content in conclusion.files.items():
    files.write(f"{plan.folder}/{name}", content)
  summary = store.to_json(conclusion.summary)
  files.write(f"{plan.work}/pass-{number}/conclusion.json", summary)
