"""Missing values."""

from input_pipeline.quality.dataset import Dataset
from input_pipeline.quality.finding import Finding, Settings, count, share
from input_pipeline.reporting import page, plots

ORDER = 20

# The share of missing values at which a field becomes nearly useless.
_MOST_MISSING = 0.5


def missing(data: Dataset, settings: Settings) -> list[Finding]:
  """Warns for missing values; fails for most of a field or any label."""
  del settings
  n = len(data.indices)
  found = {f: int(c.blank.sum()) for f, c in data.columns.items()}
  found = dict(sorted(found.items(), key=lambda item: -item[1]))
  there = {field: times for field, times in found.items() if times}
  total = sum(there.values())
  markers: dict[str, int] = {}
  for column in data.columns.values():
    for marker, times in column.markers.items():
      markers[marker] = markers.get(marker, 0) + times
  line = "no missing values"
  if total:
    kinds = ", ".join(f"{m} {t:,}" for m, t in sorted(markers.items()))
    worst = ", ".join(f"{f!r} {t:,}" for f, t in list(there.items())[:5])
    line = (
      f"{count(total, 'missing value')} ({kinds}) in"
      f" {count(len(there), 'field')}: {worst}"
    )
  most = max(there.values(), default=0) > _MOST_MISSING * n
  bad = most or bool(data.label and there.get(data.label))
  verdict = "fail" if bad else "warn" if total else "ok"
  figures = {"total": total, "fields": there, "markers": markers}
  parts = []
  if total:
    rows = [
      (field, times, share(times, n), _markers(data, field))
      for field, times in there.items()
    ]
    columns = ("field", "missing", "share", "markers")
    parts = [page.Table(columns, rows)]
    shares = [100 * times / n for times in there.values()]
    drawn = plots.bars(list(there), shares, "Missing values", "% of records")
    parts.append(page.Figure(drawn, "Percentage of records without a value."))
  return [Finding("missing", verdict, line, figures, parts)]


def _markers(data: Dataset, field: str) -> str:
  found = sorted(data.columns[field].markers.items())
  return ", ".join(f"{marker} ({times:,})" for marker, times in found)
