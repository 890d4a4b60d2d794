"""The flags of every verb, read by defining them as the verb itself does."""

import pathlib
import runpy
from typing import NamedTuple

from absl import app, flags  # app and what it imports define flags

_FIRST = ("main", "evaluate", "generate", "chat", "serve")
__all__ = ["app", "flags_of", "path_of", "verbs"]

ROOT = pathlib.Path(__file__).parent.parent


class Flag(NamedTuple):
  """One flag; `kind` is "string", "int", …; `default` is as it is shown."""

  name: str
  kind: str
  default: str
  help: str


def verbs() -> list[str]:
  """The modules that `python -m` runs, in order."""
  found = []
  for package in ("train", "input_pipeline"):
    for path in sorted((ROOT / package).rglob("*.py")):
      if "cli.run(main" in path.read_text():
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found.append(module.removesuffix(".__main__"))
  first = [f"train.{name}" for name in _FIRST]
  return first + [verb for verb in found if verb not in first]


def path_of(verb: str) -> str:
  """The file of a verb, from the root of the repository."""
  path = verb.replace(".", "/")
  if (ROOT / path).is_dir():
    return f"{path}/__main__.py"
  return f"{path}.py"


def flags_of(verb: str) -> list[Flag]:
  """The flags that a verb defines, in the order of their definition.

  Runs the file under another name than "__main__", so that it only defines;
  afterwards the flags are removed again.
  """
  before = set(flags.FLAGS)
  # By its path, since a verb may have been imported by another one.
  path = str(ROOT / path_of(verb))
  namespace = runpy.run_path(path, run_name="documented")
  if "define_flags" in namespace:
    namespace["define_flags"]()
  new = [name for name in flags.FLAGS if name not in before]
  found = [_flag(flags.FLAGS[name]) for name in new]
  for name in new:
    if name in flags.FLAGS:
      delattr(flags.FLAGS, name)
  return found


def _flag(flag) -> Flag:
  kind = flag.flag_type().removesuffix("config_file")
  values = getattr(flag.parser, "enum_values", None)
  if values:
    kind = " or ".join(map(str, values))
  default = flag.default
  if isinstance(default, list):
    default = ",".join(map(str, default)) or None
  if any("other than None" in each.message for each in flag.validators):
    default = "required"
  text = " ".join((flag.help or "").split())
  text = text.removesuffix("; repeat this option to specify a list of values")
  return Flag(flag.name, kind, "" if default is None else str(default), text)
