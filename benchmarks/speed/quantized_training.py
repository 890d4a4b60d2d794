"""Loss curves of products in 8 bits, compared to bfloat16 and float32.

The experiment of configs/language/lm_shakespeare.py, shortened, with the same
batches and first parameters for all: computed in float32; in bfloat16; and in
bfloat16 with the blocks' matrix products, forward and backward, in int8 or fp8.
Only quality is compared: a CPU has no fast 8-bit products.

  pip install -e ".[quantization]"
  python benchmarks/speed/quantized_training.py --data=DATA/input.txt \
    --figure=quantized_training.png
"""

import argparse
import time

import numpy as np

KINDS = {
  "float32": {"dtype": "float32"},
  "bfloat16": {"dtype": "bfloat16"},
  "int8": {"dtype": "bfloat16", "matmul": "int8"},
  "fp8": {"dtype": "bfloat16", "matmul": "fp8"},
}


def get_config(data: str, steps: int, every: int, kind: str):
  """Returns the experiment, evaluated after each `every` steps."""
  from configs.language import lm_shakespeare

  config = lm_shakespeare.get_config()
  config.total_steps = steps
  config.log_every_steps = 1
  config.data.source = f"text:{data}"
  config.model.update(KINDS[kind])
  config.evals = {
    "val": {"name": "mean", "split": "validation", "every_steps": every}
  }
  return config


def curves(config) -> tuple[np.ndarray, dict[int, float], float]:
  """Returns (training loss by step, {step: validation loss}, minutes)."""
  from train import build, loop

  start = time.monotonic()
  training, validation = [], {}
  for report in loop.fit(build.run(config, None, say=lambda line: None)):
    if "train/loss" in report.scalars:
      training.append(report.scalars["train/loss"])
    if "val/loss" in report.scalars:
      validation[report.step] = report.scalars["val/loss"]
  return np.array(training), validation, (time.monotonic() - start) / 60


def table(results: dict, every: int) -> str:
  """Returns Markdown: mean training losses per interval, then validation."""
  kinds = list(results)
  lines = [
    "| step | loss | " + " | ".join(kinds) + " |",
    "|---|---|" + "---|" * len(kinds),
  ]

  def row(step, what, values):
    cells = " | ".join(f"{value:.4f}" for value in values)
    lines.append(f"| {step} | {what} | {cells} |")

  steps = len(results[kinds[0]][0])
  for step in range(every, steps + 1, every):
    means = [results[kind][0][step - every : step].mean() for kind in kinds]
    row(step, f"train, mean of {every}", means)
    values = [results[kind][1].get(step) for kind in kinds]
    if None not in values:
      row(step, "validation", values)
  minutes = [f"{kind} {results[kind][2]:.1f}" for kind in kinds]
  return "\n".join(lines) + f"\n\nMinutes: {', '.join(minutes)}."


def draw(results: dict, window: int, path: str) -> None:
  """Draws smoothed training losses, and their differences from bfloat16's."""
  import matplotlib

  matplotlib.use("agg")
  from matplotlib import pyplot

  figure, (above, below) = pyplot.subplots(
    2, 1, sharex=True, figsize=(7, 6), layout="constrained"
  )
  weights = np.ones(window) / window
  base = results["bfloat16"][0] if "bfloat16" in results else None
  for kind, (training, _, _) in results.items():
    steps = np.arange(window, len(training) + 1)
    above.plot(steps, np.convolve(training, weights, "valid"), label=kind)
    if base is not None:
      change = np.convolve(training - base, weights, "valid")
      below.plot(steps, change, label=kind)
  above.set_ylabel("training loss, nats a character")
  below.set_ylabel("loss less bfloat16's")
  below.set_xlabel(f"step (mean of the {window} up to it)")
  above.legend()
  figure.savefig(path, dpi=120)


def main():
  """Trains each kind in turn, prints the table and draws the figure."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--data", required=True, help="a text file")
  parser.add_argument("--steps", type=int, default=300)
  parser.add_argument("--every", type=int, default=50, help="steps a row")
  parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
  parser.add_argument("--figure", help="path of a PNG")
  flags = parser.parse_args()
  results = {}
  for kind in flags.kinds:
    config = get_config(flags.data, flags.steps, flags.every, kind)
    results[kind] = curves(config)
  print(table(results, flags.every))
  if flags.figure:
    draw(results, min(20, flags.steps), flags.figure)


if __name__ == "__main__":
  main()
