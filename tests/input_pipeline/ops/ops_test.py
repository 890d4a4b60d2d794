import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
Image = pytest.importorskip("PIL.Image", reason="Pillow comes with matplotlib")

from input_pipeline import ops  # noqa: E402
from input_pipeline.ops import color, randaugment  # noqa: E402

_OPS = [
  "decode",
  "decode|resize(7)",
  "resize((5, 9), method='bicubic', antialias=False)",
  "resize_small(8)|central_crop(8)",
  "central_crop((4, 6))",
  "random_crop(10)",
  "random_crop(12, pad=3)",
  "random_resized_crop(6)",
  "rotation(30)",
  "flip",
  "color_jitter(0.4, 0.4, 0.4, 0.1)",
  "photometric_distortion",
  "noise(10)",
  "cutout(4)",
  "randaugment(3, 15)",
  "normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))",
  "scale(-1, 1)",
  "scale|noise(0.1)|flip|random_crop(9)",
  "to_float|normalize(0.5, 0.25)",
  "flip(outkey='other')|resize(4, inkey='other', outkey='other')",
  "keep('image')",
]


@pytest.fixture
def images():
  return np.random.default_rng(0).integers(0, 256, (12, 12, 14, 3), np.uint8)


def seed(epoch, index):
  return tf.constant([epoch, index], tf.int64)


def run(string, image, index=0, epoch=0, **fields):
  example = {"image": tf.constant(image), **fields}
  return ops.compile(string)(example, seed(epoch, index))


def image_of(string, image, index=0, epoch=0):
  return run(string, image, index, epoch)["image"].numpy()


@pytest.mark.parametrize("string", _OPS)
def test_eager_and_tf_data_agree_to_the_bit(string, images):
  function = ops.compile(string)
  eager = [
    function({"image": tf.constant(image)}, seed(3, i))
    for i, image in enumerate(images)
  ]
  dataset = tf.data.Dataset.from_tensor_slices(images).enumerate()
  dataset = dataset.map(
    lambda i, image: function({"image": image}, tf.stack([3, i])),
    num_parallel_calls=2,
    deterministic=True,
  )
  mapped = list(dataset.as_numpy_iterator())
  assert len(mapped) == len(eager)
  for a, b in zip(eager, mapped, strict=True):
    assert a.keys() == b.keys()
    for key in a:
      assert a[key].dtype == b[key].dtype
      np.testing.assert_array_equal(a[key], b[key])
  for leaf in dataset.element_spec.values():
    assert None not in leaf.shape.as_list()


@pytest.mark.parametrize(
  "string",
  [
    "random_crop(8)",
    "random_resized_crop(6)",
    "rotation(40)",
    "color_jitter(0.4)",
    "noise(10)",
    "cutout(4)",
    "randaugment(2, 20)",
  ],
)
def test_randomness_is_the_examples_own(string, images):
  image = images[0]
  first = image_of(string, image, index=1, epoch=0)
  np.testing.assert_array_equal(first, image_of(string, image, 1, 0))
  others = [image_of(string, image, i, 0) for i in range(2, 8)]
  assert any((first != other).any() for other in others)
  epochs = [image_of(string, image, 1, e) for e in range(1, 8)]
  assert any((first != other).any() for other in epochs)


def test_two_ops_of_a_name_draw_apart():
  image = np.zeros((8, 8, 1), np.float32)
  one = image_of("noise(1.0)", image)
  two = image_of("noise(1.0)|noise(1.0)", image)
  assert not np.allclose(two, 2 * one)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "GIF"])
def test_decode_reads_what_pillow_reads(tmp_path, format, images):
  path = tmp_path / "x"
  # Smooth, so that JPEG decoders cannot differ by much.
  ramp = np.linspace(0, 255, 20)[:, None, None] * [1.0, 0.5, 0.25]
  array = np.broadcast_to(ramp, (20, 24, 3)).astype(np.uint8)
  Image.fromarray(array).save(path, format)
  with Image.open(path) as picture:
    expected = np.asarray(picture.convert("RGB"))
  found = image_of("decode", path.read_bytes())
  assert found.dtype == np.uint8
  # TensorFlow takes the fast inverse DCT, Pillow the slow one.
  tolerance = 4 if format == "JPEG" else 0
  np.testing.assert_allclose(found.astype(int), expected, atol=tolerance)


def test_decode_of_a_grey_image(tmp_path):
  array = np.arange(60, dtype=np.uint8).reshape(6, 10)
  Image.fromarray(array).save(tmp_path / "x.png")
  data = (tmp_path / "x.png").read_bytes()
  np.testing.assert_array_equal(image_of("decode(1)", data)[..., 0], array)
  assert image_of("decode", data).shape == (6, 10, 3)


