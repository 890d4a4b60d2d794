"""Builds a run from its config and workdir: everything `loop.fit` needs."""

import functools
import inspect
import os
from collections.abc import Mapping
from typing import Any

import jax

from common import config_keys, config_ranges, leaf, names
from common.config_keys import complete
from common.errors import UserError
from input_pipeline import bad_records
from input_pipeline.batching import components, pipeline
from train import (
  assembly,
  initialization,
  loop,
  run_data,
  sharding,
  trained,
  types,
)
from train.checkpointing import checkpoint, health, retention, tracking
from train.conversions.parts import weights as pretrained
from train.hosts import distributed
from train.measuring import costs, histograms
from train.workdir import run_record
from train.writers.parts import run_writer

# Fewer records of evaluation than this are worth a note.
_FEW = 30


def run(config: Mapping[str, Any], workdir: str | None, say=print) -> loop.Run:
  """Returns everything `fit` needs; writes into `workdir` if it is given.

  Raises:
    UserError: the config is invalid, or `workdir` has a run of another config.
  """
  config = complete(config)
  config_ranges.check(config)
  if workdir is not None:
    run_record.check(workdir, config, config_keys.DEFAULTS, say)
  return _run(config, workdir, say)


def _run(config, workdir: str | None, say) -> loop.Run:
  initialization.settings(config["init_from"], None)
  writer = (
    None
    if workdir is None
    else run_writer.run_writer(workdir, config, say, distributed.first())
  )
  load = functools.partial(trained.task_and_variables, say=say)
  parts = assembly.experiment(config, workdir, load)
  _beginnings(parts)
  pipelined = sharding.pipeline_note(config, parts.mesh)
  init, abstract_state = assembly.state_of(parts, lambda: _start(parts, say))
  split = _microbatch_note(config, abstract_state)
  for note in (parts.data.note, parts.learner.note, pipelined, split):
    if note:
      say(note)
  seed_rng = jax.random.key(config["seed"])
  evaluations = {
    key: loop.Evaluation(
      evaluator(parts, key, workdir, say, writer and writer.show, notes=True),
      config["evals"][key].get("every_steps", 0),
    )
    for key in assembly.eval_keys(config)
  }
  saving = names.call(
    retention.Settings,
    where="config.checkpoint",
    settings=config["checkpoint"],
  )
  rules = _rules(config, saving)
  _check_measured(rules, evaluations, parts.learner, abstract_state)

  def batches(first):
    stream = bad_records.telling(parts.data, first, say)
    spec = parts.data.spec
    return run_data.placed(stream, "config.data", parts.mesh, spec)

  return loop.Run(
    learner=parts.learner,
    init=init,
    abstract_state=abstract_state,
    batches=batches,
    evaluations=evaluations,
    total_steps=config["total_steps"],
    units_per_step=run_data.units_per_step(parts.data),
    rng=jax.random.fold_in(seed_rng, 1),
    checkpoint_every=saving.every_steps,
    checkpoint_minutes=saving.every_minutes,
    rules=rules,
    stop_on_save_error=saving.stops(),
    log_every=config["log_every_steps"],
    costs=costs.of(parts, assembly.compute_dtype(parts.mesh)),
    limits=names.call(
      health.limits, where="config.recovery", settings=config["recovery"]
    ),
    log_examples=config["log_examples"],
    say=say,
    writer=writer,
    observe=_observer(config, parts.learner, writer, say),
    **_files(workdir, parts, saving, abstract_state),
  )


def _microbatch_note(config, abstract_state) -> str:
  """A line if microbatches change what the forward pass sees, or ""."""
  parts = config["learner"].get("microbatches", 1)
  written = jax.tree.leaves(abstract_state.variables.model_state)
  if parts == 1 or not written:
    return ""
  return (
    f"config.learner.microbatches={parts}: the model's statistics, such as"
    " those of batch normalization, are of one microbatch at a time, so that"
    " updates differ from those of whole batches"
  )


def _nothing(*_) -> None:
  pass


