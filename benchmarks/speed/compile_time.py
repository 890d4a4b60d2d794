"""How the compile time of a step grows with depth, with scanned layers.

python benchmarks/speed/compile_time.py --layers=12,48
"""

import statistics
import sys
import time

import jax
from absl import app, flags

from configs.language import lm_stdlib
from train import build, loop

_LAYERS = flags.DEFINE_list("layers", ["12", "48"], "Depths, least first.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "Compilations of each depth.", 1)


def seconds(layers: int) -> float:
  """Returns the seconds to trace and compile a decoder's step, uncached."""
  config = lm_stdlib.get_config("smoke")
  config.model.update(layers=layers, dim=128, heads=4, scan=True, remat="full")
  config.data.seq_len = 128
  config.evals = {}
  run = build.run(config, None)
  batch = next(run.batches(0))
  jax.clear_caches()
  start = time.perf_counter()
  loop.jit_step(run).lower(run.abstract_state, batch, run.rng).compile()
  return time.perf_counter() - start


def main(argv) -> None:
  """Prints a row per depth, with the ratio to the first."""
  del argv
  depths = [int(layers) for layers in _LAYERS.value]
  # Alternating, so that other work on the machine affects all equally.
  rounds = [{n: seconds(n) for n in depths} for _ in range(_REPEATS.value + 1)][
    1:
  ]
  medians = {n: statistics.median(r[n] for r in rounds) for n in depths}
  for n, median in medians.items():
    ratio = median / medians[depths[0]]
    print(f"{n:>4} layers  {median:6.2f} s  {ratio:.2f}x")


if __name__ == "__main__":
  sys.exit(app.run(main))
