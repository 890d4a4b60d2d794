"""Facts of a knowledge graph: (head, relation, tail) as numbers."""

import json
import os
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from common import bounded_file
from common.files import write_atomically
from input_pipeline import bad_records
from input_pipeline.rows import Given, Learning, Rows

NEEDS_TOKENIZER = False
# The names of the training data.
FILE = "triples.json"
FIELDS = ("head", "relation", "tail")
_MOST_BYTES = 2**30
_CHUNK = 4096  # records that are read at once to learn from


class Names(NamedTuple):
  """The names of a knowledge graph, in the order of their numbers."""

  entities: tuple[str, ...]
  relations: tuple[str, ...]


def triples(given: Given) -> Rows:
  """Rows of facts: {"head", "relation", "tail": int32 []}.

  A record has fields of these names; the source
  csv:FILES?header=head,relation,tail reads files of three columns without a
  header, separated by tabs or commas. Entities and relations are numbered in
  the sorted order of their names in the training data, which are kept in
  triples.json of the working directory. A record of an evaluation with a name
  that the training data do not have is a bad record.

  Args:
    given: of the data.

  Raises:
    ValueError: a field is missing, or a name is unknown.
  """
  names: Names = given.fitted
  source = given.source
  numbers = {
    "head": _numbers(names.entities),
    "relation": _numbers(names.relations),
  }
  numbers["tail"] = numbers["head"]
  # Numbers plus 1, and 0 where a record has not been read yet.
  known_N3 = np.zeros((source.length, len(FIELDS)), np.int32)

  def encoded(indices: np.ndarray) -> np.ndarray:
    columns = _columns(source.read(indices), given.title)
    found = np.zeros((len(indices), len(FIELDS)), np.int32)
    for k, (field, column) in enumerate(zip(FIELDS, columns, strict=True)):
      for i, name in enumerate(column):
        if not name:
          raise ValueError(
            f"{source.name(int(indices[i]))}: the field {field!r} is empty"
          )
        number = numbers[field].get(name)
        if number is None:
          raise ValueError(
            f"{source.name(int(indices[i]))}: {field}={name!r} is not in the"
            " training data"
          )
        found[i, k] = number + 1
    return found

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    indices = np.asarray(indices, np.int64)
    unread = np.unique(indices[known_N3[indices, 0] == 0])
    if unread.size:
      known_N3[unread] = encoded(unread)
    return dict(zip(FIELDS, (known_N3[indices] - 1).T, strict=True))

  sizes = {"entities": len(names.entities), "relations": len(names.relations)}
  note = ", ".join(f"{count} {what}" for what, count in sizes.items())
  return Rows(source.length, read, texts=source.read, note=note, sizes=sizes)


def leaves(seq_len: int | None, **other):
  """Returns ({leaf: (shape, dtype)}, None) of such rows."""
  del seq_len, other
  return dict.fromkeys(FIELDS, ((), np.int32)), None


def fit(learning: Learning) -> Names:
  """The names kept in the working directory, or those of the training data.

  Raises:
    ValueError: a field is missing, or it is an evaluation for which no
      training has kept any names.
  """
  path = os.path.join(learning.workdir, FILE) if learning.workdir else None
  if path and os.path.lexists(path):
    return _kept(path)
  if not learning.training:
    raise ValueError(
      "rows.triples: an evaluation reads the names of the training data in"
      f" {path or 'a workdir'}, and there are none"
    )
  names = _learned(learning)
  if path:
    content = json.dumps(names._asdict(), ensure_ascii=False, indent=1) + "\n"
    write_atomically(path, [content.encode()])
  return names


def _learned(learning: Learning) -> Names:
  entities: set[str] = set()
  relations: set[str] = set()
  for source, title in zip(learning.sources, learning.titles, strict=True):
    for start in range(0, source.length, _CHUNK):
      indices = np.arange(start, min(start + _CHUNK, source.length))
      if learning.policy.skip:
        records, _, _ = bad_records.surviving(source.read, indices)
      else:
        records = source.read(indices)
      if records:
        heads, found, tails = _columns(records, title)
        entities.update(heads, tails)
        relations.update(found)
  # A record with an empty name is a bad one when it is read.
  return Names(tuple(sorted(entities - {""})), tuple(sorted(relations - {""})))


def _columns(records: dict[str, np.ndarray], title: str) -> list[list[str]]:
  """The names in each of the FIELDS; a number is named by its digits."""
  for field in FIELDS:
    if field not in records:
      raise ValueError(
        f"{title} has no field {field!r} (there are: {', '.join(records)}); a"
        " file without a header is read with ?header=head,relation,tail"
      )
  return [[str(name) for name in records[field].tolist()] for field in FIELDS]


def _numbers(names: Iterable[str]) -> dict[str, int]:
  return {name: number for number, name in enumerate(names)}


def _kept(path: str) -> Names:
  try:
    found = json.loads(bounded_file.read(path, _MOST_BYTES))
    names = Names(*(tuple(found[field]) for field in Names._fields))
    if not all(isinstance(name, str) for each in names for name in each):
      raise ValueError("no names")
  except (ValueError, RecursionError, KeyError, TypeError):
    raise ValueError(
      f"{path} does not hold the names of entities and relations"
    ) from None
  return names
