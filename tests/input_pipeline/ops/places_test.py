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
  "letterbox((60, 50), fill=9)",
  "letterbox((30, 80), method='nearest', antialias=False)",
  "affine(20, 0.1, (0.8, 1.3), 0.1)",
  "affine(translate=0.2, scale=(0.9, 1.1))",
  "safe_crop((44, 70))",
  "iou_crop((40, 60), least=(0.05, 0.3), shortest=0.5, keep=0.9)",
  "rotation(10)|flip|random_crop((36, 50))|resize((45, 70))|shear(0.1)",
]


def marked(box=BOX):
  """A dark picture with a bright mark, and all that says where it is."""
  x0, y0, x1, y1 = map(int, box)
  image = np.zeros((H, W, 1), np.uint8)
  image[y0:y1, x0:x1] = 255
  far = (0.0, 30.0, 6.0, 40.0)  # in a corner
  instances = np.zeros((2, H, W), np.uint8)
  instances[0, 30:, :6] = 1
  instances[1] = image[..., 0] // 255
  return {
    "image": tf.constant(image),
    "segmentation": tf.constant((image[..., 0] // 255).astype(np.int32)),
    "instances": tf.constant(instances),
    "boxes": tf.constant([far, box], tf.float32),
    "classes": tf.constant([7, 5]),
    "difficult": tf.constant([0, 1]),
    "keypoints": tf.constant([[(x0 + x1) / 2, (y0 + y1) / 2]], tf.float32),
  }


def run(string, example, index=0, *partners):
  seeds = [tf.constant([3, i], tf.int64) for i in (index, 9)]
  given = [each for partner in partners for each in (partner, seeds[1])]
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
    assert len(found["instances"]) == len(found["boxes"])
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
    # So is the mask of the object, which is the last one.
    np.testing.assert_array_equal(found["instances"][-1], classes == 1)
    assert found["instances"].dtype == np.uint8
    # The centre of the mark is its keypoint, and is mapped back.
    rows, columns = np.nonzero(classes == 1)
    centre = [columns.mean() + 0.5, rows.mean() + 0.5]
    whole = not string.startswith("iou_crop") or len(rows) > 80
    if whole:  # else the centre is that of what is left
      np.testing.assert_allclose(found["keypoints"][0], centre, atol=0.8)
    np.testing.assert_allclose(
      back(found["place"], found["keypoints"]), [[26, 18]], atol=1e-3
    )
    # The corners of the box, mapped back, frame the original box.
    x0, y0, x1, y1 = box
    corners = np.array([(x0, y0), (x1, y0), (x0, y1), (x1, y1)])
    original = back(found["place"], corners)
    hull = np.concatenate([original.min(0), original.max(0)])
    straight = not any(n in string for n in ("rotation", "shear", "affine(20"))
    if straight and whole:
      np.testing.assert_allclose(hull, BOX, atol=1e-3)
    elif not straight:
      assert (hull[:2] <= np.array(BOX[:2]) + 1e-3).all()
      assert (hull[2:] >= np.array(BOX[2:]) - 1e-3).all()


@pytest.mark.parametrize(
  "string",
  [
    "flip|affine(9, 0.1, (0.8, 1.2), 0.1)|iou_crop(40)|letterbox(50)",
    "mosaic(0.7)",
    "copy_paste(0.7)",
  ],
)
def test_eager_and_tf_data_agree_to_the_bit(string):
  string = f"track_place|resize(({H}, {W}))|{string}"
  apply = ops.compile(string)
  partners = ops.partners(string)
  left = ("keypoints",) if "copy_paste" in string else ()
  examples = [
    without(marked((20 + i, 14, 32 + i, 22)), *left) for i in range(4)
  ]
  spec = without(marked(), *left)

  def through(i, example):
    seed = tf.stack([tf.constant(3, tf.int64), i])
    return apply(example, seed, *[spec, seed] * partners)

  dataset = tf.data.Dataset.from_generator(
    lambda: ((i, e) for i, e in enumerate(examples)),
    output_signature=(
      tf.TensorSpec([], tf.int64),
      {
        k: tf.TensorSpec(
          [None, *v.shape[1:]]
          if k in ("boxes", "classes", "difficult", "instances")
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
  del example["instances"]
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
  none["instances"] = marked()["instances"][:0]
  found = run("rotation(9)|" + crop.format(""), none)
  assert found["boxes"].shape == (0, 4) and found["classes"].shape == (0,)
  assert found["instances"].shape == (0, 40, 40)
  for string in ("safe_crop((30, 40))", "iou_crop((30, 40))"):
    assert run(string, none)["image"].shape == (30, 40, 1)


def test_another_field_moves_nothing():
  example = marked()
  found = run("flip(1.0, outkey='other')", example)
  np.testing.assert_array_equal(found["boxes"], example["boxes"])
  plain = run("flip(1.0)", {"image": example["image"]})
  np.testing.assert_array_equal(plain["image"], found["other"])


def test_mosaic_joins_four_pictures():
  """Each mark is of a brightness, a class and a place of its own."""
  spots = [(40, 24, 56, 34), (4, 26, 14, 36), (38, 4, 54, 14), (2, 2, 12, 8)]
  four = [marked(spot) for spot in spots]
  for i, each in enumerate(four):
    each["image"] = each["image"] // 255 * (60 * (i + 1))
    each["segmentation"] *= i + 1
    for name in ("boxes", "difficult", "instances"):
      each[name] = each[name][1:]
    each["classes"] = tf.constant([i])
  seen, places = set(), set()
  for index in range(12):
    found = run("track_place|mosaic(least=0.1)", four[0], index, *four[1:])
    column, row = (int(round(n)) for n in found["place"][:, 2])
    assert 0.1 * W - 1 <= column <= 0.9 * W + 1
    assert 0.1 * H - 1 <= row <= 0.9 * H + 1
    places.add((column, row))
    for name in ("image", "segmentation"):
      parts = [each[name].numpy() for each in four]
      rows = [np.concatenate(parts[i : i + 2], 1) for i in (0, 2)]
      window = np.concatenate(rows)[row : row + H, column : column + W]
      np.testing.assert_array_equal(found[name], window)
    assert len(found["keypoints"]) == 4
    assert len(found["boxes"]) == len(found["difficult"])
    # A box is exactly around what is left of its mark, at least a quarter.
    left = {
      i: found["segmentation"] == i + 1
      for i, (x0, y0, x1, y1) in enumerate(spots)
      if (found["segmentation"] == i + 1).sum() >= (x1 - x0) * (y1 - y0) / 4
    }
    assert found["classes"].tolist() == list(left)
    for box, inside in zip(found["boxes"], left.values(), strict=True):
      np.testing.assert_array_equal(box, extent(inside))
    np.testing.assert_array_equal(found["instances"], list(left.values()))
    seen |= set(left)
  assert seen == {0, 1, 2, 3} and len(places) > 9
  still = run("mosaic(0.0)", four[0], 0, *four[1:])
  for name in ("image", "segmentation", "boxes", "classes"):
    np.testing.assert_array_equal(still[name], four[0][name])


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
    (
      "flip",
      {"instances": tf.zeros([2, 9, 9], tf.uint8)},
      "'instances' has an",
    ),
    (
      "flip",
      {"instances": tf.zeros([2, 9], tf.uint8)},
      "not integers .n, h, w",
    ),
    ("resize(9, inkey='segmentation')", {}, "moves with the image, not alone"),
    ("affine(scale=(0, 1))", {}, "scale=.0, 1. is not"),
    ("affine(shear=1.0)", {}, "shear is below 1"),
    ("iou_crop(9, shortest=0)", {}, "out of its range"),
    ("safe_crop(0)", {}, "size 0 is not a number"),
    ("track_place|track_place", {}, "a field 'place' already"),
    ("decode_mask(inkey='boxes')", {}, "neither bytes nor"),
  ],
)
def test_what_cannot_move_is_one_line(string, changes, line):
  with pytest.raises(ValueError, match=line):
    run(string, marked() | changes)


def test_a_letterbox_keeps_the_shape_of_objects():
  found = run("letterbox(60, fill=7)", marked())
  assert (found["image"][:10] == 7).all() and (found["image"][50:] == 7).all()
  assert (found["segmentation"][:10] == 255).all()
  np.testing.assert_allclose(found["boxes"][1], np.add(BOX, (0, 10, 0, 10)))


def test_a_safe_crop_loses_no_box():
  for index in range(8):
    found = run("track_place|safe_crop((40, 60), keep=1.0)", marked(), index)
    assert found["classes"].tolist() == [7, 5]
    hull = back(found["place"], found["boxes"].reshape(-1, 2)).reshape(-1, 4)
    np.testing.assert_allclose(hull, [(0, 30, 6, 40), BOX], atol=1e-3)


def pasted(own, other, string="copy_paste(1.0)", index=0):
  found = run(string, own, index, other)
  for name in ("boxes", "classes", "difficult", "instances"):
    assert len(found[name]) == len(found["boxes"])
  return found


def test_copy_paste_covers_what_lies_below():
  own, other = marked(), marked((26, 10, 36, 30))
  other["image"] = other["image"] // 2
  other["segmentation"] *= 3
  own, other = without(own, "keypoints"), without(other, "keypoints")
  found = pasted(
    {**own, "crowd": tf.constant([0, 0])},
    {**other, "crowd": tf.constant([1, 0])},
  )
  # The crowd in the corner is not pasted; the own mark loses its right half.
  assert found["classes"].tolist() == [7, 5, 5]
  assert found["boxes"].tolist() == [
    [0, 30, 6, 40],
    [20, 14, 26, 22],
    [26, 10, 36, 30],
  ]
  over = other["instances"].numpy()[1] > 0
  np.testing.assert_array_equal(
    found["image"][..., 0],
    np.where(over, 127, own["image"].numpy()[..., 0]),
  )
  np.testing.assert_array_equal(
    found["segmentation"], np.where(over, 3, own["segmentation"])
  )
  assert not (found["instances"][1] & over).any()
  assert found["instances"].sum((1, 2)).tolist() == [60, 48, 200]
  for name in ("boxes", "instances", "image"):
    still = pasted(own, other, "copy_paste(1.0, p=0.0)")
    np.testing.assert_array_equal(still[name], own[name])
  # Of the own objects one is covered and half of the other one.
  for keep, n in ((0.5, 3), (0.6, 2)):
    string = f"copy_paste(1.0, keep={keep})"
    assert len(pasted(own, other, string)["boxes"]) == n
  some = [
    len(pasted(own, other, index=i, string="copy_paste(0.5)")["boxes"])
    for i in range(9)
  ]
  assert len(set(some)) > 1
  with pytest.raises(ValueError, match="no field 'instances'"):
    run("copy_paste", {k: own[k] for k in ("image", "boxes")}, 0, other)
  with pytest.raises(ValueError, match="not keypoints"):
    run("copy_paste", marked(), 0, other)


def without(example, *names):
  return {k: v for k, v in example.items() if k not in names}


def test_mixup_joins_boxes():
  own = without(marked(), "segmentation")
  other = without(marked((2, 2, 12, 8)), "segmentation")
  seen = set()
  for index in range(12):
    found = run("mixup(1.0, least=0.3)", own, index, other)
    top = int(found["image"].max())
    lam = found["image"][18, 30, 0] / 255
    n = 2 * int(lam >= 0.3) + 2 * int(1 - lam >= 0.3)
    seen.add(n)
    assert len(found["boxes"]) == len(found["instances"]) == n and top > 0
    assert len(found["keypoints"]) == n // 2
    if n == 4:
      both = np.concatenate([own["boxes"], other["boxes"]])
      np.testing.assert_array_equal(found["boxes"], both)
  assert seen == {2, 4}
  assert len(run("mixup(1.0, p=0.0)", own, 0, other)["boxes"]) == 2


def test_cutmix_pastes_the_segmentation():
  names = ("boxes", "instances", "keypoints", "classes", "difficult")
  own = without(marked(), *names)
  other = without(marked((0, 0, 60, 40)), *names)
  other["segmentation"] *= 4
  changed = 0
  for index in range(6):
    found = run("cutmix", own, index, other)
    here = found["segmentation"] == 4
    np.testing.assert_array_equal(
      found["segmentation"], np.where(here, 4, own["segmentation"])
    )
    own_image = own["image"].numpy()[..., 0]
    np.testing.assert_array_equal(
      found["image"][..., 0], np.where(here, 255, own_image)
    )
    changed += here.any()
  assert changed > 2


def test_what_cannot_be_mixed():
  for op, field in (("mixup", "segmentation"), ("cutmix", "boxes")):
    with pytest.raises(
      ValueError, match=f"{op} cannot mix the field '{field}'"
    ):
      run(op, marked() | {"label": tf.constant(1)}, 0, marked())
  with pytest.raises(ValueError, match="needs images of the same size"):
    run(
      "mosaic", *[marked(), 0, marked(), marked()], {"image": tf.zeros([3] * 3)}
    )
  with pytest.raises(ValueError, match="same size"):
    empty = {"image": tf.constant(b"")}
    run("mosaic", empty, 0, empty, empty, empty)
  with pytest.raises(ValueError, match="mosaic': p='x' is not a number"):
    run("mosaic('x')", marked(), 0, *[marked()] * 3)
  with pytest.raises(ValueError, match="1 of 3 partners are given"):
    run("mosaic", marked(), 0, marked())
