"""False alarms of judge's drift check: a split against its own random half.

A half does not drift from the other half, nor from the whole, so each alarm is
false. Besides the alarms it counts the pairs in which any feature's p-value,
corrected by Holm's method, is below a level: for the other half, which is
independent, this should be that share of the pairs.

  python benchmarks/data/judge_halves.py --data=csv:adult.data --label=Salary
"""

import argparse

import numpy as np

from input_pipeline.quality import dataset, statistics
from input_pipeline.quality.checks import drift
from input_pipeline.quality.finding import Settings

LEVELS = (0.01, 0.05)


def main() -> None:
  """Prints a line for each of the two kinds of pairs."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--data", required=True)
  parser.add_argument("--split", default="all")
  parser.add_argument("--label", default="")
  parser.add_argument("--seeds", type=int, default=20)
  flags = parser.parse_args()
  data = dataset.open_dataset(flags.data, flags.split, flags.label)
  n = len(data.indices)
  counts = {"other half": [], "whole": []}
  for seed in range(flags.seeds):
    order = np.random.default_rng(seed).permutation(n)
    half, rest = (np.sort(p) for p in np.split(order, [n // 2]))
    half, rest = dataset.take(data, half), dataset.take(data, rest)
    for name, other in (("other half", rest), ("whole", data)):
      found = drift.differences(other, half)
      found += drift.word_differences(other, half)
      alarm = set(drift.verdicts(found, Settings())) != {"ok"}
      least = statistics.holm([each.p for each in found]).min()
      counts[name].append((alarm, *(least < level for level in LEVELS)))
  for name, rows in counts.items():
    alarms, *below = np.sum(rows, 0)
    told = ", ".join(
      f"p < {level:g} in {times}"
      for level, times in zip(LEVELS, below, strict=True)
    )
    print(
      f"half against {name}: {alarms} alarms in {len(rows)} pairs of"
      f" {n:,} records, {len(found)} features; {told}"
    )


if __name__ == "__main__":
  main()
