"""Records of one split that also occur in another."""

from typing import NamedTuple

import numpy as np

from input_pipeline.quality import dataset, evidence, loose, near
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
_NATURAL = ", no more often than within the split"


class _Found(NamedTuple):
  """Records that match records of the other data set.

  exact: [(row, row of the other)].
  loose: {what is ignored: [(row, row of the other)]}.
  natural: the keys of the above that the data's own repeats explain.
  fields: those that were compared.
  """

  exact: list[tuple[int, int]]
  loose: dict[str, list[tuple[int, int]]]
  natural: set[str]
  fields: list[str]


def leakage(data: Dataset, settings: Settings) -> list[Finding]:
  """Fails for inputs that also occur in data.against.

  Records are compared by the fields that both have, and by what their values
  are, whatever types they are stored as. If the split repeats itself as often,
  the data has duplicates that were split at random, and the verdict is a
  warning. Near duplicates warn: records that differ in case, white space or the
  rounding of numbers only; texts whose 5-grams reach the Jaccard similarity of
  the settings; and images and audio that near.near_prints matches.
  """
  other = data.against
  if other is None:
    return []
  n = len(data.inputs)
  mine, theirs = dataset.titles(data)
  found = _found(data, other)
  if not found.fields:
    line = f"{mine!r} and {theirs!r} have no field in common"
    figures = {"exact": 0, "near": 0}
    return [Finding("leakage", "warn", line, figures, [])]
  matched = {row for row, _ in found.exact}
  near_found, compared = _near(data, other, settings)
  near_found = {row: each for row, *each in near_found if row not in matched}
  said = []
  verdict = "ok"
  if found.exact:
    natural = "" in found.natural
    verdict = "warn" if natural else "fail"
    said.append(
      f"{count(len(found.exact), 'record')} ({share(len(found.exact), n)}) of"
      f" {mine!r} also occur in {theirs!r}" + (_NATURAL if natural else "")
    )
  for ignored, pairs in found.loose.items():
    natural = ignored in found.natural
    verdict = worst(verdict, "ok" if natural else "warn")
    said.append(
      f"{count(len(pairs), 'record')} equal one of {theirs!r} but for {ignored}"
      + (_NATURAL if natural else "")
    )
    matched |= {row for row, _ in pairs}
    if not natural:
      near_found |= {row: (match, 1.0) for row, match in pairs}
  others = len(set(near_found) - matched)
  if others:
    verdict = worst(verdict, "warn")
    records = count(others, "record")
    said.append(f"{records} nearly the same as a record of {theirs!r}")
  line = "; ".join(said) or f"none of {n:,} records occurs in {theirs!r}"
  if compared < n:
    line += f" (near duplicates were searched for {compared:,} of them)"
  line += _left_out(data, other)
  near_pairs = [(row, *each) for row, each in sorted(near_found.items())]
  parts = _parts(data, other, found.exact, near_pairs)
  figures = {"exact": len(found.exact), "near": len(near_found)}
  return [Finding("leakage", verdict, line, figures, parts)]


def _found(data: Dataset, other: Dataset) -> _Found:
  """The records that are equal, or equal but for small changes."""
  fields = loose.fields_of(data, other)
  kinds = {each.columns[f].kind for each in (data, other) for f in fields}
  small = not kinds & {"image", "audio"}
  same = (
    fields
    == sorted(set(data.columns) - {data.label})
    == sorted(set(other.columns) - {other.label})
  )
  keys = (data.inputs, other.inputs)
  if fields and (small or not same):
    both = [loose.compared(each, fields) for each in (data, other)]
    keys = tuple(each.exact for each in both)
  match = loose.matches(*keys)
  exact = _pairs(match)
  natural = set()
  if exact and _natural(keys[0], len(exact), len(keys[1])):
    natural.add("")
  found: dict[str, list[tuple[int, int]]] = {}
  if fields and small:
    for ignored, ours, others in loose.near_keys(*both):
      more = np.where(match < 0, loose.matches(ours, others), -1)
      pairs = _pairs(more)
      if not pairs:
        continue
      if _natural(ours, len(pairs), len(others)):
        natural.add(ignored)
      else:
        natural.discard(ignored)
      found.setdefault(ignored, []).extend(pairs)
      match = np.maximum(match, more)
  return _Found(exact, found, natural, fields)


def _pairs(match: np.ndarray) -> list[tuple[int, int]]:
  return [(int(row), int(match[row])) for row in np.flatnonzero(match >= 0)]


def _left_out(data: Dataset, other: Dataset) -> str:
  """Which fields were not compared, as the end of a line."""
  labels = {data.label, other.label}
  alone = sorted((set(data.columns) ^ set(other.columns)) - labels)
  if not alone:
    return ""
  return f" (compared without {', '.join(alone)}, which only one of them has)"


def _natural(keys: np.ndarray, matches: int, others: int) -> bool:
  """Whether the number of matches is explained by repeats within the split.

  A record that is repeated among n records of the split is expected to occur
  among m other records m / n times as often.
  """
  from scipy import stats

  n = len(keys)
  _, times = np.unique(keys, return_counts=True)
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
    names = [(data.name(a), other.name(b)) for a, b in exact[:200]]
    parts.append(page.Table(("record", "equals"), names))
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
