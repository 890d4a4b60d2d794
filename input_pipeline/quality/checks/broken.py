"""Records that cannot be read or decoded, or that have no content."""

import numpy as np

from input_pipeline.bad_records import Policy, error_line
from input_pipeline.quality import evidence
from input_pipeline.quality.columns import Column
from input_pipeline.quality.dataset import Dataset
from input_pipeline.quality.finding import Finding, Settings, count, worst
from input_pipeline.reporting import page

ORDER = 40

_SILENT = -80.0  # dBFS
# The share of clipped samples; loud recordings reach full scale at times.
_CLIPPED = 0.001
# The contrast in gray levels of an image of one colour after JPEG.
_FLAT = 0.5
# The number of characters of a reason in the line.
_SHOWN = 400


def broken(data: Dataset, settings: Settings) -> list[Finding]:
  """Fails for records that cannot be read or decoded, or are not Unicode text.

  Fails also for more than 1 % of a folder's files in formats that are not read,
  and warns for fewer. Warns for images of one colour, for silent or clipped
  audio, and for texts with U+FFFD or control characters.
  """
  del settings
  reasons = [*data.bad]
  undecodable, no_text = 0, set()
  for field, column in data.columns.items():
    if column.kind in ("image", "audio"):
      undecodable += len(column.broken)
      reasons += [(data.name(r), why) for r, why in column.broken.items()]
      continue
    no_text |= set(column.broken)
    reasons += [
      (data.name(r), f"the field {field!r} {why}")
      for r, why in column.broken.items()
    ]
  odd = [
    (f"{field}: {what}", np.flatnonzero(where))
    for field, column in data.columns.items()
    for what, where in _odd(column)
    if where.any()
  ]
  said = []
  if data.bad_count:
    said.append(f"{count(data.bad_count, 'record')} cannot be read")
    if data.bad:  # The first reason may name a way out, such as ?encoding=.
      said[-1] += f", the first: {error_line(*data.bad[0])[:_SHOWN]}"
  if undecodable:
    said.append(f"{count(undecodable, 'file')} cannot be decoded")
  if no_text:
    said.append(f"the text of {count(len(no_text), 'record')} is not Unicode")
  said += [f"{what}, {count(len(rows), 'record')}" for what, rows in odd]
  whole = len(data.indices) + data.bad_count
  readable = [] if said else [f"{count(whole, 'record')} can be read"]
  left = dict(data.source.unread)
  unread = sum(left.values())
  files = data.source.length + unread
  if unread:
    named = ", ".join(f"{n:,} {ending}" for ending, n in left.items())
    said.append(f"{unread:,} of {files:,} files are not read: {named}")
  line = "; ".join(readable + said)
  many = unread > Policy().max_bad_share * files
  verdict = worst(
    "fail" if reasons or many else "ok", "warn" if odd or unread else "ok"
  )
  figures = {
    "unreadable": data.bad_count,
    "undecodable": undecodable,
    "not_unicode": len(no_text),
    "odd": {what: len(rows) for what, rows in odd},
  }
  if unread:
    figures["unread_files"] = left
  parts = []
  if reasons:
    items = [why if name in why else f"{name}: {why}" for name, why in reasons]
    parts.append(page.Examples("Reasons", items))
  for what, rows in odd:
    parts += evidence.show(data, rows, f"{what}, {count(len(rows), 'record')}")
  return [Finding("broken", verdict, line, figures, parts)]


def _odd(column: Column):
  features = column.features
  if not features:  # every value is broken
    return
  with np.errstate(
    invalid="ignore"
  ):  # NaN marks a broken value, reported above
    if column.kind == "image":
      yield "of one colour", features["contrast"] < _FLAT
    if column.kind == "audio":
      silent = features["loudness"] < _SILENT
      yield "silent", silent
      yield "clipped", features["clipped"] > _CLIPPED
    if column.kind == "text":
      yield "broken characters", features["broken characters"] > 0
