"""Records that occur more than once."""

from input_pipeline.quality import evidence
from input_pipeline.quality.dataset import Dataset
from input_pipeline.quality.finding import Finding, Settings, count, share

ORDER = 50

# The share of repeated records above which the check fails.
_MOST = 0.1


def duplicates(data: Dataset, settings: Settings) -> list[Finding]:
  """Warns for records that equal an earlier one; fails for a tenth of all."""
  del settings
  n = len(data.records)
  groups = evidence.groups(data.records)
  repeats = sum(len(group) - 1 for group in groups)
  line = "no record occurs twice"
  if repeats:
    line = (
      f"{count(repeats, 'record')} of {n:,} ({share(repeats, n)})"
      f" {'equals an earlier one' if repeats == 1 else 'equal earlier ones'},"
      f" in {count(len(groups), 'group')}"
    )
  verdict = "fail" if repeats > _MOST * n else "warn" if repeats else "ok"
  figures = {
    "repeats": repeats,
    "groups": len(groups),
    "largest_group": max(map(len, groups), default=0),
  }
  shown = [group[0] for group in groups]
  notes = [f"{len(group)} times" for group in groups[:24]]
  parts = evidence.show(data, shown, "The largest groups", notes)
  parts += evidence.members(data, groups)
  return [Finding("duplicates", verdict, line, figures, parts)]
