"""Names into objects: the only reader of a config."""

import functools
import inspect
import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline import bad_records, device, pipeline
from train import (
  checkpoint,
  costs,
  distributed,
  loop,
  names,
  optim,
  sharding,
  types,
  workdirs,
  writer,
)
from train.errors import UserError

_REQUIRED = [
  "total_steps",
  "batch_size",
  "task",
  "model",
  "learner",
  "optimizer",
  "data",
]
_DEFAULTS: dict[str, Any] = {
  "seed": 0,
  "log_every_steps": 10,
  "evals": {},
  "checkpoint": {},
  "mesh": {"data": -1},
  "sharding": [(".*", "model")],
}
# Arguments of the pipeline that build gives, not the config.
_GIVEN = [
  "batch_size",
  "seed",
  "host_index",
  "host_count",
  "workdir",
  "multiple_of",
]


class Experiment(NamedTuple):
  """The pure parts of a run, before anything is computed.

  config: plain dicts, complete.
  params_rules: SHARDING of the model's file.
  """

  config: dict[str, Any]
  mesh: jax.sharding.Mesh
  data: pipeline.Data
  task: types.Task
  model: Any
  learner: types.Learner
  model_rules: tuple


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
  """The config as plain dicts, its defaults filled in.

  Raises:
    UserError: a top-level key is missing or unknown.
  """
  config = json.loads(json.dumps(plain(config)))
  keys = [*_REQUIRED, *_DEFAULTS]
  for key in config:
    if key not in keys:
      raise UserError(f"config.{key}: unknown{names.nearest(key, keys)}")
  for key in _REQUIRED:
    if key not in config:
      raise UserError(f"config.{key}: missing")
  return {**_DEFAULTS, **config}


def plain(config: Any) -> Any:
  """ConfigDicts as dicts, tuples as lists: what JSON can hold."""
  if hasattr(config, "items"):
    return {key: plain(value) for key, value in config.items()}
  if isinstance(config, (list, tuple)):
    return [plain(value) for value in config]
  return config


def experiment(
  config: Mapping[str, Any], workdir: str | None = None
) -> Experiment:
  """Builds everything that `config` names; computes nothing.

  Raises:
    UserError: the config is wrong; one line that names the key.
  """
  config = complete(config)
  mesh = sharding.make_mesh(config["mesh"])
  data = _data(
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
    offered={**_sizes(data), "dtype": _compute_dtype(mesh)},
  )
  section, settings = _section(config, "task")
  task = names.call(
    names.find("train.tasks", section, "config.task.name"),
    model,
    where="config.task",
    settings=settings,
  )
  task = _task_within(mesh, task)
  try:
    optimizer = optim.make(config["optimizer"], config["total_steps"])
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
  return Experiment(config, mesh, data, task, model, learner, rules)


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
    UserError: the config is wrong, or `workdir` holds another one's run.
  """
  config = complete(config)
  if workdir is not None:
    workdirs.claim(workdir, config)
  parts = experiment(config, workdir)
  for note in (parts.data.note, sharding.pipeline_note(config, parts.mesh)):
    if note:
      say(note)
  batch_size = parts.data.batch_size
  init, abstract_state = state_of(parts)
  seed_rng = jax.random.key(config["seed"])
  evaluations = {
    key: loop.Evaluation(
      evaluator(parts, key, workdir, say),
      config["evals"][key].get("every_steps", 0),
    )
    for key in eval_keys(config)
  }
  settings = {"every_steps": 0, "keep": 2, **config["checkpoint"]}
  for key in settings:
    if key not in ("every_steps", "keep"):
      hint = names.nearest(key, ("every_steps", "keep"))
      raise UserError(f"config.checkpoint.{key}: unknown{hint}")
  manager = metrics = None
  if workdir is not None:
    directory = os.path.join(workdir, "checkpoints")
    if distributed.first():
      checkpoint.sweep(directory)
      metrics = writer.MetricsWriter(workdir)
    workdirs.begin(workdir, config, parts.data)
    manager = checkpoint.open_manager(directory, settings["keep"])
  units = {"examples": batch_size}
  if "targets" in parts.data.spec:
    units["tokens"] = batch_size * parts.data.spec["targets"][0][0]

  def batches(first_step):
    stream = bad_records.telling(parts.data, first_step, say)
    return _placed(stream, "config.data", parts.mesh)

  return loop.Run(
    learner=parts.learner,
    init=init,
    abstract_state=abstract_state,
    batches=batches,
    evaluations=evaluations,
    total_steps=config["total_steps"],
    units_per_step=units,
    rng=jax.random.fold_in(seed_rng, 1),
    checkpoints=manager,
    checkpoint_every=settings["every_steps"],
    log_every=config["log_every_steps"],
    writer=metrics,
    costs=costs.of(parts, _compute_dtype(parts.mesh)),
    ledger=metrics and os.path.join(workdir, "goodput.jsonl"),
  )


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


def _data(function, config, where, settings, mesh, workdir, batch_size=None):
  """The data of the run, or of an evaluator; keys checked, errors told."""
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


def _sizes(data: pipeline.Data) -> dict[str, int]:
  """Sizes of a model that the data knows."""
  sizes: dict[str, Any] = {}
  if data.tokenizer is not None:
    sizes["vocab_size"] = data.tokenizer.vocab_size
  if data.num_classes is not None:
    sizes["num_classes"] = data.num_classes
  for key, (shape, _) in data.spec.items():
    if key == "inputs":
      sizes["max_len"] = shape[0]
    if key == "image":
      sizes["image_size"], sizes["channels"] = shape[0], shape[-1]
    if key == "x":
      sizes["in_features"] = shape[-1]
    if key == "y":
      sizes["out_features"] = shape[-1]
  return sizes


def state_of(parts: Experiment):
  """(init, abstract state): no device ever holds more than its shard."""

  def init_fn(rng):
    batch = {
      key: jnp.zeros((parts.data.batch_size, *shape), np.dtype(dtype))
      for key, (shape, dtype) in parts.data.spec.items()
    }
    return parts.learner.init(rng, batch)

  rng = jax.random.fold_in(jax.random.key(parts.config["seed"]), 0)
  shapes = jax.eval_shape(init_fn, rng)
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
  return lambda: init(rng), sharding.abstract(shapes, shardings)


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
  shared.pop("split", None)
  data = _data(
    pipeline.evaluation,
    parts.config,
    where,
    {**shared, **own},
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
    batches=lambda: _placed(
      bad_records.telling(data, 0, say, f"{key}: "), where, parts.mesh
    ),
    decode=words.decode if words else None,
    encode=words.encode if words else None,
    num_classes=parts.data.num_classes,
    workdir=workdir,
    key=key,
    rng=jax.random.fold_in(seed_rng, 2),
    load=load,
    say=say,
    fetch=distributed.fetch,
  )
  return names.call(function, context, where=where, settings=settings)


def _placed(batches, where: str, mesh):
  """Host batches on the devices, ahead of their use."""
  return device.prefetch(
    _laid_out(batches, where, mesh),
    functools.partial(sharding.batch_sharding, mesh),
  )


def _laid_out(batches, where: str, mesh):
  """Batches in the mesh's order; errors of the data, told as the config's."""
  try:
    for batch in batches:
      yield sharding.lay_out(batch, mesh)
  except UserError:
    raise
  except ValueError as error:
    raise UserError(f"{where}: {error}") from error
