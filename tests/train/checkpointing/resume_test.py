"""kill -9 at any moment, then the same command: nothing differs by one bit."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import forkserver
import jax
import numpy as np
import pytest
from tiers import slow_but

from train import assembly, build, loop, trained
from train.measuring import timing

pytestmark = pytest.mark.optimized

ROOT = pathlib.Path(__file__).parents[3]
RUNS = {
  "lm_stdlib": [
    "--config.model.dropout=0.1",
    "--config.model.dim=32",
    "--config.model.layers=2",
  ],
  "lm_stdlib mixed and packed": [
    "--config.data.source=",
    "--config.data.mixture=["
    "{'source': 'fake:text?documents=90&length=21', 'weight': 3.0},"
    " {'source': 'fake:text?documents=9&length=99&seed=1', 'weight': 0.7}]",
    "--config.data.packing=True",
    "--config.model.dropout=0.1",
  ],
  "conv_fashion_mnist": ["--config.task.mixup=0.2"],
  "gan_fashion_mnist": [],
  "digits_fsdd": [],
  "boxes_bccd": [],
  "fcn_camvid": [],
}
STEPS = 60


def command(name: str, workdir: str) -> list[str]:
  return [
    sys.executable,
    "-m",
    "train.main",
    f"--config={name.split()[0]}:smoke",
    f"--workdir={workdir}",
    f"--config.total_steps={STEPS}",
    "--config.checkpoint.every_steps=7",
    "--config.log_every_steps=2",
    *RUNS[name],
  ]


# Of this one, every start is cold, as a user's is.
COLD = "conv_fashion_mnist"


def start(name: str, workdir: str) -> subprocess.Popen:
  env = {**os.environ, "XLA_FLAGS": ""}
  popen = subprocess.Popen if name == COLD else forkserver.Popen
  return popen(
    command(name, workdir),
    cwd=ROOT,
    env=env,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def finish(name: str, workdir: str) -> None:
  process = start(name, workdir)
  said, _ = process.communicate(timeout=300)
  assert process.returncode == 0, said


def kill_after(name: str, workdir: pathlib.Path, rows: int) -> None:
  """SIGKILL once metrics.jsonl has `rows` more rows than are kept."""
  process = start(name, str(workdir))
  path = workdir / "metrics.jsonl"
  deadline = time.monotonic() + 300
  while time.monotonic() < deadline:
    if path.exists() and len(path.read_bytes().splitlines()) >= rows:
      break
    assert process.poll() is None, process.stdout.read()
    time.sleep(0.005)
  # A moment later, whatever the run does by then.
  time.sleep(random.Random(rows).uniform(0, 0.05))
  process.send_signal(signal.SIGKILL)
  process.communicate()


def rows(workdir: pathlib.Path) -> list[dict]:
  """metrics.jsonl without what depends on the clock."""
  return [
    {k: v for k, v in json.loads(line).items() if k not in timing.CLOCK_KEYS}
    for line in (workdir / "metrics.jsonl").read_text().splitlines()
  ]


@pytest.mark.parametrize("name", slow_but(["lm_stdlib"], sorted(RUNS)))
def test_killed_and_resumed_is_the_straight_run(name, tmp_path):
  straight, killed = tmp_path / "straight", tmp_path / "killed"
  finish(name, str(straight))
  kill_after(name, killed, rows=9)
  kill_after(name, killed, rows=25)
  finish(name, str(killed))

  assert rows(killed) == rows(straight)
  assert rows(straight)[-1]["step"] == STEPS
  a, b = (trained.load_state(str(path)) for path in (straight, killed))
  leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  for x, y in leaves:
    assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def test_batches_from_the_middle_are_those_of_the_whole():
  """The examples seen: the ids of each step do not depend on the start."""
  from configs.vision.classification import conv_fashion_mnist

  data = assembly.experiment(conv_fashion_mnist.get_config("smoke")).data
  whole = data.batches(0)
  ids = [next(whole)["index"].tolist() for _ in range(12)]
  middle = data.batches(7)
  assert [next(middle)["index"].tolist() for _ in range(5)] == ids[7:]
  epoch = [i for batch in ids for i in batch][: data.num_examples]
  assert sorted(epoch) == sorted(set(epoch))


def test_a_reader_leaves_a_save_in_flight_alone(tmp_path):
  """Only the run that writes may sweep what looks unfinished."""
  from configs.textbook import linear_regression

  config = linear_regression.get_config("smoke")
  list(loop.fit(build.run(config, str(tmp_path))))
  in_flight = tmp_path / "checkpoints" / "9.orbax-checkpoint-tmp"
  in_flight.mkdir()
  trained.load(str(tmp_path))
  assert in_flight.exists()
  list(loop.fit(build.run(config, str(tmp_path))))
  assert not in_flight.exists()
