"""The numbers of records of each class."""

import numpy as np

from input_pipeline.quality.dataset import Dataset
from input_pipeline.quality.finding import Finding, Settings, count, share
from input_pipeline.reporting import page, plots

ORDER = 80
NEEDS = "label"

# The ratio of the most frequent to the rarest class that fails.
_EXTREME = 100.0


def balance(data: Dataset, settings: Settings) -> list[Finding]:
  """Warns if a class is `settings.imbalance` times as frequent as the rarest.

  Fails for a ratio of 100, or if the data names a class that no record has.
  """
  if not data.label:
    return []
  column = data.columns[data.label]
  counts = np.bincount(
    column.codes[column.codes >= 0], minlength=len(column.words)
  )
  classes = sorted(
    zip(column.words, counts.tolist(), strict=True),
    key=lambda item: (-item[1], item[0]),
  )
  named = data.source.class_names or ()
  absent = [name for name in named if name not in column.words]
  if not classes:
    line = f"no record has a value of {data.label!r}"
    return [Finding("balance", "fail", line, {"classes": {}}, [])]
  n = int(counts.sum())
  (common, most), (rare, least) = classes[0], classes[-1]
  ratio = most / max(least, 1)
  shares = np.array([times for _, times in classes if times]) / max(n, 1)
  entropy = float(-(shares * np.log(shares)).sum())
  evenness = entropy / np.log(len(classes)) if len(classes) > 1 else 0.0
  line = (
    f"{count(len(classes), 'class', 'classes')} of {data.label!r}:"
    f" {common!r} {most:,} ({share(most, n)}) to {rare!r} {least:,}"
    f" ({share(least, n)}), {ratio:.3g} to 1"
  )
  if len(classes) == 1:
    line = f"all records have {data.label!r} {common!r}"
  if absent:
    line += f"; without records: {', '.join(map(repr, absent[:5]))}"
  bad = ratio >= _EXTREME or absent
  uneven = ratio >= settings.imbalance or len(classes) == 1
  verdict = "fail" if bad else "warn" if uneven else "ok"
  rows = [(name, times, share(times, n)) for name, times in classes]
  drawn = plots.bars(
    [name for name, _ in classes],
    [times for _, times in classes],
    f"Classes of {data.label}",
    "records",
  )
  figures = {
    "classes": dict(classes),
    "ratio": ratio,
    "evenness": evenness,
    "absent": absent,
  }
  parts = [
    page.Figure(drawn, f"Entropy relative to its maximum: {evenness:.3f}."),
    page.Table(("class", "records", "share"), rows),
  ]
  return [Finding("balance", verdict, line, figures, parts)]
