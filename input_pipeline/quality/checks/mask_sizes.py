"""Masks that have another size than their pictures."""

import numpy as np

from input_pipeline.quality import evidence
from input_pipeline.quality.dataset import Dataset
from input_pipeline.quality.finding import Finding, Settings, count
from input_pipeline.reading.masks import DISAGREE
from input_pipeline.reporting import page

ORDER = 115


def mask_sizes(data: Dataset, settings: Settings) -> list[Finding]:
  """Fails for masks whose size is not that of their picture.

  Some sources refuse such records when they are read; these count as well.
  Without masks there is no finding.
  """
  del settings
  found = data.objects
  refused = [(n, why) for n, why in data.bad if DISAGREE in why]
  masked = found is not None and set(found.fields) - {"boxes"}
  if not (masked or refused):
    return []
  rows = np.flatnonzero(found.masks.any(1)) if found is not None else ()
  n = len(rows) + len(refused)
  line = "masks have the sizes of their pictures"
  if n:
    said = (
      "mask has another size than its picture",
      "masks have other sizes than their pictures",
    )
    line = count(n, *said)
  lines = [why if name in why else f"{name}: {why}" for name, why in refused]
  for row in rows:
    (w, h), (x, y) = found.masks[row], found.sizes[row]
    lines.append(f"{data.name(row)}: mask {w} x {h}, picture {x} x {y} pixels")
  parts = [page.Examples("Masks and pictures", lines[:100])] if n else []
  parts += evidence.show(data, rows, "Pictures with masks of another size")
  verdict = "fail" if n else "ok"
  return [Finding("mask_sizes", verdict, line, {"masks": n}, parts)]
