"""The layout of a Hugging Face tensor in our arrays, for both directions.

A layout has one letter per axis, with the Hugging Face tensor on the left:
"OI->IO" transposes, "OIHW->(HWI)O" also merges axes, and "I(SO)->SIO" splits
off an axis S. Exchanging the two sides gives the inverse.
"""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

Shape = tuple[int, ...]
# {path such as "params/blocks/attention/query/kernel": shape}.
Shapes = Mapping[str, Shape]


class Row(NamedTuple):
  """One row of a family's table.

  theirs: the name of the tensor; "{}" stands for the number of the layer,
    counted from 0.
  ours: a path in params, or several if the tensor contains several of our
    arrays along S.
  layout: see above; "" if the layouts are the same.
  layers: the number of layers on the first axis of our array; 0 if it has no
    such axis.
  known: the sizes of axes that are merged on our side.
  state: whether the path is in model_state instead of params.
  """

  theirs: str
  ours: str | tuple[str, ...]
  layout: str = ""
  layers: int = 0
  known: tuple[tuple[str, int], ...] = ()
  state: bool = False

  def names(self) -> list[str]:
    """Returns the names of the tensors, in order."""
    if not self.layers:
      return [self.theirs]
    return [self.theirs.format(i) for i in range(self.layers)]

  def paths(self) -> list[str]:
    """Returns the paths of our arrays."""
    ours = (self.ours,) if isinstance(self.ours, str) else self.ours
    root = "model_state" if self.state else "params"
    return [f"{root}/{path}" for path in ours]

  def shape(self, shapes: Shapes) -> Shape:
    """Returns the shape of each tensor, given the shapes of our arrays.

    Raises:
      ValueError: the layout does not fit the shapes of our arrays.
    """
    first, *others = (shapes[path] for path in self.paths())
    if self.layers:
      if first[:1] != (self.layers,):
        raise ValueError(
          f"{self.paths()[0]} does not have {self.layers} layers"
        )
      first = first[1:]
    if others:
      first = (1 + len(others), *first)
    if not self.layout:
      return tuple(first)
    left, right = self.layout.split("->")
    sizes = _sizes(right, first, self._known())
    return tuple(math.prod(sizes[a] for a in axis) for axis in _axes(left))

  def put(self, number: int, tensor: np.ndarray, arrays: dict) -> None:
    """Writes tensor `number` into our arrays, in place."""
    paths = self.paths()
    piece = turned(tensor, self.layout, self._known())
    for path, part in zip(
      paths, piece if len(paths) > 1 else [piece], strict=True
    ):
      arrays[path][number if self.layers else ...] = part

  def take(self, number: int, arrays: Mapping) -> np.ndarray:
    """Returns tensor `number`, taken from our arrays."""
    parts = [
      np.asarray(arrays[path][number] if self.layers else arrays[path])
      for path in self.paths()
    ]
    piece = np.stack(parts) if len(parts) > 1 else parts[0]
    back = "->".join(reversed(self.layout.split("->"))) if self.layout else ""
    return np.ascontiguousarray(turned(piece, back, self._known()))

  def _known(self) -> dict[str, int]:
    ours = 1 if isinstance(self.ours, str) else len(self.ours)
    return {**dict(self.known), **({"S": ours} if ours > 1 else {})}


def turned(
  array: np.ndarray, layout: str, known: Mapping[str, int]
) -> np.ndarray:
  """Converts an array from the left side of a layout to the right side.

  Args:
    array: the array, in the left side's layout.
    layout: a layout such as "OIHW->(HWI)O"; "" for no change.
    known: sizes of axes that do not follow from the array's shape.
  """
  if not layout:
    return array
  left, right = layout.split("->")
  sizes = _sizes(left, array.shape, known)
  before, after = "".join(_axes(left)), "".join(_axes(right))
  whole = array.reshape([sizes[axis] for axis in before])
  whole = whole.transpose([before.index(axis) for axis in after])
  return whole.reshape(
    [math.prod(sizes[a] for a in axis) for axis in _axes(right)]
  )


def _axes(side: str) -> list[str]:
  """Returns the letters of each axis: "(HWI)O" gives ["HWI", "O"]."""
  return [axis.strip("()") for axis in re.findall(r"\(\w+\)|\w", side)]


def _sizes(side: str, shape: Shape, known: Mapping[str, int]) -> dict[str, int]:
  """Returns the size of each letter in one side of a layout."""
  sizes = dict(known)
  if len(_axes(side)) != len(shape):
    raise ValueError(f"{list(shape)} does not fit the layout {side}")
  for axis, size in zip(_axes(side), shape, strict=True):
    new = [letter for letter in axis if letter not in sizes]
    rest = math.prod(sizes[letter] for letter in axis if letter in sizes)
    if len(new) > 1 or size % rest or (not new and size != rest):
      raise ValueError(f"{list(shape)} does not fit the layout {side} {sizes}")
    sizes |= dict.fromkeys(new, size // rest)
  return sizes
