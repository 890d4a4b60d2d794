"""A run killed before every file operation of one save, and during its writes.

The save also removes the oldest checkpoint. The run is killed (SIGKILL) before
each of these operations in turn, and at random moments while the arrays of a
state of 30 MB are written, and then continued by the same command. It reports
for each kill: the step from which the run continues, the incomplete files among
its checkpoints after the kill and after the run, and whether it ends bitwise
equal to the undisturbed run.

  python benchmarks/faults/save_kills.py --moments=20
"""

import argparse
import collections
import os
import pathlib
import random
import re
import shutil
import sys
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import jax  # noqa: E402  (the path above must come first)
import killed_saves  # noqa: E402
import many_processes  # noqa: E402
import numpy as np  # noqa: E402

from common import cli  # noqa: E402
from train import trained  # noqa: E402


class Runs:
  """The undisturbed run and the seed of the others, of one size of state."""

  def __init__(self, root: pathlib.Path, hidden):
    """Trains both."""
    root.mkdir()
    self.root, self.config = root, killed_saves.config_of(8, hidden)
    self.flag = many_processes.flag_of(self.config, root)
    self.seed, self.straight = root / "seed", root / "straight"
    killed_saves.train(
      self.seed, {**self.config, "total_steps": killed_saves.SAVED}
    )
    shutil.copytree(self.seed, self.straight)
    killed_saves.train(self.straight, self.config)
    self.expected = outcome(self.straight)

  def operations(self) -> list[str]:
    """Returns the operations of the save, in an undisturbed run."""
    workdir = shutil.copytree(self.seed, self.root / "whole")
    found = killed_saves.save(workdir, self.flag)
    shutil.rmtree(workdir)
    return found

  def killed(self, **when):
    """Returns (step it continues from, litter, litter at the end, same)."""
    workdir = shutil.copytree(self.seed, self.root / "killed")
    killed_saves.save(workdir, self.flag, **when)
    litter = unfinished(workdir)
    output = killed_saves.train(workdir, self.config)
    same = outcome(workdir) == self.expected and not any(
      "damaged" in line for line in output
    )
    restored = killed_saves.noted(workdir, "resume")[-1]
    rest = set(killed_saves.left(workdir)) - {"6", "8"}
    shutil.rmtree(workdir)
    return restored, litter, len(rest), same


def outcome(workdir):
  """Returns the last state, as bytes, and the rows of metrics."""
  state = trained.load_state(str(workdir))
  leaves = [np.asarray(x).tobytes() for x in jax.tree.leaves(state)]
  return leaves, many_processes.rows(workdir)


def unfinished(workdir) -> int:
  """Counts entries other than complete checkpoints of steps 2, 4 and 6."""
  names = killed_saves.left(workdir)
  whole = [n for n in names if n in ("4", "6") or has_all(workdir, n)]
  return len(names) - len(whole)


def has_all(workdir, name: str) -> bool:
  """Returns whether nothing of a checkpoint has been removed yet."""
  files = ("_CHECKPOINT_METADATA", "data/metadata", "state/manifest.ocdbt")
  folder = workdir / "checkpoints" / name
  return name == "2" and all((folder / file).exists() for file in files)


def main():
  """Prints a row per kill, and a summary."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--moments", type=int, default=20)
  parser.add_argument("--stride", type=int, default=1, help="of operations")
  args = parser.parse_args()
  cli.start_jax()
  totals = collections.Counter()

  def row(name, found):
    restored, litter, rest, same = found
    totals[f"continued from step {restored}"] += 1
    totals["not the same at the end"] += not same
    totals["left something behind"] += bool(rest)
    verdict = "same" if same else "DIFFERS"
    print(f"{name:<66}{restored:>9}{litter:>8}{rest:>7}  {verdict}", flush=True)

  print(f"{'killed before':<66}{'from step':>9}{'litter':>8}{'left':>7}")
  with tempfile.TemporaryDirectory() as temporary:
    small = Runs(pathlib.Path(temporary) / "small", (8, 2000))
    operations = small.operations()
    for at in range(0, len(operations), args.stride):
      name = re.sub(r"[0-9a-f]{32}", "…", operations[at])
      name = name.replace(".orbax-checkpoint-tmp", "~")
      row(name, small.killed(at=at))
    large = Runs(pathlib.Path(temporary) / "large", (1600, 1600))
    for i in range(args.moments):
      delay = random.Random(i).uniform(0.005, 0.3)
      row(f"{1e3 * delay:.0f} ms after its start", large.killed(delay=delay))
  print("; ".join(f"{name}: {n}" for name, n in totals.items()))


if __name__ == "__main__":
  main()
