"""Objects of a few pixels, which no network can see."""

import numpy as np

from input_pipeline.quality import evidence
from input_pipeline.quality.dataset import Dataset
from input_pipeline.quality.finding import Finding, Settings, count, share

ORDER = 113

# The shorter side in pixels below which an object is tiny.
_SIDE = 4.0
# The side, as a share of the picture's, that is this small at 320 pixels.
_SHARE = _SIDE / 320
# The share of tiny objects that warns.
_MOST = 0.01


def tiny_objects(data: Dataset, settings: Settings) -> list[Finding]:
  """Warns if more than 1 % of the boxes have a side of less than 4 pixels.

  The figures also count the boxes that would be that small once their picture
  is resized to a longer side of 320 pixels. Without boxes there is no finding.
  """
  del settings
  found = data.objects
  if found is None or "boxes" not in found.fields:
    return []
  n = len(found.boxes)
  sides = found.boxes[:, 2:] - found.boxes[:, :2]
  shorter = np.nan_to_num(sides).min(1, initial=np.inf)
  real = shorter > 0  # others are reported as boxes without area
  tiny = real & (shorter < _SIDE)
  longest = np.maximum(found.sizes[found.rows].max(1, initial=0), 1)
  small = real & (shorter < _SHARE * longest)
  said = []
  for which, what in (
    (tiny, f"a side of less than {_SIDE:g} pixels"),
    (small, f"one of less than {_SIDE:g} if pictures are resized to 320"),
  ):
    if which.any():
      number = int(which.sum())
      said.append(
        f"{count(number, 'box has', 'boxes have')} {what} ({share(number, n)})"
      )
  line = "; ".join(said) or f"no box has a side of less than {_SIDE:g} pixels"
  verdict = "warn" if tiny.sum() > _MOST * n else "ok"
  figures = {
    "boxes": n,
    "tiny": int(tiny.sum()),
    "tiny_at_320": int(small.sum()),
    "median_side": float(np.median(shorter)) if n else None,
  }
  rows = np.unique(found.rows[tiny])
  parts = evidence.show(data, rows, "Pictures with tiny objects")
  return [Finding("tiny_objects", verdict, line, figures, parts)]
