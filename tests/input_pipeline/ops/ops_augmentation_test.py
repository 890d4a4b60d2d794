"""Shear, hue, noise, blur and TrivialAugment against other programs."""

import colorsys

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
ndimage = pytest.importorskip("scipy.ndimage")

from input_pipeline import ops  # noqa: E402
from input_pipeline.ops import randaugment  # noqa: E402

_OPS = [
  "flip(vertical=True)",
  "shear(0.3)",
  "shear(0.2, 0.4, fill=9)",
  "rotation(30, fill=255)",
  "scale|shear(0.3)|rotation(10)",
  "salt_and_pepper(0.2)",
  "salt_and_pepper(0.2, salt=1.0)",
  "blur",
  "blur(1.5, p=0.5)",
  "to_float|blur((0.5, 1.0))",
  "trivialaugment",
  "trivialaugment|randaugment(1, 9)|blur|scale",
]
_GREY = ["trivialaugment", "randaugment(2, 30)", "blur", "salt_and_pepper"]


@pytest.fixture
def images():
  return np.random.default_rng(0).integers(0, 256, (24, 12, 14, 3), np.uint8)


def seed(epoch, index):
  return tf.constant([epoch, index], tf.int64)


def image_of(string, image, index=0, epoch=0):
  example = {"image": tf.constant(image)}
  return ops.compile(string)(example, seed(epoch, index))["image"].numpy()


def assert_eager_is_tf_data(string, images):
  function = ops.compile(string)
  dataset = tf.data.Dataset.from_tensor_slices(images).enumerate()
  dataset = dataset.map(
    lambda i, image: function({"image": image}, tf.stack([3, i])),
    num_parallel_calls=2,
    deterministic=True,
  )
  assert None not in dataset.element_spec["image"].shape.as_list()
  mapped = list(dataset.as_numpy_iterator())
  assert len(mapped) == len(images)
  for i, found in enumerate(mapped):
    np.testing.assert_array_equal(
      image_of(string, images[i], i, 3), found["image"]
    )


@pytest.mark.parametrize("string", _OPS)
def test_eager_and_tf_data_agree_to_the_bit(string, images):
  assert_eager_is_tf_data(string, images)


@pytest.mark.parametrize("string", _GREY)
def test_images_of_one_channel(string, images):
  assert_eager_is_tf_data(string, images[..., :1])


@pytest.mark.parametrize("string", ["shear(0.4)", "trivialaugment", *_OPS[5:7]])
def test_another_index_or_epoch_draws_anew(string, images):
  image = images[0]
  first = image_of(string, image, 1, 0)
  np.testing.assert_array_equal(first, image_of(string, image, 1, 0))
  assert any((first != image_of(string, image, i, 0)).any() for i in (2, 3, 4))
  assert any((first != image_of(string, image, 1, e)).any() for e in (1, 2, 3))


@pytest.mark.parametrize("y", [0.0, 0.25])
def test_shear_is_scipys_affine_transform(y):
  image = np.random.default_rng(0).random((17, 21, 1)).astype(np.float32)
  for index in range(5):
    found = image_of(f"shear(0.5, {y})", image, index)[..., 0]
    # The factors that explain a ramp explain any image.
    rows, columns = np.mgrid[-8:9, -10:11].astype(np.float32)
    moved = image_of(
      f"shear(0.5, {y})", np.stack([rows, columns], -1) + 100, index
    )
    a = moved[9, 10, 1] - 100  # (row 1, column 0) shows column a * 1
    b = moved[8, 11, 0] - 100
    assert abs(a) <= 0.5 and abs(b) <= y
    matrix = np.array([[1, b], [a, 1]])
    centre = np.array([8, 10])
    expected = ndimage.affine_transform(
      image[..., 0], matrix, centre - matrix @ centre, order=1
    )
    inner = (slice(6, -6), slice(6, -6))
    np.testing.assert_allclose(found[inner], expected[inner], atol=2e-4)


def test_shear_factors_fill_their_range():
  ramp = np.mgrid[-3:4, -3:4][1][..., None].astype(np.float32) + 50
  factors = [image_of("shear(0.5)", ramp, i)[4, 3, 0] - 50 for i in range(200)]
  assert -0.5 <= min(factors) < -0.45
  assert 0.45 < max(factors) <= 0.5


def test_what_comes_in_from_outside_is_the_fill():
  image = np.full((16, 16, 3), 9, np.uint8)
  found = image_of("rotation(45, min_degrees=45, fill=200)", image)
  assert found[0, 0].tolist() == [200] * 3
  assert found[8, 8].tolist() == [9] * 3


