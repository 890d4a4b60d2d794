"""Leaves of a batch: their shapes, types and what their axes mean.

Those who make a leaf (a kind of rows, an op) or read it (a task) name its axes,
as in

  AXES = {"inputs": ("time",), "image": ("height", "width", "channel")}

Everything between them, such as sharding, planning and the sizes that a model
takes from its data, reads the names of the axes and knows no leaf by its name.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

# The arguments of models and tasks that take the sizes of axes.
_ARGUMENTS = {
  "time": "max_len",
  "height": "image_size",
  "channel": "channels",
  "feature": "in_features",
  "output": "out_features",
}


class Leaf(NamedTuple):
  """A leaf of a batch, without the axis of the examples.

  shape: the sizes of the axes.
  dtype: a NumPy type.
  axes: a name for each axis, "" if it has none, or () if none has. A scalar may
    have the name of one axis, of which it is the only element.
  unit: what the elements of the first axis are counted as in reports of speed,
    such as "tokens", or "".
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  axes: tuple[str, ...] = ()
  unit: str = ""


Spec = dict[str, Leaf]
# The leaves that every batch holds.
MASK_AND_INDEX: Spec = {
  "mask": Leaf((), np.dtype(np.float32)),
  "index": Leaf((), np.dtype(np.int32)),
}
Axes = Mapping[str, tuple[str, ...]]


def described(spec: Spec, axes: Axes, units: Mapping[str, str] = {}) -> Spec:
  """Returns the leaves with names for axes and units, where they have none.

  A name is ignored if the leaf has another number of axes.
  """
  found = {}
  for name, leaf in spec.items():
    given = leaf.axes
    if not all(given) or not given:
      given = tuple(axes.get(name, given))
    fits = len(given) == len(leaf.shape) or (len(given) == 1 and not leaf.shape)
    unit = leaf.unit or (units.get(name, "") if leaf.shape else "")
    found[name] = leaf._replace(axes=given if fits else (), unit=unit)
  return found


def sizes(spec: Spec) -> dict[str, int]:
  """Returns {argument of a model: size} of the named axes.

  Of several leaves with an axis of one name, the largest size is returned.
  """
  found: dict[str, int] = {}
  for leaf in spec.values():
    for axis, size in zip(leaf.axes, leaf.shape or (1,), strict=False):
      argument = _ARGUMENTS.get(axis)
      if argument is not None:
        found[argument] = max(size, found.get(argument, 0))
  return found


def units(spec: Spec) -> dict[str, int]:
  """Returns {unit: the number of them in one example}."""
  found: dict[str, int] = {}
  for leaf in spec.values():
    if leaf.unit:
      found[leaf.unit] = found.get(leaf.unit, 0) + leaf.shape[0]
  return found


def arrays(spec: Spec, batch_size: int, make: Any) -> dict[str, Any]:
  """Returns {name: make(shape, dtype)} of a batch, such as jnp.zeros."""
  return {
    name: make((batch_size, *leaf.shape), leaf.dtype)
    for name, leaf in spec.items()
  }
