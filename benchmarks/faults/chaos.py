"""A run under random faults: which ones it survives, and at what cost.

A small language model on a packed mixture, some of whose records are broken, is
trained in a process of its own. At random intervals one of these faults is
injected:

  kill            SIGKILL at any moment
  kill in a save  SIGKILL while a checkpoint is being written
  SIGTERM         it saves and exits with code 85
  flip            SIGKILL; a bit is flipped in the last checkpoint
  truncate        SIGKILL; a file of the last checkpoint is truncated
  delete          SIGKILL; a file of the last checkpoint is deleted
  torn rows       SIGKILL; half rows in its ledgers, and half a checkpoint
  stop            SIGSTOP, and SIGCONT some seconds later
  second run      the same command again, while it runs: must be refused
  no checkpoints  for some seconds checkpoints cannot be written

If the run ended, it is restarted by the same command. At the end its weights
and metrics are compared, bit for bit, to a run without faults, and its examples
to those of the data's order.

  python benchmarks/faults/chaos.py --workdir=DIR --steps=20000 --every=45
"""

import argparse
import collections
import json
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

KINDS = (
  "kill",
  "kill in a save",
  "SIGTERM",
  "flip",
  "truncate",
  "delete",
  "torn rows",
  "stop",
  "second run",
  "no checkpoints",
)
ROOT = pathlib.Path(__file__).parents[2]


