"""A small student of configs/language/lm_shakespeare.py's model, and alone.

The teacher is the config's model. The student has the same config but for its
size, and is trained twice for the same number of steps on the same batches:
alone, and with `config.task.wrap=[dict(name="distill", …)]`.

  python -m input_pipeline.fetch tinyshakespeare
  python benchmarks/language/distillation.py --out=data/distillation
"""

import argparse
import os
import pathlib
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

from common import cli  # noqa: E402  (the path above must come first)
from configs.language import lm_shakespeare  # noqa: E402
from train import build, loop  # noqa: E402


def run(args, workdir: str, steps: int, **sections) -> list[tuple[int, float]]:
  """Trains until `steps`; returns (step, val/loss) of each evaluation."""
  config = lm_shakespeare.get_config()
  config.total_steps, config.writers = steps, []
  config.optimizer.warmup_steps = steps // 20
  config.data.source = f"text:{args.text}"
  config.evals = dict(val=dict(config.evals.val, every_steps=steps // 4))
  config.early_stopping = {}
  for section, settings in sections.items():
    config[section].update(settings)
  made = build.run(config, workdir, say=lambda line: None)
  return [
    (report.step, report.scalars["val/loss"])
    for report in loop.fit(made)
    if "val/loss" in report.scalars
  ]


def main():
  """Prints the validation losses."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--text", default="data/tinyshakespeare/input.txt")
  parser.add_argument("--out", required=True, help="a new folder for the runs")
  parser.add_argument("--teacher_steps", type=int, default=2000)
  parser.add_argument("--steps", type=int, default=1500)
  parser.add_argument("--layers", type=int, default=2)
  parser.add_argument("--dim", type=int, default=32)
  parser.add_argument("--temperature", type=float, default=2.0)
  parser.add_argument("--alpha", type=float, default=0.5)
  args = parser.parse_args()
  cli.start_jax()
  teacher = f"{args.out}/teacher"
  found = run(args, teacher, args.teacher_steps)
  print(f"teacher: {found}", flush=True)
  model = dict(layers=args.layers, dim=args.dim, heads=2)
  wrap = dict(
    name="distill",
    teacher=teacher,
    temperature=args.temperature,
    alpha=args.alpha,
  )
  for name, task in (("alone", {}), ("distilled", dict(wrap=[wrap]))):
    found = run(args, f"{args.out}/{name}", args.steps, model=model, task=task)
    lines = ", ".join(f"step {step} {loss:.4f}" for step, loss in found)
    print(f"{name}: {lines}", flush=True)


if __name__ == "__main__":
  main()
