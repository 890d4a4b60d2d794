"""Names of classes that differ in their spelling only."""

import itertools
import math
import unicodedata

from input_pipeline.quality import values
from input_pipeline.quality.dataset import Dataset
from input_pipeline.quality.finding import Finding, Settings, count
from input_pipeline.reporting import page

ORDER = 114

# From this many letters on, names that differ in one letter are alike.
_LONG = 7
# C and C++ are two classes, but traffic light and traffic_light are one.
_BETWEEN = " \t\u00a0_-./"
# More names are compared by their normal forms only.
_MOST = 2000


def class_names(data: Dataset, settings: Settings) -> list[Finding]:
  """Warns for names of classes that may mean the same class.

  They differ only in case, spaces, hyphens or a plural s, or, if they have at
  least seven letters, in one letter. Data without names of classes has no
  finding.
  """
  del settings
  names = list(data.source.class_names or ())
  if data.label and data.columns[data.label].words:
    names = list(dict.fromkeys([*names, *data.columns[data.label].words]))
  if not names:
    return []
  pairs = alike(names)
  line = f"the {count(len(names), 'name')} of classes are distinct"
  if pairs:
    few = ", ".join(f"{a!r} and {b!r}" for a, b, _ in pairs[:5])
    more = ", …" if len(pairs) > 5 else ""
    pair = count(len(pairs), "pair")
    line = f"{pair} of classes may be one, by their names: {few}{more}"
  verdict = "warn" if pairs else "ok"
  parts = []
  if pairs:
    parts = [page.Table(("name", "name", "they differ in"), pairs)]
  figures = {"pairs": [pair[:2] for pair in pairs]}
  return [Finding("class_names", verdict, line, figures, parts)]


def alike(names: list[str]) -> list[tuple[str, str, str]]:
  """[(name, other name, what they differ in)] of names that may be the same."""
  found = []
  plain = {name: _plain(name) for name in names}
  groups: dict[str, list[str]] = {}
  for name, form in plain.items():
    groups.setdefault(form.removesuffix("s"), []).append(name)
  for group in groups.values():
    for one, other in itertools.combinations(group, 2):
      equal = plain[one] == plain[other]
      what = "case or spaces" if equal else "a plural s"
      found.append((one, other, what))
  known = {pair[:2] for pair in found}
  if len(names) <= _MOST:
    for one, other in itertools.combinations(names, 2):
      if (one, other) not in known and _one_letter(plain[one], plain[other]):
        found.append((one, other, "one letter"))
  return found


def _plain(name: str) -> str:
  """A name without case, spaces and what stands for them in names."""
  folded = unicodedata.normalize("NFKC", name).casefold()
  if not math.isnan(values.number(folded)):
    return folded  # 1 and -1 are two classes
  return "".join(c for c in folded if c not in _BETWEEN) or folded


def _one_letter(one: str, other: str) -> bool:
  """Whether long names differ in one letter that is changed, added or lost."""
  if len(one) > len(other):
    one, other = other, one
  if len(one) < _LONG or len(other) - len(one) > 1:
    return False
  at = next(
    (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
    len(one),
  )
  rest = one[at:] if len(other) > len(one) else one[at + 1 :]
  # class10 and class11 are two classes.
  letters = (one[at : at + 1] + other[at : at + 1]).isalpha()
  return letters and rest == other[at + 1 :]
