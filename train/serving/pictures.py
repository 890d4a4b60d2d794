"""Answers pictures with what a run predicts of them, as JSON."""

import asyncio
import base64
import binascii
import concurrent.futures
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from input_pipeline.reading import image_size
from train.prediction import Picture
from train.prediction.parts import drawing, single
from train.serving.api_error import ApiError, wrong
from train.serving.limits import Limits

PATHS = ("/v1/images",)
PAGE = "pictures.html"
# The largest number of alternatives.
_MOST = 100
_FIELDS = ("image", "model", "top", "min_score", "level")


class Ask(NamedTuple):
  """A request: the bytes of a file, and how to predict."""

  image: bytes
  top: int
  options: dict[str, float | None]


class Answer:
  """The answer to one request, which `whole` computes."""

  streamed = False

  def __init__(self, whole: Callable[[], Any]):
    self.whole = whole


class Pictures:
  """Answers requests one after the other, in a thread of its own.

  Args:
    predict: of the run.
    limits: see Limits.
    model: the model's name.
  """

  def __init__(self, predict: single.Single, limits: Limits, model: str):
    self.predict, self.limits, self.model = predict, limits, model
    self.created = int(time.time())
    self._thread = concurrent.futures.ThreadPoolExecutor(1, "pictures")
    self._lock, self._waiting = threading.Lock(), 0

  def models(self) -> list[dict[str, Any]]:
    """A list of one model, in the form of OpenAI's API."""
    return [
      {
        "id": self.model,
        "object": "model",
        "created": self.created,
        "owned_by": "tessera",
      }
    ]

  def answer(self, path: str, body: Any) -> Answer:
    """Reads a request; ApiError if it is invalid."""
    del path  # there is one
    ask = parsed(body, self.model, self.limits)
    return Answer(lambda: self._whole(ask))

  def close(self, grace: float) -> bool:
    """Refuses further pictures; returns whether all were done in time."""
    self._thread.shutdown(wait=False)
    until = time.monotonic() + grace
    while self._waiting and time.monotonic() < until:
      time.sleep(0.01)
    return not self._waiting

  async def _whole(self, ask: Ask) -> dict[str, Any]:
    with self._lock:
      if self._waiting > self.limits.waiting:
        raise ApiError(
          503,
          "too many pictures are waiting",
          code="overloaded",
          headers={"Retry-After": "5"},
        )
      self._waiting += 1
    try:
      future = self._thread.submit(self._computed, ask)
    except RuntimeError:  # it is shut down
      self._done(None)
      raise ApiError(503, "the server is shutting down") from None
    # A request that its client has left is counted until it is done.
    future.add_done_callback(self._done)
    try:
      async with asyncio.timeout(self.limits.seconds_to_answer):
        return await asyncio.wrap_future(future)
    except TimeoutError:
      raise ApiError(503, "the answer took too long", code="timeout") from None

  def _done(self, future) -> None:
    del future
    with self._lock:
      self._waiting -= 1

  def _computed(self, ask: Ask) -> dict[str, Any]:
    predict = self.predict.asked(ask.top, ask.options)
    try:
      record = predict.record("image", ask.image)
    except ValueError as error:
      raise wrong("image", f"image: {_line(error)}") from None
    found = {"model": self.model}
    for key, value in record.items():
      if isinstance(value, Picture):
        if not value.drawn:
          content = base64.b64encode(drawing.png(value.pixels())).decode()
          found[key] = f"data:image/png;base64,{content}"
      elif key != "record":
        found[key] = value
    return found


def parsed(body: Any, model: str, limits: Limits) -> Ask:
  """Reads the body of a request; ApiError if it is invalid.

  Its fields are image, the content of a file in base64 or as a data URL, and
  optionally model, top, min_score and level.
  """
  if not isinstance(body, dict):
    raise ApiError(400, "the body must be a JSON object")
  for key in body:
    if key not in _FIELDS:
      raise wrong(key[:60], f"unknown field {key[:60]!r}", "unknown_parameter")
  wanted = body.get("model")
  if wanted is not None and wanted != model:
    raise ApiError(
      404,
      f"the model {str(wanted)[:60]!r} does not exist; use {model!r}",
      param="model",
      code="model_not_found",
    )
  top = body.get("top")
  top = 1 if top is None else top
  if type(top) is not int or not 1 <= top <= _MOST:
    raise wrong("top", f"top must be an integer from 1 to {_MOST}")
  options = {
    "min_score": _number(body, "min_score", 1.0),
    "level": _number(body, "level", 255.0),
  }
  return Ask(_image(body.get("image"), limits), top, options)


def _number(body: dict, key: str, most: float) -> float | None:
  value = body.get(key)
  if value is None:
    return None
  if type(value) not in (int, float) or not 0 <= value <= most:
    raise wrong(key, f"{key} must be a number from 0 to {most:g}")
  return float(value)


def _image(value: Any, limits: Limits) -> bytes:
  """The bytes of a file, whose header states a size within the limits."""
  if not isinstance(value, str) or not value:
    raise wrong("image", "image must be a file in base64, or a data URL")
  if value.startswith("data:"):
    head, comma, value = value.partition(",")
    if not comma or not head.lower().endswith(";base64"):
      raise wrong("image", "image must be a data URL in base64")
  try:
    data = base64.b64decode(value, validate=True)
  except (binascii.Error, ValueError):
    raise wrong("image", "image is not valid base64") from None
  width, height, frames = image_size.image_size(data)
  if not width or not height:
    raise wrong(
      "image", "image is no JPEG, PNG, GIF, BMP, WebP, TIFF or AVIF file"
    )
  if max(width * height, frames) > limits.pixels:
    raise ApiError(
      413,
      f"image has {width} x {height} pixels; at most {limits.pixels} pixels"
      " are allowed",
      param="image",
      code="image_too_large",
    )
  return data


def _line(error: ValueError) -> str:
  return (str(error).strip().splitlines() or ["it cannot be read"])[0][:200]
