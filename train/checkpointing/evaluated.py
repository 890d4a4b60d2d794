"""WORKDIR/evaluated.json: the evaluations done at the last evaluated step.

A state is saved before it is evaluated, so a crash during an evaluation does
not lose training. A run that resumes from such a checkpoint reads from this
file which evaluations of that step are done, and runs the others.
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

  step: the step of the evaluated state.
  figures: {key of config.evals: {name: value}} of the evaluations done.
  best_step: the step of the best checkpoint, or None.
  """

  step: int = -1
  figures: dict[str, dict[str, float]] = {}
  best_step: int | None = None


def read(path: str | None) -> Done:
  """Returns what process 0 reads from the file; every process must call it."""
  found = local(path) if path and distributed.first() else Done()
  return Done(*distributed.said_by_first(list(found)))


def local(path: str | os.PathLike) -> Done:
  """Reads the file; returns an empty Done if it is missing or damaged."""
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
  """Returns which evaluations of `step`, at which a run resumes, are done.

  A file of another step, such as a later one after a rollback, is replaced.
  Every process must call it.
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
  """Replaces the file atomically, on process 0."""
  if path is None or not distributed.first():
    return
  content: dict[str, Any] = done._asdict()
  write_atomically(
    str(pathlib.Path(path).absolute()), [json.dumps(content).encode()]
  )
