"""How one tensor of theirs lies in arrays of ours: read either way.

A layout is written with a letter an axis, theirs first: "OI->IO" transposes,
"OIHW->(HWI)O" also joins axes, "I(SO)->SIO" parts one into S. The way back is
the same with the sides exchanged.
"""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

Shape = tuple[int, ...]
# Of paths such as "params/blocks/attention/query/kernel".
Shapes = Mapping[str, Shape]


class Row(NamedTuple):
  """One row of a family's table.

  theirs: name of the tensor; with "{}", of one a layer, numbered from 0.
  ours: path in params; several where theirs holds them all, along S.
  layout: see above; "" where they are alike.
  layers: how many stand along the first axis of ours; 0 where none do.
  known: sizes of axes that are joined on our side.
  state: whether the path is in model_state instead.
  """

  theirs: str
  ours: str | tuple[str, ...]
  layout: str = ""
  layers: int = 0
  known: tuple[tuple[str, int], ...] = ()
  state: bool = False

  def names(self) -> list[str]:
    """Of their tensors, in order."""
    if not self.layers:
      return [self.theirs]
    return [self.theirs.format(i) for i in range(self.layers)]

  def paths(self) -> list[str]:
    """Of our arrays."""
    ours = (self.ours,) if isinstance(self.ours, str) else self.ours
    root = "model_state" if self.state else "params"
    return [f"{root}/{path}" for path in ours]

  def shape(self, shapes: Shapes) -> Shape:
    """Of each of their tensors, by those of our arrays.

    Raises:
      ValueError: no tensor can be laid out as these.
    """
    first, *others = (shapes[path] for path in self.paths())
    if self.layers:
      if first[:1] != (self.layers,):
        raise ValueError(f"{self.paths()[0]} has not {self.layers} layers")
      first = first[1:]
    if others:
      first = (1 + len(others), *first)
    if not self.layout:
      return tuple(first)
    left, right = self.layout.split("->")
    sizes = _sizes(right, first, self._known())
    return tuple(math.prod(sizes[a] for a in axis) for axis in _axes(left))

  def put(self, number: int, tensor: np.ndarray, arrays: dict) -> None:
    """Writes their tensor `number` to where it lies in our arrays."""
    paths = self.paths()
    piece = turned(tensor, self.layout, self._known())
    for path, part in zip(
      paths, piece if len(paths) > 1 else [piece], strict=True
    ):
      arrays[path][number if self.layers else ...] = part

  def take(self, number: int, arrays: Mapping) -> np.ndarray:
    """Their tensor `number`, of our arrays."""
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
  """The array, laid out as the right side of a layout says.

  Args:
    array: as its left side says.
    layout: such as "OIHW->(HWI)O"; "" for no change.
    known: sizes of axes that the array does not show.
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
  """The letters of each axis: "(HWI)O" has ["HWI", "O"]."""
  return [axis.strip("()") for axis in re.findall(r"\(\w+\)|\w", side)]


def _sizes(side: str, shape: Shape, known: Mapping[str, int]) -> dict[str, int]:
  """The size of each letter of a side of a layout, which has that shape."""
  sizes = dict(known)
  if len(_axes(side)) != len(shape):
    raise ValueError(f"{list(shape)} is not of the layout {side}")
  for axis, size in zip(_axes(side), shape, strict=True):
    new = [letter for letter in axis if letter not in sizes]
    rest = math.prod(sizes[letter] for letter in axis if letter in sizes)
    if len(new) > 1 or size % rest or (not new and size != rest):
      raise ValueError(f"{list(shape)} is not of the layout {side} {sizes}")
    sizes |= dict.fromkeys(new, size // rest)
  return sizes
