"""A run killed before every file operation of one save, and amid its writes.

The save also removes the oldest checkpoint. Killed (SIGKILL) before each of its
operations in turn, and at random moments while the arrays of a state of 30 MB
are written, the run goes on by the same command. Told of each: the step that it
goes on from, what lies unfinished among its checkpoints after the kill and
after the run, and whether it ends as the run that nobody disturbed, to the bit.

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
  """The straight run and the seed of the others, of one size of state."""

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
    """Those of the save, of a run that is left to end."""
    workdir = shutil.copytree(self.seed, self.root / "whole")
    found = killed_saves.save(workdir, self.flag)
    shutil.rmtree(workdir)
    return found

  def killed(self, **when):
    """(step that it goes on from, litter, litter at the end, same)."""
    workdir = shutil.copytree(self.seed, self.root / "killed")
    killed_saves.save(workdir, self.flag, **when)
    litter = unfinished(workdir)
    said = killed_saves.train(workdir, self.config)
    same = outcome(workdir) == self.expected and not any(
      "damaged" in line for line in said
    )
    restored = killed_saves.noted(workdir, "resume")[-1]
    rest = set(killed_saves.left(workdir)) - {"6", "8"}
    shutil.rmtree(workdir)
    return restored, litter, len(rest), same


def outcome(workdir):
  """The last state, as bytes, and the rows of metrics."""
  state = trained.load(str(workdir)).state
  leaves = [np.asarray(x).tobytes() for x in jax.tree.leaves(state)]
  return leaves, many_processes.rows(workdir)


def unfinished(workdir) -> int:
  """How many things among the checkpoints are no whole ones of 2, 4 and 6."""
  names = killed_saves.left(workdir)
  whole = [n for n in names if n in ("4", "6") or has_all(workdir, n)]
  return len(names) - len(whole)


def has_all(workdir, name: str) -> bool:
  """Whether nothing of a checkpoint is removed yet."""
  files = ("_CHECKPOINT_METADATA", "data/metadata", "state/manifest.ocdbt")
  folder = workdir / "checkpoints" / name
  return name == "2" and all((folder / file).exists() for file in files)


def main():
  """Prints a row a kill, and a summary."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--moments", type=int, default=20)
  parser.add_argument("--stride", type=int, default=1, help="of operations")
  args = parser.parse_args()
  cli.start_jax()
  totals = collections.Counter()

  def row(name, found):
    restored, litter, rest, same = found
    totals[f"went on from step {restored}"] += 1
    totals["not the same at the end"] += not same
    totals["left something behind"] += bool(rest)
    verdict = "same" if same else "DIFFERS"
    print(f"{name:<66}{restored:>9}{litter:>8}{rest:>7}  {verdict}", flush=True)

  print(f"{'killed before':<66}{'goes on':>9}{'litter':>8}{'left':>7}")
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
      row(f"{1e3 * delay:.0f} ms after its begin", large.killed(delay=delay))
  print("; ".join(f"{name}: {n}" for name, n in totals.items()))


if __name__ == "__main__":
  main()
