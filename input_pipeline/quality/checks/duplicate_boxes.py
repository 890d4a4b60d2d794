"""Objects of one picture that are annotated twice."""

import numpy as np

from input_pipeline.quality import evidence
from input_pipeline.quality.dataset import Dataset
from input_pipeline.quality.finding import Finding, Settings, count, share

ORDER = 112

# The IoU from which two boxes of one class are of the same object.
_SAME = 0.95
# The share of repeated boxes above which the check fails.
_MOST = 0.01
# Pictures with more boxes are compared in parts, in the order of their x0.
_BLOCK = 1000


def duplicate_boxes(data: Dataset, settings: Settings) -> list[Finding]:
  """Warns for boxes of one class and picture that nearly coincide.

  Nearly means an IoU of 0.95; fails for more than 1 % of all boxes. Equal boxes
  of two classes are counted as well, and warn. Without boxes there is no
  finding.
  """
  del settings
  found = data.objects
  if found is None or "boxes" not in found.fields:
    return []
  same, other = _repeated(found)
  n = len(found.boxes)
  said = []
  if same.any():
    repeats = int(same.sum())
    said.append(
      f"{count(repeats, 'box', 'boxes')} of {n:,} ({share(repeats, n)}) nearly"
      " coincide with another of the same class"
    )
  if other.any():
    said.append(
      f"{count(int(other.sum()), 'box', 'boxes')} with one of another class"
    )
  line = "; ".join(said) or "no object has two boxes"
  many = same.sum() > _MOST * n
  verdict = "fail" if many else "warn" if said else "ok"
  figures = {"same_class": int(same.sum()), "other_class": int(other.sum())}
  rows = np.unique(found.rows[same | other])
  parts = evidence.show(data, rows, "Pictures with objects that have two boxes")
  return [Finding("duplicate_boxes", verdict, line, figures, parts)]


def _repeated(found) -> tuple[np.ndarray, np.ndarray]:
  """Which boxes coincide with an earlier one of their class, or of another."""
  n = len(found.boxes)
  same, other = np.zeros(n, bool), np.zeros(n, bool)
  if not n:
    return same, other
  starts = np.flatnonzero(np.diff(found.rows, prepend=-1))
  for own in np.split(np.arange(n), starts[1:]):
    own = own[np.argsort(found.boxes[own, 0], kind="stable")]
    for start in range(0, len(own), _BLOCK):
      block = own[start : start + _BLOCK]
      overlaps = np.triu(_iou(found.boxes[block]), 1) >= _SAME
      alike = found.classes[block][:, None] == found.classes[block]
      same[block] |= (overlaps & alike).any(0)
      other[block] |= (overlaps & ~alike).any(0)
  return same, other & ~same


def _iou(boxes: np.ndarray) -> np.ndarray:
  """The IoU of each pair of boxes [m, 4], float64 [m, m]; 0 of empty ones."""
  low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
  high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
  inner = np.clip(high - low, 0, None).prod(-1)
  area = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(-1)
  whole = area[:, None] + area - inner
  with np.errstate(divide="ignore", invalid="ignore"):
    return np.where(whole > 0, inner / whole, 0.0)
