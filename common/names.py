"""A name in a config is a file; the other keys are its function's arguments."""

import difflib
import importlib
import inspect
import os
import pkgutil
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from common.annotations import mistyped
from common.errors import UserError, shown

# Endings of files that are not the name of their scheme.
_SCHEMES = {"txt": "text", "md": "text", "htm": "html", "tsv": "csv"}


def find(package: str, name: str, where: str) -> Callable:
  """Returns the function `name` of the file `name` in `package` or its rooms.

  Raises:
    UserError: there is no such file; lists the closest name and all names.
  """
  modules = discover(package)
  if isinstance(name, str) and name in modules:
    found = importlib.import_module(modules[name])
    if hasattr(found, str(name)):
      return getattr(found, name)
  raise UserError(
    f"{where}: {package.replace('.', '/')} has no {name!r}"
    f"{nearest(name, modules)} (there are: {', '.join(sorted(modules))})"
  )


def discover(package: str) -> dict[str, str]:
  """Returns {file name: module} of a package and its rooms; imports none.

  Rooms listed in the package's SHARED, and rooms called "parts", contain code
  that its files share. A config cannot name files in these rooms.
  """
  module = importlib.import_module(package)
  shared = {"parts", *getattr(module, "SHARED", ())}
  found = {}
  for each in pkgutil.iter_modules(module.__path__):
    if each.name in shared:
      continue
    if each.ispkg:
      found |= discover(f"{package}.{each.name}")
    else:
      found[each.name] = f"{package}.{each.name}"
  return found


def nearest(name: Any, names: Iterable[str]) -> str:
  """'; did you mean "X"?' for the closest of `names`, or ""."""
  close = difflib.get_close_matches(str(name), list(names), n=1, cutoff=0.5)
  return f'; did you mean "{close[0]}"?' if close else ""


def scheme_of(uri: str, schemes: Collection[str]) -> tuple[str, str]:
  """(scheme, the rest) of a URI; ValueError if the scheme is not known."""
  scheme, colon, rest = uri.partition(":")
  if not colon or scheme not in schemes:
    valid = ", ".join(f"{each}:" for each in sorted(schemes))
    if uri and os.path.exists(os.path.expanduser(uri)):
      raise ValueError(
        f"source {uri!r} is a path without a scheme{_with_scheme(uri, schemes)}"
        f" (there are: {valid})"
      )
    raise ValueError(
      f"source {uri!r}: unknown scheme {scheme!r}{nearest(scheme, schemes)}"
      f" (there are: {valid})"
    )
  return scheme, rest


def _with_scheme(path: str, schemes: Collection[str]) -> str:
  """'; did you mean "SCHEME:PATH"?' by the endings of its files, or ""."""
  files = [path]
  if os.path.isdir(os.path.expanduser(path)):
    try:
      with os.scandir(os.path.expanduser(path)) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    except OSError:
      found = []
    deeper = any(entry.is_dir() for entry in found)
    files = [] if deeper else [entry.name for entry in found]
  for file in files:
    endings = os.path.basename(file).lower().split(".")[1:]
    for i, ending in enumerate(endings):
      scheme = _SCHEMES.get(ending, ending)
      if scheme in schemes:
        among = path
        if file != path:
          among = os.path.join(path, f"*.{'.'.join(endings[i:])}")
        return f'; did you mean "{scheme}:{among}"?'
  scheme = "text" if files == [path] else "folder"
  return f'; did you mean "{scheme}:{path}"?' if scheme in schemes else ""


def call(
  function: Callable,
  *args: Any,
  where: str,
  settings: Mapping[str, Any],
  offered: Mapping[str, Any] | None = None,
  also: Iterable[str] = (),
) -> Any:
  """Calls function(*args, **settings); its errors name the config's keys.

  Args:
    function: from `find`.
    *args: positional arguments.
    where: the section of the config, such as "config.model".
    settings: keyword arguments from the config.
    offered: keyword arguments, such as sizes known from the data, that are
      passed if the function takes them and the config does not set them.
    also: further valid keys of the section, which its settings do not include.

  Raises:
    UserError: a key is not an argument, an argument is missing, the function
      raised ValueError, or a value has another type than it annotates.
  """
  check_keys(function, where, settings, skip=len(args), also=also)
  parameters = inspect.signature(function).parameters
  known = {k: v for k, v in (offered or {}).items() if k in parameters}
  keywords = {**known, **settings}
  missing = [
    name
    for name, parameter in list(parameters.items())[len(args) :]
    if parameter.default is parameter.empty
    and parameter.kind is not parameter.VAR_KEYWORD
    and name not in keywords
  ]
  if missing:
    raise UserError(
      f"{where}: {function.__name__} needs {', '.join(missing)}, which neither"
      " the config nor the data gives"
    )
  try:
    result = function(*args, **keywords)
  except UserError:
    raise
  except ValueError as error:
    raise UserError(f"{where}: {error}") from error
  except (TypeError, AttributeError, LookupError) as error:
    _check_types(function, where, settings, error)
    raise
  # The function's own words, above, come first.
  _check_types(function, where, settings, None)
  return result


def _check_types(
  function: Callable,
  where: str,
  settings: Mapping[str, Any],
  cause: Exception | None,
) -> None:
  """Raises UserError for the first value of another type than annotated."""
  wrong = mistyped(function, settings)
  if wrong:
    line = f"{where}.{wrong[0]}={shown(settings[wrong[0]])}: not {wrong[1]}"
    raise UserError(line) from cause


def check_keys(
  function: Callable,
  where: str,
  settings: Mapping[str, Any],
  skip: int = 0,
  also: Iterable[str] = (),
) -> None:
  """Raises UserError for the first key that `function` does not take."""
  parameters = list(inspect.signature(function).parameters.values())[skip:]
  if any(p.kind is p.VAR_KEYWORD for p in parameters):
    return  # the function itself checks its keys
  names = [p.name for p in parameters]
  for key in settings:
    if key not in names:
      source = function.__module__.replace(".", "/") + ".py"
      raise UserError(
        f"{where}.{key}: unknown to {source}{nearest(key, [*names, *also])}"
      )