def test_hue_is_colorsys(images):
  image = images[0]
  for index in range(4):
    found = image_of("color_jitter(hue=0.3)", image, index)
    turns = []
    for before, after in zip(
      image.reshape(-1, 3) / 255, found.reshape(-1, 3) / 255, strict=True
    ):
      h0, s0, v0 = colorsys.rgb_to_hsv(*before)
      h1, s1, v1 = colorsys.rgb_to_hsv(*after)
      # Saturation and value stay; all hues turn alike. Rounding to 1/255 tells
      # little of the hue of a dull or dark pixel.
      assert abs(v0 - v1) < 1.01 / 255
      if s0 * v0 > 0.3:
        assert abs(s0 - s1) < 0.02
        turns.append((h1 - h0 + 0.5) % 1 - 0.5)
    turn = np.median(turns)
    assert 0 < abs(turn) <= 0.3
    np.testing.assert_allclose(turns, turn, atol=0.01)
    h, s, v = colorsys.rgb_to_hsv(*image[2, 3] / 255)
    expected = colorsys.hsv_to_rgb((h + turn) % 1, s, v)
    np.testing.assert_allclose(found[2, 3], np.array(expected) * 255, atol=3)


def test_saturation_and_contrast_keep_luma_and_mean(images):
  luma = np.array([0.299, 0.587, 0.114])
  image = images[0] // 2 + 64
  found = image_of("color_jitter(saturation=0.3)", image, 1)
  np.testing.assert_allclose(found @ luma, image @ luma, atol=1)
  found = image_of("color_jitter(contrast=0.3)", image, 1).astype(float)
  assert abs((found @ luma).mean() - (image @ luma).mean()) < 0.5
  # Distances from the mean are all scaled by one factor.
  mean = (image @ luma).mean()
  factor = np.polyfit((image - mean).ravel(), (found - mean).ravel(), 1)[0]
  assert factor != 1
  np.testing.assert_allclose(found, mean + factor * (image - mean), atol=1)


def test_photometric_distortion_is_what_it_is_made_of(images):
  string = "photometric_distortion({}, p=1.0)".format
  image = images[0] // 2 + 64
  off = dict(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)

  def changed(index=0, **given):
    given = ", ".join(f"{k}={v}" for k, v in (off | given).items())
    return image_of(string(given), image, index).astype(float)

  np.testing.assert_allclose(changed(), image, atol=1)
  shifts = [
    np.unique(np.rint(changed(i, brightness=20.0) - image)) for i in (1, 2)
  ]
  assert all(np.ptp(s) <= 1 and 0 < abs(s.mean()) <= 21 for s in shifts)
  found = changed(1, contrast=0.3)
  factor = np.polyfit(image.ravel(), found.ravel(), 1)[0]
  assert abs(factor - 1) > 0.02
  np.testing.assert_allclose(found, np.clip(image * factor, 0, 255), atol=1.5)
  found = changed(1, saturation=0.4)
  np.testing.assert_allclose(found.max(-1), image.max(-1), atol=1)  # the value
  assert abs(found - image).max() > 3
  grey = np.repeat(image[..., :1], 3, -1)
  still = image_of(string("hue=0.5, brightness=0, contrast=0"), grey, 1)
  np.testing.assert_allclose(still, grey, atol=1)
  never = image_of("photometric_distortion(p=0.0)", image)
  np.testing.assert_allclose(never, image, atol=1)
  with pytest.raises(ValueError, match="need 3 channels"):
    image_of("photometric_distortion", image[..., :1])


def test_salt_and_pepper_has_its_shares():
  image = np.full((200, 200, 3), 100, np.uint8)
  found = image_of("salt_and_pepper(0.1, salt=0.3)", image)
  assert (found == found[..., :1]).all()  # whole pixels
  n = 200 * 200
  for value, share in ((255, 0.03), (0, 0.07), (100, 0.9)):
    count = (found[..., 0] == value).sum()
    # Five standard deviations of a binomial.
    assert abs(count - share * n) < 5 * np.sqrt(n * share * (1 - share))


@pytest.mark.parametrize("sigma", [0.7, 2.0])
def test_blur_is_scipys_gaussian_filter(sigma, images):
  image = images[0].astype(np.float32)
  expected = ndimage.gaussian_filter(
    image.astype(np.float64),
    sigma,
    mode="nearest",
    radius=int(np.ceil(3 * sigma)),
    axes=(0, 1),
  )
  found = image_of(f"blur({sigma})", image)
  np.testing.assert_allclose(found, expected, atol=2e-3)
  whole = image_of(f"blur({sigma})", images[0])
  assert whole.dtype == np.uint8
  np.testing.assert_allclose(whole, expected, atol=0.51)


def test_blur_takes_its_chance():
  image = np.zeros((9, 9, 1), np.float32)
  image[4, 4] = 1
  kept = sum(
    image_of("blur(1.0, p=0.3)", image, i)[4, 4, 0] == 1 for i in range(200)
  )
  assert abs(kept - 140) < 5 * np.sqrt(200 * 0.3 * 0.7)
  # The peak of a unit mass is 1 / (2 pi sigma^2) for sigmas of a pixel or more.
  peaks = [image_of("blur((1.0, 2.0))", image, i)[4, 4, 0] for i in range(100)]
  sigmas = 1 / np.sqrt(2 * np.pi * np.array(peaks))
  assert 1 - 0.02 < sigmas.min() < 1.1 and 1.9 < sigmas.max() < 2.02


