"""The valid values of the numbers in a config."""

import importlib
import inspect
import typing

import pytest

from common import config_keys, config_ranges, names
from common.errors import UserError
from configs.textbook import linear_regression
from input_pipeline.batching import pipeline
from train.checkpointing import health, retention, tracking
from train.optimization import optimizers, schedules

NAN, INF = float("nan"), float("inf")
PACKAGES = {
  "model": "models",
  "task": "train.tasks",
  "learner": "train.learners",
  "task.wrap": "train.tasks.wrap",
  "learner.wrap": "train.learners.wrap",
  "optimizer.wrap": "train.optimization.wrap",
  "adapt": "train.adapters",
  "evals": "train.evaluators",
  "writers": "train.writers",
  "data.rows": "input_pipeline.rows",
}


def functions():
  """(section, function) of everything that a config's keys go to."""
  for section, package in PACKAGES.items():
    for name in names.discover(package):
      yield section, names.find(package, name, "")
  yield "data", pipeline.train
  yield "evals", pipeline.evaluation
  yield "optimizer", optimizers.build
  yield "checkpoint", retention.Settings
  yield "early_stopping", tracking.early_stopping
  yield "recovery", health.limits
  for name, function in vars(schedules).items():
    if inspect.isfunction(function) and not name.startswith(("_", "make")):
      yield "optimizer", function


def is_numeric(parameter) -> bool:
  kinds = {parameter.annotation, *typing.get_args(parameter.annotation)}
  return bool(kinds & {int, float})


def test_the_ranges_hold_the_defaults():
  """A number without a range of its own must be finite, no more."""
  count, wrong = 0, set()
  for section, function in functions():
    for key, parameter in inspect.signature(function).parameters.items():
      valid = config_ranges.RANGES[section].get(key)
      default = parameter.default
      if valid is None or not is_numeric(parameter):
        continue
      count += 1
      if default not in (parameter.empty, None) and not valid.holds(default):
        wrong.add((section, key, default))
  assert count > 150 and not wrong


def test_every_experiment_is_within_the_ranges():
  count = 0
  for module in names.discover("configs").values():
    if not module.startswith("configs.data.") and module.count(".") == 2:
      config = importlib.import_module(module).get_config
      for argument in ("", "smoke"):
        config_ranges.check(config_keys.complete(config(argument)))
        count += 1
  assert count > 100


def changed(path: str, value):
  config = config_keys.complete(linear_regression.get_config("smoke"))
  *sections, last = path.split(".")
  where = config
  for key in sections:
    where = where.setdefault(key, {})
  where[last] = value
  return config


@pytest.mark.parametrize(
  "path, values",
  {
    "total_steps": (-1, 1.5, None, True),
    "batch_size": (0, -8, "every", None),
    "log_every_steps": (0,),
    "log_examples": ("false", 0),
    "checkpoint.keep": (0, -1, None),
    "checkpoint.every_minutes": (-1, NAN, INF),
    "optimizer.lr": (0, 0.0, -1, NAN, INF, [[".*", 0.0]], [[".*", NAN]]),
    "optimizer.clip_norm": (0,),
    "optimizer.b2": (1.0,),
    "optimizer.any": (NAN, [1.0, INF]),
    "model.dropout": (1.0, -0.1),
    "model.layers": (0,),
    "data.seq_len": (0, -1),
    "data.split": (None,),
    "data.rows.stride": (0,),
    "data.shuffle": ("false",),
    "evals.a.every_steps": (-1, None),
    "evals.a.count": (0,),
    "early_stopping.patience": (0,),
    "recovery.spike": (-1, "ten"),
    "learner.ema": (1.0,),
    "learner.wrap": ([{"name": "ema", "decay": 1.0}], {"name": "ema"}, [{}]),
    "optimizer.wrap": ([{"name": "lookahead", "slow_rate": 0}],),
    "adapt.rank": (0,),
    "mesh.data": (0,),
    "planned.num_clases": (3,),
    "planned.num_classes": ("three",),
    "planned.source": (5,),
    "writers": ([{"name": "tensorboard", "histograms_every": -1}],),
  }.items(),
)
def test_what_would_empty_a_run_is_refused_by_its_key(path, values):
  for value in values:
    with pytest.raises(UserError, match=rf"^config\.{path}") as error:
      config_ranges.check(config_keys.complete(changed(path, value)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  "path, value",
  {
    "total_steps": 0,
    "batch_size": "all",
    "optimizer.clip_norm": 1e30,
    "checkpoint.every_steps": 0,
    "evals.a.every_steps": 0,
    "optimizer.lr": [["bias", 0.0], [".*", 0.1]],
    "optimizer.cooldown": "sqrt",
    "model.pooling": "mean",
    "learner.loss_scale": "dynamic",
  }.items(),
)
def test_what_does_what_it_says_is_accepted(path, value):
  config_ranges.check(config_keys.complete(changed(path, value)))


def test_a_learner_that_counts_needs_no_rate():
  config = changed("optimizer.lr", 0.0)
  config["learner"]["name"] = "counting"
  config_ranges.check(config)
