"""Names into objects: the only reader of a config."""

import functools
import inspect
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline import bad_records, components, pipeline
from models import Model
from train import (
  checkpoint,
  config_keys,
  costs,
  distributed,
  health,
  initialization,
  loop,
  names,
  optim,
  run_data,
  sharding,
  types,
  workdirs,
  writer,
)
from train.config_keys import complete
from train.errors import UserError


class Experiment(NamedTuple):
  """The pure parts of a run, before anything is computed.

  config: plain dicts, complete.
  network: the model without its adapter.
  params_rules: SHARDING of the model's file.
  """

  config: dict[str, Any]
  mesh: jax.sharding.Mesh
  data: pipeline.Data
  task: types.Task
  model: Any
  learner: types.Learner
  model_rules: tuple
  network: Any = None


def experiment(
  config: Mapping[str, Any], workdir: str | None = None
) -> Experiment:
  """Builds everything that `config` names; computes nothing.

  Raises:
    UserError: the config is wrong; one line that names the key.
  """
  config = complete(config)
  mesh = sharding.make_mesh(config["mesh"])
  data = run_data.read(
    pipeline.train, config, "config.data", config["data"], mesh, workdir
  )
  return assemble(config, mesh, data)


def assemble(config, mesh, data: pipeline.Data) -> Experiment:
  """Model, task, optimizer and learner of a complete config, on `data`."""
  section, settings = _section(config, "model")
  model_fn = names.find("models", section, "config.model.name")
  model = names.call(
    model_fn,
    where="config.model",
    settings=settings,
    offered={**run_data.sizes(data), "dtype": _compute_dtype(mesh)},
  )
  network = _startable(config, model)
  model = _adapted(config, network)
  section, settings = _section(config, "task")
  task = names.call(
    names.find("train.tasks", section, "config.task.name"),
    model,
    where="config.task",
    settings=settings,
    offered=run_data.sizes(data),
  )
  task = _task_within(mesh, task)
  try:
    settings = dict(config["optimizer"])
    if config["adapt"]:
      settings["freeze"] = [*settings.get("freeze", ()), "^base/"]
    optimizer = optim.make(settings, config["total_steps"])
  except ValueError as error:
    raise UserError(f"config.optimizer: {error}") from error
  section, settings = _section(config, "learner")
  learner = names.call(
    names.find("train.learners", section, "config.learner.name"),
    task,
    optimizer,
    where="config.learner",
    settings=settings,
    offered={"loss_scale": "dynamic"}
    if config["model"].get("dtype") == "float16"
    else {},
  )
  learner = learner._replace(
    init=sharding.within(mesh, learner.init),
    step=sharding.within(mesh, learner.step),
  )
  rules = tuple(inspect.getmodule(model_fn).SHARDING)
  return Experiment(config, mesh, data, task, model, learner, rules, network)


def _startable(config, model):
  """The model, which config.init_from may give its first parameters."""
  if isinstance(model, Model):
    return initialization.startable(model)
  for key in ("init_from", "adapt"):
    if config[key]:
      name = config["model"]["name"]
      raise UserError(f"config.{key}: {name} is not one network, but several")
  return model


def _adapted(config, model):
  """The model under the adapter that the config names, if it names one."""
  if not config["adapt"]:
    return model
  section, settings = _section(config, "adapt")
  adapter = names.find("train.adapters", section, "config.adapt.name")
  return names.call(adapter, model, where="config.adapt", settings=settings)


def _compute_dtype(mesh) -> str:
  """What a model computes in where its config does not say."""
  on_cpu = mesh.devices.flat[0].platform == "cpu"
  return "float32" if on_cpu else "bfloat16"


def _task_within(mesh, task: types.Task) -> types.Task:
  """The task, whose functions are traced with `mesh` around them."""
  around = functools.partial(sharding.within, mesh)
  return types.Task(
    init=around(task.init),
    losses={name: around(loss) for name, loss in task.losses.items()},
    predict={name: around(f) for name, f in task.predict.items()},
  )


def run(config: Mapping[str, Any], workdir: str | None, say=print) -> loop.Run:
  """Everything `fit` needs; writes into `workdir` where one is given.

  Raises:
    UserError: the config is wrong, or `workdir` holds another one's run, or
      one that is going on.
  """
  config = complete(config)
  return workdirs.claimed(
    workdir, config, config_keys.DEFAULTS, lambda: _run(config, workdir, say)
  )


def _run(config, workdir: str | None, say) -> loop.Run:
  initialization.settings(config["init_from"])
  parts = experiment(config, workdir)
  for note in (parts.data.note, sharding.pipeline_note(config, parts.mesh)):
    if note:
      say(note)
  batch_size = parts.data.batch_size
  init, abstract_state = state_of(parts, say)
  seed_rng = jax.random.key(config["seed"])
  evaluations = {
    key: loop.Evaluation(
      evaluator(parts, key, workdir, say),
      config["evals"][key].get("every_steps", 0),
    )
    for key in eval_keys(config)
  }
  saving = names.call(
    checkpoint.Settings,
    where="config.checkpoint",
    settings=config["checkpoint"],
  )
  units = {"examples": batch_size}
  if "targets" in parts.data.spec:
    units["tokens"] = batch_size * parts.data.spec["targets"][0][0]

  def batches(first):
    stream = bad_records.telling(parts.data, first, say)
    return run_data.placed(stream, "config.data", parts.mesh)

  return loop.Run(
    learner=parts.learner,
    init=init,
    abstract_state=abstract_state,
    batches=batches,
    evaluations=evaluations,
    total_steps=config["total_steps"],
    units_per_step=units,
    rng=jax.random.fold_in(seed_rng, 1),
    checkpoint_every=saving.every_steps,
    stop_on_save_error=saving.stops(),
    log_every=config["log_every_steps"],
    costs=costs.of(parts, _compute_dtype(parts.mesh)),
    limits=names.call(
      health.limits, where="config.recovery", settings=config["recovery"]
    ),
    log_examples=config["log_examples"],
    say=say,
    **({} if workdir is None else _files(workdir, config, parts.data, saving)),
  )


