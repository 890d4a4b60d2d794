"""A run read back from its workdir, to evaluate, continue or judge with."""

import math
import pathlib
from typing import NamedTuple

import jax
import numpy as np

from input_pipeline import components, pipeline, tokenizer
from train import build, checkpoint, sharding, types, workdirs
from train.errors import UserError


class Trained(NamedTuple):
  """A run, read back from its workdir."""

  parts: build.Experiment
  state: types.State
  variables: types.Variables
  step: int


def load(workdir: str, step: int | None = None, say=print) -> Trained:
  """The run of `workdir` at its last whole checkpoint, or that of `step`.

  Neither its data nor the devices it was made on are needed. `say` is told of
  checkpoints that are damaged.

  Raises:
    UserError: there is no run in `workdir`, or no such checkpoint.
  """
  config = build.complete(workdirs.read_config(workdir))
  data = _remembered(workdirs.read_facts(workdir), config["data"], workdir)
  parts = build.assemble(config, _mesh_at_hand(config, data.batch_size), data)
  _, abstract_state = build.state_of(parts)
  directory = pathlib.Path(workdir) / "checkpoints"
  if not directory.is_dir():
    raise UserError(f"{workdir}: no checkpoint has been saved yet")
  manager = checkpoint.open_manager(str(directory))
  if step is not None:
    found = checkpoint.restore(manager, abstract_state, step)
  else:
    found, damaged = checkpoint.restore_last(manager, abstract_state)
    for _, reason in damaged:
      say(f"damaged: {reason}")
  manager.close()
  if found is None:
    raise UserError(f"{workdir}: no checkpoint has been saved yet")
  variables = parts.learner.variables(found.state)
  return Trained(parts, found.state, variables, found.step)


def _remembered(known, settings, workdir: str) -> pipeline.Data:
  """The Data that data.json tells of; it has no batches to give."""
  spec = {
    k: (tuple(shape), np.dtype(d)) for k, (shape, d) in known["spec"].items()
  }
  spelled = settings.get("tokenizer")
  try:
    parts = components.parts(settings.get("source"), settings.get("mixture"))
    learned = spelled and tokenizer.get_tokenizer(
      spelled, [(part.source, part.text_key) for part in parts], workdir=workdir
    )
  except ValueError as error:
    raise UserError(f"{workdir}: {error}") from error
  return pipeline.Data(
    spec=spec,
    num_examples=known["num_examples"],
    num_classes=known["num_classes"],
    tokenizer=learned,
    batches=lambda first_step: iter(()),
    batch_size=known["batch_size"],
  )


def _mesh_at_hand(config, batch_size: int) -> jax.sharding.Mesh:
  """The config's mesh, or where it does not fit, one that divides batches."""
  try:
    mesh = sharding.make_mesh(config["mesh"])
    if batch_size % sharding.batch_parts(mesh) == 0:
      return mesh
  except UserError:
    if jax.process_count() > 1:
      raise  # some process would be left without a device
  devices = jax.devices()
  return sharding.make_mesh(
    {"data": -1}, devices[: math.gcd(batch_size, len(devices))]
  )


def evaluators(
  trained_run: Trained, workdir: str, say=print
) -> dict[str, types.Evaluator]:
  """The evaluators of a finished run, by their keys in config.evals."""
  keys = build.eval_keys(trained_run.parts.config)
  return {
    key: build.evaluator(trained_run.parts, key, workdir, say) for key in keys
  }