def _observer(config, learner, writer, say):
  """Run.observe, which computes histograms on all processes if any is due."""
  every = {each.get("histograms_every", 0) for each in config["writers"]} - {0}
  if writer is None or not every:
    return _nothing
  if learner.gradients is None:
    name = config["learner"]["name"]
    say(f"histograms of parameters alone: {name} does not offer its gradients")
  return histograms.observer(
    learner.gradients, sorted(every), distributed.fetch, writer.histograms
  )


def _rules(config, saving: retention.Settings) -> tracking.Rules:
  """Returns the tracking.Rules of config.checkpoint and early_stopping."""
  due = {k: e.get("every_steps", 0) for k, e in config["evals"].items()}
  found = tracking.Rules()
  if saving.keep_best is not None:
    where = "config.checkpoint.keep_best"
    best = tracking.metric(saving.keep_best, where, due)
    found = found._replace(keep_best=best)
  if config["early_stopping"]:
    stopping = names.call(
      tracking.early_stopping,
      where="config.early_stopping",
      settings=config["early_stopping"],
    )
    where = "config.early_stopping.metric"
    stop = tracking.metric(stopping.pop("metric"), where, due)
    found = found._replace(stop=stop, **stopping)
  return found


def _check_measured(rules, evaluations, learner, abstract_state) -> None:
  """Raises UserError if a metric of `rules` is known not to be measured."""
  for wanted in filter(None, (rules.keep_best, rules.stop)):
    evaluate = evaluations[wanted.evaluator].evaluate
    if isinstance(evaluate, types.Measuring):
      variables = jax.eval_shape(learner.variables, abstract_state)
      tracking.check_measured(wanted, evaluate.names(variables))


def _files(workdir, parts, saving, abstract_state) -> dict[str, Any]:
  """Returns the files in the workdir, if any, as fields of loop.Run."""
  if workdir is None:
    return {}
  unchanging = assembly.unchanging(parts, abstract_state)
  directory = os.path.join(workdir, "checkpoints")
  if distributed.first():
    checkpoint.sweep(directory)
  run_record.begin(workdir, parts.config, parts.data)
  return {
    "checkpoints": checkpoint.open_manager(directory, saving.keep, unchanging),
    "ledger": os.path.join(workdir, "goodput.jsonl")
    if distributed.first()
    else None,
    "skipped": os.path.join(workdir, "skipped.jsonl"),
    "evaluated": os.path.join(workdir, "evaluated.json"),
  }


def _beginnings(
  parts: assembly.Experiment,
) -> dict[str, initialization.Settings]:
  """Returns config.init_from for each network of the run's model."""
  known = tuple(initialization.networks(parts.network))
  return initialization.settings(parts.config["init_from"], known)


def _start(parts: assembly.Experiment, say) -> dict[str, initialization.Start]:
  """Returns the initial arrays from other runs or from files, by network."""
  section = {**run_data.sizes(parts.data), **parts.config["model"]}
  networks = initialization.networks(parts.network) or {"": parts.network}
  wanted = _beginnings(parts)
  initialization.check_needs(parts.network, wanted)
  return {
    name: initialization.read(
      settings, networks[name], section, origin, say, name
    )
    for name, settings in wanted.items()
  }


def evaluator(
  parts: assembly.Experiment, key: str, workdir, say, show=None, notes=False
) -> types.Evaluator:
  """The evaluator of config.evals.KEY, on config.data with its own split.

  `say` and `show`: see types.EvalContext; None shows nothing. `notes`: whether
  to say that its records are few.
  """
  where = f"config.evals.{key}"
  function, settings, own = eval_section(parts.config, key)
  own = components.inherited(shared_settings(parts.config), own)
  data = _held_out(parts, key, own, workdir)
  if note := notes and few_records(own, data):
    say(f"{key}: {note}")
  words = parts.data.tokenizer
  seed_rng = jax.random.key(parts.config["seed"])

  context = types.EvalContext(
    task=parts.task,
    batches=lambda: run_data.placed(
      bad_records.telling(data, 0, say, f"{key}: "),
      where,
      parts.mesh,
      data.spec,
    ),
    decode=words.decode if words else None,
    encode=words.begun if words else None,
    num_classes=parts.data.num_classes,
    workdir=workdir,
    key=key,
    rng=jax.random.fold_in(seed_rng, 2),
    load=functools.partial(trained.task_and_variables, say=say),
    say=say,
    fetch=distributed.fetch,
    texts=data.texts,
    class_names=parts.data.class_names or data.class_names,
    eos=run_data.sizes(parts.data).get("eos"),
    abstract_batch=leaf.arrays(
      data.spec, data.batch_size, jax.ShapeDtypeStruct
    ),
    environment=run_data.environment({"data": own}, where),
    **({"show": show} if show else {}),
  )
  return names.call(function, context, where=where, settings=settings)