def _files(workdir, config, data, saving) -> dict[str, Any]:
  """The files of a run in its workdir, as `fit` takes them."""
  metrics = None
  directory = os.path.join(workdir, "checkpoints")
  if distributed.first():
    checkpoint.sweep(directory)
    metrics = writer.MetricsWriter(workdir, config["log_examples"])
  workdirs.begin(workdir, config, data)
  return {
    "checkpoints": checkpoint.open_manager(directory, saving.keep),
    "writer": metrics,
    "ledger": metrics and os.path.join(workdir, "goodput.jsonl"),
    "skipped": os.path.join(workdir, "skipped.jsonl"),
  }


def eval_keys(config) -> list[str]:
  """Keys of config.evals: what measures first, what shows samples last."""
  evals = config["evals"]
  return sorted(evals, key=lambda key: evals[key].get("name") == "samples")


def _section(config, section: str) -> tuple[str, dict[str, Any]]:
  """(name, the other keys) of a section that names a file."""
  settings = dict(config[section])
  if "name" not in settings:
    raise UserError(f"config.{section}.name: missing")
  return settings.pop("name"), settings


def state_of(parts: Experiment, say=print):
  """(init, abstract state): no device ever holds more than its shard.

  `init` begins with what config.init_from names, and tells `say` of it.
  """

  def init_fn(rng, start=None):
    batch = {
      key: jnp.zeros((parts.data.batch_size, *shape), np.dtype(dtype))
      for key, (shape, dtype) in parts.data.spec.items()
    }
    with initialization.beginning(start):
      return parts.learner.init(rng, batch)

  rng = jax.random.fold_in(jax.random.key(parts.config["seed"]), 0)
  try:
    shapes = jax.eval_shape(init_fn, rng)
  except ValueError as error:
    reason = str(error).splitlines()[0]
    raise UserError(f"config: no state can be made: {reason}") from error
  try:
    optim.check_patterns(parts.config["optimizer"], shapes.variables.params)
  except ValueError as error:
    raise UserError(f"config.optimizer: {error}") from error
  shardings = sharding.tree_shardings(
    shapes, parts.mesh, parts.config["sharding"], parts.model_rules
  )
  if parts.config["optimizer"].get("state_memory") == "host":
    hosted = sharding.in_host_memory(shapes.opt_state, shardings.opt_state)
    shardings = shardings._replace(opt_state=hosted)
  init = jax.jit(init_fn, out_shardings=shardings)

  def begin():
    return init(rng, _start(parts, say))

  return begin, sharding.abstract(shapes, shardings)


def _start(parts: Experiment, say) -> initialization.Start | None:
  """What the run begins with, read from another run or from files."""
  wanted = initialization.settings(parts.config["init_from"])
  if wanted is None:
    return None
  from train import trained  # it is made of this file's parts

  return initialization.read(wanted, parts.network, trained.weights, say)


def evaluator(parts: Experiment, key: str, workdir, say) -> types.Evaluator:
  """The evaluator of config.evals.KEY, on config.data with its own split."""
  where = f"config.evals.{key}"
  settings = dict(parts.config["evals"][key])
  settings.pop("every_steps", None)
  if "name" not in settings:
    raise UserError(f"{where}.name: missing")
  function = names.find(
    "train.evaluators", settings.pop("name"), f"{where}.name"
  )
  takes = inspect.signature(function).parameters
  of_data = set(inspect.signature(pipeline.evaluation).parameters)
  own = {k: v for k, v in settings.items() if k in of_data and k not in takes}
  settings = {k: v for k, v in settings.items() if k not in own}
  for k in settings:
    if k not in takes:
      hint = names.nearest(k, [*takes, *of_data])
      raise UserError(f"{where}.{k}: unknown{hint}")
  shared = {k: v for k, v in parts.config["data"].items() if k in of_data}
  data = run_data.read(
    pipeline.evaluation,
    parts.config,
    where,
    components.inherited(shared, own),
    parts.mesh,
    workdir,
    batch_size=parts.data.batch_size,
  )
  words = parts.data.tokenizer
  seed_rng = jax.random.key(parts.config["seed"])

  def load(other):
    from train import trained  # it is made of this file's parts

    found = trained.load(other)
    return found.parts.task, found.variables

  context = types.EvalContext(
    task=parts.task,
    batches=lambda: run_data.placed(
      bad_records.telling(data, 0, say, f"{key}: "), where, parts.mesh
    ),
    decode=words.decode if words else None,
    encode=words.begun if words else None,
    num_classes=parts.data.num_classes,
    workdir=workdir,
    key=key,
    rng=jax.random.fold_in(seed_rng, 2),
    load=load,
    say=say,
    fetch=distributed.fetch,
    texts=data.texts,
    class_names=parts.data.class_names or data.class_names,
  )
  return names.call(function, context, where=where, settings=settings)
