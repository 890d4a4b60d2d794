"""What a run writes: metrics.jsonl, TensorBoard events, curves, a bar."""

import json
import os
import pathlib
import socket
import sys
import time
from collections.abc import Collection

import rich.console
import rich.progress

from common import json_lines


class MetricsWriter:
  """Appends scalars to metrics.jsonl and to TensorBoard events.

  Where examples are logged, it also appends to examples.jsonl, one object an
  update: {"step": the updates before it, "index": the examples it took}.
  """

  def __init__(self, workdir: str, log_examples: bool = False):
    """`workdir` exists; nothing is written before `start`."""
    self._workdir, self._log_examples = workdir, log_examples
    self._file = self._examples = None
    self._path = pathlib.Path(workdir) / "metrics.jsonl"

  def start(self, step: int | None, owed: Collection[str] = ()) -> None:
    """Opens the files, without what was written after `step` (None: empty).

    owed: keys of evaluators whose figures of `step` are dropped as well, since
      they are measured again.
    """
    if self._file is not None:
      self.close()
    last = -1 if step is None else step
    self._file = _shortened(self._path, last, owed=owed)
    examples = self._path.with_name("examples.jsonl")
    # A row tells of the update after its step.
    self._examples = _shortened(examples, last - 1, create=self._log_examples)
    self._events = _Events(self._workdir, first_step=(step or 0) + 1)

  def write(self, step: int, scalars: dict[str, float]) -> None:
    """One JSON object, on disk when this returns."""
    self._file.write(json.dumps({"step": step, **scalars}) + "\n")
    self._file.flush()
    os.fsync(self._file.fileno())
    self._events.write(step, scalars)

  def write_examples(self, step: int, ids) -> None:
    """The ids of the examples that the update after `step` takes."""
    row = {"step": step, "index": ids.tolist()}
    self._examples.write(json.dumps(row) + "\n")
    self._examples.flush()

  def close(self) -> None:
    """Closes what `start` opened, if it has."""
    if self._file is None:
      return
    self._file.close()
    self._events.close()
    if self._examples is not None:
      self._examples.close()
    self._file = None


def _shortened(
  path: pathlib.Path,
  last: int,
  create: bool = True,
  owed: Collection[str] = (),
):
  """A file of rows opened at its end, without those of steps after `last`.

  Nor do damaged rows stay.

  It is replaced in one move, so a kill leaves the old or the new one. None
  where there is none and none is to be made.
  """
  if not create and not path.exists():
    return None
  temporary = path.with_suffix(".tmp")
  temporary.unlink(missing_ok=True)
  with open(temporary, "xb") as kept:  # through no link, then
    for line, row in json_lines.read(path):
      if not row or not json_lines.count(row.get("step")) or row["step"] > last:
        continue
      # The row of an evaluator has no other keys; one of training has.
      keys = {key.split("/")[0] for key in row if key != "step"}
      if row["step"] < last or not keys <= set(owed):
        kept.write(line + b"\n")
  os.replace(temporary, path)
  return path.open("a")


def read_metrics(workdir: str) -> list[dict]:
  """The rows of metrics.jsonl, in order, without what is damaged.

  Raises:
    UserError: it is no file.
  """
  path = pathlib.Path(workdir) / "metrics.jsonl"
  return [
    {key: value for key, value in row.items() if json_lines.number(value)}
    for _, row in json_lines.read(path)
    if row and json_lines.count(row.get("step"))
  ]


class _Events:
  """TensorBoard's event file, written without TensorFlow."""

  def __init__(self, workdir: str, first_step: int):
    """TensorBoard forgets what other files have from `first_step` on."""
    # The package's own writer would import TensorFlow where it is installed.
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter

    self._event, self._summary = event_pb2, summary_pb2
    name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}"
    self._file = (pathlib.Path(workdir) / name).open("wb")
    self._records = RecordWriter(self._file)
    self._write(file_version="brain.Event:2")
    log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    self._write(step=first_step, session_log=log)

  def write(self, step: int, scalars: dict[str, float]):
    values = [
      self._summary.Summary.Value(tag=tag, simple_value=value)
      for tag, value in scalars.items()
    ]
    self._write(step=step, summary=self._summary.Summary(value=values))

  def close(self):
    self._file.close()

  def _write(self, **fields):
    event = self._event.Event(wall_time=time.time(), **fields)
    self._records.write(event.SerializeToString())
    self._file.flush()


class Terminal:
  """One progress bar with loss, speed and time left; lines above it."""

  def __init__(self, total_steps: int, quiet: bool = False):
    """`total_steps`: where the bar ends; `quiet`: shows nothing."""
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
    """A line above the bar."""
    self.console.print(line, markup=False)

  def show(self, step: int, scalars: dict[str, float]) -> None:
    """A Report: the bar moves, an evaluation gets its line."""
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
    """Where there is no terminal, a line every ten seconds."""
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
      left = f"  {seconds // 60:.0f}:{seconds % 60:02.0f} left"
    self.say(f"step {step:>6}/{self._total}  {text}{left}")
    sys.stdout.flush()


def draw_curves(workdir: str) -> str | None:
  """Draws every loss over steps into WORKDIR/curves.png; returns its path."""
  import matplotlib

  matplotlib.use("Agg")
  import matplotlib.pyplot as plt

  series: dict[str, list[tuple[int, float]]] = {}
  for row in read_metrics(workdir):
    for key, value in row.items():
      if key.endswith(("loss", "accuracy", "frechet_distance")):
        series.setdefault(key, []).append((row["step"], value))
  if not series:
    return None
  panels: dict[str, list[str]] = {}
  for key in series:
    last = key.rsplit("/", 1)[-1]
    panels.setdefault("loss" if last.endswith("loss") else last, []).append(key)
  figure, axes = plt.subplots(
    1, len(panels), figsize=(6 * len(panels), 4), squeeze=False
  )
  for ax, (title, keys) in zip(axes[0], panels.items(), strict=True):
    for key in keys:
      steps, values = zip(*series[key], strict=True)
      marker = "" if key.startswith("train/") else "o"
      ax.plot(steps, values, label=key, marker=marker, linewidth=1)
    ax.set(xlabel="step", title=title)
    ax.grid(alpha=0.3)
    ax.legend()
  path = str(pathlib.Path(workdir) / "curves.png")
  figure.tight_layout()
  figure.savefig(path, dpi=120)
  plt.close(figure)
  return path
