"""Derives the shapes of a run's batches from its config alone.

A plan may be made on a machine without the data: no data file is opened, and
only `fake:` and `environment:` sources are built.
"""

import urllib.parse
from typing import Any

import numpy as np

from common import leaf
from common.errors import UserError
from common.leaf import Leaf
from input_pipeline import ops, rows
from input_pipeline.batching import (
  added_tokens,
  buckets,
  components,
  padding,
  pipeline,
)
from input_pipeline.ops.parts import spans
from input_pipeline.tokenizers.parts import special_tokens
from train import run_data

# Ops whose first argument is the size of the images that they return.
_SIZING = ("resize", "central_crop", "random_crop", "random_resized_crop")
# Ops that turn a label into a distribution over the classes.
_MIXING = ("mixup", "cutmix", "mixup_or_cutmix")


def of_config(config: dict[str, Any], multiple_of: int = 1) -> pipeline.Data:
  """Returns the Data of a complete config, whose iterator of batches is empty.

  Args:
    config: the result of assembly.complete.
    multiple_of: the number of shards of a batch.

  Raises:
    UserError: a size that the model needs does not follow from the config.
  """
  settings, batch_size = config["data"], config["batch_size"]
  played = run_data.environment(config)
  if played is not None:
    return run_data.played_data(played, "config.data", settings, batch_size)
  if like := config["planned"].get("source"):
    # Fake records with the fields of the real ones; the ops give the shapes.
    settings = {**settings, "source": like, "split": "all"}
  if all(uri.startswith("fake:") for uri in _sources(settings)):
    data = _fake(settings, batch_size, multiple_of)
    return _of_longest_bucket(run_data.described(data, config), settings)
  if not isinstance(batch_size, int):
    raise UserError(
      f"config.batch_size={batch_size!r}: planning needs a number here"
    )
  tokens = settings.get("tokenizer") is not None
  rowed = tokens or bool(settings.get("rows"))
  found, classes = _text(config) if rowed else _images(config)
  found = {"mask": ((), np.float32), "index": ((), np.int32)} | found
  spec = {
    k: Leaf(shape, np.dtype(dtype)) for k, (shape, dtype) in found.items()
  }
  data = pipeline.Data(
    spec=spec,
    num_examples=0,
    num_classes=classes,
    tokenizer=None,
    batches=lambda first_step: iter(()),
    batch_size=batch_size,
    sizes=config["planned"].get("sizes") or {},
  )
  return _of_longest_bucket(run_data.described(data, config), settings)


def programs(config: dict[str, Any]) -> int:
  """Returns how many programs a run compiles at most, one for each bucket.

  Raises:
    UserError: config.data.buckets is invalid.
  """
  wanted = _buckets(config["data"])
  return len(wanted) if isinstance(wanted, tuple) else wanted or 1


def _buckets(settings) -> int | tuple[int, ...] | None:
  wanted = settings.get("buckets")
  try:
    return None if wanted is None else buckets.checked(wanted)
  except ValueError as error:
    raise UserError(f"config.data: {error}") from error


def _of_longest_bucket(data: pipeline.Data, settings) -> pipeline.Data:
  """Returns Data whose batches have the longest shape that buckets have.

  Models keep the sizes that the config gives them. If the config gives the
  number of buckets alone, the longest is as long as rows may be.
  """
  wanted = _buckets(settings)
  if not isinstance(wanted, tuple) and not data.lengths:
    return data
  longest = data.lengths[-1] if data.lengths else wanted[-1]
  timed = padding.timed(data.spec)
  spec = {
    name: each._replace(shape=(min(each.shape[0], longest), *each.shape[1:]))
    if name in timed and each.shape
    else each
    for name, each in data.spec.items()
  }
  lengths = data.lengths or tuple(
    sorted({min(n, *(data.spec[k].shape[0] for k in timed)) for n in wanted})
  )
  sizes = {**leaf.sizes(data.spec), **data.sizes}
  return data._replace(spec=spec, sizes=sizes, lengths=lengths, share=1.0)


def vocabulary(config: dict[str, Any]) -> int | None:
  """Returns the vocabulary size that the config implies, or None."""
  spelled = str(config["data"].get("tokenizer"))
  # The tokenizers of known size already include an end-of-text token.
  families = [
    family
    for family in rows.special_tokens(config["data"].get("rows"))
    if family != special_tokens.EOS
  ]
  known = {name for family in families for name in family}
  of_ops = added_tokens.names(config["data"].get("ops", ""), known.__contains__)
  added = len(families) + len(of_ops)
  if spelled == "byte":
    return 256 + added
  name, _, query = spelled.partition("?")
  if name != "sentencepiece":
    return None
  options = dict(urllib.parse.parse_qsl(query))
  return int(options.get("vocab_size", 8000)) + added


