"""Multi-scale training: boxes follow the images, by (seed, step) alone."""

import itertools

import numpy as np
import pytest

from common.leaf import Leaf
from input_pipeline.batching import pipeline
from input_pipeline.batching.multi_scale import multi_scale

IMAGE = np.zeros((2, 24, 48, 1), np.float32)
IMAGE[:, 8:16, 20:36] = 1
BOXES = np.array([[[20, 8, 36, 16], [0, 0, 48, 24]]] * 2, np.float32)


def drawn(sizes=(6, 12, 18), seed=0, first=0, number=200):
  """Batches with a bright block, and with the two boxes of it and of all."""

  def batches(first_step=0):
    return itertools.repeat(
      {"image": IMAGE, "boxes": BOXES, "keypoints": BOXES[..., :2]}
    )

  data = pipeline.train(source="fake:image?n=8&size=12", batch_size=2)
  spec = {
    "image": data.spec["image"]._replace(shape=IMAGE.shape[1:]),
    "boxes": Leaf(BOXES.shape[1:], BOXES.dtype),
  }
  data = data._replace(batches=batches, spec=spec)
  scaled = multi_scale(data, sizes=sizes, seed=seed).batches(first)
  return list(itertools.islice(scaled, number))


def test_boxes_follow_the_block_that_they_frame():
  for batch in drawn(sizes=(6, 12)):
    _, H, W, _ = batch["image"].shape
    assert W == 2 * H
    np.testing.assert_array_equal(batch["boxes"][:, 1], [[0, 0, W, H]] * 2)
    np.testing.assert_array_equal(batch["keypoints"], batch["boxes"][..., :2])
    y, x = np.mgrid[:H, :W] + 0.5
    weight = batch["image"][0, ..., 0]
    centre = [(weight * x).sum(), (weight * y).sum()] / weight.sum()
    x0, y0, x1, y1 = batch["boxes"][0, 0]
    np.testing.assert_allclose(
      centre, [(x0 + x1) / 2, (y0 + y1) / 2], atol=1e-5
    )
    np.testing.assert_allclose(weight.sum(), (x1 - x0) * (y1 - y0))
  assert (BOXES[0, 0] == [20, 8, 36, 16]).all()


def test_sizes_are_drawn_uniformly_by_seed_and_step():
  heights = [batch["image"].shape[1] for batch in drawn()]
  sizes, counts = np.unique(heights, return_counts=True)
  assert sizes.tolist() == [6, 12, 18, 24]
  assert (abs(counts - 50) < 4 * np.sqrt(200 * 0.25 * 0.75)).all()
  later = [batch["image"].shape[1] for batch in drawn(first=150, number=50)]
  assert later == heights[150:]
  other = [batch["image"].shape[1] for batch in drawn(seed=1)]
  assert other != heights


@pytest.mark.parametrize(
  "source, ops, sizes, match",
  [
    ("fake:image?n=8&size=12", "", (), "give positive heights"),
    ("fake:image?n=8&size=12", "", (12,), "below the 12 rows of 'image'"),
    ("fake:masks?n=8&size=12", "", (6,), "has a value for each pixel"),
    (
      "fake:boxes?n=8&size=12&instances=1",
      'resize(12)|keep("image", "instances")|pad(3, inkey="instances")',
      (6,),
      "'instances' has a value for each pixel",
    ),
  ],
)
def test_what_does_not_fit_is_refused(source, ops, sizes, match):
  data = pipeline.train(source=source, batch_size=2, ops=ops)
  with pytest.raises(ValueError, match=match):
    multi_scale(data, sizes=sizes, seed=0)