def eval_section(config, key: str) -> tuple[Any, dict[str, Any], dict]:
  """Returns what config.evals.KEY specifies.

  Returns:
    The evaluator's function, its settings, and the settings of its data that
    replace those of config.data.

  Raises:
    UserError: the section has no name, or an unknown key.
  """
  where = f"config.evals.{key}"
  settings = dict(config["evals"][key])
  settings.pop("every_steps", None)
  if "name" not in settings:
    others = [k for k in config["evals"] if k != key]
    raise UserError(f"{where}.name: missing{names.nearest(key, others)}")
  function = names.find(
    "train.evaluators", settings.pop("name"), f"{where}.name"
  )
  takes = inspect.signature(function).parameters
  of_data = set(inspect.signature(pipeline.evaluation).parameters)
  own = {k: v for k, v in settings.items() if k in of_data and k not in takes}
  settings = {k: v for k, v in settings.items() if k not in own}
  for k in settings:
    if k not in takes:
      hint = names.nearest(k, [*takes, *of_data, "every_steps"])
      raise UserError(f"{where}.{k}: unknown{hint}")
  return function, settings, own


def shared_settings(config) -> dict[str, Any]:
  """The settings of config.data that an evaluation takes, too."""
  of_data = inspect.signature(pipeline.evaluation).parameters
  return {k: v for k, v in config["data"].items() if k in of_data}


def _held_out(parts, key: str, settings, workdir) -> pipeline.Data:
  return run_data.read(
    pipeline.evaluation,
    parts.config,
    f"config.evals.{key}",
    settings,
    parts.mesh,
    workdir,
    batch_size=parts.data.batch_size,
  )


def few_records(settings: Mapping[str, Any], data: pipeline.Data) -> str:
  """A line if figures on an evaluator's data are rough, or "".

  Rows that are windows of tokens are no records, and data that is generated is
  for trying things out.
  """
  windows = data.tokenizer is not None and not settings.get("rows")
  made = str(settings.get("source")).startswith("fake:")
  none = not data.num_examples  # as in an environment
  if windows or made or none or data.num_examples >= _FEW:
    return ""
  count = f"{data.num_examples} record{'s' * (data.num_examples != 1)}"
  return f"figures on {count} are rough: each record counts for much"


def weights(path: str, step: int | str | None = None) -> tuple:
  """Returns (params, model_state) of a run's model, without its adapter.

  Args:
    path: the workdir of the run, or a Hugging Face folder or file.
    step: the step of the checkpoint, or "best". Default: the last checkpoint.

  Raises:
    UserError: the run or model does not exist.
  """
  return origin(path, step)[:2]


def origin(path: str, step: int | str | None = None) -> initialization.Origin:
  """Returns what a run begins with; see `weights` for the arguments."""
  if pretrained.are_at(path):
    found = pretrained.read(path, unnamed=True)
    return initialization.Origin(found.params, found.model_state, found.model)
  found = trained.load(path, step)
  params, plain = found.variables.params, found.parts.model.plain
  return initialization.Origin(
    plain(params) if plain else params,
    found.variables.model_state,
    found.parts.config["model"],
    tuple(initialization.networks(found.parts.network)),
  )


def evaluators(
  trained_run: trained.Trained, workdir: str, say=print
) -> dict[str, types.Evaluator]:
  """The evaluators of a finished run, by their keys in config.evals."""
  keys = assembly.eval_keys(trained_run.parts.config)
  with trained.one_line_errors(workdir):
    return {
      key: evaluator(trained_run.parts, key, workdir, say) for key in keys
    }
