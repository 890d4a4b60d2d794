"""Restores a run from its workdir, for evaluation, generation and export."""

import contextlib
import math
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.extend
import numpy as np

from common.errors import UserError
from common.leaf import Leaf
from input_pipeline import tokenizers
from input_pipeline.batching import added_tokens, pipeline
from input_pipeline.tokenizers.parts import jinja_template
from train import assembly, run_data, sharding, types
from train.checkpointing import checkpoint, digests, evaluated
from train.conversions.parts import original_files, special_tokens
from train.workdir import bucket, run_record


class Trained(NamedTuple):
  """A run, read back from its workdir.

  parts: the run's model, task, learner and data.
  variables: the variables that the learner evaluates; see `load_state` for the
    rest of the state.
  step: the step of the checkpoint.
  template: the chat template of the folder that the run was converted from, or
    None.
  """

  parts: assembly.Experiment
  variables: types.Variables
  step: int
  template: jinja_template.Source | None = None


def task_and_variables(
  workdir: str, say=print
) -> tuple[types.Task, types.Variables]:
  """Returns the task of a finished run and the variables that it evaluates.

  Raises:
    UserError: see `load`.
  """
  found = load(workdir, say=say)
  return found.parts.task, found.variables


def load(workdir: str, step: int | str | None = None, say=print) -> Trained:
  """Loads the run of `workdir` at its last intact checkpoint, or at `step`.

  `step` may be "best": the checkpoint that config.checkpoint.keep_best kept.

  Neither its data nor the devices that it was trained on are needed. Only the
  arrays that the variables depend on are read, so that the optimizer's moments
  take no memory. The workdir is not trusted: its files contain no code and no
  links are followed. Damaged checkpoints are reported through `say`.

  Raises:
    UserError: `workdir` contains no run, a damaged one, or no such checkpoint.
  """
  with bucket.reading(workdir) as local:
    parts, found = _restored(local, step, say)
    template = None
    try:
      kept = pathlib.Path(local) / original_files.FOLDER
      template = special_tokens.chat_template_of(kept)
    except UserError as error:
      say(f"no chat template: {error}")
  variables = parts.learner.variables(found.state)
  return Trained(parts, variables, found.step, template)


def load_state(
  workdir: str, step: int | str | None = None, say=print
) -> types.State:
  """Loads the whole state of a checkpoint, with the optimizer's; see `load`."""
  with bucket.reading(workdir) as local:
    return _restored(local, step, say, whole=True)[1].state


def _restored(
  workdir: str, step: int | str | None, say, whole: bool = False
) -> tuple[assembly.Experiment, checkpoint.Restored]:
  """Returns the run and its checkpoint, with the arrays that are needed."""
  config = run_record.read_config(workdir)
  facts = run_record.read_facts(workdir)
  run_record.check_links(workdir)
  with one_line_errors(workdir):
    config = assembly.complete(config)
    _forget_places(config)
    data = _remembered(facts, config["data"], workdir)
    data = run_data.described(data, config)
    mesh = _mesh_at_hand(config, data.batch_size)
    # What other runs gave, such as a teacher, is not needed.
    parts = assembly.assemble(config, mesh, data, load=None)
    _, abstract_state = assembly.state_of(parts)
  if step == "best":
    step = _best(workdir)
  directory = pathlib.Path(workdir) / "checkpoints"
  if not directory.is_dir():
    raise UserError(f"{workdir}: contains no checkpoint yet")
  needed = None
  if not whole:
    needed = inputs_of(parts.learner.variables, abstract_state)
  manager = checkpoint.open_manager(str(directory))
  if step is not None:
    found = checkpoint.restore(manager, abstract_state, step, needed)
  else:
    found, damaged = checkpoint.restore_last(
      manager, abstract_state, needed=needed
    )
    for _, reason in damaged:
      say(f"damaged: {reason}")
  manager.close()
  if found is None:
    raise UserError(f"{workdir}: contains no checkpoint yet")
  return parts, found


