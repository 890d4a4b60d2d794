"""Many tasks over many workers: a whole run as one pipeline of Apache Beam.

What is sent is the plan's path and the number of a task: a worker needs nothing
but the plan's folders. On one machine the workers are processes of Beam's
direct runner; with another runner they are what that runner has, as long as
input and output are where all of them can read and write. One worker on one
machine needs no Beam.
"""

import contextlib
import functools
import logging
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from input_pipeline.preparation import plan as plans
from input_pipeline.preparation.steps import Step, steps
from input_pipeline.reading import files

_POLL = 0.5  # seconds between two looks at how far the workers are, or
_RESTS = 20  # as many times as long as a look takes: buckets are slow to list
_LOCAL = "DirectRunner"
# Named in full: Beam's direct runner may hand over to one that it downloads.
_LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


class Workers(NamedTuple):
  """Who does the tasks.

  count: processes on this machine; 0 as many as there are cores.
  runner: one of Beam's, or "DirectRunner" for this machine.
  options: more of Beam's flags, as on its command line.
  """

  count: int = 1
  runner: str = _LOCAL
  options: Sequence[str] = ()


class LostWorkersError(RuntimeError):
  """Workers that died, or that Beam has lost: no fault of the data."""


def run(plan_path: str, workers: Workers) -> None:
  """Does what is not done yet of all steps, in order.

  Raises:
    ValueError: the user's to mend; one line.
    LostWorkersError: a worker died.
  """
  local = workers.runner == _LOCAL
  with contextlib.ExitStack() as stack:
    # Opened before Beam's processes write to the same stream.
    stack.enter_context(_progress(steps(plans.load(plan_path))))
    if local and workers.count == 1:
      for number, step in enumerate(steps(_plan(plan_path))):
        for task in _begin(plan_path, number):
          step.work(task)
      return
    log = f"{plan_path.rpartition('/')[0]}/workers.log"
    if local:
      stack.enter_context(_to_file(log))
    try:
      _by_beam(plan_path, workers, local)
    except Exception as error:
      raise _told(plan_path, log, error) from None


def _by_beam(plan_path: str, workers: Workers, local: bool) -> None:
  """Between two steps all that was done is grouped: a barrier."""
  try:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
  except ImportError:
    raise ValueError(
      "several workers need Apache Beam, which is not installed: "
      "pip install -e '.[clean]'"
    ) from None
  given = [f"--runner={workers.runner}", *workers.options]
  if local:
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    given[0] = f"--runner={_LOCAL_RUNNER}"
    given.append(f"--direct_num_workers={workers.count}")
    given.append("--direct_running_mode=multi_processing")
  with beam.Pipeline(options=PipelineOptions(given)) as pipeline:
    done = pipeline | beam.Create([(0, 0)])
    for number in range(len(steps(_plan(plan_path)))):
      begin = functools.partial(_after, plan_path, number)
      work = functools.partial(_work, plan_path, number)
      done = (
        done
        | f"{number} all done" >> beam.GroupByKey()
        | f"{number} begin" >> beam.FlatMap(begin)
        | f"{number} spread" >> beam.Reshuffle()
        | f"{number} work" >> beam.Map(work).with_output_types(tuple[int, int])
      )


@functools.lru_cache(maxsize=2)
def _plan(path: str) -> plans.Plan:
  return plans.load(path)


def _begin(plan_path: str, number: int) -> list[int]:
  """What comes before a step's tasks, and those that are left to do."""
  step = steps(_plan(plan_path))[number]
  step.begin()
  return [task for task in range(step.tasks()) if not step.done(task)]


def _after(plan_path: str, number: int, done: tuple[int, Iterable]) -> list:
  """`_begin`, on a worker; a lone pair keeps the next barrier from being empty.

  Args:
    plan_path: of plans.save.
    number: of the step.
    done: all pairs (0, task) of the step before.
  """
  del done
  with _noted(plan_path):
    return [(0, task) for task in [-1, *_begin(plan_path, number)]]


def _work(plan_path: str, number: int, pair: tuple[int, int]) -> tuple:
  with _noted(plan_path):
    if pair[1] >= 0:
      steps(_plan(plan_path))[number].work(pair[1])
  return pair


@contextlib.contextmanager
def _noted(plan_path: str) -> Iterator[None]:
  """What the user can mend is left as a line, where the first process reads."""
  try:
    yield
  except ValueError as error:
    files.write(_note(plan_path), str(error).encode())
    raise


def _note(plan_path: str) -> str:
  return f"{plan_path.rpartition('/')[0]}/error.txt"


def _told(plan_path: str, log: str, error: Exception) -> Exception:
  """Of a worker's error, the line that it has left, or where to look."""
  if files.exists(_note(plan_path)):
    line = files.read(_note(plan_path)).decode()
    os.remove(_note(plan_path))
    return ValueError(line)
  if isinstance(error, ValueError):
    return error
  first = (str(error).strip().splitlines() or [""])[0]
  kind = type(error).__name__
  return LostWorkersError(
    f"the workers failed ({kind}: {first}), see {log}; the same command goes "
    "on from what is done"
  )


@contextlib.contextmanager
def _to_file(path: str) -> Iterator[None]:
  """What this process and its children say on standard error goes to a file."""
  sys.stderr.flush()
  kept = os.dup(2)
  try:
    with open(path, "ab") as file:
      os.dup2(file.fileno(), 2)
    yield
  finally:
    os.dup2(kept, 2)
    os.close(kept)


@contextlib.contextmanager
def _progress(every: list[Step]) -> Iterator[None]:
  """A bar for the step under way; without a terminal a line when one is done.

  Who does the tasks may be anywhere: the files that they leave tell.
  """
  ended = threading.Event()
  out = os.fdopen(os.dup(2), "w")

  def watch() -> None:
    if out.isatty():
      _bars(every, out, ended)
    else:
      _lines(every, out, ended)

  thread = threading.Thread(target=watch, daemon=True)
  thread.start()
  try:
    yield
  finally:
    ended.set()
    thread.join()
    out.close()


def _left(step: Step, left: set[int] | None) -> tuple[set[int] | None, float]:
  """The tasks that are not done, and how long to wait for the next look.

  None as long as it is not known which tasks there are.
  """
  start = time.monotonic()
  if left is None:
    count = step.tasks()
    left = set(range(count)) if count else None
  left = left and {task for task in left if not step.done(task)}
  return left, max(_POLL, _RESTS * (time.monotonic() - start))


def _lines(every: list[Step], out, ended: threading.Event) -> None:
  for step in every:
    start, left = time.monotonic(), None
    while left != set():
      over = ended.is_set()
      left, rest = _left(step, left)
      if over and left != set():
        return
      if left != set():
        ended.wait(rest)
    seconds = time.monotonic() - start
    print(f"{step.title}: {step.tasks():,} in {seconds:.1f} s", file=out)
    out.flush()


def _bars(every: list[Step], out, ended: threading.Event) -> None:
  from rich.console import Console
  from rich.progress import Progress

  with Progress(console=Console(file=out)) as progress:
    for step in every:
      bar = progress.add_task(step.title, total=None)
      left = None
      while left != set():
        over = ended.is_set()
        left, rest = _left(step, left)
        if left is not None:
          total = step.tasks()
          progress.update(bar, total=total, completed=total - len(left))
        if over and left != set():
          return
        if left != set():
          ended.wait(rest)
