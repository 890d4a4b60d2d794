"""The data set of the checks: read once, with a few numbers kept per record."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from input_pipeline import bad_records, order
from input_pipeline.quality import columns, objects, pages, values
from input_pipeline.quality.columns import Column
from input_pipeline.quality.objects import Objects
from input_pipeline.sources import Source, open_source

_CHUNK, _LARGE_CHUNK = 256, 32
# The most records to read, for small and for large ones.
_MOST, _MOST_LARGE = 1_000_000, 100_000
_SAMPLE = 1000
# Part of the meaning of a sample: never change it.
_SAMPLE_KEY = np.uint64(0x1D6E)
# Bad records whose reasons are kept.
_MOST_REASONS = 1000


class Dataset(NamedTuple):
  """The records of one split that could be read.

  uri: of the source.
  split: of the source.
  source: the opened source, to read records again.
  indices: int64 [n], the places of the records in the source.
  columns: {field: Column} of n rows each.
  records: uint64 [n], a digest of all fields.
  inputs: uint64 [n], a digest of all fields except the label.
  bad: (name, reason) of the first records that could not be read.
  bad_count: the number of records that could not be read.
  objects: their boxes and masks, or None.
  label: the field of the label, or "".
  date: the field of the date, or "".
  against: the data set to compare with, or None.
  """

  uri: str
  split: str
  source: Source
  indices: np.ndarray
  columns: Mapping[str, Column]
  records: np.ndarray
  inputs: np.ndarray
  bad: list[tuple[str, str]]
  bad_count: int
  objects: Objects | None = None
  label: str = ""
  date: str = ""
  against: "Dataset | None" = None

  def name(self, row: int) -> str:
    """The name of a record."""
    return self.source.name(int(self.indices[row]))


def open_dataset(
  uri: str,
  split: str = "all",
  label: str = "",
  date: str = "",
  most: int | None = None,
  like: Dataset | None = None,
  ignore: Sequence[str] = (),
  say: Callable[[int, int], None] = lambda done, whole: None,
) -> Dataset:
  """Reads a data set once, in chunks.

  Records that cannot be read are counted and skipped.

  Args:
    uri: of input_pipeline.sources.
    split: as TFDS writes it.
    label: the field of the label; "" for none.
    date: the field by which records can be put in order; "" for none.
    most: the most records to read; of larger data a sample, the same one each
      time. By default a million, or 100,000 for images or audio.
    like: another data set, whose kinds of fields are used.
    ignore: fields to leave out, such as a record number, which would make equal
      records differ.
    say: called with (records read, records in all).

  Raises:
    ValueError: the data or a field does not exist, or no record can be read.
  """
  policy = bad_records.Policy(skip=True, max_bad_share=1.0, hollow=True)
  source = pages.as_text(open_source(uri, split, policy))
  sample = _sample(source)
  asked = [("label", label), ("date", date), *(("ignore", f) for f in ignore)]
  for flag, field in asked:
    if field and field not in sample:
      raise ValueError(
        f"--{flag}={field}: {uri} has no such field (there are:"
        f" {', '.join(sample)})"
      )
  left = [field for field in sample if field not in ignore]
  kinds = {field: columns.kind_of(field, sample[field]) for field in left}
  if like is not None:
    kinds |= {f: c.kind for f, c in like.columns.items() if f in kinds}
  kinds |= {date: "date"} if date else {}
  kinds |= {label: "category"} if label else {}
  large = bool({"image", "audio"} & {*kinds.values()})
  indices = np.arange(source.length)
  most = most or (_MOST_LARGE if large else _MOST)
  if source.length > most:
    indices = np.sort(order.permute(indices[:most], source.length, _SAMPLE_KEY))
  found = _read(source, indices, kinds, label, large, say)
  return Dataset(uri, split, source, *found, label=label, date=date)


def _sample(source: Source) -> dict:
  """Returns a sample spread over the data; a small one of large records."""
  for most in (32, _SAMPLE):
    places = np.linspace(0, source.length - 1, min(most, source.length))
    sample, _, _ = bad_records.surviving(
      source.read, np.unique(places.astype(np.int64))
    )
    if sample and any(map(_large, sample.values())):
      break
  if not sample:
    sample = bad_records.first_readable(source, bad_records.Policy(skip=True))
  return sample


def _large(leaf: np.ndarray) -> bool:
  kinds = (bytes, np.ndarray)
  return leaf.ndim > 1 or any(isinstance(v, kinds) for v in leaf)


def _read(source: Source, indices, kinds, label: str, large: bool, say):
  parts: dict[str, list[Column]] = {field: [] for field in kinds}
  kept, records, inputs, bad, bad_count = [], [], [], [], 0
  placed: list[Objects | None] = []
  size = _LARGE_CHUNK if large else _CHUNK
  for start in range(0, len(indices), size):
    say(start, len(indices))
    places = indices[start : start + size]
    rows, found, errors = bad_records.surviving(source.read, places)
    bad_count += len(errors)
    bad += [
      (source.name(int(places[i])), why)
      for i, why in list(errors.items())[: _MOST_REASONS - len(bad)]
    ]
    if not len(found):
      continue
    places = places[found]
    kept.append(places)
    for field, kind in kinds.items():
      names = source.class_names if field == label else None
      parts[field].append(
        columns.measure(
          kind, rows[field], _namer(source, places), names, rows.get("rate")
        )
      )
    placed.append(objects.measured(rows, len(places)))
    whole, part = _digests(rows, kinds, label, len(places))
    records.append(whole)
    inputs.append(part)
  say(len(indices), len(indices))
  return (
    np.concatenate(kept),
    {field: columns.join(each) for field, each in parts.items()},
    np.concatenate(records),
    np.concatenate(inputs),
    bad,
    bad_count,
    objects.joined(placed),
  )


def _namer(source: Source, places: np.ndarray) -> Callable[[int], str]:
  return lambda row: source.name(int(places[row]))


def _digests(rows: Mapping, kinds: Mapping[str, str], label: str, n: int):
  """Returns digests of records with and without the label, uint64 [n] each."""
  whole, part = np.empty(n, np.uint64), np.empty(n, np.uint64)
  for i in range(n):
    each = {
      field: values.encoded(rows[field][i], kind == "text")
      for field, kind in kinds.items()
    }
    whole[i] = values.digest(list(each.values()))
    each.pop(label, None)
    part[i] = values.digest(list(each.values()))
  return whole, part


def take(dataset: Dataset, rows: np.ndarray) -> Dataset:
  """Returns the data set with some of its rows only."""
  rows = np.asarray(rows)
  return dataset._replace(
    indices=dataset.indices[rows],
    columns={f: columns.take(c, rows) for f, c in dataset.columns.items()},
    records=dataset.records[rows],
    inputs=dataset.inputs[rows],
    objects=objects.take(dataset.objects, rows),
  )


def read_field(
  dataset: Dataset, field: str, rows: np.ndarray | None = None
) -> Iterator[tuple[int, object]]:
  """Yields (row, value) of one field, read from the source in chunks."""
  rows = np.arange(len(dataset.indices)) if rows is None else rows
  for start in range(0, len(rows), _CHUNK):
    chunk = rows[start : start + _CHUNK]
    found = dataset.source.read(dataset.indices[chunk])[field]
    yield from zip(map(int, chunk), found, strict=True)


def feature_columns(dataset: Dataset) -> dict[str, np.ndarray]:
  """Returns {name: float [n]} of numeric fields and measured features.

  Features of a field of text, images or audio are named "field: feature".
  """
  found = {}
  for field, column in dataset.columns.items():
    if field in (dataset.label, dataset.date):
      continue
    if column.numbers is not None:
      found[field] = column.numbers
    for feature, numbers in column.features.items():
      found[f"{field}: {feature}"] = numbers
  return found


def category_columns(dataset: Dataset) -> dict[str, Column]:
  """Returns {field: Column} of the categorical fields, the label included."""
  return {
    field: column
    for field, column in dataset.columns.items()
    if column.codes is not None and field != dataset.date
  }


def titles(data: Dataset) -> tuple[str, str]:
  """Returns the names of a data set and of the one to compare it with."""
  if data.uri == data.against.uri:
    return data.split, data.against.split
  return data.uri, data.against.uri


def describe(dataset: Dataset, row: int) -> str:
  """Describes a record: its name and the values of its fields."""
  values_of = dataset.source.read(dataset.indices[[row]])
  lines = [dataset.name(row)]
  for field, column in dataset.columns.items():
    value = values_of[field][0]
    if column.kind in ("image", "audio"):
      continue
    lines.append(f"{field}: {str(value)[:500]}")
  return "\n".join(lines)
