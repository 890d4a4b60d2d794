"""Reads the data of a run or evaluator and shards its batches."""

import functools
from typing import Any

from common import names
from common.errors import UserError
from input_pipeline.batching import device, pipeline
from input_pipeline.tokenizers.parts import special_tokens
from train import sharding

# Arguments of the pipeline that the run sets, not the config.
_GIVEN = [
  "batch_size",
  "seed",
  "host_index",
  "host_count",
  "workdir",
  "multiple_of",
  "unlabeled",
]


def read(
  function,
  config,
  where,
  settings,
  mesh,
  workdir,
  batch_size=None,
  unlabeled=None,
):
  """Returns the pipeline.Data that `function` makes of a config section.

  Args:
    function: pipeline.train or pipeline.evaluation.
    config: the complete config.
    where: the name of the section, for error messages.
    settings: the section.
    mesh: the mesh over which the batches are divided.
    workdir: the folder for a tokenizer that is learned from the data, or None.
    batch_size: replaces the batch size of the config if it is not None.
    unlabeled: see pipeline.evaluation.

  Raises:
    UserError: a key is unknown or invalid; the message names it.
  """
  names.check_keys(function, where, settings)
  for key in settings:
    if key in _GIVEN:
      raise UserError(f"{where}.{key}: is set by the run; remove it")
  batch_size = batch_size or config["batch_size"]
  parts = sharding.batch_parts(mesh)
  whole = isinstance(batch_size, int) and batch_size > 0
  if batch_size != "all" and not (whole and batch_size % parts == 0):
    shape = ", ".join(f"{k}={v}" for k, v in mesh.shape.items())
    raise UserError(
      f"config.batch_size={batch_size!r} cannot be divided over the"
      f" {parts} parts of the mesh ({shape})"
    )
  held, count = device.shares(sharding.batch_sharding(mesh))
  return names.call(
    function,
    where=where,
    settings=settings,
    offered={
      "batch_size": batch_size,
      "seed": config["seed"],
      "host_index": held,
      "host_count": count,
      "workdir": workdir,
      "multiple_of": parts,
      "unlabeled": unlabeled,
    },
  )


def sizes(data: pipeline.Data) -> dict[str, Any]:
  """Returns the sizes and word counts that models and tasks take from data."""
  found: dict[str, Any] = {}
  if data.tokenizer is not None:
    found["vocab_size"] = data.tokenizer.vocab_size
    found["eos"] = special_tokens.end(data.tokenizer)
    if data.tokenizer.counts is not None:
      found["counts"] = data.tokenizer.counts
  if data.num_classes is not None:
    found["num_classes"] = found["out_features"] = data.num_classes
  row = data.spec.get("inputs", ((), None))[0]
  if data.tokenizer is not None and row and data.num_examples:
    # With the first token of each row, which is no target.
    found["corpus_tokens"] = data.num_examples * (row[0] + 1)
  for key, (shape, _) in data.spec.items():
    # A table may have a column of any name. A column without the usual rank of
    # its name gives no size, and the model reports the missing size.
    if key in ("inputs", "tokens", "chosen_inputs", "targets") and shape:
      found["max_len"] = max(shape[0], found.get("max_len", 0))
    if key == "image" and len(shape) == 3:
      found["image_size"], found["channels"] = shape[0], shape[-1]
    if key == "x":
      found["in_features"] = shape[-1] if shape else 1
    if key == "y":
      found["out_features"] = shape[-1] if shape else 1
  return found


def placed(batches, where: str, mesh):
  """Transfers host batches to the devices ahead of their use."""
  return device.prefetch(
    _laid_out(batches, where, mesh),
    functools.partial(sharding.batch_sharding, mesh),
  )


def _laid_out(batches, where: str, mesh):
  """Yields batches in the mesh's order; errors name the key of the config."""
  try:
    for batch in batches:
      yield sharding.lay_out(batch, mesh)
  except UserError:
    raise
  except ValueError as error:
    raise UserError(f"{where}: {error}") from error
