"""Random-access data sets: open_source(uri, split) -> Source.

A URI is SCHEME:REST, and a scheme is a file in this folder: `csv:GLOB` is read
by the function `csv` of csv.py, which returns {split name: Source}.

A split is written in the syntax of TFDS: train, train[:90%], train[10%:-5%],
train[:1000], train+test; `all` is the entire data set. If the data has no
splits of its own, a fixed tenth is held out, which serves as both validation
and test, and train is the rest. A text that is a single document is cut by
characters instead, in order, and its slices count characters; each part keeps
the other fields of the record.
"""

import importlib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from common import names
from input_pipeline import order
from input_pipeline.bad_records import Policy
from input_pipeline.sources.parts import fetched, splits

# It defines "train" and "validation" of such data: never change it.
_HELD_OUT_KEY = np.uint64(0x7E55E7A)
# Schemes of tables.
_TABLES = ("csv", "parquet")


class Tokens(NamedTuple):
  """The tokens of a source whose text was tokenized beforehand.

  text_key: the field that was tokenized.
  sha256: of the tokenizer's content, in hexadecimal digits.
  read: (int64 [n], whether an eos separates documents) -> [ids of each],
    without eos.
  ended: whether documents of `read` may end with eos nevertheless.
  """

  text_key: str
  sha256: str
  read: Callable[[np.ndarray, bool], list[np.ndarray]]
  ended: bool = False


class Source(NamedTuple):
  """A random-access data set.

  length: number of examples.
  read: (int64 [n]) -> {field: array [n, ...]}; str and bytes are in object
    arrays.
  name: (index) -> the name of that example in error messages.
  num_classes: of the integer field "label", or None.
  class_names: in the order of the labels, or None.
  fingerprint: a string that changes when the files change.
  note: a line to print, or "".
  tokens: the tokens of its text, if they are stored beside it.
  unread: (ending, number) of the files of a folder that are not read.
  uniform: fields that must have one value in all records, such as the rate of
    sounds, unless an op settles them; see ops/__init__.py.
  ragged: {ragged field: how many of its first axes differ between records}, if
    more than one does.
  changed: {what happened to boxes when the data was opened: their number}.
  """

  length: int
  read: Callable[[np.ndarray], dict[str, np.ndarray]]
  name: Callable[[int], str]
  num_classes: int | None = None
  class_names: tuple[str, ...] | None = None
  fingerprint: str = ""
  note: str = ""
  tokens: Tokens | None = None
  unread: tuple[tuple[str, int], ...] = ()
  uniform: tuple[str, ...] = ()
  ragged: Mapping[str, int] = {}
  changed: Mapping[str, int] = {}


def open_source(
  uri: str, split: str = "train", policy: Policy = Policy()
) -> Source:
  """Opens one split of a data set.

  Under a policy that skips, records that are known to be bad when the data is
  opened keep their places, and raise ValueError when they are read.

  Raises:
    ValueError: the URI matches nothing, or the split is malformed, unknown or
      empty; one line that names it.
  """
  if uri.startswith("environment:"):
    raise ValueError(f"{uri} has no records to read; a training run plays it")
  schemes = names.discover(__name__)
  scheme, rest = names.scheme_of(uri, schemes)
  read = getattr(importlib.import_module(schemes[scheme]), scheme)
  try:
    natives = read(rest, policy)
  except ValueError as error:
    raise ValueError(f"{error}{fetched.hint(rest)}") from None
  # A lone train split has a tenth held out, as data without splits has.
  if set(natives) == {"train"}:
    natives = {"all": natives["train"]}
  try:
    document = _document(natives, scheme)
    parts, note = splits.resolve(split, _lengths(natives, document))
    if document is None:
      source = _joined(natives, parts)
    else:
      source = _cut(natives["all"], document, parts)
  except ValueError as error:
    raise ValueError(f"{uri}: {error}") from None
  if source.length == 0:
    whole = sum(native.length for native in natives.values())
    raise ValueError(f"{uri}: split {split} holds 0 of {whole:,} records")
  notes = (f"{uri}: {note}" if note else "", source.note)
  return source._replace(note="; ".join(each for each in notes if each))


def _document(
  natives: dict[str, Source], scheme: str
) -> dict[str, np.ndarray] | None:
  """Returns the record if the data set is a single document, [1, ...] each.

  A text with a label, or in a table with other columns, is an example.
  """
  if set(natives) != {"all"} or natives["all"].length != 1:
    return None
  record = natives["all"].read(np.zeros(1, np.int64))
  if "label" in record or (scheme in _TABLES and len(record) > 1):
    return None
  text = record.get("text")
  return record if text is not None and isinstance(text[0], str) else None


