"""Progressive sizes: the interpolation by hand, when, and what is refused."""

import itertools

import numpy as np
import pytest

from input_pipeline.batching import pipeline
from input_pipeline.batching.progressive_sizes import progressive_sizes, resized

MASKS = {"source": "fake:masks?n=40&size=8"}
BOXES = {
  "source": "fake:boxes?n=40&size=8",
  "ops": 'keep("image", "boxes")|pad(3, inkey="boxes")',
}
WRAPPED = {"sizes": (4, 6), "shares": (0.4, 0.2), "total_steps": 5}


def read(source="fake:image?n=40&size=8&channels=3", **more):
  return pipeline.train(source=source, batch_size=4, **more)


def halved(x):
  """Rows of half the number, by the triangle of four weights 1, 3, 3 and 1."""
  weights = np.zeros((len(x) // 2, len(x)))
  for i in range(len(weights)):
    for k, weight in zip(
      range(2 * i - 1, 2 * i + 3), (1, 3, 3, 1), strict=True
    ):
      if 0 <= k < len(x):
        weights[i, k] = weight
  return np.tensordot(weights / weights.sum(1, keepdims=True), x, 1)


def test_half_of_an_image_is_weighted_by_triangles():
  image = np.random.default_rng(0).normal(size=(2, 8, 6, 3)).astype("f4")
  rows = halved(image.swapaxes(0, 1)).swapaxes(0, 1)
  expected = halved(rows.swapaxes(0, 2)).swapaxes(0, 2)
  np.testing.assert_allclose(resized(image, 4, 3), expected, atol=1e-6)
  grey = np.full((1, 8, 8, 1), 201, np.uint8)
  np.testing.assert_array_equal(resized(grey, 5, 5), grey[:, :5, :5])


@pytest.mark.parametrize("first", [0, 1, 3])
def test_each_share_of_the_steps_has_its_size(first):
  data = progressive_sizes(read(), **WRAPPED)
  own = itertools.islice(read().batches(first), 5 - first)
  for step, batch, full in zip(
    range(first, 5), data.batches(first), own, strict=False
  ):
    size = (4, 4, 6, 8, 8)[step]
    assert batch["image"].shape == (4, size, size, 3)
    assert batch["image"].dtype == full["image"].dtype
    np.testing.assert_array_equal(batch["label"], full["label"])
    if size == 8:
      np.testing.assert_array_equal(batch["image"], full["image"])


@pytest.mark.parametrize(
  "source, settings, match",
  [
    (None, {"shares": (0.5,)}, "a positive share for each size"),
    (None, {"shares": (0.5, 0.5)}, "below 1 together"),
    (None, {"sizes": (4, 8)}, "below the 8 rows of 'image'"),
    (None, {"inkey": "x"}, "no images in the field 'x'"),
    (MASKS, {}, "'segmentation' has a value for each pixel"),
    (BOXES, {}, "'boxes' has a place in 'image' and would not move with it"),
  ],
)
def test_what_does_not_fit_is_refused(source, settings, match):
  data = read(**source) if source else read()
  with pytest.raises(ValueError, match=match):
    progressive_sizes(data, **{**WRAPPED, **settings})
