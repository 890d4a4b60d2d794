"""Summaries of a field: a few numbers per record of any size."""

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from input_pipeline.quality import media, values
from input_pipeline.reading import image_size
from input_pipeline.sources.parts.documents import not_text

KINDS = ("number", "category", "text", "image", "audio", "date", "other")
# The most categories of a field; further ones become "(other)".
_MOST_WORDS = 10_000
_LONGEST_WORD = 200
OTHER = "(other)"
_FEW = 5
_LARGEST = 1e70
# The share of numbers among the values of a numeric field.
_NUMERIC = 0.9


class Column(NamedTuple):
  """Summary of one field of n records.

  kind: one of KINDS.
  types: {name of a type: number of values}, without missing values.
  examples: {name of a type: (row, value) of the first few}.
  blank: bool [n], where the value is missing.
  markers: {marker of a missing value: number of values}.
  numbers: float64 [n] of a number or date, NaN if missing, infinite beyond
    1e70; None for other kinds.
  extremes: the least and the most of those that float64 may round, exactly.
  codes: int32 [n] of a category, indices of `words`, -1 if missing; None for
    other kinds.
  words: the categories.
  features: {name: float32 [n]} measured on texts, images or audio; NaN if
    missing or broken.
  prints: uint8 [n, 256] of images or audio, else None; see media.
  broken: {row: why the value cannot be decoded, or is not Unicode text}.
  """

  kind: str
  types: Mapping[str, int]
  examples: Mapping[str, list[tuple[int, str]]]
  blank: np.ndarray
  markers: Mapping[str, int]
  numbers: np.ndarray | None = None
  extremes: tuple[int | float, ...] = ()
  codes: np.ndarray | None = None
  words: tuple[str, ...] = ()
  features: Mapping[str, np.ndarray] = {}
  prints: np.ndarray | None = None
  broken: Mapping[int, str] = {}


