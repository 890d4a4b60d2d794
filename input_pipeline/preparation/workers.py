"""The tasks of a run on many workers, as one Apache Beam pipeline.

Only the plan's path and the numbers of tasks are sent; a worker needs access to
the folders of the plan. On one machine the workers are processes of Beam's
direct runner. Other runners use their own workers, which must all be able to
read the input and write the output. Beam is not used for one worker on one
machine.
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

# Progress is checked every _POLL seconds, or after _RESTS times the duration of
# a check, as listing a bucket is slow.
_POLL = 0.5
_RESTS = 20
_LOCAL = "DirectRunner"
# The full name: "DirectRunner" may delegate to a runner that Beam downloads.
_LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"


class Workers(NamedTuple):
  """The workers that run the tasks.

  count: the number of processes on this machine; 0 starts one for each core.
  runner: a Beam runner, or "DirectRunner" for this machine.
  options: further flags for Beam, as on its command line.
  """

  count: int = 1
  runner: str = _LOCAL
  options: Sequence[str] = ()


class LostWorkersError(RuntimeError):
  """Workers died or were lost by Beam; the data is not the cause."""


def run(plan_path: str, workers: Workers) -> None:
  """Runs the tasks of all steps that are not done yet, in order.

  Raises:
    ValueError: something that the user can fix; one line.
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
      raise _explained(plan_path, log, error) from None


def _by_beam(plan_path: str, workers: Workers, local: bool) -> None:
  """Runs the steps with Beam; grouping the results acts as a barrier."""
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
  """Begins a step, and returns its tasks that are not done."""
  step = steps(_plan(plan_path))[number]
  step.begin()
  return [task for task in range(step.tasks()) if not step.done(task)]


def _after(plan_path: str, number: int, done: tuple[int, Iterable]) -> list:
  """`_begin` on a worker; the extra pair keeps the next group nonempty.

  Args:
    plan_path: the path that plans.save returned.
    number: of the step.
    done: all pairs (0, task) of the previous step.
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
  """Writes an error that the user can fix to a file for the first process."""
  try:
    yield
  except ValueError as error:
    files.write(_note(plan_path), str(error).encode())
    raise


def _note(plan_path: str) -> str:
  return f"{plan_path.rpartition('/')[0]}/error.txt"


def _explained(plan_path: str, log: str, error: Exception) -> Exception:
  """The error that a worker wrote, or one that names the log."""
  if files.exists(_note(plan_path)):
    line = files.read(_note(plan_path)).decode()
    os.remove(_note(plan_path))
    return ValueError(line)
  if isinstance(error, ValueError):
    return error
  first = (str(error).strip().splitlines() or [""])[0]
  kind = type(error).__name__
  return LostWorkersError(
    f"the workers failed ({kind}: {first}); see {log}. The same command "
    "resumes the run"
  )


@contextlib.contextmanager
def _to_file(path: str) -> Iterator[None]:
  """Redirects standard error of this process and its children to a file."""
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
  """Shows a progress bar, or without a terminal a line for each finished step.

  Progress is read from the files that the tasks write, on any machine.
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
  """The tasks that are not done, and the seconds to wait before the next check.

  The tasks are None until they are known.
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
