"""The output of a run: files of records of a given size, and tokens.

index.json lists them and is written last. The source prepared:DIR reads it.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from input_pipeline.document import Document, split_of
from input_pipeline.preparation import shard_work, store
from input_pipeline.preparation.plan import Plan
from input_pipeline.reading import files

FORMAT = 1
# The files of records and tokens, and those of a tokenizer.
_OURS = re.compile(r"[\w-]+-\d{5,}-of-\d{5,}\..*|tokenizer\..*")
INDEX = "index.json"


class File(NamedTuple):
  """One file of records.

  split: of its documents.
  number: its index among the `count` files of the split.
  begin: (shard, index among the split's documents of the shard) of the first
    document.
  end: the same of the last document, plus one.
  """

  split: str
  number: int
  count: int
  begin: tuple[int, int]
  end: tuple[int, int]

  @property
  def stem(self) -> str:
    """The name without its extension."""
    return f"{self.split}-{self.number:05}-of-{self.count:05}"


def layout(plan: Plan) -> list[File]:
  """The files of the output, in order.

  A file ends with the document with which it reaches
  config.output.shard_bytes.
  """
  most = plan.config["output"]["shard_bytes"]
  last = len(plan.passes()) - 1
  open_: dict[str, list] = {}  # split -> [begin, end, bytes so far]
  cuts: dict[str, list[tuple]] = {}
  for shard in range(len(plan.shards)):
    name = shard_work.path(plan, last, shard, "tally")
    for split, sizes in json.loads(files.read(name))["sizes"].items():
      begin = 0
      ends = np.cumsum(np.array(sizes, np.int64))
      while begin < len(sizes):
        current = open_.setdefault(split, [(shard, begin), None, 0])
        before = int(ends[begin - 1]) if begin else 0
        full = int(np.searchsorted(ends, before + most - current[2])) + 1
        stop = min(full, len(sizes))
        current[1] = (shard, stop)
        current[2] += int(ends[stop - 1]) - before
        if current[2] >= most:
          cuts.setdefault(split, []).append(tuple(current[:2]))
          del open_[split]
        begin = stop
  for split, current in open_.items():
    cuts.setdefault(split, []).append(tuple(current[:2]))
  return [
    File(split, number, len(found), *span)
    for split, found in sorted(cuts.items())
    for number, span in enumerate(found)
  ]


def _layout_path(plan: Plan) -> str:
  return f"{plan.work}/layout.json"


def has_layout(plan: Plan) -> bool:
  """Whether the layout was saved."""
  return files.exists(_layout_path(plan))


def save_layout(plan: Plan) -> None:
  """Saves the layout for the tasks that write its files."""
  if not has_layout(plan):
    files.write(_layout_path(plan), json.dumps(layout(plan)).encode())


def saved_layout(plan: Plan) -> list[File]:
  """Reads the layout that `save_layout` saved."""
  found = json.loads(files.read(_layout_path(plan)))
  return [
    File(split, number, count, tuple(begin), tuple(end))
    for split, number, count, begin, end in found
  ]


def documents(plan: Plan, file: File) -> Iterator[store.Stored]:
  """The documents of one file, in order."""
  last = len(plan.passes()) - 1
  (first, start), (end, stop) = file.begin, file.end
  for shard in range(first, end + 1):
    place = 0
    for stored in store.read(shard_work.path(plan, last, shard, "documents")):
      if split_of(stored.document) != file.split:
        continue
      after = shard > first or place >= start
      if after and (shard < end or place < stop):
        yield stored
      place += 1


def write_records(plan: Plan, file: File) -> None:
  """Writes one file of records."""
  with files.writing(records_path(plan, file)) as out:
    for stored in documents(plan, file):
      record = shard_work.record(plan, stored.document)
      out.write(shard_work.line(record))


def written(plan: Plan, file: File) -> bool:
  """Whether a file of records exists."""
  return files.exists(records_path(plan, file))


def records_path(plan: Plan, file: File) -> str:
  """The path of a file's records."""
  return f"{plan.folder}/{file.stem}.jsonl"


def write_tokens(plan: Plan, file: File) -> None:
  """Writes the tokens of one file, the ends of its documents, and counts.

  The format is that of token_file.TokenFile for the documents of the file.
  """
  tokenizer = load_tokenizer(plan)
  dtype = np.min_scalar_type(max(tokenizer.vocab_size - 1, 0))
  name = tokens_path(plan, file, dtype)
  ends, end = [], 0
  languages: dict[str, dict[str, int]] = {}
  gap = b""
  if tokenizer.eos is not None:
    gap = np.array([tokenizer.eos], dtype).tobytes()
  with files.writing(name) as out:
    for number, stored in enumerate(documents(plan, file)):
      ids = tokenizer.encode(stored.document.text).astype(dtype)
      content = (gap if number else b"") + ids.tobytes()
      out.write(content)
      end += len(content) // dtype.itemsize
      ends.append(end)
      _count(languages, stored.document, len(ids))
  files.write(
    f"{plan.folder}/{file.stem}.ends", np.array(ends, "<i8").tobytes()
  )
  counts = {"file": name.rsplit("/", 1)[-1], "tokens": end}
  counts |= {"languages": languages}
  files.write(counts_path(plan, file), store.to_json(counts))


def _count(languages: dict, document: Document, tokens: int) -> None:
  own = languages.setdefault(
    str(document.fields.get("lang") or "unknown"),
    {"tokens": 0, "words": 0, "characters": 0, "bytes": 0},
  )
  own["tokens"] += tokens
  own["words"] += len(document.text.split())
  own["characters"] += len(document.text)
  own["bytes"] += len(document.text.encode(errors="replace"))


def write_documents(plan: Plan) -> None:
  """Writes documents.jsonl: every document with its language and counts."""
  last = len(plan.passes()) - 1
  with files.writing(f"{plan.folder}/documents.jsonl") as out:
    for shard in range(len(plan.shards)):
      name = shard_work.path(plan, last, shard, "documents")
      for (id_, text, fields, _), counts in store.read(name):
        record = {"id": id_, "text": text, "lang": fields.get("lang")}
        record |= {"characters": len(text), "words": len(text.split())}
        out.write(store.to_json({**record, "counts": counts}) + b"\n")


def tokens_path(plan: Plan, file: File, dtype: np.dtype) -> str:
  """The path of a file's tokens."""
  return f"{plan.folder}/{file.stem}.{dtype.name}"


def tokenized(plan: Plan, file: File) -> bool:
  """Whether the tokens of a file were written."""
  return files.exists(counts_path(plan, file))


def counts_path(plan: Plan, file: File) -> str:
  """The path of the token counts of a file, which are written last."""
  return f"{plan.work}/tokens/{file.stem}.json"


def remove(plan: Plan) -> None:
  """Removes the output of a plan with the same passes."""
  for name in files.names(plan.folder):
    if _OURS.fullmatch(name):
      files.remove(f"{plan.folder}/{name}")
  for name in files.names(plan.work):
    if name in ("layout.json", "tokenizer.json"):
      files.remove(f"{plan.work}/{name}")
  for folder in ("tokens", "tfds"):
    files.remove_folder(f"{plan.work}/{folder}")


def has_tokenizer(plan: Plan) -> bool:
  """Whether the tokenizer was saved."""
  return files.exists(f"{plan.work}/tokenizer.json")


def learn_tokenizer(plan: Plan) -> None:
  """Reads or trains the tokenizer of config.output, and saves it."""
  if has_tokenizer(plan):
    return
  from input_pipeline.tokenizers import get_tokenizer

  text_key = plan.config["data"]["text_key"]
  found = get_tokenizer(
    plan.config["output"]["tokenizer"],
    [(f"jsonl:{plan.folder}/train-*.jsonl", text_key)],
    workdir=plan.folder,
  )
  kept = {"spec": found.spec, "file": found.file_name}
  kept["sha256"] = hashlib.sha256(found.content).hexdigest()
  files.write(f"{plan.work}/tokenizer.json", store.to_json(kept))


def load_tokenizer(plan: Plan):
  """Reads the tokenizer that `learn_tokenizer` saved."""
  from input_pipeline.tokenizers import get_tokenizer

  return get_tokenizer(
    plan.config["output"]["tokenizer"], [], workdir=plan.folder
  )


def index(plan: Plan, cut: list[File], identity: str) -> dict:
  """The content of index.json."""
  tokenized = plan.config["output"]["tokenizer"] is not None
  splits: dict[str, dict] = {}
  for file in cut:
    own = splits.setdefault(
      file.split, {"documents": 0, "records": [], "tokens": []}
    )
    own["records"].append(f"{file.stem}.jsonl")
    if tokenized:
      counts = json.loads(files.read(counts_path(plan, file)))
      own["tokens"].append(counts["file"])
  last = len(plan.passes()) - 1
  for shard in range(len(plan.shards)):
    name = shard_work.path(plan, last, shard, "tally")
    for split, sizes in json.loads(files.read(name))["sizes"].items():
      splits[split]["documents"] += len(sizes)
  tokenizer = None
  if tokenized:
    tokenizer = json.loads(files.read(f"{plan.work}/tokenizer.json"))
  return {
    "format": FORMAT,
    "identity": identity,
    "text_key": plan.config["data"]["text_key"],
    "splits": splits,
    "tokenizer": tokenizer,
  }
