"""The top-level keys of a config: their defaults and their types."""

import copy
import json
import re
from collections.abc import Mapping
from typing import Any

from common.errors import UserError, shown
from common.names import nearest

REQUIRED = [
  "total_steps",
  "batch_size",
  "task",
  "model",
  "learner",
  "optimizer",
  "data",
]
DEFAULTS: dict[str, Any] = {
  "seed": 0,
  "log_every_steps": 10,
  "log_examples": False,
  "evals": {},
  "init_from": None,
  "adapt": {},
  "checkpoint": {},
  "early_stopping": {},
  "recovery": {},
  "progressive": {},
  "multi_scale": {},
  "planned": {},
  "mesh": {"data": -1},
  "sharding": [(".*", "model")],
  "writers": [{"name": "tensorboard"}],
}
_SECTIONS = ("task", "model", "learner", "optimizer", "data")
_TABLES = (*_SECTIONS, "adapt", "evals", "checkpoint", "early_stopping")
_TABLES += ("recovery", "progressive", "multi_scale", "planned", "mesh")
# Sections whose key "wrap" lists wrappers -> the name of one of them.
WRAPPED = {"task": "distill", "learner": "ema", "optimizer": "lookahead"}
# key -> the smallest valid value
_COUNTS = {"total_steps": 0, "log_every_steps": 1}
# The keys of `planned`, which only train.plan reads.
_PLANNED = {"source": str, "num_classes": int, "sizes": dict}
_PLANNED_ARE = {"source": "a string", "num_classes": "a whole number"}
# Keys of config.evals are used in file names.
_KEY = re.compile(r"[A-Za-z0-9_][\w.-]*", re.ASCII)


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
  """The config as plain dicts, with defaults filled in.

  Raises:
    UserError: a top-level key is missing, unknown or of a wrong type.
  """
  config = json.loads(json.dumps(plain(config)))
  keys = [*REQUIRED, *DEFAULTS]
  for key in config:
    if key not in keys:
      raise UserError(f"config.{key}: unknown{nearest(key, keys)}")
  for key in REQUIRED:
    if key not in config:
      raise UserError(f"config.{key}: missing")
  config = {**copy.deepcopy(DEFAULTS), **config}
  check(config)
  return config


def plain(config: Any) -> Any:
  """Converts ConfigDicts to dicts and tuples to lists, as JSON does."""
  if hasattr(config, "items"):
    return {key: plain(value) for key, value in config.items()}
  if isinstance(config, (list, tuple)):
    return [plain(value) for value in config]
  return config


def check(config: Mapping[str, Any]) -> None:
  """Checks the types of the top-level keys.

  Args:
    config: the complete config. The keys within a section are checked later, by
      the function that the section names.

  Raises:
    UserError: names the first key that has a wrong type.
  """
  for key in _TABLES:
    if not isinstance(config[key], dict):
      raise UserError(f"config.{key}={shown(config[key])}: not a section")
  for key, least in _COUNTS.items():
    _count(f"config.{key}", config[key], least)
  _count("config.seed", config["seed"], -(2**63))
  for key, value in config["mesh"].items():
    _count(f"config.mesh.{shown(key)}", value, -1)
  for key, value in config["planned"].items():
    if key not in _PLANNED:
      raise UserError(f"config.planned.{key}: unknown{nearest(key, _PLANNED)}")
    if not isinstance(value, (_PLANNED[key], type(None))):
      kind = _PLANNED_ARE.get(key, "a section")
      raise UserError(f"config.planned.{key}={shown(value)}: not {kind}")
  for key, value in (config["planned"].get("sizes") or {}).items():
    _count(f"config.planned.sizes.{key}", value, 1)
  for key, value in config["evals"].items():
    if not _KEY.fullmatch(key):
      raise UserError(
        f"config.evals: {shown(key)} is not a name of letters and digits"
      )
    if not isinstance(value, dict):
      raise UserError(f"config.evals.{key}={shown(value)}: not a section")
    _count(f"config.evals.{key}.every_steps", value.get("every_steps", 0), 0)
  if not isinstance(config["sharding"], list):
    raise UserError(
      f"config.sharding={shown(config['sharding'])}: not a list of rules"
    )
  _check_named("config.writers", config["writers"], "tensorboard")
  for i, settings in enumerate(config["writers"]):
    where = f"config.writers[{i}]"
    others = [other["name"] for other in config["writers"][:i]]
    if settings["name"] in others:
      raise UserError(f"{where}.name={settings['name']!r}: named twice")
    every = settings.get("histograms_every", 0)
    _count(f"{where}.histograms_every", every, 0)
  for section, example in WRAPPED.items():
    found = config[section].get("wrap", [])
    _check_named(f"config.{section}.wrap", found, example)


def _check_named(key: str, value: Any, example: str) -> None:
  """Checks a list of sections that each name a file."""
  if not isinstance(value, list):
    raise UserError(
      f"{key}={shown(value)}: not a list of sections such as"
      f' dict(name="{example}")'
    )
  for i, settings in enumerate(value):
    where = f"{key}[{i}]"
    if not isinstance(settings, dict):
      raise UserError(f"{where}={shown(settings)}: not a section")
    if not isinstance(settings.get("name"), str):
      raise UserError(f"{where}.name: missing, or not a string")


def _count(where: str, value: Any, least: int) -> None:
  if type(value) is not int or not least <= value < 2**63:
    more = f" of at least {least}" if least >= 0 else ""
    raise UserError(f"{where}={shown(value)}: not a whole number{more}")