def _sources(settings) -> list[str]:
  """Returns the URIs of the run's data."""
  try:
    parts = components.parts(settings.get("source"), settings.get("mixture"))
  except ValueError as error:
    raise UserError(f"config.data: {error}") from error
  return [str(part.source) for part in parts]


def _fake(settings, batch_size, multiple_of) -> pipeline.Data:
  try:
    return pipeline.train(
      **settings, batch_size=batch_size, seed=0, multiple_of=multiple_of
    )
  except (TypeError, ValueError) as error:
    raise UserError(f"config.data: {error}") from error


def _text(config) -> tuple[dict, int | None]:
  length = config["data"].get("seq_len")
  tokens = config["data"].get("tokenizer") is not None
  wrong = f"config.data.seq_len={length!r} is not a positive integer"
  if (tokens or length is not None) and not (
    isinstance(length, int) and length > 0
  ):
    raise UserError(wrong)
  if config["data"].get("rows"):
    spec, classes = _rows(config["data"]["rows"], length)
    if any(None in shape for shape, _ in spec.values()):
      raise UserError(wrong)
  else:
    names = ["inputs", "targets"]
    if config["data"].get("packing"):
      names += ["segments", "positions"]
    classes = None
    spec = {
      **dict.fromkeys(names, ((length,), np.int32)),
      "mask": ((length,), np.float32),
      "bytes": ((), np.float32),
    }
  for call in _calls(config["data"].get("ops", "")):
    if call.name in ("mask_tokens", "span_corruption", "blank_infilling"):
      spec.pop("bytes", None)
    if call.name == "span_corruption":
      spec |= _spans(call, length, config["data"]["tokenizer"])
    if call.name in ("blank_infilling", "trailing_blank"):
      spec |= _blanks(call, length)
  return spec, classes


def _rows(settings, length) -> tuple[dict, int | None]:
  """Returns (leaves, number of classes) of the config's kind of rows."""
  try:
    return rows.planned(settings, length)
  except ValueError as error:
    raise UserError(f"config.data.{error}") from error


def _found_spans(call: ops.Call, length: int, has_eos: bool) -> spans.Spans:
  given = dict(zip(("density", "mean_span"), call.args, strict=False))
  given |= call.kwargs
  density, mean = given.get("density", 0.15), given.get("mean_span", 3.0)
  return spans.spans(length, density, mean, has_eos)


def _blanks(call: ops.Call, length: int) -> dict:
  """Returns the leaves made by input_pipeline's infilling ops."""
  blanks = 1
  if call.name == "blank_infilling":
    blanks = _found_spans(call, length, False).count
  row = (length + 2 * blanks,)
  names = "inputs", "targets", "positions", "block_positions"
  whole = {"mask": (row, np.float32), "prefix": ((), np.int32)}
  return {**dict.fromkeys(names, (row, np.int32)), **whole}


def _spans(call: ops.Call, length: int, tokenizer: str) -> dict:
  """Returns the leaves made by the op span_corruption."""
  # The character tokenizer has no end-of-text token.
  found = _found_spans(call, length, tokenizer != "char")
  return {
    "inputs": ((found.inputs,), np.int32),
    "inputs_mask": ((found.inputs,), np.float32),
    "targets": ((found.targets,), np.int32),
    "mask": ((found.targets,), np.float32),
  }


def _images(config) -> tuple[dict, int | None]:
  settings, model = config["data"], config["model"]
  calls = _calls(settings.get("ops", ""))
  sizes = [_first(each) for each in calls if each.name in _SIZING]
  sizes = [size for size in sizes if size is not None]
  size = sizes[-1] if sizes else model.get("image_size")
  if size is None:
    raise UserError(
      "the size of the images is unknown: planning needs a resize or a crop in"
      " config.data.ops, or config.model.image_size"
    )
  height, width = (size, size) if isinstance(size, int) else size
  decoded = [
    each.args[0] for each in calls if each.name == "decode" and each.args
  ]
  channels = model.get("channels") or (decoded[-1] if decoded else 3)
  classes = model.get("num_classes") or config["planned"].get("num_classes")
  mixed = any(each.name in _MIXING for each in calls)
  if mixed and classes is None:
    raise UserError(
      "config.planned.num_classes is not set: planning needs it, since the ops"
      " turn a label into the share of each class"
    )
  return {
    "image": ((height, width, channels), np.float32),
    "label": ((classes,), np.float32) if mixed else ((), np.int32),
  }, classes


def _calls(string: str) -> list[ops.Call]:
  """Parses the ops of a string, without checking that they exist."""
  try:
    return ops.calls(string) if string else []
  except ValueError as error:
    raise UserError(f"config.data.{error}") from error


def _first(call: ops.Call) -> Any:
  """Returns an op's size argument, positional or by keyword."""
  return call.args[0] if call.args else call.kwargs.get("size")
