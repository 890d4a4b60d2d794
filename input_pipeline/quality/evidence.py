"""Example records in a report: images if there are any, else texts."""

from collections.abc import Sequence

import numpy as np

from input_pipeline.quality import dataset, media
from input_pipeline.quality.dataset import Dataset
from input_pipeline.reporting import page, plots

_MOST = 24
# The records of a group that are named.
_MEMBERS = 20


def show(
  data: Dataset, rows: Sequence[int], title: str, notes: Sequence[str] = ()
) -> list:
  """Returns the parts of a page that show at most 24 records.

  Args:
    data: the data set.
    rows: the rows to show.
    title: the title of the part.
    notes: a note for each record.
  """
  rows = [int(row) for row in rows[:_MOST]]
  notes = list(notes[:_MOST]) or [""] * len(rows)
  if not rows:
    return []
  fields = [f for f, c in data.columns.items() if c.kind == "image"]
  if not fields:
    return _written(data, rows, title, notes)
  images, captions = [], []
  for row, note in zip(rows, notes, strict=True):
    image = data.source.read(data.indices[[row]])[fields[0]][0]
    try:
      if isinstance(image, bytes):
        image = media.decode_image(image, "", media.POLICY)
      images.append(media.pixels(image))
    except ValueError:
      continue
    label = label_of(data, row)
    captions.append("\n".join(filter(None, [label, note])))
  if not images:
    return _written(data, rows, title, notes)
  names = page.Examples(
    "Names of the records", [data.name(row) for row in rows]
  )
  return [page.Figure(plots.image_grid(images, captions), title), names]


def _written(
  data: Dataset, rows: list[int], title: str, notes: list[str]
) -> list:
  """Returns a table if all values are short, else a text per record."""
  kinds = {f: c.kind for f, c in data.columns.items()}
  if {"text", "audio", "image"} & {*kinds.values()}:
    texts = [dataset.describe(data, row) for row in rows]
    items = [
      f"{note}\n{text}" if note else text
      for note, text in zip(notes, texts, strict=True)
    ]
    return [page.Examples(title, items)]
  records = data.source.read(data.indices[np.array(rows, np.int64)])
  lines = [
    (note, data.name(row), *(records[field][i] for field in kinds))
    for i, (row, note) in enumerate(zip(rows, notes, strict=True))
  ]
  columns = ("", "record", *kinds)
  if not any(notes):
    columns, lines = columns[1:], [line[1:] for line in lines]
  return [page.Text(f"{title}:"), page.Table(columns, lines)]


def members(data: Dataset, groups: Sequence[np.ndarray]) -> list:
  """A table of the records of the first 24 groups: their files and labels."""
  lines = []
  for number, group in enumerate(groups[:_MOST], start=1):
    for row in map(int, group[:_MEMBERS]):
      label = (label_of(data, row),) if data.label else ()
      lines.append((number, data.name(row), *label))
    if len(group) > _MEMBERS:
      more = (f"and {len(group) - _MEMBERS:,} more",)
      lines.append((number, *more, *(("",) if data.label else ())))
  columns = ("group", "record", *((data.label,) if data.label else ()))
  return [page.Table(columns, lines)] if lines else []


def label_of(data: Dataset, row: int) -> str:
  """Returns the name of the label of a record, or ""."""
  if not data.label:
    return ""
  column = data.columns[data.label]
  code = int(column.codes[row])
  return column.words[code] if code >= 0 else "(missing)"


def groups(digests: np.ndarray) -> list[np.ndarray]:
  """Returns groups of rows with equal digests, int64, the largest first."""
  order = np.argsort(digests, kind="stable")
  starts = np.flatnonzero(np.diff(digests[order], prepend=~digests[order[:1]]))
  found = [g for g in np.split(order, starts[1:]) if len(g) > 1]
  return sorted(found, key=lambda group: (-len(group), int(group[0])))
