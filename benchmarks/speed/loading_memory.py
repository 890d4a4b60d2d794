"""The peak memory of loading a run for serving, compared to its weights.

A decoder with AdamW's moments is saved, and loaded in a process of its own, as
`train.serve` and `train.generate` do. The baseline is the peak of the same
process for a model of a few thousand parameters: the interpreter, JAX, Orbax
and the programs. Linux only: the peak is read as VmHWM.

  python benchmarks/speed/loading_memory.py --directory=LOCAL_DISK
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from common import cli  # noqa: E402  (the path above must come first)

# name -> (layers, dim); 12 dim^2 parameters a layer and 512 dim of embeddings.
SIZES = {"tiny": (2, 16), "100M": (14, 768)}


def save(workdir: str, size: str, ema: float) -> None:
  """Trains a run of 0 steps, which saves its initial state."""
  from configs.language import lm_stdlib
  from train import build, loop

  config = lm_stdlib.get_config("smoke")
  layers, dim = SIZES[size]
  config.model.update(layers=layers, dim=dim, heads=dim // 16, scan=True)
  config.learner.ema = ema
  config.total_steps, config.evals, config.writers = 0, {}, []
  list(loop.fit(build.run(config, workdir, say=lambda line: None)))


def load(workdir: str, serve: bool) -> None:
  """Loads a run and prints the bytes of its weights and the peak so far."""
  import jax

  from train import trained
  from train.generation import replies, slot_programs, slots

  found = trained.load(workdir)
  weights = sum(x.nbytes for x in jax.tree.leaves(found.variables))
  jax.block_until_ready(found.variables)
  if serve:
    speaker = replies.speaker(found)
    del found
    slots.Slots(slot_programs.programs(speaker.inference, 1, 16))
  print(weights, peak())


def peak() -> int:
  """Returns the peak resident memory of this process, in bytes.

  Unlike getrusage, VmHWM excludes the process that started this one.
  """
  (line,) = [
    line
    for line in pathlib.Path("/proc/self/status").read_text().splitlines()
    if line.startswith("VmHWM")
  ]
  return 1024 * int(line.split()[1])


def measured(workdir: str, what: str) -> tuple[int, int]:
  """Returns (bytes of the weights, peak) of a process of its own."""
  command = [sys.executable, __file__, f"--{what}={workdir}"]
  found = subprocess.run(command, check=True, capture_output=True, text=True)
  weights, used = found.stdout.split()[-2:]
  return int(weights), int(used)


def main():
  """Prints the figures."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--directory", help="on a local disk")
  parser.add_argument("--ema", type=float, default=0.0, help="of the learner")
  parser.add_argument("--load", help=argparse.SUPPRESS)
  parser.add_argument("--serve", help=argparse.SUPPRESS)
  args = parser.parse_args()
  cli.start_jax()
  if args.load or args.serve:
    load(args.load or args.serve, bool(args.serve))
    return
  with tempfile.TemporaryDirectory(dir=args.directory) as root:
    for size in SIZES:
      save(f"{root}/{size}", size, args.ema)
    for what in ("load", "serve"):
      _, base = measured(f"{root}/tiny", what)
      weights, used = measured(f"{root}/100M", what)
      print(
        f"{what}: weights {weights / 1e6:.0f} MB, peak {used / 1e6:.0f} MB,"
        f" of a tiny model {base / 1e6:.0f} MB: {(used - base) / weights:.2f}x"
        " the weights",
        flush=True,
      )


if __name__ == "__main__":
  main()
