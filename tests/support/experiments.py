"""The experiments of configs/, by name."""

import importlib
import pathlib

from common import names

ROOT = pathlib.Path(__file__).parents[2]
MODULES = names.discover("configs")
NAMES = sorted(MODULES)


def path_of(name: str) -> str:
  """Of the config's file, from the root."""
  return MODULES[name].replace(".", "/") + ".py"


def config_of(name: str, arg: str = "smoke"):
  """The config of an experiment."""
  return importlib.import_module(MODULES[name]).get_config(arg)
