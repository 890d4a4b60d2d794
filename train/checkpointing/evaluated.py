"""WORKDIR/evaluated.json: the evaluations done at the last evaluated step.

A state is saved before it is evaluated, so that a crash in an evaluation loses
no training. A run that starts again from such a checkpoint finds here which of
the evaluations of that step are done, and makes up for the others.
"""

import json
import os
import pathlib
from typing import Any, NamedTuple

from common import bounded_file
from common.files import write_atomically
from train.checkpointing import tracking
from train.hosts import distributed

_MOST_BYTES = 2**24


class Done(NamedTuple):
  """The evaluations that are done.

  step: of the state that was evaluated.
  figures: {key of config.evals: {name: value}} of each that is done.
  best_step: the step of the best checkpoint, or None.
  """

  step: int = -1
  figures: dict[str, dict[str, float]] = {}
  best_step: int | None = None


def read(path: str | None) -> Done:
  """What was done, the same on every process; all of them must call it."""
  found = local(path) if path and distributed.first() else Done()
  return Done(*distributed.said_by_first(list(found)))


def local(path: str | os.PathLike) -> Done:
  """What the file of a workdir holds; nothing is done where it is damaged."""
  try:
    found = json.loads(bounded_file.read(path, _MOST_BYTES))
    step, figures, best = (found[name] for name in Done._fields)
    right = type(step) is int and isinstance(figures, dict)
    right &= best is None or type(best) is int
    right &= all(isinstance(each, dict) for each in figures.values())
  except (ValueError, LookupError, TypeError, RecursionError):
    right = False
  return Done(step, figures, best) if right else Done()


def resume(path: str | None, step: int, tracked: tracking.Tracked) -> Done:
  """What is done of the evaluations of `step`, from which a run goes on.

  A file of a later step, from which the run has gone back, is replaced. Every
  process must call it.
  """
  done = read(path)
  if done.step == step:
    return done
  best = tracked.keep_best
  done = Done(step, {}, None if best.value is None else best.step)
  if path and os.path.exists(path):
    write(path, done)
  return done


def write(path: str | None, done: Done) -> None:
  """Replaces the file, on process 0; a kill leaves the old or the new one."""
  if path is None or not distributed.first():
    return
  content: dict[str, Any] = done._asdict()
  write_atomically(
    str(pathlib.Path(path).absolute()), [json.dumps(content).encode()]
  )
