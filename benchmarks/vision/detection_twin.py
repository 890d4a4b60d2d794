"""Trains detectors of other libraries on BCCD, beside those of our configs.

--model=faster_rcnn is torchvision's fasterrcnn_mobilenet_v3_large_320_fpn
without pretrained weights, the twin of faster_rcnn_bccd, with the same batches,
optimizer, schedule, average of parameters and crops, flips and colours, but
without mosaics. Its pictures have 427 x 320 pixels. --model=yolov8n is
ultralytics' yolov8n.yaml from scratch at 320 pixels, the twin of yolo_bccd,
trained by ultralytics' defaults with flips both ways. Both train for --minutes
on the split trainval, and one function measures the last average of the
parameters on the split test by pycocotools, in pixels of the files.

ultralytics has the licence AGPL-3.0. It is no dependency of this project and
needs an environment of its own:

  uv venv ultravenv --python 3.11
  uv pip install --python ultravenv/bin/python ultralytics pycocotools
  ultravenv/bin/python benchmarks/vision/detection_twin.py --model=yolov8n

The other one needs the extras `parity` and `vision`:

  python benchmarks/vision/detection_twin.py --data=data/bccd --minutes=60
"""

import argparse
import contextlib
import copy
import io
import math
import os
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import torch
from PIL import Image
from pycocotools import coco, cocoeval

CLASSES = ("Platelets", "RBC", "WBC")
BATCH, WARMUP, LR, DECAY, WEIGHT_DECAY, CLIP = 8, 100, 1e-3, 0.998, 0.02, 10.0
YOLO_BATCH = 16  # ultralytics' default


class Picture(NamedTuple):
  """A picture: its path, its boxes [n, 4] in pixels, and their classes [n]."""

  path: pathlib.Path
  boxes: np.ndarray
  classes: np.ndarray


# A picture's file -> (boxes [K, 4] in its pixels, scores [K], classes [K]).
Detector = Callable[[pathlib.Path], tuple[np.ndarray, np.ndarray, np.ndarray]]


def pictures_of(folder: str, split: str) -> list[Picture]:
  """The pictures of a split, with boxes as the source voc:DIR gives them.

  The corners in the files are pixels from 1, the last one included; boxes are
  clipped to the picture, and those without area are left out.
  """
  root = pathlib.Path(folder).expanduser()
  names = (root / "ImageSets" / "Main" / f"{split}.txt").read_text().split()
  found = []
  for name in names:
    path = root / "JPEGImages" / f"{name}.jpg"
    with Image.open(path) as image:
      high = np.array([*image.size, *image.size])
    boxes, classes = [], []
    tree = ElementTree.parse(root / "Annotations" / f"{name}.xml")
    for each in tree.iter("object"):
      x0, y0, x1, y1 = (
        float(each.findtext(f"bndbox/{side}"))
        for side in ("xmin", "ymin", "xmax", "ymax")
      )
      if x1 <= x0 or y1 <= y0:
        continue
      box = np.clip([x0 - 1, y0 - 1, x1, y1], 0, high)
      if (box[2:] > box[:2]).all():
        boxes.append(box)
        classes.append(CLASSES.index(each.findtext("name")))
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    found.append(Picture(path, boxes, np.array(classes, np.int64)))
  return found