def test_crops_are_windows_of_the_padded_image(images):
  image = images[0]
  padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
  windows = {
    padded[y : y + 12, x : x + 14].tobytes(): (y, x)
    for y in range(5)
    for x in range(5)
  }
  found = [
    image_of("random_crop((12, 14), pad=2)", image, index=i).tobytes()
    for i in range(300)
  ]
  assert {windows[f] for f in found} == set(windows.values())
  np.testing.assert_array_equal(
    image_of("central_crop((6, 4))", image), image[3:9, 5:9]
  )


def test_flip_mirrors_half(images):
  image = images[0]
  mirrored = 0
  for i in range(400):
    found = image_of("flip", image, index=i)
    if (found == image).all():
      continue
    np.testing.assert_array_equal(found, image[:, ::-1])
    mirrored += 1
  # Five standard deviations of a fair coin.
  assert abs(mirrored - 200) < 50
  np.testing.assert_array_equal(image_of("flip(p=1.0)", image), image[:, ::-1])


def test_scale_and_normalize_are_their_formulas(images):
  image = images[0]
  x = image.astype(np.float64)
  mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
  tight = dict(rtol=1e-6, atol=1e-6)
  np.testing.assert_allclose(
    image_of("scale(-1, 1)", image), x / 255 * 2 - 1, **tight
  )
  np.testing.assert_allclose(image_of("to_float", image), x / 255, **tight)
  expected = (x / 255 - mean) / std
  string = f"normalize({tuple(mean.tolist())}, {tuple(std.tolist())})"
  np.testing.assert_allclose(image_of(string, image), expected, **tight)
  np.testing.assert_allclose(
    image_of(f"to_float|{string}", image), expected, **tight
  )


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_rotation_by_quarters_is_rot90(images, quarters):
  image = images[0][:12, :12]
  angle = 90 * quarters
  found = image_of(f"rotation({angle}, min_degrees={angle})", image)
  np.testing.assert_array_equal(found, np.rot90(image, quarters))


def test_rotation_agrees_with_scipy():
  ndimage = pytest.importorskip("scipy.ndimage")
  image = np.random.default_rng(0).random((15, 11, 1)).astype(np.float32)
  expected = ndimage.rotate(image, 20, reshape=False, order=1)
  found = image_of("rotation(20, min_degrees=20)", image)
  # At the border SciPy does not blend with what lies outside.
  np.testing.assert_allclose(found[4:-4, 4:-4], expected[4:-4, 4:-4], atol=1e-5)


def test_resize_keeps_the_shorter_side(images):
  assert image_of("resize_small(6)", images[0]).shape == (6, 7, 3)
  tall = np.zeros((40, 13, 3), np.uint8)
  assert image_of("resize_small(26)", tall).shape == (80, 26, 3)
  assert image_of("resize((3, 5))", images[0]).dtype == np.uint8
  # An antialiased halving of a flat image is the same flat image.
  flat = np.full((8, 8, 3), 77, np.uint8)
  np.testing.assert_array_equal(image_of("resize(4)", flat), flat[:4, :4])


def test_random_resized_crop_covers_the_area_asked_for():
  # The image holds its own coordinates, so that a crop tells its extent.
  rows, columns = np.mgrid[0:200, 0:200].astype(np.float32)
  image = np.stack([rows, columns], -1)
  for i in range(30):
    found = image_of("random_resized_crop(50, area=(0.2, 0.5))", image, i)
    # The outermost of 50 samples lie half a 50th inside each edge.
    extent = np.ptp(found, axis=(0, 1)) * 50 / 49
    area = extent.prod() / 200**2
    assert 0.18 < area < 0.53
    assert 0.7 < extent[1] / extent[0] < 1.43


def test_cutout_paints_at_most_its_square():
  image = np.full((20, 16, 3), 9, np.uint8)
  areas = []
  for i in range(200):
    found = image_of("cutout(6)", image, index=i)
    painted = (found == 0).all(-1)
    np.testing.assert_array_equal(found[~painted], 9)
    rows, columns = painted.any(1), painted.any(0)
    assert painted.sum() == rows.sum() * columns.sum()
    areas.append(painted.sum())
  # A centre in a corner leaves a quarter at the least.
  assert max(areas) == 36
  assert min(areas) >= 9


@pytest.mark.parametrize("strength", [0.2, 0.8])
def test_jitter_stays_within_its_bounds(strength):
  image = np.full((4, 4, 3), 100, np.uint8)
  factors = np.array(
    [
      image_of(f"color_jitter(brightness={strength})", image, i)[0, 0, 0] / 100
      for i in range(100)
    ]
  )
  assert factors.min() >= 1 - strength - 0.006
  assert factors.max() <= 1 + strength + 0.006
  assert np.ptp(factors) > 1.5 * strength


