"""Records of one split that also occur in another."""

import numpy as np

from input_pipeline.quality import dataset, evidence, near
from input_pipeline.quality.dataset import Dataset
from input_pipeline.quality.finding import (
  Finding,
  Settings,
  count,
  share,
  worst,
)
from input_pipeline.reporting import page

ORDER = 70
NEEDS = "against"

# The significance level of the test that matches are random repeats.
_LEVEL = 0.001


def leakage(data: Dataset, settings: Settings) -> list[Finding]:
  """Fails for inputs that also occur in data.against.

  If the split repeats itself as often, the data has duplicates that were split
  at random, and the verdict is a warning. Near duplicates warn: texts whose
  5-grams reach the Jaccard similarity of the settings, and images and audio
  that near.near_prints matches.
  """
  other = data.against
  if other is None:
    return []
  _, first = np.unique(other.inputs, return_index=True)
  known = dict(zip(other.inputs[first].tolist(), first.tolist(), strict=True))
  exact = [
    (row, known[key])
    for row, key in enumerate(data.inputs.tolist())
    if key in known
  ]
  matched = {row for row, _ in exact}
  near_found, compared = _near(data, other, settings)
  near_found = [each for each in near_found if each[0] not in matched]
  n = len(data.inputs)
  mine, theirs = dataset.titles(data)
  said = []
  verdict = "ok"
  if exact:
    natural = _natural(data, len(exact), len(other.inputs))
    verdict = "warn" if natural else "fail"
    said.append(
      f"{count(len(exact), 'record')} ({share(len(exact), n)}) of"
      f" {mine!r} also occur in {theirs!r}"
      + (", no more often than within the split" if natural else "")
    )
  if near_found:
    verdict = worst(verdict, "warn")
    records = count(len(near_found), "record")
    said.append(f"{records} nearly the same as a record of {theirs!r}")
  line = "; ".join(said) or f"none of {n:,} records occurs in {theirs!r}"
  if compared < n:
    line += f" (near duplicates were searched for {compared:,} of them)"
  parts = _parts(data, other, exact, near_found)
  figures = {"exact": len(exact), "near": len(near_found)}
  return [Finding("leakage", verdict, line, figures, parts)]


def _natural(data: Dataset, matches: int, others: int) -> bool:
  """Whether the number of matches is explained by repeats within the split.

  A record that is repeated among n records of the split is expected to occur
  among m other records m / n times as often.
  """
  from scipy import stats

  n = len(data.inputs)
  _, times = np.unique(data.inputs, return_counts=True)
  repeated = int(times[times > 1].sum())
  if not repeated:
    return False
  expected = repeated * max(1.0, others / max(n, 1))
  return bool(stats.poisson.sf(matches - 1, expected) > _LEVEL)


def _near(data: Dataset, other: Dataset, settings: Settings):
  """(row, row of the other, similarity) and the number of rows compared."""
  found: dict[int, tuple[int, int, float]] = {}
  compared = len(data.inputs)
  for field, column in data.columns.items():
    if field not in other.columns:
      continue
    if column.kind == "text":
      pairs = near.near_texts(data, other, field, settings.similarity)
    elif column.prints is not None:
      theirs = other.columns[field].prints
      few = max(1, near.MOST_PAIRS // max(1, len(theirs)))
      step = -(-len(column.prints) // few)
      pairs = [
        (row * step, match, alike)
        for row, match, alike in near.near_prints(column.prints[::step], theirs)
      ]
      compared = min(compared, len(column.prints[::step]))
    else:
      continue
    for row, match, alike in pairs:
      if alike > found.get(row, (0, 0, 0.0))[2]:
        found[row] = (row, match, alike)
  return [found[row] for row in sorted(found)], compared


def _parts(data: Dataset, other: Dataset, exact: list, near_found: list):
  mine, theirs = dataset.titles(data)
  parts = []
  if exact:
    notes = [f"equals {other.name(match)}" for _, match in exact[:24]]
    rows = [row for row, _ in exact]
    parts += evidence.show(data, rows, "Records in both", notes)
  if near_found:
    ordered = sorted(near_found, key=lambda each: (-each[2], each[0]))
    notes = [f"{alike:.3f}" for *_, alike in ordered[:24]]
    rows = [row for row, *_ in ordered]
    matches = [match for _, match, _ in ordered]
    parts += evidence.show(data, rows, f"Near duplicates: in {mine!r}", notes)
    parts += evidence.show(
      other, matches, f"Near duplicates: in {theirs!r}", notes
    )
    pairs = [
      (data.name(a), other.name(b), alike) for a, b, alike in ordered[:200]
    ]
    columns = ("record", "nearly the same as", "similarity")
    parts.append(page.Table(columns, pairs))
  return parts
