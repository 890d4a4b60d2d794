"""Equal inputs with different labels."""

from input_pipeline.quality import evidence
from input_pipeline.quality.dataset import Dataset
from input_pipeline.quality.finding import Finding, Settings, count, share

ORDER = 60
NEEDS = "label"

# The share of conflicting records that fails.
_MOST = 0.01


def conflicts(data: Dataset, settings: Settings) -> list[Finding]:
  """Warns for records that differ in the label only; fails above 1 %."""
  del settings
  if not data.label:
    return []
  codes = data.columns[data.label].codes
  groups = [
    group
    for group in evidence.groups(data.inputs)
    if len(set(codes[group].tolist()) - {-1}) > 1
  ]
  n, records = len(codes), sum(map(len, groups))
  line = "no input has two labels"
  if groups:
    line = (
      f"{count(len(groups), 'input')} with several labels,"
      f" {count(records, 'record')} ({share(records, n)})"
    )
  verdict = "fail" if records > _MOST * n else "warn" if groups else "ok"
  notes = [
    ", ".join(f"{data.label}={evidence.label_of(data, r)}" for r in group[:4])
    for group in groups[:24]
  ]
  first = [group[0] for group in groups]
  parts = evidence.show(data, first, "Equal inputs with several labels", notes)
  parts += evidence.members(data, groups)
  figures = {"inputs": len(groups), "records": records}
  return [Finding("conflicts", verdict, line, figures, parts)]
