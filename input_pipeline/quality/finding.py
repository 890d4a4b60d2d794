"""What a check of `judge` found out, and what checks are told."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from input_pipeline.reporting import page

VERDICTS = ("ok", "warn", "fail")


class Finding(NamedTuple):
  """The verdict of one check.

  check: its name, as in --checks.
  verdict: "ok"; "warn", a person should look; or "fail", the data is wrong.
  line: what was found, for the terminal.
  figures: the same for a program, as JSON can hold it.
  parts: what the report shows below the line.
  """

  check: str
  verdict: str
  line: str
  figures: Mapping[str, Any]
  parts: list[page.Text | page.Table | page.Figure | page.Examples]


class Settings(NamedTuple):
  """Where the checks draw their lines.

  level: the chance of a false alarm that a check with tests of significance
    may have, over all its features together.
  ranges: {field: (least, most)} of the values that are possible.
  imbalance: from how many times the rarest class on the commonest is told of.
  similarity: from which Jaccard similarity on two texts are nearly the same.
  outlier: from how many robust standard deviations on a value is far out.
  """

  level: float = 0.01
  ranges: Mapping[str, tuple[float, float]] = {}
  imbalance: float = 3.0
  similarity: float = 0.8
  outlier: float = 8.0


def worst(*verdicts: str) -> str:
  """The worst of some verdicts; "ok" where there is none."""
  return max(verdicts, key=VERDICTS.index, default="ok")


def count(number: int, what: str, plural: str = "") -> str:
  """A number and its noun: "1 row", "2,000 rows"."""
  return f"{number:,} {what if number == 1 else plural or what + 's'}"


def share(part: int, whole: int) -> str:
  """A share in per cent: "7.5 %"; of nothing, "0 %"."""
  return f"{100 * part / whole if whole else 0:.3g} %"
