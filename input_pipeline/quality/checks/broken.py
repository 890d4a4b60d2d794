"""Records that cannot be read or decoded, or that hold nothing."""

import numpy as np

from input_pipeline.quality import evidence
from input_pipeline.quality.columns import Column
from input_pipeline.quality.dataset import Dataset
from input_pipeline.quality.finding import Finding, Settings, count, worst
from input_pipeline.reporting import page

ORDER = 40

_SILENT = -80.0  # dBFS
# Of the samples; a loud master touches full scale now and then.
_CLIPPED = 0.001
# Gray levels, of an image of one colour after JPEG.
_FLAT = 0.5


def broken(data: Dataset, settings: Settings) -> list[Finding]:
  """What cannot be read or decoded fails; what is empty of content warns.

  Empty of content: images of one colour, silent or clipped audio, texts with
  U+FFFD or control characters in them.
  """
  del settings
  reasons = [*data.bad]
  undecodable = 0
  for column in data.columns.values():
    undecodable += len(column.broken)
    reasons += [(data.name(r), why) for r, why in column.broken.items()]
  odd = [
    (f"{field}: {what}", np.flatnonzero(where))
    for field, column in data.columns.items()
    for what, where in _odd(column)
    if where.any()
  ]
  said = []
  if data.bad_count:
    said.append(f"{count(data.bad_count, 'record')} cannot be read")
  if undecodable:
    said.append(f"{count(undecodable, 'file')} cannot be decoded")
  said += [f"{what}, {count(len(rows), 'record')}" for what, rows in odd]
  whole = len(data.indices) + data.bad_count
  line = "; ".join(said) or f"all of {count(whole, 'record')} can be read"
  verdict = worst("fail" if reasons else "ok", "warn" if odd else "ok")
  figures = {
    "unreadable": data.bad_count,
    "undecodable": undecodable,
    "odd": {what: len(rows) for what, rows in odd},
  }
  parts = []
  if reasons:
    items = [why if name in why else f"{name}: {why}" for name, why in reasons]
    parts.append(page.Examples("What is wrong with them", items))
  for what, rows in odd:
    parts += evidence.show(data, rows, f"{what}, {count(len(rows), 'record')}")
  return [Finding("broken", verdict, line, figures, parts)]


def _odd(column: Column):
  features = column.features
  with np.errstate(invalid="ignore"):  # NaN is broken, and was told
    if column.kind == "image":
      yield "of one colour", features["contrast"] < _FLAT
    if column.kind == "audio":
      silent = features["loudness"] < _SILENT
      yield "silent", silent
      yield "clipped", features["clipped"] > _CLIPPED
    if column.kind == "text":
      yield "broken characters", features["broken characters"] > 0
