"""Detection: average precision as pycocotools computes it for COCO."""

import contextlib
import io
from typing import Any, NamedTuple

import jax
import numpy as np

from train import types

# The figures of COCOeval.stats.
BOX_METRICS = {
  "map": 0,
  "map50": 1,
  "map75": 2,
  "map_small": 3,
  "map_medium": 4,
  "map_large": 5,
}
MASK_METRICS = {"mask_ap": 0, "mask_ap50": 1}
# The fields of a batch that are compared, if it has them.
_FIELDS = (
  "mask",
  "boxes",
  "boxes_mask",
  "classes",
  "crowd",
  "place",
  "instances",
)


class Found(NamedTuple):
  """What is compared: dicts as in a COCO file.

  images: [{"id"}], in order; "height" and "width" if there are masks.
  truth: annotations, each with "id", "image_id", "category_id", "bbox" (x, y,
    width, height), "area" and "iscrowd"; "segmentation" if there are masks.
  guesses: the same with "score" in place of "iscrowd".
  """

  images: list[dict]
  truth: list[dict]
  guesses: list[dict]


def average_precision(context: types.EvalContext) -> types.Evaluator:
  """Measures map, map50, map75, map_small, map_medium, map_large and loss.

  The figures, from 0 to 1, are those of pycocotools' COCOeval on all images of
  the split, those without objects included: an image has at most 100
  detections, and no score is too low to be counted. Where the batches have the
  field "place" (op track_place), boxes are compared in pixels of the original
  files; otherwise in pixels of the model's input. An object that is marked in
  "crowd" is neither missed nor found wrongly. If masks are predicted, mask_ap
  and mask_ap50 compare them with the field "instances". A metric without any
  object, such as map_small where all are large, is left out.

  Raises:
    ValueError: the task does not predict detections, the data has no boxes or
      classes, or pycocotools is not installed.
  """
  if "detections" not in context.task.predict or not context.num_classes:
    raise ValueError(
      "average_precision needs predicted detections and a known number of"
      " classes, as in voc:DIR"
    )
  _pycocotools()
  has_loss = "loss" in context.task.losses

  @jax.jit
  def predict(variables, batch, at):
    found = context.task.predict["detections"](variables, batch, at.rng)
    if not has_loss:
      return types.Mean(np.float32(0), np.float32(0)), found
    return context.task.losses["loss"](variables, batch, at)[0], found

  def evaluate(variables, step):
    at = types.Context(context.rng, np.int32(step), train=False)
    total, found = np.zeros(2), Found([], [], [])
    for batch in context.batches():
      if "boxes" not in batch or "classes" not in batch:
        raise ValueError("average_precision needs the fields boxes and classes")
      rows = {name: batch[name] for name in _FIELDS if name in batch}
      loss, guess = predict(variables, batch, at)
      loss, guess, rows = context.fetch((loss, guess, rows))
      total += [float(loss.total), float(loss.weight)]
      for i in np.flatnonzero(rows["mask"] > 0):
        add_image(
          found,
          {name: value[i] for name, value in rows.items()},
          {name: value[i] for name, value in guess.items()},
        )
    figures = {"loss": float(total[0] / (total[1] or 1))} if has_loss else {}
    return figures | measured(found, context.num_classes)

  return evaluate


def add_image(found: Found, truth: dict, guess: dict) -> None:
  """Adds one image to what is compared.

  Args:
    found: is added to.
    truth: its fields of a batch, arrays without the axis of the batch.
    guess: its detections: "boxes" [K, 4] in pixels of the input, "scores" [K],
      0 where there is none, and "classes" [K]; "masks" [K, h, w] if predicted,
      probabilities within the box.
  """
  number = len(found.images) + 1
  place = np.asarray(truth.get("place", np.eye(2, 3)), np.float64)
  real = truth.get("boxes_mask", np.ones(len(truth["boxes"]))) > 0
  crowd = truth.get("crowd", np.zeros(len(truth["boxes"]), int))
  masked = "masks" in guess and "instances" in truth
  grid = _Grid(place, truth["instances"].shape[1:]) if masked else None
  size = grid.spots_HW2.shape if grid else (0, 0)
  found.images.append({"id": number, "height": size[0], "width": size[1]})
  for i in np.flatnonzero(real):
    entry = _entry(number, truth["boxes"][i], truth["classes"][i], place)
    entry |= {"id": len(found.truth) + 1, "iscrowd": int(crowd[i] > 0)}
    if grid is not None:
      entry |= grid.encoded(grid.whole(truth["instances"][i]))
    found.truth.append(entry)
  for i in np.flatnonzero(guess["scores"] > 0):
    entry = _entry(number, guess["boxes"][i], guess["classes"][i], place)
    entry |= {
      "id": len(found.guesses) + 1,
      "score": float(guess["scores"][i]),
    }
    if grid is not None:
      entry["masked"] = grid.encoded(
        grid.within(guess["masks"][i], guess["boxes"][i])
      )
    found.guesses.append(entry)


def measured(found: Found, num_classes: int) -> dict[str, float]:
  """{metric: COCOeval's figure}, without those that have no object."""
  figures = _evaluated(found, num_classes, "bbox", BOX_METRICS)
  if any("segmentation" in entry for entry in found.truth):
    guesses = [{**entry, **entry["masked"]} for entry in found.guesses]
    figures |= _evaluated(
      found._replace(guesses=guesses), num_classes, "segm", MASK_METRICS
    )
  return figures


