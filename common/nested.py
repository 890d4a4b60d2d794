"""Paths as nested dicts."""

from collections.abc import Mapping
from typing import Any


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
  """Returns {path: leaf} as nested dicts; a path is joined by "/"."""
  tree: dict[str, Any] = {}
  for path, leaf in leaves.items():
    *parents, name = path.split("/")
    branch = tree
    for parent in parents:
      branch = branch.setdefault(parent, {})
    branch[name] = leaf
  return tree
