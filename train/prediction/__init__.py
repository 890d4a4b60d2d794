"""Predictions as records: a file for each kind of prediction of a task.

`python -m train.predict` writes the first prediction that a task names and that
has a file here. The function of the file's name takes a Context and returns a
renderer: (iterator of Pieces) -> iterator of records, dicts of values that JSON
can hold, all with the same keys. The first key is "record", the name of the
file, line or row.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from common import names
from common.errors import UserError
from common.leaf import Spec


class Context(NamedTuple):
  """What a renderer knows of the run.

  abstract: the prediction of a batch, as ShapeDtypeStructs [B, ...].
  spec: {name: Leaf} of the batches of training.
  class_names: in the order of the labels, or ().
  top: the number of alternatives to write.
  settings: of the evaluator in the run's config.
  unscaled: (predicted "y") -> the same in the unit of the data; or None.
  """

  abstract: Any
  spec: Spec
  class_names: tuple[str, ...] = ()
  top: int = 1
  settings: Mapping[str, Any] = {}
  unscaled: Callable[[np.ndarray], np.ndarray] | None = None

  def class_name(self, number: int) -> str | int:
    """The name of a class, or its number if it has no name."""
    known = number < len(self.class_names)
    return self.class_names[number] if known else int(number)


class Piece(NamedTuple):
  """The predictions of some rows, in the order of the data.

  values: the prediction, NumPy arrays [n, ...].
  mask: of the batch, [n] or [n, T].
  records: the name of the record of each row.
  texts: () -> the values of the records, see rows.Rows.
  """

  values: Any
  mask: np.ndarray
  records: list[str]
  texts: Callable[[], Mapping[str, Sequence]]


Renderer = Callable[[Iterator[Piece]], Iterator[dict[str, Any]]]


def kind_of(task: Any, name: str) -> str:
  """Returns the prediction of a task that is written.

  Raises:
    UserError: the task, which the config calls `name`, has none.
  """
  kinds = names.discover(__name__)
  found = next((kind for kind in task.predict if kind in kinds), None)
  if found is None:
    raise UserError(f"--workdir: {no_labels(name)}")
  return found


def no_labels(name: str) -> str:
  """A line for a task that predicts nothing that can be written."""
  return (
    f"the task of this run, {name}, predicts no classes, tags, answers or"
    " numbers; train.generate, train.translate and train.chat write texts"
  )


def renderer(kind: str, context: Context) -> Renderer:
  """Returns the renderer of a kind of prediction.

  Raises:
    ValueError: the prediction has another shape.
  """
  module = importlib.import_module(names.discover(__name__)[kind])
  return getattr(module, kind)(context)
