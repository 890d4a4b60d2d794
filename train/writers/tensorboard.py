"""TensorBoard's event files: `tensorboard --logdir=WORKDIR`."""

import io
import pathlib
import socket
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from train.writers.parts import writer


def tensorboard(
  workdir: str, config: Mapping[str, Any], *, histograms_every: int = 0
) -> writer.Writer:
  """Writes scalars, histograms, images and text, without TensorFlow.

  A resumed run begins a new event file, which makes TensorBoard discard later
  steps in older files.

  Args:
    workdir: the folder of the event files.
    config: not used.
    histograms_every: the number of steps between histograms of parameters and
      gradients; 0, the default, writes none.
  """
  del config
  opened: dict[str, Any] = {}

  def add(step, values):
    from tensorboard.compat.proto import summary_pb2

    summary = summary_pb2.Summary(
      value=[summary_pb2.Summary.Value(tag=t, **v) for t, v in values.items()]
    )
    _append(opened["file"], step=step, summary=summary)

  def start(step):
    from tensorboard.compat.proto import event_pb2

    close()
    name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}"
    opened["file"] = (pathlib.Path(workdir) / name).open("wb")
    _append(opened["file"], file_version="brain.Event:2")
    log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    _append(opened["file"], step=(step or 0) + 1, session_log=log)

  def write(step, scalars):
    add(step, {tag: {"simple_value": v} for tag, v in scalars.items()})

  def histograms(step, found):
    add(step, {tag: {"histo": _histogram(h)} for tag, h in found.items()})

  def images(step, found):
    add(step, {tag: {"image": _image(x)} for tag, x in found.items()})

  def text(step, found):
    add(step, {tag: _text(x) for tag, x in found.items()})

  def close():
    if opened:
      opened.pop("file").close()

  return writer.Writer(
    start, write, histograms, images, text, close, histograms_every
  )


def _append(file, **fields) -> None:
  # TensorBoard's own EventFileWriter imports TensorFlow where it is installed.
  from tensorboard.compat.proto import event_pb2
  from tensorboard.summary.writer import record_writer

  event = event_pb2.Event(wall_time=time.time(), **fields)
  record_writer.RecordWriter(file).write(event.SerializeToString())
  file.flush()


def _histogram(found):
  """A HistogramProto; each limit is the upper end of its bucket."""
  from tensorboard.compat.proto import histogram_pb2

  counts = np.asarray(found.counts, np.float64)
  edges = np.linspace(float(found.low), float(found.high), len(counts) + 1)
  return histogram_pb2.HistogramProto(
    min=float(found.low),
    max=float(found.high),
    num=counts.sum(),
    sum=float(found.total),
    sum_squares=float(found.squares),
    bucket_limit=edges[1:],
    bucket=counts,
  )


def _image(image_HWC: np.ndarray):
  import matplotlib.image
  from tensorboard.compat.proto import summary_pb2

  png = io.BytesIO()
  matplotlib.image.imsave(png, image_HWC, format="png")
  height, width, _ = image_HWC.shape
  return summary_pb2.Summary.Image(
    height=height,
    width=width,
    colorspace=4,  # imsave writes RGBA
    encoded_image_string=png.getvalue(),
  )


def _text(text: str) -> dict[str, Any]:
  """Fields of a Summary.Value; TensorBoard renders its text as Markdown."""
  from tensorboard.compat.proto import summary_pb2, tensor_pb2, types_pb2

  # Lines indented by four spaces are displayed verbatim.
  code = "\n".join(f"    {line}" for line in text.splitlines())
  plugin = summary_pb2.SummaryMetadata.PluginData(plugin_name="text")
  return {
    "metadata": summary_pb2.SummaryMetadata(plugin_data=plugin),
    "tensor": tensor_pb2.TensorProto(
      dtype=types_pb2.DT_STRING, string_val=[code.encode()]
    ),
  }
