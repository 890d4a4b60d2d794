"""A run that is killed while it saves: at any file operation, or moment."""

import contextlib
import json
import os
import pathlib
import sys

import forkserver

from common import config_keys
from configs.textbook import linear_regression
from train import build, loop
from train.checkpointing.checkpoint import UNFINISHED

ROOT = pathlib.Path(__file__).parents[2]
SAVED, VICTIM, STEPS, KEEP = 4, 6, 10, 2

# train.main, whose operations on files below FOLDER are counted from the moment
# on that a save makes its directory, START. It is killed before operation AT,
# or DELAY seconds after the first; all are written to LOG.
_MAIN = """
import os, runpy, signal, sys, threading
folder, start = os.environ["FOLDER"], os.environ["START"]
at, delay = int(os.environ["AT"]), float(os.environ["DELAY"])
log, lock, counted = open(os.environ["LOG"], "w"), threading.Lock(), None
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT

def path_of(event, args):
  if event == "open":
    path, _, flags = args
    if not isinstance(path, str) or not flags & WRITES:
      return None
    return path
  at = {"os.mkdir": 2, "os.rename": 2, "os.remove": 1, "os.rmdir": 1}[event]
  path = os.fspath(args[0])
  if args[at] not in (-1, None):  # relative to an open directory
    path = os.path.join(os.readlink(f"/proc/self/fd/{args[at]}"), path)
  return path

def die():
  os.kill(os.getpid(), signal.SIGKILL)

def hook(event, args):
  global counted
  if event not in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"):
    return
  path = path_of(event, args)
  if path is None or not path.startswith(folder):
    return
  with lock:
    name = os.path.relpath(path, folder)
    if event == "os.mkdir" and os.sep not in name and counted is None:
      if name != start:
        return
      counted = 0
      if delay:
        threading.Timer(delay, die).start()
    elif event == "os.mkdir" and os.sep not in name:
      counted = -1  # the next save
    if counted is None or counted < 0:
      return
    if counted == at:
      die()
    counted += 1
    print(event, name, file=log, flush=True)

sys.addaudithook(hook)
runpy.run_module("train.main", run_name="__main__", alter_sys=True)
"""


def config_of(steps: int = STEPS, hidden=(8, 2000)):
  """A run that saves every other step, and keeps few."""
  config = config_keys.plain(linear_regression.get_config("smoke"))
  return {
    **config,
    "total_steps": steps,
    "log_every_steps": 1,
    "evals": {},
    "model": dict(name="mlp", hidden=list(hidden)),
    "optimizer": dict(name="adam", lr=0.01),
    "checkpoint": dict(every_steps=2, keep=KEEP),
  }


def train(workdir, config) -> list[str]:
  """Runs to the end; what was said."""
  said = []
  list(loop.fit(build.run(config, str(workdir), said.append)))
  return said


def save(workdir, flag: str, at: int = -1, delay: float = 0) -> list[str]:
  """Goes on from SAVED, and is killed in the save of VICTIM; what it did.

  Args:
    workdir: of a run until SAVED.
    flag: --config=… of the whole run.
    at: before which operation; -1 is none.
    delay: seconds from the first operation on; 0 is never.
  """
  log = workdir.parent / f"{workdir.name}.log"
  done = forkserver.run(
    [sys.executable, "-c", _MAIN, flag, f"--workdir={workdir}"],
    cwd=ROOT,
    env={
      **os.environ,
      "PYTHONPATH": str(ROOT),
      "FOLDER": str(workdir / "checkpoints"),
      "START": f"{VICTIM}{UNFINISHED}",
      "AT": str(at),
      "DELAY": str(delay),
      "LOG": str(log),
    },
    capture_output=True,
    text=True,
    timeout=300,
  )
  killed = at >= 0 or delay > 0
  assert done.returncode == (-9 if killed else 0), done.stderr
  return log.read_text().splitlines()


def left(workdir) -> list[str]:
  """What lies among the checkpoints."""
  return sorted(os.listdir(workdir / "checkpoints"))


def noted(workdir, event: str) -> list[int | None]:
  """Steps of the "save"s, or "resume"s, of all starts, in order."""
  found = []
  for line in (workdir / "goodput.jsonl").read_text().splitlines():
    with contextlib.suppress(ValueError):  # a kill may cut one short
      row = json.loads(line)
      if row["event"] == event:
        found.append(row["step"])
  return found