def kind_of(field: str, sample: np.ndarray) -> str:
  """Returns the kind of a field, from its name and a sample of values."""
  if field == "instances":  # masks [n, h, w], which are no pictures
    return "other"
  if sample.dtype != object:
    if sample.ndim >= 3 and sample.dtype.kind in "uif":
      return "image"
    if sample.ndim == 2 and sample.dtype.kind == "f" and field == "audio":
      return "audio"
    if sample.ndim > 1:
      return "other"
    return "category" if sample.dtype.kind == "b" else "number"
  there = [v for v in sample if not values.missing(v)]
  if any(isinstance(v, bytes) for v in there):
    known = any(any(image_size.image_size(v)) for v in there if v[:1])
    return "image" if known or field == "image" else "other"
  if there and all(isinstance(v, np.ndarray) for v in there):
    if there[0].ndim < 3 and field == "audio":
      return "audio"
    # Other lists of numbers, such as boxes [n, 4] and their classes [n].
    grey = there[0].ndim == 2 and there[0].dtype == np.uint8
    known = grey or there[0].ndim == 3 or field == "image"
    return "image" if known else "other"
  if not there or any(isinstance(v, (list, tuple, dict)) for v in there):
    return "other" if there else "category"
  if field == "text" and any(isinstance(v, str) for v in there):
    return "text"
  if sum(map(_is_number, there)) >= _NUMERIC * len(there):
    return "number"
  texts = [str(v) for v in there]
  few = len(set(texts)) <= max(20, len(texts) // 10)
  short = np.mean([len(t) for t in texts]) <= 40
  repeated = len(set(texts)) <= len(texts) / 2 or len(texts) <= 20
  return "category" if few and short and repeated else "text"


def _is_number(value) -> bool:
  # NaN counts as missing, which was checked before.
  return values.number(value) == values.number(value)


def measure(
  kind: str,
  chunk: Sequence,
  name: Callable[[int], str],
  class_names: Sequence[str] | None = None,
  rates: Sequence[float] | None = None,
) -> Column:
  """Returns the Column that summarizes a chunk of values.

  Args:
    kind: one of KINDS.
    chunk: the values.
    name: (row) -> the name of that record.
    class_names: names for the integers of a label field.
    rates: samples per second of audio.
  """
  markers = [_marker(v, kind) for v in chunk]
  blank = np.array([bool(m) for m in markers], bool)
  types, examples = _types(chunk, blank)
  column = Column(
    kind,
    types,
    examples,
    blank,
    collections.Counter(filter(None, markers)),
    broken=_not_unicode(chunk),
  )
  if kind in ("number", "date"):
    read = values.number if kind == "number" else values.date
    found = np.array([read(v) for v in chunk], np.float64)
    # The fourth power of larger numbers overflows, and with it the kurtosis.
    huge = np.abs(found) > _LARGEST
    found[huge] = np.copysign(np.inf, found[huge])
    large = np.flatnonzero(np.isfinite(found) & (np.abs(found) >= 2**53))
    exact = [values.exact_number(chunk[i]) for i in large]
    return column._replace(numbers=found, extremes=_extremes(exact))
  if kind == "category":
    return _category(column, chunk, class_names)
  if kind == "text":
    rows = [
      {} if b else media.text_features(str(v))
      for v, b in zip(chunk, blank, strict=True)
    ]
    return column._replace(features=_table(rows, media.text_features("")))
  if kind in ("image", "audio"):
    return _media(column, chunk, name, rates)
  return column


def _extremes(numbers: Sequence) -> tuple[int | float, ...]:
  there = [x for x in numbers if x is not None]
  return (min(there), max(there)) if there else ()


def _not_unicode(chunk: Sequence) -> dict[int, str]:
  """Why values are not Unicode text; training refuses them too."""
  if isinstance(chunk, np.ndarray) and chunk.dtype != object:
    return {}
  return {
    i: "is not Unicode text"
    for i, value in enumerate(chunk)
    if isinstance(value, str) and not_text(value)
  }


def _marker(value, kind: str) -> str:
  if isinstance(value, np.ndarray):
    return ""
  if kind in ("image", "audio"):
    return "None" if value is None else ""  # 0 bytes are a broken file.
  return values.missing(value, kind == "text")


def _types(chunk: Sequence, blank: np.ndarray):
  if isinstance(chunk, np.ndarray) and chunk.dtype != object:
    found = values.type_name(chunk[0]) if len(chunk) else "other"
    there = int((~blank).sum())
    return ({found: there} if there else {}), {}
  types, examples = collections.Counter(), {}
  for row, value in enumerate(chunk):
    if blank[row]:
      continue
    found = values.type_name(value)
    types[found] += 1
    few = examples.setdefault(found, [])
    if len(few) < _FEW and not isinstance(value, (bytes, np.ndarray)):
      few.append((row, str(value)[:_LONGEST_WORD]))
  return types, examples


def _category(column: Column, chunk: Sequence, class_names) -> Column:
  def word(value) -> str:
    if class_names and isinstance(value, (int, np.integer)):
      known = 0 <= value < len(class_names)
      return class_names[value] if known else str(value)
    return str(value).strip()[:_LONGEST_WORD]

  words: dict[str, int] = {}
  codes = [
    -1 if blank else words.setdefault(word(value), len(words))
    for value, blank in zip(chunk, column.blank, strict=True)
  ]
  return column._replace(codes=np.array(codes, np.int32), words=tuple(words))


def _table(rows: list[dict], like: dict) -> dict[str, np.ndarray]:
  names = dict.fromkeys([*like, *(n for row in rows for n in row)])
  return {
    n: np.array([row.get(n, np.nan) for row in rows], np.float32) for n in names
  }


def _media(column: Column, chunk, name, rates) -> Column:
  rows, prints, broken = [], [], {}
  for i, value in enumerate(chunk):
    found, mark = {}, np.zeros(256, np.uint8)
    try:
      if column.blank[i]:
        pass
      elif column.kind == "audio":
        if not len(value):
          raise ValueError(f"{name(i)}: no samples")
        value = value.mean(1) if value.ndim > 1 else value
        found = media.audio_features(value, 1 if rates is None else rates[i])
        mark = media.print_of_audio(value)
      else:
        if isinstance(value, bytes):
          value = media.decode_image(value, name(i), media.POLICY)
        if not np.size(value):
          raise ValueError(f"{name(i)}: no pixels")
        found = media.image_features(value)
        mark = media.print_of_image(value)
    except ValueError as error:
      broken[i] = str(error)
    rows.append(found)
    prints.append(mark)
  return column._replace(
    features=_table(rows, {}),
    prints=np.array(prints, np.uint8).reshape(len(rows), 256),
    broken=broken,
  )


def join(parts: list[Column]) -> Column:
  """Joins the columns of consecutive chunks."""
  starts = np.cumsum([0, *(len(part.blank) for part in parts)])
  types, markers = collections.Counter(), collections.Counter()
  examples: dict[str, list] = {}
  broken = {}
  for start, part in zip(starts, parts, strict=False):
    types.update(part.types)
    markers.update(part.markers)
    for found, few in part.examples.items():
      kept = examples.setdefault(found, [])
      kept += [(int(start) + r, v) for r, v in few][: _FEW - len(kept)]
    broken.update({int(start) + r: why for r, why in part.broken.items()})
  first = parts[0]
  joined = first._replace(
    types=dict(types),
    markers=dict(markers),
    examples=examples,
    broken=broken,
    blank=np.concatenate([part.blank for part in parts]),
  )
  if first.numbers is not None:
    joined = joined._replace(
      numbers=np.concatenate([p.numbers for p in parts]),
      extremes=_extremes([x for p in parts for x in p.extremes]),
    )
  if first.prints is not None:
    joined = joined._replace(prints=np.concatenate([p.prints for p in parts]))
  if first.codes is not None:
    joined = _join_words(joined, parts)
  return joined._replace(features=_join_features(parts))


def _join_words(joined: Column, parts: list[Column]) -> Column:
  words: dict[str, int] = {}
  codes = []
  for part in parts:
    # Bounds the memory of a field with many categories.
    places = [
      words.setdefault(
        w if len(words) < _MOST_WORDS or w in words else OTHER, len(words)
      )
      for w in part.words
    ]
    codes.append(np.array([*places, -1], np.int32)[part.codes])
  return joined._replace(codes=np.concatenate(codes), words=tuple(words))


def _join_features(parts: list[Column]) -> dict[str, np.ndarray]:
  names = dict.fromkeys(n for part in parts for n in part.features)
  return {
    n: np.concatenate(
      [
        p.features.get(n, np.full(len(p.blank), np.nan, np.float32))
        for p in parts
      ]
    )
    for n in names
  }


def take(column: Column, rows: np.ndarray) -> Column:
  """Returns the column of some rows; types and markers stay as counted."""
  place = {int(r): i for i, r in enumerate(rows)}
  return column._replace(
    blank=column.blank[rows],
    numbers=None if column.numbers is None else column.numbers[rows],
    codes=None if column.codes is None else column.codes[rows],
    prints=None if column.prints is None else column.prints[rows],
    features={n: f[rows] for n, f in column.features.items()},
    broken={place[r]: w for r, w in column.broken.items() if r in place},
  )
