"""A run killed twenty times, compared to an undisturbed run.

A language model on a packed mixture, a classifier with augmentation, a GAN and
an actor-critic in its environments, and two of them on two processes, are
killed (kill -9) at random moments and restarted by the same command until they
are done. They are compared to undisturbed runs, bit for bit: the entire state,
metrics.jsonl except fields of time, and the examples of each update.

  python benchmarks/faults/kill_and_resume.py --kills=20
"""

import argparse
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[2]
MIXTURE = [
  {"source": "fake:text?documents=90&length=21", "weight": 3.0},
  {"source": "fake:text?documents=9&length=99&seed=1", "weight": 0.7},
]
LANGUAGE_MODEL = [
  "--config=configs/language/lm_stdlib.py:smoke",
  "--config.model.dropout=0.1",
  "--config.data.source=",
  f"--config.data.mixture={MIXTURE}",
  "--config.data.packing=True",
]
CARTPOLE = [
  "--config=configs/control/cartpole.py",
  "--config.learner.steps=32",
]
# name -> (processes, flags).
RUNS = {
  "language model, packed mixture": (1, LANGUAGE_MODEL),
  "the same on two processes": (2, LANGUAGE_MODEL),
  "classifier, augmented": (
    1,
    [
      "--config=conv_fashion_mnist:smoke",
      "--config.data.ops=random_crop(8, pad=2)|flip|rotation(10)",
    ],
  ),
  "GAN": (1, ["--config=gan_fashion_mnist:smoke"]),
  "environments": (1, CARTPOLE),
  "environments on two processes": (2, CARTPOLE),
}


def start(processes: int, flags: list[str], workdir: str, steps: int, log):
  """Starts the processes of a run, as a user would."""
  with socket.create_server(("localhost", 0)) as server:
    address = f"localhost:{server.getsockname()[1]}"
  hosts = [f"--coordinator={address}", f"--num_processes={processes}"]
  return [
    subprocess.Popen(
      [
        sys.executable,
        "-m",
        "train.main",
        *flags,
        f"--workdir={workdir}",
        f"--config.total_steps={steps}",
        "--config.checkpoint.every_steps=20",
        "--config.log_every_steps=5",
        "--config.log_examples=True",
        *([*hosts, f"--process_id={i}"] if processes > 1 else []),
      ],
      cwd=ROOT,
      env={**os.environ, "XLA_FLAGS": ""},
      stdout=log,
      stderr=subprocess.STDOUT,
    )
    for i in range(processes)
  ]


def finished(running, kills: int, log) -> int:
  """Waits for the end; returns `kills` if all is well."""
  codes = [process.wait() for process in running]
  if any(codes):
    raise SystemExit(f"{codes}: {pathlib.Path(log.name).read_text()[-2000:]}")
  return kills


def rows(path: pathlib.Path) -> list[dict]:
  """Returns the rows of a file, without fields of time."""
  from train.measuring import timing

  return [
    {k: v for k, v in json.loads(line).items() if k not in timing.CLOCK_KEYS}
    for line in path.read_text().splitlines()
  ]


def last_step(workdir: pathlib.Path) -> int:
  """Returns the last step in metrics.jsonl, or -1."""
  path = workdir / "metrics.jsonl"
  lines = path.read_text().split("\n")[:-1] if path.exists() else []
  return json.loads(lines[-1])["step"] if lines else -1


def killed(processes, flags, workdir, steps, kills, log, rng) -> int:
  """Runs to the end with kills spread over it; returns their number."""
  done = 0
  while True:
    running = start(processes, flags, str(workdir), steps, log)
    if done == kills:
      return finished(running, done, log)
    target = (done + 1) * steps // (kills + 1)
    while last_step(workdir) < target and running[0].poll() is None:
      time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.5))
    if running[0].poll() is not None:
      return finished(running, done, log)
    for process in rng.sample(running, len(running)):
      process.send_signal(signal.SIGKILL)
    for process in running:
      process.wait()
    done += 1


def main():
  """Prints a row per run."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--kills", type=int, default=20)
  parser.add_argument("--steps", type=int, default=1050)
  parser.add_argument("--only", help="part of a run's name")
  parser.add_argument("--seed", type=int, default=0)
  args = parser.parse_args()
  rng = random.Random(args.seed)
  print("| run | kills | state | metrics | examples | minutes |")
  print("|---|---|---|---|---|---|")
  for name, (processes, flags) in RUNS.items():
    if args.only and args.only not in name:
      continue
    with tempfile.TemporaryDirectory() as root:
      root, begun = pathlib.Path(root), time.time()
      with (root / "log").open("a") as log:
        n = killed(
          *(processes, flags, root / "killed"), args.steps, args.kills, log, rng
        )
        straight = str(root / "straight")
        finished(start(processes, flags, straight, args.steps, log), 0, log)
      print(
        f"| {name} | {n} | {compare(root)} | {minutes(begun)} |", flush=True
      )


def minutes(begun: float) -> str:
  """Returns the minutes since `begun`."""
  return f"{(time.time() - begun) / 60:.1f}"


def compare(root: pathlib.Path) -> str:
  """Returns columns: whether state, metrics and examples are bitwise equal."""
  from train import trained
  from train.checkpointing import digests

  both = [root / name for name in ("killed", "straight")]
  pairs = [
    [digests.of(trained.load_state(str(path))) for path in both],
    [rows(path / "metrics.jsonl") for path in both],
    [rows(path / "examples.jsonl") for path in both],
  ]
  return " | ".join("equal" if a == b else "DIFFERS" for a, b in pairs)


if __name__ == "__main__":
  main()