def _evaluated(found: Found, num_classes: int, kind: str, names: dict):
  coco, cocoeval, _ = _pycocotools()
  categories = [{"id": c + 1} for c in range(num_classes)]
  # pycocotools reports its progress with print.
  with contextlib.redirect_stdout(io.StringIO()):
    sides = []
    for annotations in (found.truth, found.guesses):
      side = coco.COCO()
      side.dataset = {
        "images": found.images,
        "categories": categories,
        # COCOeval writes into the annotations.
        "annotations": [dict(entry) for entry in annotations],
      }
      side.createIndex()
      sides.append(side)
    judge = cocoeval.COCOeval(*sides, kind)
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
  return {
    name: float(judge.stats[i])
    for name, i in names.items()
    if judge.stats[i] >= 0
  }


def _entry(image: int, box: Any, kind: Any, place: np.ndarray) -> dict:
  """An annotation of a box, in pixels of the original file."""
  x0, y0, x1, y1 = upright(np.asarray(box, np.float64), place)
  return {
    "image_id": image,
    "category_id": int(kind) + 1,
    "bbox": [x0, y0, x1 - x0, y1 - y0],
    "area": (x1 - x0) * (y1 - y0),
  }


def upright(box: np.ndarray, place: np.ndarray) -> list[float]:
  """The box (x0, y0, x1, y1) around one whose corners are mapped by `place`."""
  corners = box[[[0, 1], [2, 1], [0, 3], [2, 3]]] @ place[:, :2].T
  corners = corners + place[:, 2]
  return [*map(float, corners.min(0)), *map(float, corners.max(0))]


def probability(
  spots_HW2: np.ndarray, mask_HW: np.ndarray, box: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Values that are spread evenly over a box, at some positions, bilinearly.

  Args:
    spots_HW2: positions (x, y), in the pixels of the box.
    mask_HW: values [h, w] or [h, w, C].
    box: (x0, y0, x1, y1).

  Returns:
    (values [H, W] or [H, W, C], 0 outside; bool [H, W], whether inside).
  """
  height, width = mask_HW.shape[:2]
  box = np.asarray(box, np.float64)
  extent = np.maximum(box[2:] - box[:2], 1e-6)
  share_HW2 = (spots_HW2 - box[:2]) / extent
  inside_HW = ((share_HW2 >= 0) & (share_HW2 < 1)).all(-1)
  # Only there is anything to be interpolated.
  at = share_HW2[inside_HW] * [width, height] - 0.5
  at = np.clip(at, 0, [width - 1, height - 1])
  low = np.floor(at).astype(int)
  high = np.minimum(low + 1, [width - 1, height - 1])
  part = (at - low).reshape(*at.shape, *(1,) * (mask_HW.ndim - 2))
  x, y = part[:, 0], part[:, 1]
  mask_HW = np.asarray(mask_HW, np.float64)

  def row(place):
    left, right = (mask_HW[place, side[..., 0]] for side in (low, high))
    return left * (1 - x) + right * x

  values = np.zeros((*inside_HW.shape, *mask_HW.shape[2:]))
  values[inside_HW] = row(low[..., 1]) * (1 - y) + row(high[..., 1]) * y
  return values, inside_HW


class _Grid:
  """The pixels of the original file that an input covers.

  A mask is sampled at the centres of these pixels. They begin at the upper left
  corner of the input as it lies in the file, which moves all masks of an image
  alike.
  """

  def __init__(self, place: np.ndarray, size: tuple[int, int]):
    height, width = size
    x0, y0, x1, y1 = upright(np.array([0.0, 0.0, width, height]), place)
    x0, y0 = np.floor(x0 + 1e-4), np.floor(y0 + 1e-4)
    # At least one pixel, also of an input that lies within one.
    columns = np.arange(max(1, np.ceil(x1 - x0 - 1e-4))) + x0 + 0.5
    rows = np.arange(max(1, np.ceil(y1 - y0 - 1e-4))) + y0 + 0.5
    spots = np.stack(np.meshgrid(columns, rows), -1) - place[:, 2]
    self.spots_HW2 = spots @ np.linalg.inv(place[:, :2]).T

  def whole(self, mask_HW: np.ndarray) -> np.ndarray:
    """A mask of the whole input, at the nearest pixels."""
    column, row = np.floor(self.spots_HW2).astype(int).transpose(2, 0, 1)
    height, width = mask_HW.shape
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    row, column = np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)
    return (mask_HW[row, column] > 0) & inside

  def within(self, mask_HW: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Where the probabilities within a box exceed a half, bilinearly."""
    value, inside = probability(self.spots_HW2, mask_HW, box)
    return (value > 0.5) & inside

  def encoded(self, mask_HW: np.ndarray) -> dict:
    """{"segmentation": run lengths, "area"} of a mask."""
    run_lengths = _pycocotools()[2].encode(
      np.asfortranarray(mask_HW, dtype=np.uint8)
    )
    return {"segmentation": run_lengths, "area": float(mask_HW.sum())}


def _pycocotools():
  """Returns its modules coco, cocoeval and mask; ValueError if not there."""
  try:
    from pycocotools import coco, cocoeval, mask
  except ImportError:
    raise ValueError(
      "average_precision needs pycocotools, which is not installed:"
      " pip install -e '.[vision]'"
    ) from None
  return coco, cocoeval, mask
