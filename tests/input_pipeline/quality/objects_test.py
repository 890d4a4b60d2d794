"""Faults planted among boxes and masks."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from input_pipeline.quality import dataset, objects
from input_pipeline.quality.checks import (
  boxes_outside,
  class_names,
  duplicate_boxes,
  mask_sizes,
  tiny_objects,
)
from input_pipeline.quality.finding import Settings

CHECKS = (
  boxes_outside,
  class_names,
  duplicate_boxes,
  mask_sizes,
  tiny_objects,
)


def run(check, data):
  name = check.__name__.rpartition(".")[2]
  return getattr(check, name)(data, Settings())


def png(array):
  file = io.BytesIO()
  Image.fromarray(array).save(file, "PNG")
  return file.getvalue()


@pytest.fixture
def yolo(tmp_path):
  """(rows of each picture of 100 x 50, names) -> the data set of yolo:."""

  def write(*pictures, names=("a", "b")):
    for folder in ("images", "labels"):
      (tmp_path / folder).mkdir(exist_ok=True)
    image = np.random.default_rng(0).integers(0, 255, (50, 100, 3), np.uint8)
    for i, rows in enumerate(pictures):
      image[0, 0] = i
      (tmp_path / "images" / f"{i}.png").write_bytes(png(image))
      (tmp_path / "labels" / f"{i}.txt").write_text("\n".join(rows))
    (tmp_path / "classes.txt").write_text("\n".join(names))
    return dataset.open_dataset(f"yolo:{tmp_path}", "all")

  return write


def test_clean_boxes_raise_nothing(yolo):
  data = yolo(["0 .5 .5 .4 .4", "1 .2 .2 .2 .2"], ["0 .5 .5 .2 .2"], [])
  for check in CHECKS[:3] + CHECKS[4:]:
    (found,) = run(check, data)
    assert found.verdict == "ok", found.line
  assert run(mask_sizes, data) == []


def test_planted_boxes_are_found(yolo):
  data = yolo(
    ["0 .5 .5 .4 .4", "0 .5 .5 .4 .401", "1 .5 .5 .4 .4"],
    ["1 .9 .5 .4 .4", "1 .5 .5 0 .1", "1 .3 .5 .02 .5"],
  )
  (found,) = run(boxes_outside, data)
  assert found.verdict == "warn" and "1 beyond their pictures cl" in found.line
  assert found.figures["changed"]["without area left out"] == 1
  (found,) = run(duplicate_boxes, data)
  assert found.verdict == "fail"
  assert found.figures == {"same_class": 1, "other_class": 1}
  assert found.parts
  (found,) = run(tiny_objects, data)
  assert found.verdict == "warn" and found.figures["tiny"] == 1
  assert found.figures["tiny_at_320"] == 0 and "1 box has a side" in found.line
  part = dataset.take(data, np.array([1]))
  assert len(part.objects.boxes) == 2 and set(part.objects.rows) == {0}


def test_boxes_of_any_source_may_lie_outside(monkeypatch):
  image = np.zeros((2, 10, 20, 3), np.uint8)
  boxes = [
    np.array([[0, 0, 21, 5], [np.nan, 0, 2, 2]]),
    np.array([[3, 3, 3, 9]]),
  ]
  found = objects.measured({"image": image, "boxes": boxes}, 2)
  source = type("Source", (), {"changed": {}, "class_names": None})
  data = dataset.Dataset("", "", source, np.arange(2), {}, *[None] * 4)
  data = data._replace(objects=found)
  monkeypatch.setattr(boxes_outside.evidence, "show", lambda *_: [])
  (result,) = run(boxes_outside, data)
  assert result.verdict == "fail"
  assert result.figures["beyond"] == 1 and result.figures["without_area"] == 2


@pytest.mark.parametrize(
  ("names", "pairs"),
  [
    (["RBC", "rbc", "WBC"], [("RBC", "rbc")]),
    (["traffic light", "traffic_light"], [("traffic light", "traffic_light")]),
    (["platelet", "Platelets"], [("platelet", "Platelets")]),
    (["motorcycle", "motorcylce", "motocycle"], [("motorcycle", "motocycle")]),
    (["class10", "class11", "cat", "car", "C", "C++", "1", "-1"], []),
    (["horse", "house", "bus", "bust"], []),
  ],
)
def test_names_that_may_be_one(names, pairs):
  assert [pair[:2] for pair in class_names.alike(names)] == pairs


def test_names_of_classes_are_judged(yolo):
  data = yolo(["0 .5 .5 .4 .4"], names=("Cell", "cell"))
  (found,) = run(class_names, data)
  assert found.verdict == "warn" and "'Cell' and 'cell'" in found.line


@pytest.mark.parametrize(
  "size, counts, others",
  [([8, 9], "@@@~~~", 0), ([8, 9], [-5, 77], 0), ([9, 8], [70, 2], 1)],
)
def test_a_broken_run_length_code_has_no_other_size(
  size, counts, others, tmp_path
):
  (tmp_path / "0.png").write_bytes(png(np.zeros((8, 9, 3), np.uint8)))
  image = {"id": 1, "file_name": "0.png", "width": 9, "height": 8}
  shape = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4]}
  shape["segmentation"] = {"size": size, "counts": counts}
  found = {
    "images": [image, image | {"id": 2, "file_name": "1.png"}],
    "annotations": [shape],
    "categories": [{"id": 1, "name": "cell"}],
  }
  (tmp_path / "1.png").write_bytes((tmp_path / "0.png").read_bytes())
  (tmp_path / "a.json").write_text(json.dumps(found))
  uri = f"coco:{tmp_path}/a.json?images={tmp_path}&masks=true"
  data = dataset.open_dataset(uri, "all")
  assert len(data.bad) == 1
  findings = run(mask_sizes, data)
  assert [f.figures["masks"] for f in findings] in ([others], [])
  assert bool(findings) or not others


def test_masks_of_other_sizes(tmp_path):
  for i in range(3):
    for folder, shape in (("images", (8, 9, 3)), ("masks", (8, 9 + (i == 1)))):
      path = tmp_path / folder / f"{i}.png"
      path.parent.mkdir(exist_ok=True)
      path.write_bytes(png(np.full(shape, i, np.uint8)))
  data = dataset.open_dataset(f"masks:{tmp_path}", "all")
  (found,) = run(mask_sizes, data)
  assert found.verdict == "fail" and found.figures == {"masks": 1}
  assert "the mask is 10 x 8 and the picture 9 x 8" in found.parts[0].items[0]
  # A source that does not look at them leaves it to the check.
  rows = {
    "image": np.zeros((2, 8, 9, 3)),
    "segmentation": [np.zeros((8, 9), int), np.zeros((9, 8), int)],
    "instances": [np.zeros((0, 1, 1)), np.zeros((2, 8, 9))],
  }
  found = objects.measured(rows, 2)
  assert found.masks.tolist() == [[0, 0], [8, 9]]
