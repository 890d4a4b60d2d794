"""Builds the pure parts of a run from the names in its config."""

import functools
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from common import config_ranges, leaf, names
from common.config_keys import complete
from common.errors import UserError
from input_pipeline.batching import (
  multi_scale,
  pipeline,
  progressive_sizes,
)
from models import Model
from train import (
  compiler_options,
  initialization,
  run_data,
  sharding,
  types,
)
from train.optimization import optimizers, parameter_rules


class Experiment(NamedTuple):
  """The pure parts of a run, before anything is computed.

  config: the complete config, as plain dicts.
  model_rules: SHARDING of the model file.
  network: the model without its adapter.
  length: T of model.flops, if the task predicts a token at each position of a
    sequence; else None.
  """

  config: dict[str, Any]
  mesh: jax.sharding.Mesh
  data: pipeline.Data
  task: types.Task
  model: Any
  learner: types.Learner
  model_rules: tuple
  network: Any = None
  length: int | None = None


def not_loaded(workdir: str):
  """Raises UserError: what is assembled here may not load another run."""
  raise UserError(f"{workdir}: no other run can be loaded here")


def experiment(
  config: Mapping[str, Any],
  workdir: str | None = None,
  load: Callable[[str], tuple[types.Task, types.Variables]] = not_loaded,
) -> Experiment:
  """Builds everything that `config` names, without computing anything.

  Args:
    config: what config_keys.complete takes.
    workdir: of the run, or None.
    load: (workdir) -> (Task, Variables) of another finished run, for wrappers
      of the task such as distill.

  Raises:
    UserError: the config is invalid; the message names the key.
  """
  config = complete(config)
  config_ranges.check(config)
  mesh = sharding.make_mesh(config["mesh"])
  data = run_data.read(
    pipeline.train, config, "config.data", config["data"], mesh, workdir
  )
  for key, resize in (
    ("progressive", progressive_sizes.progressive_sizes),
    ("multi_scale", multi_scale.multi_scale),
  ):
    if config[key]:
      data = names.call(
        resize,
        data,
        where=f"config.{key}",
        settings=config[key],
        offered={"total_steps": config["total_steps"], "seed": config["seed"]},
      )
  return assemble(config, mesh, data, load)


def assemble(
  config, mesh, data: pipeline.Data, load: Callable | None = not_loaded
) -> Experiment:
  """Builds model, task, optimizer and learner of a complete config.

  Each is wrapped by what its section lists in `wrap`. `load`: see `experiment`;
  None leaves out what only training needs of other runs.
  """
  section, settings = _section(config, "model")
  model_fn = names.find("models", section, "config.model.name")
  sizes, environment = run_data.sizes(data), run_data.environment(config)
  within = {} if environment is None else {"environment": environment}
  model = names.call(
    model_fn,
    where="config.model",
    settings=settings,
    offered={**sizes, "dtype": compute_dtype(mesh)},
  )
  network = _startable(config, model)
  model = _adapted(config, network)
  task = _task(config, mesh, model, {**sizes, **within, "load": load})
  optimizer = _optimizer(config, model)
  learner = _learner(config, mesh, data, task, optimizer, within)
  rules = tuple(sys.modules[model_fn.__module__].SHARDING)
  length = _length(config, data)
  return Experiment(
    config, mesh, data, task, model, learner, rules, network, length
  )


def _length(config, data: pipeline.Data) -> int | None:
  """Returns Experiment.length."""
  name = config["task"]["name"]
  task = sys.modules[names.find("train.tasks", name, "task").__module__]
  leaf = data.spec.get(getattr(task, "PREDICTED_AT_EACH", ""))
  return leaf.shape[0] if leaf is not None and leaf.shape else None


def _task(config, mesh, model, offered) -> types.Task:
  section, settings = _section(config, "task")
  task = names.call(
    names.find("train.tasks", section, "config.task.name"),
    model,
    where="config.task",
    settings=settings,
    offered=offered,
    also=("wrap",),
  )
  task = _wrapped(config, "task", "train.tasks.wrap", task, offered)
  task = task._replace(name=section)
  return _task_within(mesh, _in_one_line(section, task))


def _optimizer(config, model) -> types.Optimizer:
  settings = dict(config["optimizer"])
  settings.pop("wrap", None)
  if config["adapt"]:
    fixed = [f"^{key}/" for key in model.fixed]
    settings["freeze"] = [*settings.get("freeze", ()), *fixed]
  try:
    optimizer = optimizers.make(settings, config["total_steps"])
  except ValueError as error:
    raise UserError(f"config.optimizer: {error}") from error
  offered = {"total_steps": config["total_steps"], "seed": config["seed"]}
  package = "train.optimization.wrap"
  return _wrapped(config, "optimizer", package, optimizer, offered)


def _learner(config, mesh, data, task, optimizer, within) -> types.Learner:
  section, settings = _section(config, "learner")
  half = config["model"].get("dtype") == "float16"
  offered = {
    "examples": data.num_examples,
    "total_steps": config["total_steps"],
    "batch_size": data.batch_size,
    **within,
    **({"loss_scale": "dynamic"} if half else {}),
  }
  learner = names.call(
    names.find("train.learners", section, "config.learner.name"),
    task,
    optimizer,
    where="config.learner",
    settings=settings,
    offered=offered,
    also=("wrap",),
  )
  learner = _wrapped(config, "learner", "train.learners.wrap", learner, offered)
  return learner._replace(
    init=sharding.within(mesh, learner.init),
    step=sharding.within(mesh, learner.step),
    gradients=learner.gradients and sharding.within(mesh, learner.gradients),
  )


