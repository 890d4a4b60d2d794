"""The overhead of the loop: `fit` compared to the bare jitted step, on a CPU.

The experiment of configs/language/lm_shakespeare.py runs twice in one process:
in `train.loop.fit`, with its data, metrics, files and clock, and as the same
jitted, donated step, called repeatedly on one batch. They take turns, a block
of steps each, in an alternating order; at the end of a block no work is
pending.

  python benchmarks/speed/loop_overhead.py --data=PATH/input.txt

Prints the milliseconds per step of each, and the overhead of the loop: by the
median of the blocks, and by their tenth percentile, which other work on the
machine disturbs less.
"""

import argparse
import tempfile
import time

import jax
import numpy as np

from common import cli
from configs.language import lm_shakespeare
from train import build, loop


def get_run(data: str, workdir: str, block: int, blocks: int) -> loop.Run:
  """Returns the experiment; it reports after each finished block."""
  config = lm_shakespeare.get_config()
  config.data.source = f"text:{data}"
  config.total_steps = (blocks + 1) * block
  config.log_every_steps = min(10, block)
  config.evals, config.early_stopping, config.checkpoint = {}, {}, {}
  run = build.run(config, workdir, say=lambda line: None)
  # The loop finishes all steps before an evaluation.
  nothing = loop.Evaluation(lambda *_: {}, block)
  return run._replace(evaluations={"block": nothing})


def bare_blocks(run: loop.Run, block: int):
  """Yields after each block of bare steps."""
  state = run.init()
  stream = run.batches(0)
  batch = next(stream)
  stream.close()
  step_fn = loop.jit_step(run)
  while True:
    for _ in range(block):
      state, metrics = step_fn(state, batch, run.rng)
    jax.block_until_ready((state, metrics))
    yield


def loop_blocks(run: loop.Run, block: int):
  """Yields after each block of the loop's steps, with all its logs written."""
  for report in loop.fit(run):
    if report.step % block == 0:
      yield


def seconds(blocks) -> float:
  """Returns the seconds of the next block."""
  start = time.perf_counter()
  next(blocks)
  return time.perf_counter() - start


def main():
  """Prints the two figures and their difference."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--data", required=True, help="a text file")
  parser.add_argument("--block", type=int, default=10, help="steps")
  parser.add_argument("--blocks", type=int, default=150)
  args = parser.parse_args()
  cli.start_jax()
  with tempfile.TemporaryDirectory() as workdir:
    run = get_run(args.data, workdir, args.block, args.blocks)
    sides = {
      "bare step": bare_blocks(run, args.block),
      "the loop": loop_blocks(run, args.block),
    }
    for blocks in sides.values():
      next(blocks)  # compiles
    took = {name: [] for name in sides}
    for i in range(args.blocks):
      for name in sorted(sides, reverse=bool(i % 2)):
        took[name].append(seconds(sides[name]) / args.block)
    for blocks in sides.values():
      blocks.close()
  for percent in (50, 10):
    bare, looped = (
      1000 * np.percentile(took[name], percent)
      for name in ("bare step", "the loop")
    )
    print(
      f"{percent}th percentile: bare step {bare:.2f} ms, the loop"
      f" {looped:.2f} ms, {100 * (looped / bare - 1):+.1f} %"
    )


if __name__ == "__main__":
  main()
