"""Assigns values to parameters by lists of (path regex, value).

The path of a parameter is its keys joined by "/", such as
"blocks/attention/query/kernel". A regex matches if `re.search` finds it in the
path; the first rule that matches applies.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
import optax

from train.types import PyTree

Rules = Sequence[tuple[str, float]]


def paths(tree: PyTree) -> PyTree:
  """Returns a tree in which each leaf is replaced by its path."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: jax.tree_util.keystr(path, simple=True, separator="/"),
    tree,
  )


def flat(tree: PyTree) -> dict[str, Any]:
  """Returns nested dicts as {path: leaf}."""
  return dict(
    zip(jax.tree.leaves(paths(tree)), jax.tree.leaves(tree), strict=True)
  )


def parse(
  key: str, value: float | Rules, spared: str | None = None
) -> list[tuple[re.Pattern, float]]:
  """Parses a value of a config: a number or a list of (regex, number).

  Args:
    key: the key in the config, for error messages.
    value: the value; a number applies to all parameters.
    spared: a regex; a plain number does not apply to parameters that it
      matches, whose value is 0.

  Raises:
    ValueError: the value is neither a number nor a list, is empty, or contains
      a negative number.
  """
  given = value
  if isinstance(value, int | float) and not isinstance(value, bool):
    value = [(".*", value)]
    if spared is not None:
      value.insert(0, (spared, 0.0))
  try:
    rules = [(compiled(key, regex), float(number)) for regex, number in value]
  except (TypeError, ValueError) as error:
    raise ValueError(
      f"{key}={given!r} is neither a number nor a list of (regex, number):"
      f" {error}"
    ) from error
  if not rules or not all(number >= 0 for _, number in rules):
    raise ValueError(f"{key}={given!r} is empty or contains a negative number")
  return rules


def compiled(key: str, regex: str) -> re.Pattern:
  """Returns the compiled regex; ValueError names `key` if it is invalid."""
  try:
    return re.compile(regex)
  except (re.error, TypeError) as error:
    raise ValueError(
      f"{key}: {regex!r} is not a valid regex: {error}"
    ) from error


def first(rules, path: str, otherwise: Any = 0.0) -> Any:
  """Returns the value of the first rule that matches `path`."""
  return next(
    (value for regex, value in rules if re.search(regex, path)), otherwise
  )


def part(tree: PyTree, labels: PyTree, label: str | bool) -> PyTree:
  """Returns `tree` with leaves of other labels replaced by MaskedNode()."""
  return jax.tree.map(
    lambda leaf, own: leaf if own == label else optax.MaskedNode(), tree, labels
  )


def joined(part: PyTree, other: PyTree) -> PyTree:
  """Returns the tree of which `part` has some leaves and `other` the rest."""
  return jax.tree.map(
    lambda a, b: b if isinstance(a, optax.MaskedNode) else a,
    part,
    other,
    is_leaf=lambda x: isinstance(x, optax.MaskedNode),
  )


def merged(tree: PyTree, part: PyTree) -> PyTree:
  """Returns `tree` with the leaves of `part` in place of its own."""
  return jax.tree.map(
    lambda leaf, own: leaf if isinstance(own, optax.MaskedNode) else own,
    tree,
    part,
  )
