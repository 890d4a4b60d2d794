"""Reads index.json in an output folder of input_pipeline.prepare.

DIR/index.json is {"format": 1, "text_key": "text" or null, "splits": {"train":
{"documents": N, "records": [FILE, ...], "tokens": [FILE, ...]}, ...},
"tokenizer": null or {"spec": STRING, "file": FILE or null, "sha256": HEX}}.
Beside each file of tokens, X.uint16, there is X.ends with int64 positions at
which its documents end, before the eos that follows. No eos ends a file.
"""

import hashlib
import json
import os
import re
from typing import Any, NamedTuple

from common import bounded_file

_NAME = "index.json"
# Ten times the names of a million shards.
_MOST_BYTES = 2**29
_MOST_TOKENIZER_BYTES = 2**25
# In a workdir: the tokenizer that "prepared:DIR" resolved to.
_STANDS_FOR = "tokenizer.prepared.json"
_TOKENS = re.compile(r".*\.(uint8|uint16|uint32)", re.DOTALL)


class Split(NamedTuple):
  """One split: the number of its documents and the paths of its shards.

  tokens: one for each shard of `records`, in that order; () if there are none.
  """

  documents: int
  records: tuple[str, ...]
  tokens: tuple[str, ...]


class Kept(NamedTuple):
  """The tokenizer that the data was tokenized with.

  spec: as in a config.
  path: of its content; None if the spec is all it needs.
  sha256: of the content, in hexadecimal digits.
  """

  spec: str
  path: str | None
  sha256: str


class Index(NamedTuple):
  """The content of index.json; all files are in its folder."""

  path: str
  text_key: str | None  # None for the rows of a table
  splits: dict[str, Split]
  tokenizer: Kept | None


def read(folder: str) -> Index:
  """The index of a prepared folder.

  Raises:
    ValueError: there is none, or it is damaged.
  """
  path = os.path.join(os.path.abspath(os.path.expanduser(folder)), _NAME)
  if not os.path.exists(path):
    raise ValueError(
      f"{path}: there is no such file; prepared:DIR names a folder that "
      "python -m input_pipeline.prepare --output=DIR has finished"
    )
  try:
    return _parsed(path, _object(path))
  except (KeyError, TypeError, AttributeError) as error:
    what = f"no {error}" if isinstance(error, KeyError) else str(error)
    raise ValueError(f"{path}: damaged: {what}") from None


def _object(path: str) -> dict[str, Any]:
  content = bounded_file.read(path, _MOST_BYTES)
  try:
    found = json.loads(content)
  except (ValueError, RecursionError) as error:
    raise ValueError(f"{path}: damaged: not JSON: {error}") from None
  if not isinstance(found, dict):
    raise ValueError(f"{path}: damaged: not a JSON object")
  return found


def _parsed(path: str, found: dict[str, Any]) -> Index:
  if found["format"] != 1:
    raise ValueError(
      f"{path}: format {found['format']!r}, and this version reads format 1"
    )
  text_key = found["text_key"]
  if not isinstance(text_key, str | None) or not found["splits"]:
    raise ValueError(f"{path}: damaged: no text_key, or no splits")
  splits = {k: _split(path, k, v) for k, v in found["splits"].items()}
  kept = found["tokenizer"]
  if kept is not None:
    if not all(isinstance(kept[key], str) for key in ("spec", "sha256")):
      raise ValueError(f"{path}: damaged: its tokenizer is not strings")
    file = kept["file"]
    where = None if file is None else _inside(path, file)
    kept = Kept(kept["spec"], where, kept["sha256"])
  return Index(path, text_key, splits, kept)


def _split(path: str, name: str, found: dict[str, Any]) -> Split:
  where = f"{path}: damaged: split {name!r}"
  if not re.fullmatch(r"[\w-]+", name):
    raise ValueError(f"{where} is no name of a split")
  documents = found["documents"]
  if type(documents) is not int or documents < 0:
    raise ValueError(f"{where} has {documents!r} documents")
  records, tokens = (
    tuple(_inside(path, file) for file in found[key])
    for key in ("records", "tokens")
  )
  if tokens and len(tokens) != len(records):
    raise ValueError(
      f"{where} has {len(records)} files of records, {len(tokens)} of tokens"
    )
  for file in tokens:
    if not _TOKENS.fullmatch(file):
      raise ValueError(f"{where}: {os.path.basename(file)!r} is no .uint16")
  return Split(documents, records, tokens)


def _inside(path: str, name: Any) -> str:
  """The path of a file in the index's folder; ValueError for any other."""
  bad = not isinstance(name, str) or name in ("", ".", "..")
  if bad or any(c in name for c in "/\\\0:"):
    raise ValueError(
      f"{path}: damaged: {name!r} is not the name of a file in its folder"
    )
  return os.path.join(os.path.dirname(path), name)


def tokenizer(spec: str, workdir: str | None) -> tuple[str, bytes | None]:
  """Resolves a tokenizer's spec: (the spec, its content or None).

  "prepared:DIR" resolves to the tokenizer that DIR was tokenized with; any
  other spec to itself. A workdir records the result, so that a finished run
  does not need DIR; the content is None then, since it is in the workdir.

  Raises:
    ValueError: DIR is not prepared, or not tokenized, or its tokenizer is
      damaged.
  """
  if not isinstance(spec, str) or not spec.startswith("prepared:"):
    return spec, None
  where = os.path.join(workdir, _STANDS_FOR) if workdir else None
  if where and os.path.lexists(where):
    found = _object(where).get("spec")
    if not isinstance(found, str) or found.startswith("prepared:"):
      raise ValueError(f"{where}: damaged: it names no tokenizer")
    return found, None
  index = read(spec.partition(":")[2])
  if index.tokenizer is None:
    raise ValueError(f"tokenizer {spec!r}: {index.path} was not tokenized")
  if index.tokenizer.path is None:
    if index.tokenizer.spec != "byte":
      raise ValueError(
        f"{index.path}: damaged: the tokenizer {index.tokenizer.spec!r} has "
        "no file"
      )
    return "byte", None
  content = bounded_file.read(index.tokenizer.path, _MOST_TOKENIZER_BYTES)
  if hashlib.sha256(content).hexdigest() != index.tokenizer.sha256:
    raise ValueError(
      f"{index.tokenizer.path}: damaged: not the tokenizer that "
      f"{index.path} names"
    )
  return index.tokenizer.spec, content


def note_of(spec: str) -> tuple[str, bytes]:
  """(name, content) of the file that records a spec in a workdir."""
  return _STANDS_FOR, json.dumps({"spec": spec}).encode()
