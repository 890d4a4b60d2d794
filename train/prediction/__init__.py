"""Predictions as records: a file for each kind of prediction of a task.

`python -m train.predict` writes the first prediction that a task names and that
has a file here. The function of the file's name takes a Context and returns a
Rendering, or just its `render`: (iterator of Pieces) -> iterator of records,
dicts of values that JSON can hold, or of Pictures, all with the same keys. The
first key is "record", the name of the file, line or row.

Kinds whose file sets DRAWN = True are drawn at random instead, from no data.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from common import names
from common.errors import UserError
from common.leaf import Spec

# The axes of a picture.
PICTURE = ("height", "width", "channel")


class Context(NamedTuple):
  """What a renderer knows of the run.

  abstract: the prediction of a batch, as ShapeDtypeStructs [B, ...].
  spec: {name: Leaf} of the batches of training.
  class_names: in the order of the labels, or ().
  top: the number of alternatives to write.
  settings: of the evaluator in the run's config.
  options: further settings of the user, by the name of their flag.
  unscaled: (predicted "y") -> the same in the unit of the data; or None.
  """

  abstract: Any
  spec: Spec
  class_names: tuple[str, ...] = ()
  top: int = 1
  settings: Mapping[str, Any] = {}
  options: Mapping[str, Any] = {}
  unscaled: Callable[[np.ndarray], np.ndarray] | None = None

  def chosen(self, name: str, default: Any) -> Any:
    """An option of the user, or else a setting of the run's evaluator."""
    given = self.options.get(name)
    return self.settings.get(name, default) if given is None else given

  def picture(self) -> str | None:
    """The field of a batch that is a picture, if there is one."""
    axes = self.spec.items()
    return next((name for name, leaf in axes if leaf.axes == PICTURE), None)

  def class_name(self, number: int) -> str | int:
    """The name of a class, or its number if it has no name."""
    known = number < len(self.class_names)
    return self.class_names[number] if known else int(number)


class Original(NamedTuple):
  """A picture as it is in its file, upright.

  size: (width, height) in pixels.
  pixels: () -> uint8 [height, width, 3].
  """

  size: tuple[int, int]
  pixels: Callable[[], np.ndarray]


class Picture(NamedTuple):
  """A value of a record that is a picture.

  pixels: () -> uint8 [h, w, 1 or 3], or numbers of classes [h, w].
  drawn: whether it only shows what other values of the record state.
  """

  pixels: Callable[[], np.ndarray]
  drawn: bool = False


class Piece(NamedTuple):
  """The predictions of some rows, in the order of the data.

  values: the prediction, NumPy arrays [n, ...].
  mask: of the batch, [n] or [n, T].
  records: the name of the record of each row.
  texts: () -> the values of the records, see rows.Rows.
  places: float32 [n, 2, 3], the maps from pixels of the model's input to those
    of the original; None if the Rendering does not ask for them.
  original: (number of a row) -> the Original; None as for `places`.
  """

  values: Any
  mask: np.ndarray
  records: list[str]
  texts: Callable[[], Mapping[str, Sequence]]
  places: np.ndarray | None = None
  original: Callable[[int], Original] | None = None


Renderer = Callable[[Iterator[Piece]], Iterator[dict[str, Any]]]


class Rendering(NamedTuple):
  """How a kind of prediction becomes records.

  render: see Renderer.
  placed: whether it needs `places` and `original` of a Piece.
  whole: whether each picture is computed alone and in the size that the ops
    leave it in. Its pieces are of one row.
  unmoved: for `whole`, whether ops that move pixels are left out.
  pictures: whether a record is nothing without its Pictures.
  entries: (number from 1 on, record) -> the entries of predictions.json for it.
  apply: (predict, picture [H, W, C]) -> [H, W, C'], where predict takes and
    returns [1, h, w, C]; for `whole`, to compute large pictures in parts.
  extra: {leaf of the batch: the number that it has in each row}, for `whole`.
  views: (predict of the task) -> predict with a result of the same shape.
  """

  render: Renderer
  placed: bool = False
  whole: bool = False
  unmoved: bool = False
  pictures: bool = False
  entries: Callable[[int, dict], list[dict]] = lambda number, record: [record]
  apply: Callable[[Callable, np.ndarray], np.ndarray] | None = None
  extra: Mapping[str, float] = {}
  views: Callable[[Callable], Callable] = lambda predict: predict


def kind_of(task: Any, name: str, drawn: bool = False) -> str:
  """Returns the prediction of a task that is written.

  Args:
    task: the Task.
    name: what the config calls it.
    drawn: whether it is drawn at random instead of computed from data.

  Raises:
    UserError: the task has none.
  """
  kinds = names.discover(__name__)
  found = [kind for kind in task.predict if kind in kinds]
  of = {kind: _module(kind) for kind in found}
  chosen = [k for k in found if getattr(of[k], "DRAWN", False) == drawn]
  if chosen:
    return chosen[0]
  if drawn:
    raise UserError(
      f"--number: the task of this run, {name}, draws no pictures; --images,"
      " --source or --text names data to predict"
    )
  if found:
    raise UserError(
      f"--workdir: the task of this run, {name}, reads no data but draws"
      " pictures: train.predict --number=16 draws 16 of them"
    )
  raise UserError(f"--workdir: {no_labels(name)}")


def no_labels(name: str) -> str:
  """A line for a task that predicts nothing that can be written."""
  return (
    f"the task of this run, {name}, predicts no classes, tags, answers, numbers"
    " or pictures; train.generate, train.translate and train.chat write texts"
  )


def rendering(kind: str, context: Context) -> Rendering:
  """Returns the Rendering of a kind of prediction.

  Raises:
    ValueError: the prediction has another shape.
  """
  found = getattr(_module(kind), kind)(context)
  return found if isinstance(found, Rendering) else Rendering(found)


def _module(kind: str) -> Any:
  return importlib.import_module(names.discover(__name__)[kind])
