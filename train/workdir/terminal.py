"""The progress bar of a run, and the lines printed above it."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

import rich.console
import rich.progress


class Terminal:
  """A progress bar with losses, speed and remaining time; lines above it."""

  def __init__(self, total_steps: int, quiet: bool = False):
    """Creates a bar of `total_steps` steps; if `quiet`, prints nothing."""
    self.console = rich.console.Console(
      highlight=False, soft_wrap=True, stderr=False, quiet=quiet
    )
    self._live = self.console.is_terminal
    self._last_line = 0.0
    self._bar = rich.progress.Progress(
      rich.progress.BarColumn(bar_width=24),
      rich.progress.TextColumn("{task.completed}/{task.total}"),
      rich.progress.TextColumn("{task.description}"),
      rich.progress.TimeElapsedColumn(),
      rich.progress.TextColumn("left"),
      rich.progress.TimeRemainingColumn(compact=True),
      console=self.console,
      disable=not self._live,
    )
    self._task = self._bar.add_task("compiling", total=total_steps)
    self._total = total_steps
    self._started = None

  def __enter__(self):
    self._bar.start()
    return self

  def __exit__(self, *exception):
    self._bar.stop()

  def say(self, line: str) -> None:
    """Prints a line above the bar."""
    self.console.print(line, markup=False)

  def show(self, step: int, scalars: dict[str, float]) -> None:
    """Shows a Report: updates the bar or prints evaluation results."""
    train = {k[6:]: v for k, v in scalars.items() if k.startswith("train/")}
    if not train:
      figures = "  ".join(f"{k} {v:.4g}" for k, v in scalars.items())
      self.say(f"step {step:>6}  {figures}")
      return
    losses = [f"{k} {v:.4f}" for k, v in train.items() if k.endswith("loss")]
    speed = [
      f"{v:,.0f} {k.removesuffix('_per_second')}/s"
      for k, v in scalars.items()
      if k.endswith("_per_second")
    ]
    shares = [
      f"{k} {100 * scalars[k]:.3g} %"
      for k in ("mfu", "goodput")
      if k in scalars
    ]
    text = "  ".join(losses + speed[-1:] + shares)
    self._bar.update(self._task, completed=step, description=text)
    self._plain(step, text)

  def _plain(self, step: int, text: str) -> None:
    """Prints a line every ten seconds if there is no terminal."""
    now = time.monotonic()
    if self._started is None:
      self._started = (now, step)
    if self._live or now - self._last_line < 10:
      return
    self._last_line = now
    start, first = self._started
    left = ""
    if step > first:
      seconds = (now - start) / (step - first) * (self._total - step)
      left = f"  {minutes_seconds(seconds)} left"
    self.say(f"step {step:>6}/{self._total}  {text}{left}")
    sys.stdout.flush()


@contextlib.contextmanager
def counted(total: int, quiet: bool = False) -> Iterator[Callable[[int], None]]:
  """Yields (count) -> None, which advances a bar on stderr to `total`.

  Nothing is printed if `quiet`, or if stderr is no terminal.
  """
  console = rich.console.Console(stderr=True)
  bar = rich.progress.Progress(
    rich.progress.BarColumn(bar_width=24),
    rich.progress.MofNCompleteColumn(),
    rich.progress.TimeElapsedColumn(),
    rich.progress.TextColumn("left"),
    rich.progress.TimeRemainingColumn(compact=True),
    console=console,
    redirect_stdout=False,
    disable=quiet or not console.is_terminal,
  )
  with bar:
    task = bar.add_task("", total=total)
    yield lambda count: bar.advance(task, count)


def minutes_seconds(seconds: float) -> str:
  """A duration as MINUTES:SECONDS, rounded to whole seconds."""
  minutes, rest = divmod(round(seconds), 60)
  return f"{minutes}:{rest:02d}"