def _lengths(
  natives: dict[str, Source], document: dict[str, np.ndarray] | None
) -> dict[str, int]:
  if set(natives) != {"all"}:
    return {name: native.length for name, native in natives.items()}
  n = natives["all"].length if document is None else len(document["text"][0])
  train = n * 9 // 10
  held_out = n - train
  return {
    "train": train,
    "validation": held_out,
    "test": held_out,
    "all": n,
  }


def _joined(
  natives: dict[str, Source], parts: list[tuple[str, int, int]]
) -> Source:
  """Concatenates slices (split name, start, stop) into one source."""
  pieces = []
  for name, start, stop in parts:
    if set(natives) == {"all"}:
      whole = natives["all"]
      pieces.append((whole, _held_out(name, start, stop, whole.length)))
    else:
      pieces.append((natives[name], range(start, stop)))
  ends = np.cumsum([len(positions) for _, positions in pieces])

  def locate(indices: np.ndarray):
    piece = np.searchsorted(ends, indices, side="right")
    for p in np.unique(piece):
      rows = np.flatnonzero(piece == p)
      source, positions = pieces[p]
      within = indices[rows] - (ends[p] - len(positions))
      if isinstance(positions, range):
        within = within + positions.start
      else:
        within = positions[within]
      yield rows, source, within

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    indices = np.asarray(indices, np.int64)
    if not indices.size:
      return pieces[0][0].read(indices)
    found = [(r, s.read(within)) for r, s, within in locate(indices)]
    if len(found) == 1:
      return found[0][1]
    back = np.argsort(np.concatenate([rows for rows, _ in found]))
    return {
      field: np.concatenate([example[field] for _, example in found])[back]
      for field in found[0][1]
    }

  def name(index: int) -> str:
    _, source, within = next(locate(np.array([index], np.int64)))
    return source.name(int(within[0]))

  def tokens(indices: np.ndarray, separated: bool) -> list[np.ndarray]:
    found = [np.zeros(0)] * len(indices)
    for rows, source, within in locate(indices):
      ids = source.tokens.read(within, separated)
      for row, each in zip(rows, ids, strict=True):
        found[row] = each
    return found

  first = pieces[0][0]
  native = {
    name: natives[name].unread for name, _, _ in parts if name in natives
  }
  unread: Counter = Counter()
  for each in native.values():
    unread.update(dict(each))
  kept = [source.tokens for source, _ in pieces]
  all_same = all(each and each[:2] == kept[0][:2] for each in kept)
  return first._replace(
    length=int(ends[-1]),
    read=read,
    name=name,
    tokens=kept[0]._replace(read=tokens) if all_same else None,
    unread=tuple(sorted(unread.items())) or first.unread,
  )


def _held_out(name: str, start: int, stop: int, n: int):
  """Returns the sorted indices of a slice of a held-out or remaining part."""
  if name in ("validation", "test"):
    start, stop = start + n * 9 // 10, stop + n * 9 // 10
  positions = np.arange(start, stop, dtype=np.int64)
  if not positions.size:
    return positions
  # Sorted, so that files are read in order.
  return np.sort(order.permute(positions, n, _HELD_OUT_KEY))


def _cut(
  source: Source,
  record: dict[str, np.ndarray],
  parts: list[tuple[str, int, int]],
) -> Source:
  """Returns slices of a single document; adjacent slices are merged.

  Each slice has all other fields of the record.
  """
  document = record["text"][0]
  spans: list[list[int]] = []
  for name, start, stop in parts:
    if name in ("validation", "test"):
      offset = len(document) * 9 // 10
      start, stop = start + offset, stop + offset
    if spans and spans[-1][1] == start:
      spans[-1][1] = stop
    elif start < stop:
      spans.append([start, stop])
  texts = np.array([document[a:b] for a, b in spans], object)
  others = {field: leaf for field, leaf in record.items() if field != "text"}

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    same = np.zeros(len(indices), np.int64)
    repeated = {field: leaf[same] for field, leaf in others.items()}
    return {"text": texts[indices], **repeated}

  return source._replace(
    length=len(texts),
    read=read,
    name=lambda _: source.name(0),
    tokens=None,
  )
