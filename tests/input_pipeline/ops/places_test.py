"""Boxes, keypoints and masks move with the pixels of their picture."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from input_pipeline import ops  # noqa: E402

H, W = 40, 60
# The mark: rows 14 to 21 and columns 20 to 31.
BOX = (20.0, 14.0, 32.0, 22.0)
_OPS = [
  "resize((30, 80))",
  "resize((80, 60), method='nearest', antialias=False)",
  "resize_small(50)",
  "central_crop((30, 40))",
  "random_crop((38, 52))",
  "random_crop((44, 64), pad=3)",
  "random_resized_crop((50, 50), area=(0.9, 1.0), ratio=(1.4, 1.6))",
  "flip(1.0)",
  "flip(1.0, vertical=True)",
  "flip(0.5)",
  "landscape",
  "central_crop((40, 30))|landscape",
  "rotation(25)",
  "shear(0.2, 0.2)",
  "rotation(10)|flip|random_crop((36, 50))|resize((45, 70))|shear(0.1)",
]


def marked(box=BOX):
  """A dark picture with a bright mark, and all that says where it is."""
  x0, y0, x1, y1 = map(int, box)
  image = np.zeros((H, W, 1), np.uint8)
  image[y0:y1, x0:x1] = 255
  far = (0.0, 30.0, 6.0, 40.0)  # in a corner
  return {
    "image": tf.constant(image),
    "segmentation": tf.constant((image[..., 0] // 255).astype(np.int32)),
    "boxes": tf.constant([far, box], tf.float32),
    "classes": tf.constant([7, 5]),
    "difficult": tf.constant([0, 1]),
    "keypoints": tf.constant([[(x0 + x1) / 2, (y0 + y1) / 2]], tf.float32),
  }


def run(string, example, index=0, *partner):
  seeds = [tf.constant([3, i], tf.int64) for i in (index, 9)]
  given = (*partner, seeds[1]) if partner else ()
  found = ops.compile(string)(example, seeds[0], *given)
  return {k: v.numpy() for k, v in found.items()}


def extent(bright):
  """(x0, y0, x1, y1) of the bright pixels [h, w]."""
  rows, columns = np.nonzero(bright)
  return np.array(
    [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
  )


def back(place, points):
  return points @ place[:, :2].T + place[:, 2]


@pytest.mark.parametrize("string", _OPS)
def test_the_box_still_frames_the_mark(string):
  for index in range(4):
    found = run(f"track_place|{string}", marked(), index)
    assert found["classes"][-1] == 5
    assert len(found["classes"]) == len(found["boxes"])
    assert len(found["difficult"]) == len(found["boxes"])
    box, shape = found["boxes"][-1], found["image"].shape
    assert (box >= 0).all() and (box[2:] <= shape[1::-1]).all()
    if "|" not in string:  # Hulls of hulls are wider than the mark.
      # A row of pixels of which less than half is the mark is dark.
      bright = extent(found["image"][..., 0] > 127)
      np.testing.assert_allclose(box, bright, atol=1.01)
    # The mask is where the picture is bright.
    classes = found["segmentation"]
    assert classes.shape == shape[:2] and classes.dtype == np.int32
    assert set(np.unique(classes)) <= {0, 1, 255}
    np.testing.assert_allclose(
      extent(classes == 1), extent(found["image"][..., 0] > 127), atol=1
    )
    assert (found["image"][..., 0][classes == 255] < 128).all()
    # The centre of the mark is its keypoint, and is mapped back.
    rows, columns = np.nonzero(classes == 1)
    centre = [columns.mean() + 0.5, rows.mean() + 0.5]
    np.testing.assert_allclose(found["keypoints"][0], centre, atol=0.8)
    np.testing.assert_allclose(
      back(found["place"], found["keypoints"]), [[26, 18]], atol=1e-3
    )
    # The corners of the box, mapped back, frame the original box.
    x0, y0, x1, y1 = box
    corners = np.array([(x0, y0), (x1, y0), (x0, y1), (x1, y1)])
    original = back(found["place"], corners)
    hull = np.concatenate([original.min(0), original.max(0)])
    straight = not any(n in string for n in ("rotation", "shear"))
    if straight:
      np.testing.assert_allclose(hull, BOX, atol=1e-3)
    else:
      assert (hull[:2] <= np.array(BOX[:2]) + 1e-3).all()
      assert (hull[2:] >= np.array(BOX[2:]) - 1e-3).all()


@pytest.mark.parametrize("string", [_OPS[-1], "mosaic(0.7)"])
def test_eager_and_tf_data_agree_to_the_bit(string):
  string = f"track_place|resize(({H}, {W}))|{string}"
  apply = ops.compile(string)
  pair = ops.mixes(string)
  examples = [marked((20 + i, 14, 32 + i, 22)) for i in range(4)]
  spec = marked()

  def through(i, example):
    seed = tf.stack([tf.constant(3, tf.int64), i])
    return apply(example, seed, *([marked(), seed] if pair else []))

  dataset = tf.data.Dataset.from_generator(
    lambda: ((i, e) for i, e in enumerate(examples)),
    output_signature=(
      tf.TensorSpec([], tf.int64),
      {
        k: tf.TensorSpec(
          [None, *v.shape[1:]]
          if k in ("boxes", "classes", "difficult")
          else v.shape,
          v.dtype,
        )
        for k, v in spec.items()
      },
    ),
  ).map(tf.autograph.experimental.do_not_convert(through))
  assert dataset.element_spec["boxes"].shape.as_list() == [None, 4]
  for i, found in enumerate(dataset.as_numpy_iterator()):
    eager = through(tf.constant(i, tf.int64), examples[i])
    for name, leaf in found.items():
      np.testing.assert_array_equal(leaf, eager[name], err_msg=name)


def test_boxes_that_leave_the_picture_go_with_their_values():
  boxes = [(0, 0, 10, 10), (5, 0, 15, 10), (2, 0, 11, 10), (50, 0, 60, 10)]
  example = marked() | {
    "boxes": tf.constant(boxes, tf.float32),
    "classes": tf.range(4),
    "difficult": tf.range(4) % 2,
    "names": tf.constant(["a", "b", "c", "d"]),
  }
  crop = "central_crop((40, 40){})"  # columns 10 to 49
  found = run(crop.format(""), example)
  assert found["boxes"].tolist() == [[0, 0, 5, 10]]
  assert found["classes"].tolist() == [1] == found["difficult"].tolist()
  assert len(found["names"]) == 4  # it is not known to be about boxes
  found = run(crop.format(", keep=0.1"), example)
  assert found["classes"].tolist() == [1, 2]
  assert len(run(crop.format(", keep=0.6"), example)["boxes"]) == 0
  none = example | {
    k: example[k][:0] for k in ("boxes", "classes", "difficult")
  }
  found = run("rotation(9)|" + crop.format(""), none)
  assert found["boxes"].shape == (0, 4) and found["classes"].shape == (0,)


def test_another_field_moves_nothing():
  example = marked()
  found = run("flip(1.0, outkey='other')", example)
  np.testing.assert_array_equal(found["boxes"], example["boxes"])
  plain = run("flip(1.0)", {"image": example["image"]})
  np.testing.assert_array_equal(plain["image"], found["other"])


@pytest.mark.parametrize("vertical", [False, True])
def test_mosaic_joins_two_pictures(vertical):
  own, other = marked(), marked((2, 2, 12, 8))
  other["image"] = other["image"] // 2
  other["segmentation"] *= 2
  axis = 0 if vertical else 1
  for index in range(4):
    string = f"track_place|mosaic(vertical={vertical})"
    found = run(string, own, index, other)
    cut = int(round(found["place"][1 - axis, 2]))
    size = own["image"].shape[axis]
    assert 0.25 * size - 1 <= cut <= 0.75 * size + 1
    for name in ("image", "segmentation"):
      both = np.concatenate([own[name], other[name]], axis)
      window = np.take(both, np.arange(cut, cut + size), axis)
      np.testing.assert_array_equal(found[name], window)
    assert len(found["keypoints"]) == 2
    for box, kind in zip(found["boxes"], found["classes"], strict=True):
      if kind == 5:
        inside = np.zeros(found["image"].shape[:2], bool)
        x0, y0, x1, y1 = box.astype(int)
        inside[y0:y1, x0:x1] = True
        assert (found["image"][..., 0][inside] > 100).all()
  still = run(f"mosaic(0.0, vertical={vertical})", own, 0, other)
  for name in ("image", "segmentation", "boxes", "classes"):
    np.testing.assert_array_equal(still[name], own[name])


@pytest.mark.parametrize(
  ("string", "changes", "line"),
  [
    ("randaugment", {}, "moves the image alone, and the boxes or masks"),
    ("trivialaugment", {}, "moves the image alone"),
    ("flip(keep=2)", {}, "keep=2 is not a share"),
    ('pad(9, inkey="boxes")|flip', {}, "comes before pad"),
    ("flip", {"boxes": tf.zeros([3, 5])}, r"'boxes' is not numbers \[n, 4\]"),
    ("flip", {"segmentation": tf.constant("")}, "add the op 'decode_mask'"),
    ("flip", {"segmentation": tf.zeros([9, 9])}, "not integers"),
    (
      "flip",
      {"segmentation": tf.zeros([9, 9], tf.int32)},
      "has another size than the image",
    ),
    ("track_place|track_place", {}, "a field 'place' already"),
    ("decode_mask(inkey='boxes')", {}, "neither bytes nor"),
  ],
)
def test_what_cannot_move_is_one_line(string, changes, line):
  with pytest.raises(ValueError, match=line):
    run(string, marked() | changes)


def test_mixup_refuses_boxes():
  with pytest.raises(ValueError, match="the op mosaic joins these"):
    run("mixup", marked() | {"label": tf.constant(1)}, 0, marked())
  with pytest.raises(ValueError, match="needs images of the same size"):
    run("mosaic", marked(), 0, {"image": tf.zeros([3, 3, 1])})
  with pytest.raises(ValueError, match="same size"):
    run("mosaic", {"image": tf.constant(b"")}, 0, {"image": tf.constant(b"")})
  with pytest.raises(ValueError, match="mosaic': p='x' is not a number"):
    run("mosaic('x')", marked(), 0, marked())