def inputs_of(function: Callable, tree: types.PyTree) -> set[str]:
  """Returns the paths of the leaves that the outputs of `function` depend on.

  Random keys are always among them, since they have no blank value.

  Args:
    function: (tree) -> any tree of arrays; it is traced.
    tree: ShapeDtypeStructs.
  """
  jaxpr = jax.make_jaxpr(function)(tree).jaxpr
  used = _used(jaxpr, [True] * len(jaxpr.outvars))
  return {
    path
    for (path, leaf), is_used in zip(digests.named(tree), used, strict=True)
    if is_used or jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
  }


def _used(jaxpr, outputs: Sequence[bool]) -> list[bool]:
  """Returns which inputs of a jaxpr the `outputs` that are True depend on."""
  needed = {
    v
    for v, is_used in zip(jaxpr.outvars, outputs, strict=True)
    if is_used and not isinstance(v, jax.extend.core.Literal)
  }
  for equation in reversed(jaxpr.eqns):
    outputs = [v in needed for v in equation.outvars]
    if not any(outputs):
      continue
    inputs = [True] * len(equation.invars)
    inner = equation.params.get("jaxpr")
    inner = getattr(inner, "jaxpr", inner)
    if equation.primitive.name in ("jit", "pjit", "closed_call"):
      inputs = _used(inner, outputs)
    needed |= {
      v
      for v, is_used in zip(equation.invars, inputs, strict=True)
      if is_used and not isinstance(v, jax.extend.core.Literal)
    }
  return [v in needed for v in jaxpr.invars]


def _best(workdir: str) -> int:
  found = evaluated.local(pathlib.Path(workdir) / "evaluated.json").best_step
  if found is None:
    raise UserError(
      f"{workdir}: no best checkpoint is recorded; set"
      " config.checkpoint.keep_best to keep one"
    )
  return found


@contextlib.contextmanager
def one_line_errors(workdir: str) -> Iterator[None]:
  """Turns errors inside this context into UserErrors with the workdir."""
  try:
    yield
  except UserError as error:
    raise UserError(f"{workdir}: {error}") from error
  except Exception as error:  # the files may hold values of any type
    lines = str(error).strip().splitlines() or [""]
    raise UserError(
      f"{workdir}: its config.json and data.json do not describe a run:"
      f" {type(error).__name__}: {lines[0][:200]}"
    ) from error


def _forget_places(config) -> None:
  """Removes cache folders of the machine that trained from the config."""
  config["data"].pop("cache_dir", None)
  for settings in config["evals"].values():
    settings.pop("cache_dir", None)


def _remembered(known, settings, workdir: str) -> pipeline.Data:
  """Returns the Data that data.json describes, without batches."""
  spec = {
    k: Leaf(tuple(shape), np.dtype(d))
    for k, (shape, d) in known["spec"].items()
  }
  spelled = settings.get("tokenizer")
  try:
    learned = tokenizers.kept(spelled, workdir) if spelled else None
    if learned is not None:
      learned = added_tokens.of_rows(learned, settings.get("rows"))
      learned = added_tokens.extended(learned, settings.get("ops", ""))
  except ValueError as error:
    raise UserError(str(error)) from error
  return pipeline.Data(
    spec=spec,
    num_examples=known["num_examples"],
    num_classes=known["num_classes"],
    tokenizer=learned,
    batches=lambda first_step: iter(()),
    batch_size=known["batch_size"],
    class_names=tuple(known.get("class_names", ())),
    sizes=known.get("sizes", {}),
  )


def _mesh_at_hand(config, batch_size: int) -> jax.sharding.Mesh:
  """Returns the config's mesh, or a data-parallel one if it does not fit."""
  try:
    mesh = sharding.make_mesh(config["mesh"])
    if batch_size % sharding.batch_parts(mesh) == 0:
      return mesh
  except UserError:
    if jax.process_count() > 1:
      raise  # otherwise a process would have no device
  devices = jax.devices()
  return sharding.make_mesh(
    {"data": -1}, devices[: math.gcd(batch_size, len(devices))]
  )
