"""The data of a run or an evaluator: from its section to sharded batches."""

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
]


def read(function, config, where, settings, mesh, workdir, batch_size=None):
  """The pipeline.Data that `function` makes of a section of the config.

  Args:
    function: pipeline.train or pipeline.evaluation.
    config: complete.
    where: the section's name, for errors.
    settings: the section.
    mesh: that the batches are divided over.
    workdir: where a tokenizer learned from the data is kept, or None.
    batch_size: in place of the config's.

  Raises:
    UserError: a key is unknown or wrong; one line that names it.
  """
  names.check_keys(function, where, settings)
  for key in settings:
    if key in _GIVEN:
      raise UserError(f"{where}.{key}: is the run's to give, not the data's")
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
    },
  )


def sizes(data: pipeline.Data) -> dict[str, Any]:
  """What the data provides to models and tasks: sizes, and word counts."""
  found: dict[str, Any] = {}
  if data.tokenizer is not None:
    found["vocab_size"] = data.tokenizer.vocab_size
    found["eos"] = special_tokens.end(data.tokenizer)
    if data.tokenizer.counts is not None:
      found["counts"] = data.tokenizer.counts
  if data.num_classes is not None:
    found["num_classes"] = found["out_features"] = data.num_classes
  for key, (shape, _) in data.spec.items():
    if key in ("inputs", "tokens", "chosen_inputs") or (
      key == "targets" and shape
    ):
      found["max_len"] = max(shape[0], found.get("max_len", 0))
    if key == "image":
      found["image_size"], found["channels"] = shape[0], shape[-1]
    if key == "x":
      found["in_features"] = shape[-1]
    if key == "y":
      found["out_features"] = shape[-1]
  return found


def placed(batches, where: str, mesh):
  """Transfers host batches to the devices ahead of their use."""
  return device.prefetch(
    _laid_out(batches, where, mesh),
    functools.partial(sharding.batch_sharding, mesh),
  )


def _laid_out(batches, where: str, mesh):
  """Batches in the mesh's order; errors of the data name the config's key."""
  try:
    for batch in batches:
      yield sharding.lay_out(batch, mesh)
  except UserError:
    raise
  except ValueError as error:
    raise UserError(f"{where}: {error}") from error
