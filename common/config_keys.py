"""A config's own keys: which there are, their defaults and their types."""

import json
import re
from collections.abc import Mapping
from typing import Any

from common.errors import UserError
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
  "mesh": {"data": -1},
  "sharding": [(".*", "model")],
}
_SECTIONS = ("task", "model", "learner", "optimizer", "data")
_TABLES = (*_SECTIONS, "adapt", "evals", "checkpoint", "early_stopping")
_TABLES += ("recovery", "mesh")
# key -> the least that makes sense
_COUNTS = {"total_steps": 0, "log_every_steps": 1}
# A key of config.evals becomes the names of files.
_KEY = re.compile(r"[A-Za-z0-9_][\w.-]*", re.ASCII)


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
  """The config as plain dicts, its defaults filled in.

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
  config = {**DEFAULTS, **config}
  check(config)
  return config


def plain(config: Any) -> Any:
  """ConfigDicts as dicts, tuples as lists: what JSON can hold."""
  if hasattr(config, "items"):
    return {key: plain(value) for key, value in config.items()}
  if isinstance(config, (list, tuple)):
    return [plain(value) for value in config]
  return config


def check(config: Mapping[str, Any]) -> None:
  """Refuses what no run can be made of.

  Args:
    config: its top-level keys are there; what a section's own keys mean is
      known to the function that it names.

  Raises:
    UserError: names the first key of a wrong type.
  """
  for key in _TABLES:
    if not isinstance(config[key], dict):
      raise UserError(f"config.{key}={_short(config[key])}: not a section")
  for key, least in _COUNTS.items():
    _count(f"config.{key}", config[key], least)
  _count("config.seed", config["seed"], -(2**63))
  for key, value in config["mesh"].items():
    _count(f"config.mesh.{_short(key)}", value, -1)
  for key, value in config["checkpoint"].items():
    if key in ("every_steps", "keep"):
      _count(f"config.checkpoint.{key}", value, 0)
  for key, value in config["evals"].items():
    if not _KEY.fullmatch(key):
      raise UserError(
        f"config.evals: {_short(key)} is no name of letters and digits"
      )
    if not isinstance(value, dict):
      raise UserError(f"config.evals.{key}={_short(value)}: not a section")
    _count(f"config.evals.{key}.every_steps", value.get("every_steps", 0), 0)
  if not isinstance(config["sharding"], list):
    raise UserError(
      f"config.sharding={_short(config['sharding'])}: not a list of rules"
    )


def _count(where: str, value: Any, least: int) -> None:
  if type(value) is not int or not least <= value < 2**63:
    more = f" of at least {least}" if least >= 0 else ""
    raise UserError(f"{where}={_short(value)}: not a whole number{more}")


def _short(value: Any) -> str:
  try:
    text = repr(value)
  except ValueError:  # an integer of too many digits
    return "…"
  return text if len(text) <= 60 else f"{text[:59]}…"
