"""Boxes that reach beyond their pictures, or that have no area."""

import numpy as np

from input_pipeline.quality import evidence
from input_pipeline.quality.dataset import Dataset
from input_pipeline.quality.finding import Finding, Settings, count

ORDER = 111

# Pixels by which rounding may move a box.
_SLACK = 0.5


def boxes_outside(data: Dataset, settings: Settings) -> list[Finding]:
  """Fails for boxes beyond their pictures, without area, or not of numbers.

  Warns for those that the source has clipped or left out on opening, as voc:,
  coco: and others do unless they are set to outside=error. Without boxes there
  is no finding.
  """
  del settings
  found = data.objects
  if found is None or "boxes" not in found.fields:
    return []
  sizes, boxes = found.sizes[found.rows], found.boxes
  known = sizes.min(1, initial=1) > 0
  with np.errstate(invalid="ignore"):
    beyond = (boxes[:, :2] < -_SLACK).any(1)
    beyond |= known & (boxes[:, 2:] > sizes + _SLACK).any(1)
    empty = ~(boxes[:, 2:] > boxes[:, :2]).all(1)  # also of NaN
  changed = dict(data.source.changed)
  said = []
  if beyond.any():
    said.append(f"{count(int(beyond.sum()), 'box', 'boxes')} beyond pictures")
  if empty.any():
    said.append(f"{count(int(empty.sum()), 'box', 'boxes')} without area")
  said += [f"on opening {n:,} {what}" for what, n in sorted(changed.items())]
  line = "; ".join(said) or f"all {len(boxes):,} boxes lie in their pictures"
  bad = beyond | empty
  verdict = "fail" if bad.any() else "warn" if changed else "ok"
  figures = {
    "boxes": len(boxes),
    "beyond": int(beyond.sum()),
    "without_area": int(empty.sum()),
    "changed": changed,
  }
  rows = np.unique(found.rows[bad])
  parts = evidence.show(data, rows, "Pictures with boxes outside")
  return [Finding("boxes_outside", verdict, line, figures, parts)]