@pytest.mark.parametrize("factor", [0.3, 1.0, 1.7])
def test_blends_are_pillows_enhancers(factor, images):
  enhance = pytest.importorskip("PIL.ImageEnhance")
  image = images[0]
  x = tf.cast(image, tf.float32)
  grey = color.grey(x)
  ours = {
    "Brightness": color.blend(tf.zeros_like(x), x, factor),
    "Contrast": color.blend(tf.round(tf.reduce_mean(grey)), x, factor),
    "Color": color.blend(grey, x, factor),
  }
  for name, found in ours.items():
    picture = getattr(enhance, name)(Image.fromarray(image))
    expected = np.asarray(picture.enhance(factor)).astype(float)
    # Pillow rounds the luma first, and truncates the result.
    np.testing.assert_allclose(found, expected, atol=1.5)


@pytest.mark.parametrize("name", ["autocontrast", "equalize", "solarize"])
def test_randaugment_transforms_are_pillows(name, images):
  image_ops = pytest.importorskip("PIL.ImageOps")
  image = (images[0] // 2 + 30).astype(np.uint8)
  ours = getattr(randaugment, f"_{name}")
  found = np.round(ours(tf.cast(image, tf.float32), 0.5, 1.0))
  picture = Image.fromarray(image)
  if name == "solarize":
    expected = image_ops.solarize(picture, 128)
  else:
    expected = getattr(image_ops, name)(picture)
  # Pillow truncates where autocontrast rounds.
  tolerance = 1 if name == "autocontrast" else 0
  np.testing.assert_allclose(found, np.asarray(expected), atol=tolerance)


@pytest.mark.parametrize("magnitude", [0, 9, 30])
def test_randaugment_gives_images(magnitude, images):
  for i, image in enumerate(images):
    found = image_of(f"randaugment(2, {magnitude})", image, index=i)
    assert found.dtype == np.uint8
    assert found.shape == image.shape


@pytest.mark.parametrize("strength", [0.0])
@pytest.mark.parametrize(
  "name",
  ["shear_x", "translate_y", "rotate", "brightness", "sharpness", "posterize"],
)
def test_no_strength_is_no_change(name, strength, images):
  image = tf.cast(images[0], tf.float32)
  found = getattr(randaugment, f"_{name}")(image, strength, -1.0)
  np.testing.assert_allclose(found, image, atol=1e-3)


def test_noise_has_its_deviation():
  image = np.zeros((100, 100, 1), np.float32)
  found = image_of("noise(3.0)", image)
  # Five standard errors of 10,000 draws.
  assert abs(found.std() - 3) < 5 * 3 / np.sqrt(2 * 10_000)
  assert abs(found.mean()) < 5 * 3 / np.sqrt(10_000)


def test_parse_reads_names_and_literals():
  assert ops.parse("decode|random_crop(32, pad=4)|flip") == [
    ("decode", (), {}),
    ("random_crop", (32,), {"pad": 4}),
    ("flip", (), {}),
  ]
  assert ops.parse(" resize((4, 5), 'nearest')\n| keep('a|b') ") == [
    ("resize", ((4, 5), "nearest"), {}),
    ("keep", ("a|b",), {}),
  ]


@pytest.mark.parametrize(
  ("string", "named"),
  [
    (
      "decode|randm_crop(3)",
      'position 8: no op .randm_crop.; did you mean "random_crop"',
    ),
    ("random_crop(3, padd=1)", r"random_crop\(size, pad=0, .*'padd'"),
    ("flip|random_crop()", r"position 6: random_crop\(size.*'size'"),
    ("decode||flip", "malformed at position 8"),
    ("resize(open('x'))", "must be literals"),
    ("resize(n)", "must be literals"),
    ("decode + flip", "expected an op"),
    ("image.decode", "expected an op"),
  ],
)
def test_a_wrong_string_is_named(string, named):
  with pytest.raises(ValueError, match=named) as error:
    ops.parse(string)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("string", "named"),
  [
    ("flip(inkey='picture')", "op 'flip': no field 'picture'; valid: image"),
    ("scale|scale", "op 'scale': needs a uint8 image, not float32"),
    ("resize(0)", "op 'resize': size 0"),
    ("keep('label')", "op 'keep': no field 'label'"),
    ("randaugment(1, 31)", "magnitude 31 is not within 0..30"),
  ],
)
def test_a_wrong_use_is_named(string, named, images):
  with pytest.raises(ValueError, match=named):
    run(string, images[0])


def test_captions_are_texts_about_the_label():
  context = ops.Context(num_classes=2)
  function = ops.compile("caption(['bag', 'coat'], 'a {}', 8)", context)
  dataset = tf.data.Dataset.from_tensor_slices({"label": [1, 0]})
  rows = [
    example["caption"].numpy()
    for example in dataset.map(lambda e: function(e, seed(0, 0)))
  ]
  texts = [bytes(row.tolist()).rstrip(bytes(1)) for row in rows]
  assert texts == [b"a coat", b"a bag"] and rows[0].dtype == np.int32
  for string, message in (
    ("caption(['bag'])", "1 names for 2 classes"),
    ("caption(['bag', 'coat'], length=4)", "bag' has 18 bytes, more than 4"),
  ):
    with pytest.raises(ValueError, match=message):
      ops.compile(string, context)({"label": tf.constant(0)}, seed(0, 0))
