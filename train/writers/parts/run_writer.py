"""Combines metrics.jsonl and the writers of config.writers."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from common import names
from train.workdir import metrics
from train.writers.parts import writer


class RunWriter(NamedTuple):
  """The interface for the output of the loop and the evaluators.

  start: (step or None, unfinished=()) -> None; see metrics.Files.
  write: (step, {name: float}) -> None
  write_examples: (step, ids) -> None; writes to examples.jsonl only.
  histograms: (step, {name: Histogram}) -> None; to the writers that want
    histograms of this step.
  show: (step, name, kind, value) -> None; kind "image" has a value uint8
    [H, W, 3], kind "text" a string.
  close: () -> None
  """

  start: Callable[..., None]
  write: Callable[[int, dict[str, float]], None]
  write_examples: Callable[[int, Any], None]
  histograms: Callable[[int, dict[str, Any]], None]
  show: Callable[[int, str, str, Any], None]
  close: Callable[[], None]


def _nothing(*_: Any) -> None:
  pass


def named(
  config: Mapping[str, Any], workdir: str
) -> list[tuple[str, writer.Writer]]:
  """Returns [(name, Writer)] of config.writers; opens and writes nothing.

  Raises:
    UserError: a name or a setting is unknown, or a library is not installed.
  """
  found = []
  for i, settings in enumerate(config["writers"]):
    where = f"config.writers[{i}]"
    settings = dict(settings)
    name = settings.pop("name")
    function = names.find("train.writers", name, f"{where}.name")
    made = names.call(function, workdir, config, where=where, settings=settings)
    found.append((name, made))
  return found


def run_writer(
  workdir: str,
  config: Mapping[str, Any],
  say: Callable[[str], None],
  writes: bool = True,
) -> RunWriter:
  """Returns the RunWriter of a config; opens nothing before its `start`.

  An error of metrics.jsonl ends the run, which could not resume exactly without
  that file. An error of another writer is printed in one line.

  Args:
    workdir: the folder of the run.
    config: the complete config.
    say: (line) -> None; prints a line.
    writes: whether this process writes; if False, the config is only checked.

  Raises:
    UserError: config.writers is invalid, or a library is not installed.
  """
  found = named(config, workdir)
  if not writes:
    return RunWriter(*[_nothing] * len(RunWriter._fields))
  files = metrics.files(workdir, config["log_examples"])
  others = [writer.guarded(name, each, say) for name, each in found]

  def start(step, unfinished=()):
    files.start(step, unfinished)
    for each in others:
      each.start(step)

  def write(step, scalars):
    files.write(step, scalars)
    for each in others:
      each.write(step, scalars)

  def histograms(step, found):
    for each in others:
      if each.histograms_every and step % each.histograms_every == 0:
        each.histograms(step, found)

  def show(step, name, kind, value):
    for each in others:
      {"image": each.images, "text": each.text}[kind](step, {name: value})

  def close():
    files.close()
    for each in others:
      each.close()

  return RunWriter(start, write, files.write_examples, histograms, show, close)
