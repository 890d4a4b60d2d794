"""The lengths of T5's span corruption (Raffel et al., 2020, arXiv:1910.10683).

Of n tokens, round(n * density) are noise, in round(noise / mean) spans. A
sentinel replaces each span in the inputs and precedes it in the targets; both
end with an end-of-sequence token if the tokenizer has one.
"""

from typing import NamedTuple


class Spans(NamedTuple):
  """noise: noise tokens; count: spans; inputs, targets: their lengths."""

  noise: int
  count: int
  inputs: int
  targets: int


def spans(n: int, density: float, mean: float, has_eos: bool) -> Spans:
  """The Spans of n >= 2 tokens, at least one of which is noise and one text."""
  noise = min(max(round(n * density), 1), n - 1)
  count = min(max(round(noise / mean), 1), n - noise)
  return Spans(
    noise, count, n - noise + count + has_eos, noise + count + has_eos
  )


def check(density: float, mean: float) -> None:
  """Raises ValueError for a density or mean length without spans."""
  if not 0 < density < 1:
    raise ValueError(f"density={density!r} is not between 0 and 1")
  if not mean >= 1:
    raise ValueError(f"mean_span={mean!r} is less than 1")


def longest(
  inputs: int, density: float = 0.15, mean: float = 3.0, has_eos: bool = True
) -> int:
  """The largest number of tokens whose inputs are not longer than `inputs`.

  Raises:
    ValueError: the inputs of two tokens are longer.
  """
  check(density, mean)
  n = 2
  if spans(n, density, mean, has_eos).inputs > inputs:
    raise ValueError(f"{inputs} inputs are too few for corrupted text")
  while spans(n + 1, density, mean, has_eos).inputs <= inputs:
    n += 1
  return n