def _wrapped(config, section: str, package: str, made, offered):
  """Applies the wrappers of config.SECTION.wrap to `made`, in their order."""
  for i, settings in enumerate(config[section].get("wrap", ())):
    where, settings = f"config.{section}.wrap[{i}]", dict(settings)
    wrapper = names.find(package, settings.pop("name"), f"{where}.name")
    made = names.call(
      wrapper, made, where=where, settings=settings, offered=offered
    )
  return made


def _startable(config, model):
  """The model, prepared for config.init_from."""
  if config["adapt"] and not isinstance(model, Model):
    name = config["model"]["name"]
    raise UserError(f"config.adapt: {name} consists of several networks")
  return initialization.startable(model)


def _adapted(config, model):
  """The model, with the adapter that the config names, if any."""
  if not config["adapt"]:
    return model
  section, settings = _section(config, "adapt")
  adapter = names.find("train.adapters", section, "config.adapt.name")
  return names.call(adapter, model, where="config.adapt", settings=settings)


def compute_dtype(mesh) -> str:
  """Returns the default compute dtype, for configs that do not set it."""
  on_cpu = mesh.devices.flat[0].platform == "cpu"
  return "float32" if on_cpu else "bfloat16"


def _in_one_line(name: str, task: types.Task) -> types.Task:
  """Makes a task report in one line if it does not match the data.

  Its functions fail while they are traced if the batch lacks a field, or if a
  field does not have the shape that the model or the loss expects.
  """

  def guarded(function):
    @functools.wraps(function)
    def call(variables, batch, *args):
      try:
        return function(variables, batch, *args)
      except UserError:
        raise
      except KeyError as error:
        key = error.args[0] if error.args else None
        if key in batch or not isinstance(key, str):
          raise
        raise UserError(
          f"config.task: {name} reads the field {key!r}, and the data have"
          f" {', '.join(sorted(batch))}{names.nearest(key, batch)}"
        ) from error
      except (TypeError, ValueError) as error:
        shapes = ", ".join(f"{k} {list(v.shape)}" for k, v in batch.items())
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
          f"config.task: {name} cannot read batches of {shapes}: {reason}"
        ) from error

    return call

  return task._replace(
    losses={key: guarded(loss) for key, loss in task.losses.items()},
    predict={key: guarded(f) for key, f in task.predict.items()},
  )


def _task_within(mesh, task: types.Task) -> types.Task:
  """Returns the task with its functions traced within `mesh`."""
  around = functools.partial(sharding.within, mesh)
  return task._replace(
    init=around(task.init),
    losses={name: around(loss) for name, loss in task.losses.items()},
    predict={name: around(f) for name, f in task.predict.items()},
  )


def _section(config, section: str) -> tuple[str, dict[str, Any]]:
  """(name, the other keys but "wrap") of a section that names a file."""
  settings = dict(config[section])
  settings.pop("wrap", None)
  if "name" not in settings:
    raise UserError(f"config.{section}.name: missing")
  return settings.pop("name"), settings


def eval_keys(config) -> list[str]:
  """The keys of config.evals, with evaluators that show samples last."""
  evals = config["evals"]
  return sorted(evals, key=lambda key: evals[key].get("name") == "samples")


def unchanging(parts: Experiment, state: types.PyTree) -> list[str]:
  """Returns the paths of the arrays of a state that training never changes.

  They are the frozen variables, and the parameters that the optimizer freezes,
  such as the base under an adapter.
  """
  regexes = [*parts.config["optimizer"].get("freeze", ())]
  if parts.config["adapt"]:
    regexes += [f"^{key}/" for key in parts.model.fixed]
  kept = [
    f"variables/params/{path}"
    for path in parameter_rules.flat(state.variables.params)
    if any(re.search(regex, path) for regex in regexes)
  ]
  frozen = parameter_rules.flat(state.variables.frozen or {})
  return kept + [f"variables/frozen/{path}" for path in frozen]


def state_of(
  parts: Experiment,
  start: Callable[[], dict[str, initialization.Start]] = dict,
):
  """Returns (init, abstract state); `init` creates each shard on its device.

  `init` starts from the arrays that `start` returns.
  """

  def init_fn(rng, start=None):
    batch = leaf.arrays(parts.data.spec, parts.data.batch_size, jnp.zeros)
    with initialization.beginning(start):
      return parts.learner.init(rng, batch)

  rng = jax.random.fold_in(jax.random.key(parts.config["seed"]), 0)
  try:
    shapes = jax.eval_shape(init_fn, rng)
  except ValueError as error:
    reason = str(error).splitlines()[0]
    raise UserError(
      f"config: the state cannot be initialized: {reason}"
    ) from error
  try:
    optimizers.check_patterns(
      parts.config["optimizer"], shapes.variables.params
    )
  except ValueError as error:
    raise UserError(f"config.optimizer: {error}") from error
  shardings = sharding.tree_shardings(
    shapes,
    parts.mesh,
    parts.config["sharding"],
    parts.model_rules,
    parts.learner.rows,
  )
  if parts.config["optimizer"].get("state_memory") == "host":
    hosted = sharding.in_host_memory(shapes.opt_state, shardings.opt_state)
    shardings = shardings._replace(opt_state=hosted)
  init = jax.jit(
    init_fn,
    out_shardings=shardings,
    compiler_options=compiler_options.of_init(),
  )

  def begin():
    given = parts.task.given()
    state = init(rng, start())
    if not given:
      return state
    variables = state.variables
    places = {key: shardings.variables.frozen[key] for key in given}
    frozen = {**variables.frozen, **jax.device_put(dict(given), places)}
    return state._replace(variables=variables._replace(frozen=frozen))

  return begin, sharding.abstract(shapes, shardings)
