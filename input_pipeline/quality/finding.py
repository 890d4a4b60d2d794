"""The results of the checks of `judge`, and their settings."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from input_pipeline.reporting import page

VERDICTS = ("ok", "warn", "fail")


class Finding(NamedTuple):
  """The result of one check.

  check: its name, as in --checks.
  verdict: "ok"; "warn" if a person should look; or "fail" if the data is wrong.
  line: the result in words, for the terminal.
  figures: the result for a program, as JSON can hold it.
  parts: the parts of the report below the line.
  """

  check: str
  verdict: str
  line: str
  figures: Mapping[str, Any]
  parts: list[page.Text | page.Table | page.Figure | page.Examples]


class Settings(NamedTuple):
  """The thresholds of the checks.

  level: the probability of a false alarm of a check with significance tests,
    over all its features together.
  ranges: {field: (min, max)} of valid values.
  imbalance: the ratio of the most frequent to the rarest class that warns.
  similarity: the Jaccard similarity from which two texts are near duplicates.
  outlier: the number of robust standard deviations beyond which a value is an
    outlier.
  """

  level: float = 0.01
  ranges: Mapping[str, tuple[float, float]] = {}
  imbalance: float = 3.0
  similarity: float = 0.8
  outlier: float = 8.0


def worst(*verdicts: str) -> str:
  """The worst of the verdicts, or "ok" if there are none."""
  return max(verdicts, key=VERDICTS.index, default="ok")


def count(number: int, what: str, plural: str = "") -> str:
  """A number and its noun: "1 row", "2,000 rows"."""
  return f"{number:,} {what if number == 1 else plural or what + 's'}"


def share(part: int, whole: int) -> str:
  """A share as a percentage, such as "7.5 %"; "0 %" if `whole` is 0."""
  return f"{100 * part / whole if whole else 0:.3g} %"
