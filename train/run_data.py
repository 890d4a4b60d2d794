"""Reads the data of a run or evaluator and shards its batches."""

import math
import sys
import urllib.parse
from collections.abc import Mapping
from typing import Any

from common import leaf, names
from common.errors import UserError
from input_pipeline.batching import device, examples, no_examples, pipeline
from input_pipeline.tokenizers.parts import special_tokens
from train import sharding, types

_ENVIRONMENT = "environment:"
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
  played = environment({"data": settings}, where)
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
  if played is not None:
    endless = function is pipeline.train
    return played_data(
      played, where, settings, batch_size, held, count, endless
    )
  data = names.call(
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
  sharding.check_lengths(data.lengths, mesh, f"{where}.buckets")
  return described(data, config)


def environment(
  config: Mapping[str, Any], where: str = "config.data"
) -> types.Environment | None:
  """Returns the environment that a config's data.source names, if any.

  A source is written as environment:NAME?KEY=VALUE&…, with the name of a file
  of train/environments and arguments of its function.

  Args:
    config: a config; its `data` is read.
    where: the name of its section of the data, for error messages.

  Raises:
    UserError: there is no such environment, or an argument is invalid.
  """
  source = config["data"].get("source")
  if not isinstance(source, str) or not source.startswith(_ENVIRONMENT):
    return None
  where = f"{where}.source"
  name, _, query = source.removeprefix(_ENVIRONMENT).partition("?")
  given = urllib.parse.parse_qsl(query, keep_blank_values=True)
  settings = {key: _number(value) for key, value in given}
  function = names.find("train.environments", name, where)
  return names.call(function, where=where, settings=settings)


def _number(text: str) -> int | float | str:
  """Returns the number that a text is, if it is one."""
  for kind in (int, float):
    try:
      value = kind(text)
    except ValueError:
      continue
    return value if math.isfinite(value) else text
  return text


def played_data(
  played: types.Environment,
  where: str,
  settings: Mapping[str, Any],
  batch_size: int | str,
  host_index=0,
  host_count: int = 1,
  endless: bool = True,
) -> pipeline.Data:
  """Returns the Data of an environment: batches of rows without examples.

  Args:
    played: the environment, whose sizes models and tasks take.
    where: the name of the section of the config, for error messages.
    settings: the section.
    batch_size: the number of environments.
    host_index: see pipeline.train.
    host_count: see pipeline.train.
    endless: whether the batches are for training; an evaluation has none.

  Raises:
    UserError: the section has a key of data with records, or batch_size is no
      number.
  """
  for key in settings:
    if key != "source":
      raise UserError(
        f"{where}.{key}: an environment has no records; remove the key"
      )
  if not isinstance(batch_size, int):
    raise UserError(
      f"config.batch_size={batch_size!r}: set the number of environments"
    )
  # A Gaussian policy has a mean and a deviation for each number of an action.
  outputs = (
    played.actions if played.bounds is None else 2 * len(played.bounds[0])
  )
  sizes = leaf.sizes({"observation": played.observation})
  sizes["out_features"] = outputs
  rows = host_index, host_count
  return no_examples.data(batch_size, *rows, sizes, endless)


def described(data: pipeline.Data, config) -> pipeline.Data:
  """Returns the data with the axes and units that the config's files name.

  These are those of its kind of rows and of its task.
  """
  rows, words = (config["data"].get(key) for key in ("rows", "tokenizer"))
  spec = leaf.described(data.spec, *examples.leaf_names(rows, words))
  return data._replace(spec=leaf.described(spec, _axes_of_task(config)))


def _axes_of_task(config) -> leaf.Axes:
  """Returns the AXES of the file of a config's task, or {}."""
  name = config["task"].get("name")
  if name is None:
    return {}
  task = names.find("train.tasks", name, "config.task.name")
  return getattr(sys.modules[task.__module__], "AXES", {})


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
  counted = leaf.units(data.spec)
  if data.tokenizer is not None and data.num_examples and counted:
    # With the first token of each row, which is no target.
    each = max(counted.values()) + 1
    found["corpus_tokens"] = data.num_examples * each
  return {**found, **leaf.sizes(data.spec), **data.sizes}


def units_per_step(data: pipeline.Data) -> dict[str, int]:
  """Returns {unit: the number in a batch}, of examples and of named units."""
  counted = {"examples": 1} | leaf.units(data.spec)
  found = {unit: data.batch_size * each for unit, each in counted.items()}
  for unit in leaf.units(data.spec):  # buckets hold fewer of them
    found[unit] = round(found[unit] * data.share)
  return found


def placed(batches, where: str, mesh, spec: leaf.Spec):
  """Transfers host batches to the devices ahead of their use."""
  shardings = {
    name: sharding.batch_sharding(mesh, each) for name, each in spec.items()
  }
  rows = sharding.batch_sharding(mesh)
  return device.prefetch(
    _laid_out(batches, where, mesh, spec),
    lambda name: shardings.get(name, rows),
  )


def _laid_out(batches, where: str, mesh, spec):
  """Yields batches in the mesh's order; errors name the key of the config."""
  try:
    for batch in batches:
      yield sharding.lay_out(batch, mesh, spec)
  except UserError:
    raise
  except ValueError as error:
    raise UserError(f"{where}: {error}") from error
