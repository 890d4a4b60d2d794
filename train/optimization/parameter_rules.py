"""Which value is which parameter's: lists of (path regex, value).

A parameter's path is its keys joined by "/": "blocks/attention/query/kernel".
A regex matches where `re.search` finds it, and the first that does wins.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
import optax

from train.types import PyTree

Rules = Sequence[tuple[str, float]]


def paths(tree: PyTree) -> PyTree:
  """The tree of its leaves' paths."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: jax.tree_util.keystr(path, simple=True, separator="/"),
    tree,
  )


def flat(tree: PyTree) -> dict[str, Any]:
  """{path: leaf} of nested dicts."""
  return dict(
    zip(jax.tree.leaves(paths(tree)), jax.tree.leaves(tree), strict=True)
  )


def nested(leaves: dict[str, Any]) -> dict[str, Any]:
  """The nested dicts of {path: leaf}."""
  tree: dict[str, Any] = {}
  for path, leaf in leaves.items():
    *parents, name = path.split("/")
    branch = tree
    for parent in parents:
      branch = branch.setdefault(parent, {})
    branch[name] = leaf
  return tree


def parse(
  key: str, value: float | Rules, spared: str | None = None
) -> list[tuple[re.Pattern, float]]:
  """Rules from what a config holds: a number, or a list of (regex, number).

  Args:
    key: the config's, for messages.
    value: a number holds for every parameter, except that
    spared: what this regex finds has 0.

  Raises:
    ValueError: it is neither, is empty, or a number in it is negative.
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
    raise ValueError(f"{key}={given!r} is empty, or a number in it is below 0")
  return rules


def compiled(key: str, regex: str) -> re.Pattern:
  """The compiled regex; ValueError names `key` where it is none."""
  try:
    return re.compile(regex)
  except (re.error, TypeError) as error:
    raise ValueError(f"{key}: {regex!r} is no regex: {error}") from error


def first(rules, path: str, otherwise: Any = 0.0) -> Any:
  """The value of the first rule that is found in `path`."""
  return next(
    (value for regex, value in rules if re.search(regex, path)), otherwise
  )


def part(tree: PyTree, labels: PyTree, label: str) -> PyTree:
  """`tree` with optax.MaskedNode(), which has no leaves, where not `label`."""
  return jax.tree.map(
    lambda leaf, own: leaf if own == label else optax.MaskedNode(), tree, labels
  )


def merged(tree: PyTree, part: PyTree) -> PyTree:
  """`tree` with the leaves that a `part` of it has in place of its own."""
  return jax.tree.map(
    lambda leaf, own: leaf if isinstance(own, optax.MaskedNode) else own,
    tree,
    part,
  )
