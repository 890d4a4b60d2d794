"""Overrides such as --config.recovery.spike=10 of sections that a config lacks.

ml_collections sets `--config.SECTION.KEY` only if the config has SECTION. Here
the flags below each missing section are joined to one flag that sets the whole
section, so that every key can be set, whatever the config contains.

Nor does it set items that a list lacks, such as --config.learner.wrap[0].name,
or a list as a whole. `lists` takes these flags, and `set_items` follows them
once the others have been parsed.
"""

import ast
import re
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags

from common import config_keys

_FLAG = re.compile(r"--?config\.([^=\s]+)(?:=(.*))?", re.DOTALL)
_PART = re.compile(r"[^.\[\]]+|\[\d+\]")
Path = tuple[str | int, ...]


def complete(argv: list[str]) -> list[str]:
  """Returns the arguments, with each missing section set by one flag."""
  found = _overrides(argv)
  start = next((a for a in argv if a.startswith("--config=")), None)
  if start is None or all(len(path) < 2 for path, *_ in found):
    return argv
  config = _loaded(argv[0], start)
  sections: dict[Path, Any] = {}
  used: set[int] = set()
  for path, value, places in found:
    section = _missing(config, path)
    if section is None:
      continue
    if section not in sections:
      sections[section] = _before(config, section)
    if _set(sections[section], path[len(section) :], _literal(value)):
      used.update(places)
  rest = [a for i, a in enumerate(argv) if i not in used]
  given = {path for path, *_ in _overrides(rest)}
  for section, content in sections.items():
    # A flag that sets the section itself would conflict with ours.
    if section not in given and content is not None:
      rest.append(f"--config.{_written(section)}={content!r}")
  return rest


def lists(argv: list[str]) -> tuple[list[str], list[tuple[Path, Any]]]:
  """Returns (the other arguments, [(path, value)] of flags that set lists)."""
  found = _overrides(argv)
  start = next((a for a in argv if a.startswith("--config=")), None)
  if start is None or not found:
    return argv, []
  config = _loaded(argv[0], start, plain=False)
  items: list[tuple[Path, Any]] = []
  used: set[int] = set()
  for path, text, places in found:
    if path[0] not in (*config_keys.REQUIRED, *config_keys.DEFAULTS):
      continue
    value = _literal(text)
    whole = isinstance(value, (list, tuple)) and _is_list(config, path)
    if whole or any(isinstance(key, int) for key in path):
      items.append((path, value))
      used.update(places)
  return [a for i, a in enumerate(argv) if i not in used], items


def set_items(config: Any, items: Sequence[tuple[Path, Any]]) -> None:
  """Sets values within lists of a ConfigDict, in their order.

  An index that is the length of a list appends to it.

  Raises:
    ValueError: there is no such place; one line that names the flag.
  """
  for path, value in items:
    at = next((i for i, k in enumerate(path) if isinstance(k, int)), len(path))
    *parents, name = path[:at]
    holder = config
    for key in parents:
      if holder.get(key) is None:
        with config.ignore_type():
          holder[key] = {}
      holder = holder[key]
      if not hasattr(holder, "items"):
        where = f"--config.{_written(path)}"
        raise ValueError(f"{where}: {key}={holder!r} is no section")
    default = None if parents else config_keys.DEFAULTS.get(name)
    old = holder.get(name, default)
    content = [config_keys.plain(old)]
    _place(content, (0, *path[at:]), value, path)
    new = tuple(content[0]) if isinstance(old, tuple) else content[0]
    with config.ignore_type():
      holder[name] = new


def _place(tree: Any, path: Path, value: Any, flag: Path) -> None:
  """Sets one value below `tree`, which has what is above it."""
  key, *rest = path
  if not rest:
    tree[key] = value
    return
  inner = tree[key] if isinstance(key, int) else tree.get(key)
  if inner is None:
    inner = [] if isinstance(rest[0], int) else {}
  where = f"--config.{_written(flag)}"
  above = _written(flag[: len(flag) - len(rest)])
  if isinstance(rest[0], int):
    if not isinstance(inner, list):
      raise ValueError(f"{where}: config.{above} is no list")
    if rest[0] > len(inner):
      raise ValueError(
        f"{where}: config.{above} has {len(inner)} items, counted from 0;"
        f" [{len(inner)}] adds one"
      )
    if rest[0] == len(inner):
      inner.append(None)
  elif not isinstance(inner, dict):
    raise ValueError(f"{where}: config.{above} is no section")
  tree[key] = inner
  _place(inner, tuple(rest), value, flag)


def _is_list(config: Any, path: Path) -> bool:
  """Whether a config has a list there, which ml_collections does not set."""
  for key in path:
    try:
      config = config[key]
    except (KeyError, IndexError, TypeError):
      return False
  return isinstance(config, list)


def _overrides(argv) -> list[tuple[Path, str, tuple[int, ...]]]:
  """Returns (path, value, positions in argv) of each --config.PATH flag."""
  found = []
  for i, argument in enumerate(argv):
    match = _FLAG.fullmatch(argument)
    if not match:
      continue
    parts = _PART.findall(match[1])
    path = tuple(int(p[1:-1]) if p[0] == "[" else p for p in parts)
    if match[2] is not None:
      found.append((path, match[2], (i,)))
    elif i + 1 < len(argv) and not argv[i + 1].startswith("--"):
      found.append((path, argv[i + 1], (i, i + 1)))
  return found


def _loaded(program: str, start: str, plain: bool = True) -> Any:
  """The config of the flag --config=FILE, without overrides."""
  alone = flags.FlagValues()
  config_flags.DEFINE_config_file("config", flag_values=alone)
  before, sys.argv = sys.argv, [program, start]  # overrides are read there
  try:
    alone(sys.argv)
    return config_keys.plain(alone.config) if plain else alone.config
  finally:
    sys.argv = before


def _missing(config, path: Path) -> Path | None:
  """The shortest part of `path` that should be a section and is none."""
  if path[0] not in (*config_keys.REQUIRED, *config_keys.DEFAULTS):
    return None  # the flag's own error names the nearest key
  where = config
  for i, key in enumerate(path[:-1]):
    try:
      where = where[key]
    except (KeyError, IndexError, TypeError):
      return path[: i + 1] if isinstance(key, str) else None
    if not isinstance(where, (dict, list)):
      return path[: i + 1]
  return None


def _before(config, section: Path) -> Any:
  """What a section holds before the flags: its default, or its short form."""
  for key in section[:-1]:
    config = config[key]
  now = config.get(section[-1])
  if section == ("init_from",) and isinstance(now, str):
    return {"path": now}
  default = config_keys.DEFAULTS.get(section[0]) if len(section) == 1 else None
  return config_keys.plain(default) if default else {}


def _set(tree: Any, path: Path, value: Any) -> bool:
  """Sets one value below `tree`; returns whether there is such a place."""
  for i, key in enumerate(path):
    if isinstance(tree, list) != isinstance(key, int):
      return False
    if isinstance(key, int) and key >= len(tree):
      return False
    if i + 1 == len(path):
      tree[key] = value
    elif isinstance(tree, list):
      tree = tree[key]
    else:
      tree = tree.setdefault(key, {})
    if i + 1 < len(path) and not isinstance(tree, (dict, list)):
      return False
  return True


def _written(path: Path) -> str:
  """A path as a flag has it."""
  first, *rest = path
  parts = [f"[{k}]" if isinstance(k, int) else f".{k}" for k in rest]
  return f"{first}{''.join(parts)}"


def _literal(text: str) -> Any:
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return {"true": True, "false": False}.get(text, text)