def measured(pictures: list[Picture], detect: Detector) -> tuple[float, float]:
  """(mAP50, mAP) of COCOeval over all pictures."""
  truth, guesses = [], []
  for number, picture in enumerate(pictures, 1):
    found, scores, classes = detect(picture.path)
    for box, kind in zip(picture.boxes, picture.classes, strict=True):
      truth.append(_entry(number, box, kind) | {"id": len(truth) + 1})
    for box, score, kind in zip(found, scores, classes, strict=True):
      entry = _entry(number, box, kind) | {"score": float(score)}
      guesses.append(entry | {"id": len(guesses) + 1})
  images = [{"id": number + 1} for number in range(len(pictures))]
  categories = [{"id": kind + 1} for kind in range(len(CLASSES))]
  # pycocotools reports its progress with print.
  with contextlib.redirect_stdout(io.StringIO()):
    sides = []
    for annotations in (truth, guesses):
      side = coco.COCO()
      side.dataset = {
        "images": images,
        "categories": categories,
        "annotations": annotations,
      }
      side.createIndex()
      sides.append(side)
    judge = cocoeval.COCOeval(*sides, "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
  return float(judge.stats[1]), float(judge.stats[0])


def _entry(image: int, box, kind) -> dict:
  x0, y0, x1, y1 = map(float, box)
  return {
    "image_id": image,
    "category_id": int(kind) + 1,
    "bbox": [x0, y0, x1 - x0, y1 - y0],
    "area": (x1 - x0) * (y1 - y0),
    "iscrowd": 0,
  }


def pixels_of(path: pathlib.Path) -> torch.Tensor:
  """uint8 [3, H, W]."""
  with Image.open(path) as image:
    return torch.tensor(np.array(image.convert("RGB"))).permute(2, 0, 1)


def augmented(pictures: list[Picture]) -> Callable[[int], tuple]:
  """index -> (image float [3, 320, 427], its target as torchvision's)."""
  from torchvision import tv_tensors
  from torchvision.transforms import v2

  change = v2.Compose(
    [
      v2.RandomResizedCrop((320, 427), scale=(0.4, 1.0), ratio=(1.2, 1.5)),
      v2.RandomHorizontalFlip(),
      v2.RandomVerticalFlip(),
      v2.ColorJitter(0.3, 0.3, 0.3),
      v2.SanitizeBoundingBoxes(min_size=4, min_area=16),
      v2.ToDtype(torch.float32, scale=True),
    ]
  )
  pixels = [pixels_of(picture.path) for picture in pictures]

  def example(index):
    image = tv_tensors.Image(pixels[index])
    boxes = tv_tensors.BoundingBoxes(
      torch.tensor(pictures[index].boxes),
      format="XYXY",
      canvas_size=image.shape[1:],
    )
    # The class 0 is the background.
    labels = torch.tensor(pictures[index].classes + 1)
    return change(image, {"boxes": boxes, "labels": labels})

  return example


def rate(step: int, share: float) -> float:
  """The factor of the rate: linear from 0, then a cosine to 0 of the time."""
  return min(1.0, step / WARMUP) * (0.5 + 0.5 * math.cos(math.pi * share))


def faster_rcnn(train: list[Picture], minutes: float, folder: str) -> Detector:
  """Trains torchvision's Faster R-CNN; the detector has averaged parameters."""
  del folder
  from torchvision.models import detection

  # As ours, it keeps detections of any score, and as many proposals.
  model = detection.fasterrcnn_mobilenet_v3_large_320_fpn(
    weights=None,
    weights_backbone=None,
    num_classes=len(CLASSES) + 1,
    box_score_thresh=0.0,
    rpn_score_thresh=0.0,
    rpn_pre_nms_top_n_test=300,
    rpn_post_nms_top_n_test=300,
  )
  average = copy.deepcopy(model).eval().requires_grad_(False)
  optimizer = torch.optim.AdamW(
    model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY
  )
  example = augmented(train)
  step, order, begin = 0, torch.tensor([], dtype=torch.int64), time.time()
  while (share := (time.time() - begin) / (60 * minutes)) < 1:
    while len(order) < BATCH:
      order = torch.cat([order, torch.randperm(len(train))])
    images, targets = zip(*map(example, order[:BATCH].tolist()), strict=True)
    order = order[BATCH:]
    loss = sum(model(list(images), list(targets)).values())
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    for group in optimizer.param_groups:
      group["lr"] = LR * rate(step, share)
    optimizer.step()
    take(average, model, min(DECAY, (1 + step) / (10 + step)))
    step += 1
    if step % 50 == 0 or step == 1:
      seconds = time.time() - begin
      print(f"step {step}  {seconds:.0f} s  loss {loss:.3f}", flush=True)
  print(f"{step} steps of {BATCH} pictures")

  def detect(path):
    with torch.no_grad():
      (found,) = average([pixels_of(path) / 255])
    names = ("boxes", "scores", "labels")
    boxes, scores, labels = (found[name].numpy() for name in names)
    return boxes, scores, labels - 1

  return detect


def take(average, model, decay: float) -> None:
  """Moves the averages of parameters and of statistics towards a model's."""
  with torch.no_grad():
    for old, new in zip(
      average.state_dict().values(), model.state_dict().values(), strict=True
    ):
      if old.is_floating_point():
        old.lerp_(new, 1 - decay)
      else:
        old.copy_(new)


def yolov8n(train: list[Picture], minutes: float, folder: str) -> Detector:
  """Trains ultralytics' YOLOv8 n; the detector has its last average."""
  threads = torch.get_num_threads()
  # Its settings lie in the temporary folder, and it makes no connections.
  os.environ |= {
    "YOLO_CONFIG_DIR": folder,
    "YOLO_OFFLINE": "true",
    "YOLO_AUTOINSTALL": "false",
    "OMP_NUM_THREADS": str(threads),  # it would set 1
  }
  import ultralytics

  root = pathlib.Path(folder)
  for picture in train:
    write_yolo(picture, root / "train")
  # Nothing is chosen by validation, but a split for it is needed.
  write_yolo(train[0], root / "val")
  names = "".join(f"  {i}: {name}\n" for i, name in enumerate(CLASSES))
  data = root / "data.yaml"
  data.write_text(
    f"path: {folder}\ntrain: train/images\nval: val/images\nnames:\n{names}"
  )
  model = ultralytics.YOLO("yolov8n.yaml")
  model.add_callback(
    "on_train_start", lambda trainer: torch.set_num_threads(threads)
  )
  model.train(
    data=str(data),
    time=minutes / 60,
    imgsz=320,
    batch=YOLO_BATCH,
    pretrained=False,
    flipud=0.5,
    cache=True,
    val=False,
    plots=False,
    device="cpu",
    workers=threads,
    project=folder,
  )
  last = ultralytics.YOLO(model.trainer.last)

  def detect(path):
    (found,) = last.predict(
      str(path), imgsz=320, conf=0.001, max_det=100, device="cpu", verbose=False
    )
    boxes = found.boxes
    return boxes.xyxy.numpy(), boxes.conf.numpy(), boxes.cls.numpy()

  return detect


def write_yolo(picture: Picture, folder: pathlib.Path) -> None:
  """Links a picture into images/ and writes its boxes to labels/."""
  for name in ("images", "labels"):
    (folder / name).mkdir(parents=True, exist_ok=True)
  (folder / "images" / picture.path.name).symlink_to(picture.path.resolve())
  with Image.open(picture.path) as image:
    width, height = image.size
  lines = []
  for (x0, y0, x1, y1), kind in zip(
    picture.boxes, picture.classes, strict=True
  ):
    share = (
      *((x0 + x1) / 2 / width, (y0 + y1) / 2 / height),
      *((x1 - x0) / width, (y1 - y0) / height),
    )
    lines.append(f"{kind} " + " ".join(f"{value:.6f}" for value in share))
  path = folder / "labels" / f"{picture.path.stem}.txt"
  path.write_text("\n".join(lines))


MODELS = {"faster_rcnn": faster_rcnn, "yolov8n": yolov8n}


def main() -> None:
  """Trains one model and prints its figures."""
  parser = argparse.ArgumentParser()
  parser.add_argument("--model", choices=MODELS, default="faster_rcnn")
  parser.add_argument("--data", default="data/bccd")
  parser.add_argument("--minutes", type=float, default=60.0)
  parser.add_argument("--threads", type=int, default=2)
  flags = parser.parse_args()
  torch.manual_seed(0)
  torch.set_num_threads(flags.threads)
  train, test = (pictures_of(flags.data, s) for s in ("trainval", "test"))
  with tempfile.TemporaryDirectory() as folder:
    begin = time.time()
    detect = MODELS[flags.model](train, flags.minutes, folder)
    seconds = time.time() - begin
    map50, mean = measured(test, detect)
  print(
    f"{flags.model}: {seconds:.0f} s of training on {len(train)} pictures;"
    f" {len(test)} test pictures: mAP50 {map50:.4f}, mAP {mean:.4f}"
  )


if __name__ == "__main__":
  main()