def write_records(path: pathlib.Path) -> None:
  """Writes texts as JSON; one record in two hundred is broken."""
  rng = random.Random(0)
  words = [f"{a}{b}" for a in "bdfgklmnprst" for b in ("a", "e", "io", "u")]
  with path.open("w") as file:
    for i in range(4000):
      text = " ".join(rng.choices(words, k=rng.randrange(5, 60)))
      line = json.dumps({"text": text})
      file.write((line[: len(line) // 2] if i % 200 == 77 else line) + "\n")


def command(args, workdir: pathlib.Path) -> list[str]:
  """Returns the run's command, as a user would type it."""
  records = pathlib.Path(args.workdir).absolute() / "records.jsonl"
  mixture = [
    {"source": "stdlib:", "split": "train[:5%]", "weight": 2},
    {"source": f"jsonl:{records}", "split": "train", "weight": 1},
  ]
  settings = {
    "total_steps": args.steps,
    "log_every_steps": 10,
    "log_examples": True,
    "model.layers": 2,
    "model.dim": 64,
    "model.dropout": 0.1,
    "data.source": "",
    "data.mixture": mixture,
    "data.packing": True,
    "data.seq_len": 64,
    "data.on_bad_record": "skip",
    "data.max_bad_share": 0.05,
    "evals": {},
    "checkpoint.every_steps": args.save_every,
    "checkpoint.keep": 3,
    "checkpoint.on_error": "continue",
  }
  return [
    sys.executable,
    "-m",
    "train.main",
    "--config=configs/language/lm_stdlib.py:smoke",
    f"--workdir={workdir}",
    *(f"--config.{key}={value}" for key, value in settings.items()),
  ]


class Chaos:
  """One run, its process, and the faults injected so far."""

  def __init__(self, args, workdir: pathlib.Path):
    self.command = command(args, workdir)
    self.workdir, self.checkpoints = workdir, workdir / "checkpoints"
    self.rng = random.Random(args.seed)
    self.log = (workdir.parent / "chaos.log").open("a")
    self.injected = collections.Counter()
    self.survived = collections.Counter()
    self.process, self.reached = None, []

  def start(self) -> subprocess.Popen:
    """Starts the command again."""
    return subprocess.Popen(
      self.command, cwd=ROOT, stdout=self.log, stderr=subprocess.STDOUT
    )

  def step(self) -> int:
    """Returns the last step in metrics.jsonl."""
    path = self.workdir / "metrics.jsonl"
    rows = path.read_text().split("\n")[:-1] if path.exists() else []
    return json.loads(rows[-1])["step"] if rows else 0

  def end(self, signum) -> int:
    """Sends a signal that ends the process; returns its exit code."""
    self.process.send_signal(signum)
    return self.process.wait()

  def last_checkpoint(self) -> pathlib.Path | None:
    """Returns the folder of the last complete checkpoint."""
    steps = [
      int(p.name) for p in self.checkpoints.iterdir() if p.name.isdigit()
    ]
    return self.checkpoints / str(max(steps)) if steps else None

  def damage(self, kind: str) -> None:
    """Damages a file of the last checkpoint that a restore reads."""
    files = [
      path
      for path in self.last_checkpoint().rglob("*")
      if path.is_file() and path.stat().st_size > 64
    ]
    path = self.rng.choice(sorted(files))
    data = bytearray(path.read_bytes())
    if kind == "delete":
      path.unlink()
    elif kind == "truncate":
      path.write_bytes(data[: self.rng.randrange(len(data))])
    else:
      data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
      path.write_bytes(data)

  def inject(self, kind: str) -> bool:
    """Injects one fault; returns whether the run reacted as it should."""
    if kind == "SIGTERM":
      return self.end(signal.SIGTERM) == 85
    if kind == "stop":
      self.process.send_signal(signal.SIGSTOP)
      time.sleep(self.rng.uniform(1, 8))
      self.process.send_signal(signal.SIGCONT)
      return True
    if kind == "second run":
      second = subprocess.run(
        self.command, cwd=ROOT, capture_output=True, text=True
      )
      reported = f"process {self.process.pid} " in second.stderr
      return second.returncode == 2 and reported and self.process.poll() is None
    if kind == "no checkpoints":
      away = self.workdir / "away"
      self.checkpoints.rename(away)
      self.checkpoints.write_text("in the way")
      time.sleep(self.rng.uniform(2, 12))
      self.checkpoints.unlink()
      away.rename(self.checkpoints)
      # It continues, unless the failed save was the last one: that is an error.
      return self.process.poll() in (None, 74)
    if kind == "kill in a save":
      deadline = time.monotonic() + 60
      while time.monotonic() < deadline and self.process.poll() is None:
        if any(self.checkpoints.glob("*tmp*")):
          break
        time.sleep(0.0005)
    self.end(signal.SIGKILL)
    if kind in ("flip", "truncate", "delete"):
      self.damage(kind)
    if kind == "torn rows":
      for name in ("metrics", "examples", "goodput"):
        with (self.workdir / f"{name}.jsonl").open("a") as file:
          file.write('{"step": 12')
      half = self.checkpoints / "7.orbax-checkpoint-tmp-1"
      half.mkdir()
      (half / "state").write_text("half")
    return True

  def run(self, every: float) -> None:
    """Trains to the end, with faults at the given mean interval in seconds."""
    self.process, begun = self.start(), self.step()
    while True:
      pause = self.rng.expovariate(1 / every)
      try:
        code = self.process.wait(timeout=pause)
      except subprocess.TimeoutExpired:
        code = None
      if code == 0:
        return
      if code is None and (self.step() <= begun or not self.last_checkpoint()):
        continue  # it has not passed its last start yet
      kind = self.rng.choice(KINDS) if code is None else f"exit code {code}"
      taken = self.inject(kind) if code is None else False
      self.injected[kind] += 1
      self.survived[kind] += taken
      if self.process.poll() is not None:
        begun = self.step()
        self.reached.append(begun)
        self.process = self.start()
      print(
        f"{kind} at step {self.step()}: {'ok' if taken else 'NO'}", flush=True
      )


def rows_of(workdir: pathlib.Path, name: str) -> list[dict]:
  """Returns the rows of a file of a finished run, without fields of time."""
  from train.measuring import timing

  return [
    {k: v for k, v in json.loads(line).items() if k not in timing.CLOCK_KEYS}
    for line in (workdir / name).read_text().splitlines()
  ]


def main():
  """Prints a table of the faults and their cost."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--workdir", required=True)
  parser.add_argument("--steps", type=int, default=20000)
  parser.add_argument("--save_every", type=int, default=250)
  parser.add_argument("--every", type=float, default=45, help="seconds a fault")
  parser.add_argument("--seed", type=int, default=0)
  args = parser.parse_args()
  root = pathlib.Path(args.workdir).absolute()
  shutil.rmtree(root, ignore_errors=True)
  root.mkdir(parents=True)
  write_records(root / "records.jsonl")
  chaos = Chaos(args, root / "chaos")
  start = time.time()
  chaos.run(args.every)
  minutes = (time.time() - start) / 60
  straight = root / "straight"
  subprocess.run(
    command(args, straight), cwd=ROOT, stdout=chaos.log, check=True
  )
  report(args, root, chaos, minutes)


def report(args, root, chaos, minutes) -> None:
  """Prints a comparison of the run to the one without faults."""
  from common import cli
  from train import trained
  from train.checkpointing import digests
  from train.measuring import goodput

  cli.start_jax()
  both = [root / "chaos", root / "straight"]
  states = [digests.of(trained.load_state(str(path))) for path in both]
  metrics = [rows_of(path, "metrics.jsonl") for path in both]
  taken, expected = (
    collections.Counter(
      (row["step"], example)
      for row in rows_of(path, "examples.jsonl")
      for example in row["index"]
    )
    for path in both
  )
  starts = [
    row["step"] or 0
    for row in goodput.read(both[0] / "goodput.jsonl")
    if row["event"] == "resume"
  ]
  # Up to log_every_steps steps after the last written row are not seen.
  again = [
    max(0, a - b) for a, b in zip(chaos.reached, starts[1:], strict=True)
  ]
  print("\n| fault | injected | survived |\n|---|---|---|")
  for kind, n in sorted(chaos.injected.items()):
    print(f"| {kind} | {n} | {chaos.survived[kind]} |")
  print(
    f"\nsteps {args.steps} in {minutes:.1f} min, of which repeated"
    f" {sum(again)}; state bitwise equal: {states[0] == states[1]};"
    f" metrics: {metrics[0] == metrics[1]}\nexamples {expected.total()}, lost"
    f" {(expected - taken).total()}, repeated {(taken - expected).total()}"
  )
  print(*goodput.describe(both[0] / "goodput.jsonl"), sep="\n")


if __name__ == "__main__":
  main()
