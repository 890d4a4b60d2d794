"""Objects in pictures: boxes, scores, and masks if they are predicted."""

from typing import Any

import numpy as np

from common.errors import UserError
from input_pipeline.reading.annotations import outlines
from train.prediction import Context, Original, Picture, Rendering
from train.prediction.parts import drawing, places

# Of what is written, and of what is drawn.
_LEAST, _LEAST_DRAWN = 0.05, 0.3


def detections(context: Context) -> Rendering:
  """Records {"record", "width", "height", "objects", "boxes"} of detections.

  An object is {"label", "category_id", "score", "bbox"}, with "segmentation" if
  there are masks: COCO's run-length encoding of [height, width]. bbox is (x, y,
  width, height) in pixels of the original, upright picture, whose size is
  "width" and "height", and category_id is the number of the class plus 1.
  Objects are in descending order of their scores; those below the option
  min_score, 0.05 by default, are left out. "boxes" is the Picture with the
  objects drawn on it, whose score is at least min_score, by default 0.3.

  Raises:
    ValueError: the prediction lacks boxes, scores or classes.
    UserError: there are masks, and pycocotools is not installed.
  """
  missing = {"boxes", "scores", "classes"} - set(context.abstract)
  if missing:
    raise ValueError(f"detections lack {', '.join(sorted(missing))}")
  if "masks" in context.abstract:
    try:
      outlines.library()
    except ValueError as error:
      raise UserError(str(error)) from error
  given = context.options.get("min_score")
  least = _LEAST if given is None else given

  def render(pieces):
    for piece in pieces:
      for i, name in enumerate(piece.records):
        original = piece.original(i)
        place = np.eye(2, 3) if piece.places is None else piece.places[i]
        found = [
          _object(context, each, place, original.size)
          for each in places.each(piece.values, i)
          if each["scores"] >= least
        ]
        objects = [each for each in found if each is not None]
        width, height = original.size
        drawn = [
          each
          for each in objects
          if each["score"] >= (_LEAST_DRAWN if given is None else given)
        ]
        yield {
          "record": name,
          "width": width,
          "height": height,
          "objects": objects,
          "boxes": _drawn(original, drawn),
        }

  return Rendering(render, placed=True, entries=_entries)


def _object(
  context: Context, guess: dict[str, Any], place, size: tuple[int, int]
) -> dict[str, Any] | None:
  """One object; None if it lies outside of the original."""
  found = places.box(guess["boxes"], place, size)
  if found is None:
    return None
  x0, y0, x1, y1 = found
  number = int(guess["classes"])
  made = {
    "label": context.class_name(number),
    "category_id": number + 1,
    "score": round(float(guess["scores"]), 6),
    "bbox": [round(n, 2) for n in (x0, y0, x1 - x0, y1 - y0)],
  }
  if "masks" in guess:
    inside = places.mask(guess["masks"], guess["boxes"], place, size)
    made["segmentation"] = places.run_lengths(inside)
  return made


def _drawn(original: Original, objects: list[dict]) -> Picture:
  return Picture(lambda: drawing.objects(original.pixels(), objects), True)


def _entries(number: int, record: dict) -> list[dict]:
  """COCO's results: one entry for each object."""
  return [
    {
      "image_id": number,
      "record": record["record"],
      "category_id": each["category_id"],
      "category": each["label"],
      **{k: each[k] for k in ("bbox", "score", "segmentation") if k in each},
    }
    for each in record["objects"]
  ]