def test_trivialaugment_draws_each_transform_and_strength_alike(monkeypatch):
  """Each transform is made to write down its number and its amount."""
  names = [each.__name__[1:] for each in randaugment._TRANSFORMS]
  assert len(names) == 14  # table 1 of the paper

  def recorder(number, name):
    def record(image, amount, sign):
      amount = tf.cast(amount, tf.float32) * (200 / _WIDEST.get(name, 1))
      return tf.stack(
        [tf.fill([4, 4], float(number)), tf.fill([4, 4], amount),
         tf.fill([4, 4], sign + 1)], -1
      )  # fmt: skip

    record.__name__ = f"_{name}"
    return record

  recorders = tuple(recorder(i, name) for i, name in enumerate(names))
  monkeypatch.setattr(randaugment, "_TRANSFORMS", recorders)
  image = np.zeros((4, 4, 3), np.uint8)
  function = ops.compile("trivialaugment")
  seeds = tf.data.Dataset.range(6000).map(
    lambda i: function({"image": tf.constant(image)}, tf.stack([0, i]))["image"]
  )
  found = np.stack(list(seeds.as_numpy_iterator()))[:, 0, 0].astype(int)
  counts = np.bincount(found[:, 0], minlength=14)
  assert np.abs(counts - 6000 / 14).max() < 5 * np.sqrt(6000 / 14)
  for number, name in enumerate(names):
    rows = found[found[:, 0] == number]
    assert 0.35 < (rows[:, 2] == 0).mean() < 0.65
    levels = np.unique(rows[:, 1])
    if name in _WIDEST:  # 31 strengths from none to the widest
      expected = np.round(np.arange(31) * 200 / 30)
      assert np.abs(levels[:, None] - expected).min(1).max() <= 1
      assert levels.min() == 0 and levels.max() >= 199
      assert len(levels) > 25


# The ends of the "wide" ranges; translations are 32 pixels, here of 4.
_WIDEST = {
  "shear_x": 0.99,
  "shear_y": 0.99,
  "translate_x": 8.0,
  "translate_y": 8.0,
  "rotate": 135.0,
  "brightness": 0.99,
  "color": 0.99,
  "contrast": 0.99,
  "sharpness": 0.99,
  "posterize": 6.0,
  "solarize": 1.0,
}


def test_posterize_is_pillows():
  image_ops = pytest.importorskip("PIL.ImageOps")
  from PIL import Image

  image = np.arange(256, dtype=np.uint8).reshape(16, 16)
  for lost in range(7):
    ours = randaugment._posterize(
      tf.cast(image, tf.float32), tf.constant(float(lost)), 1.0
    )
    expected = image_ops.posterize(Image.fromarray(image), 8 - lost)
    np.testing.assert_array_equal(ours, np.asarray(expected))


@pytest.mark.parametrize(
  ("string", "named"),
  [
    ("scale|salt_and_pepper", "'salt_and_pepper': needs a uint8 image"),
    ("salt_and_pepper(1.5)", "share=1.5, salt=0.5: not within 0..1"),
    ("blur((2, 1))", "sigma .2, 1. is not positive and ascending"),
    ("shear(-1)", "x=-1, y=0.0: both must be at least 0"),
    ("scale|trivialaugment", "needs a uint8 image"),
  ],
)
def test_a_wrong_use_is_named(string, named, images):
  with pytest.raises(ValueError, match=named):
    image_of(string, images[0])


def test_views_differ_and_leave_the_image(images):
  string = "views('random_resized_crop(6)|flip', 2)|views('flip', 1, 'small')"
  apply = ops.compile(string)
  found = apply({"image": tf.constant(images[0])}, seed(0, 1))
  assert sorted(found) == ["image", "small_1", "view_1", "view_2"]
  np.testing.assert_array_equal(found["image"], images[0])
  first, second = found["view_1"].numpy(), found["view_2"].numpy()
  assert first.shape == second.shape == (6, 6, 3)
  assert (first != second).any()
  assert_eager_is_tf_data("views('flip', 2)|keep('view_1', 'image')", images)
  for wrong, line in (
    ("views('flop')", "no op 'flop'"),
    ("views('mixup(0.2)')", "must not mix"),
    ("views('flip', inkey='x')", "no field 'x'"),
  ):
    with pytest.raises(ValueError, match=line):
      ops.compile(wrong)({"image": images[0]}, seed(0, 0))


def test_grayscale_and_solarize_are_pils(images):
  from PIL import Image, ImageOps

  picture = Image.fromarray(images[0])
  grey = np.asarray(picture.convert("L")).astype(int)
  found = image_of("grayscale", images[0]).astype(int)
  assert abs(found - grey[..., None]).max() <= 1
  solarized = np.asarray(ImageOps.solarize(picture, 100))
  np.testing.assert_array_equal(image_of("solarize(100)", images[0]), solarized)
  for op in ("grayscale(0.5)", "solarize(0, 0.5)", "color_jitter(0.9, p=0.5)"):
    same = [(image_of(op, images[0], i) == images[0]).all() for i in range(24)]
    assert 4 <= sum(same) <= 20
  with pytest.raises(ValueError, match="p=2"):
    image_of("grayscale(2)", images[0])
