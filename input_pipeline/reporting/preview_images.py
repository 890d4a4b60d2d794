"""Images before and after their ops, as uint8 for display."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from input_pipeline import ops
from input_pipeline.bad_records import Policy
from input_pipeline.batching import components
from input_pipeline.batching.examples import Examples, of_parts
from input_pipeline.tensorflow_cpu import import_tensorflow

# The op that decodes the bytes of an image.
_DECODE = "decode"


def examples(settings: Mapping[str, Any]) -> Examples:
  """The examples of the section config.data before the ops.

  Raises:
    ValueError: the data cannot be read; one line that names it.
  """
  parts = components.parts(
    settings.get("source"),
    settings.get("mixture"),
    settings.get("split", "train"),
    settings.get("text_key", "text"),
  )
  opened = of_parts(parts, None, None, False, None, None, None, False, Policy())
  return components.joined(opened, [str(part) for part in parts])


def originals(found: Examples, indices: np.ndarray, string: str):
  """The images [h, w, c] of some examples, decoded but without other ops."""
  return decoded(found.read(np.asarray(indices, np.int64)), string)


def decoded(rows: Mapping[str, np.ndarray], string: str):
  """The images [h, w, c] of records that were read, after the op `decode`."""
  leaves = rows["image"]
  if leaves.dtype != object:
    return list(leaves)
  decodes = [c for c in _calls(string) if c.name == _DECODE]
  args = decodes[0].args if decodes else ()
  kwargs = decodes[0].kwargs if decodes else {}
  written = ", ".join(
    [*map(repr, args), *(f"{k}={v!r}" for k, v in kwargs.items())]
  )
  decode = ops.compile(f"{_DECODE}({written})")
  constant = import_tensorflow().constant
  return [
    decode({"image": constant(leaf)}, (0, 0))["image"].numpy()
    for leaf in leaves
  ]


def shown(image: np.ndarray, string: str = "") -> tuple[np.ndarray, bool]:
  """(the image as uint8, whether the ops determine the range of its values).

  Reverts the ops scale and normalize. If the range of the values is not known,
  the image is rescaled to its own range.

  Args:
    image: of any dtype.
    string: the ops that were applied to it.
  """
  if image.dtype == np.uint8:
    return image, True
  image, known = np.asarray(image, np.float64), False
  for call in reversed(_calls(string)):
    if call.name == "scale":
      low, high = _arguments(call, low=-1.0, high=1.0)
      image = (image - low) / (high - low)
    elif call.name == "normalize":
      mean, std = _arguments(call, mean=0.0, std=1.0)
      image = image * np.asarray(std) + np.asarray(mean)
    known |= call.name in ("scale", "normalize", "to_float")
  if not known:
    low, high = image.min(), image.max()
    image = (image - low) / (high - low if high > low else 1.0)
  return np.clip(np.rint(image * 255), 0, 255).astype(np.uint8), known


def label(value: np.ndarray) -> str:
  """A label as a caption: a class, or the largest shares of mixed classes."""
  if value.ndim == 0:
    return f"label {value}"
  order = np.argsort(-value, kind="stable")
  return ", ".join(f"{i}: {value[i]:.2f}" for i in order[:3] if value[i] > 0)


def _calls(string: str) -> list[ops.Call]:
  """The ops on the field "image"."""
  return [
    call
    for call in (ops.calls(string) if string else ())
    if call.kwargs.get("outkey", call.kwargs.get("inkey", "image")) == "image"
  ]


def _arguments(call: ops.Call, **defaults: Any) -> list[Any]:
  given = dict(zip(defaults, call.args, strict=False)) | call.kwargs
  return [given.get(name, default) for name, default in defaults.items()]
