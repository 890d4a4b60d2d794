"""Which value of a config does not have the type that a function annotates."""

import collections.abc
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

_WORDS = {
  str: "a string",
  bool: "True or False",
  int: "a whole number",
  float: "a number",
  types.NoneType: "None",
}
_MANY = {str: "strings", int: "whole numbers", float: "numbers"}
_LISTS = (list, tuple, collections.abc.Sequence, collections.abc.Collection)
_SECTIONS = (dict, collections.abc.Mapping)
_UNIONS = (types.UnionType, typing.Union)


def mistyped(
  function: Callable, settings: Mapping[str, Any]
) -> tuple[str, str] | None:
  """Returns the first key whose value has another type than is annotated.

  Annotations are checked as far as they consist of strings, numbers, sections,
  lists and unions of these. None fits all of them.

  Args:
    function: takes the settings as keyword arguments.
    settings: from the config.

  Returns:
    (key, what its value must be, such as "a string or None"), or None.
  """
  try:
    hints = typing.get_type_hints(function)
  except (NameError, TypeError):  # a name that is imported for type checkers
    return None
  for key, value in settings.items():
    hint = hints.get(key, Any)
    if value is not None and not _fits(value, hint):
      return key, _described(hint)
  return None


def _fits(value: Any, hint: Any) -> bool:
  """Whether a value has the type of an annotation, or may have it."""
  origin, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
  if origin in _UNIONS:
    return any(_fits(value, part) for part in parts)
  if origin in (int, float):
    numbers = (int,) if origin is int else (int, float)
    return isinstance(value, numbers) and not isinstance(value, bool)
  if origin in _LISTS:
    alike = origin is not tuple or parts[1:] == (...,)
    one = parts[0] if parts and alike else Any
    return isinstance(value, (list, tuple)) and all(
      _fits(each, one) for each in value
    )
  if origin in _SECTIONS:
    return isinstance(value, Mapping)
  return origin not in _WORDS or isinstance(value, origin)


def _described(hint: Any) -> str:
  """An annotation in words."""
  origin, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
  if origin in _UNIONS:
    return " or ".join(map(_described, parts))
  if origin in _LISTS:
    many = _MANY.get(parts[0]) if parts else None
    return f"a list of {many}" if many else "a list"
  return "a section" if origin in _SECTIONS else _WORDS.get(origin, str(hint))
