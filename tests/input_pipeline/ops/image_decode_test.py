"""Images of unusual kinds are decoded as Pillow converts them."""

import io

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
Image = pytest.importorskip("PIL.Image", reason="Pillow comes with matplotlib")

from input_pipeline import ops  # noqa: E402
from input_pipeline.batching import pipeline  # noqa: E402

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# Smooth, so that JPEG decoders cannot differ by much.
_X, _Y = np.meshgrid(np.linspace(0, 200, 24), np.linspace(0, 50, 16))
RGB = np.stack([_X + _Y, _X / 2 + _Y, 255 - _X], -1).astype(np.uint8)
GREY = RGB[..., 0]
ALPHA = np.where(_X > 100, 255, 60).astype(np.uint8)
COLOUR, TURNED = Image.fromarray(RGB), Image.fromarray(RGB[::-1].copy())
WIDE = (GREY.astype(np.uint16) << 8) + np.arange(24, dtype=np.uint16)
RGBA = Image.fromarray(np.dstack([RGB, ALPHA]))


def encoded(image, format, **settings):
  file = io.BytesIO()
  image.save(file, format, **settings)
  return file.getvalue()


def animated(format, **settings):
  return encoded(
    COLOUR, format, save_all=True, append_images=[TURNED], **settings
  )


FILES = {
  "jpeg_cmyk": encoded(COLOUR.convert("CMYK"), "JPEG", quality=95),
  "jpeg_grey": encoded(Image.fromarray(GREY), "JPEG", quality=95),
  "png_grey_alpha": encoded(Image.fromarray(np.dstack([GREY, ALPHA])), "PNG"),
  "png_alpha": encoded(RGBA, "PNG"),
  "png_palette": encoded(COLOUR.quantize(32), "PNG"),
  "png_palette_clear": encoded(COLOUR.quantize(32), "PNG", transparency=3),
  "png_4_bits": encoded(COLOUR.quantize(8), "PNG", bits=4),
  "png_1_bit": encoded(Image.fromarray(GREY > 99), "PNG"),
  "png_16_bits": encoded(Image.fromarray(WIDE), "PNG"),
  "png_animated": animated("PNG"),
  "gif_animated": animated("GIF"),
  "gif_clear": encoded(COLOUR.quantize(32), "GIF", transparency=3),
  "webp_animated": animated("WEBP", lossless=True),
  "webp_alpha": encoded(RGBA, "WEBP", lossless=True, exact=True),
  "bmp_grey": encoded(Image.fromarray(GREY), "BMP"),
  "bmp_palette": encoded(COLOUR.quantize(32), "BMP"),
  "bmp_1_bit": encoded(Image.fromarray(GREY > 99), "BMP"),
  "tiff_cmyk": encoded(COLOUR.convert("CMYK"), "TIFF"),
  "tiff_16_bits": encoded(Image.fromarray(WIDE), "TIFF"),
}
DECODE = {
  n: tf.function(
    lambda data, f=ops.compile(f"decode({n})"): f(
      {"image": data}, tf.zeros([2], tf.int64)
    )["image"],
    input_signature=[tf.TensorSpec([], tf.string)],
    autograph=False,
  )
  for n in MODES
}


@pytest.mark.parametrize("name", FILES)
def test_decoded_as_pillow_converts(name):
  with Image.open(io.BytesIO(FILES[name])) as image:
    image.load()
    if image.mode.startswith("I"):  # Pillow clips 16 bits.
      image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    for channels, mode in MODES.items():
      found = DECODE[channels](FILES[name]).numpy()
      want = np.asarray(image.convert(mode)).reshape(found.shape)
      # Decoders of JPEG differ in the inverse DCT, those of grey in rounding.
      tolerance = 4 if "jpeg" in name else channels == 1
      np.testing.assert_allclose(
        found.astype(int), want.astype(int), atol=tolerance
      )


@pytest.mark.parametrize(
  "name",
  ["jpeg_cmyk", "png_palette", "gif_clear", "webp_alpha", "bmp_grey"],
)
def test_a_truncated_file_is_named(tmp_path, name):
  (tmp_path / "things").mkdir()
  path = tmp_path / "things" / f"x.{name.partition('_')[0]}"
  path.write_bytes(FILES[name][: 2 * len(FILES[name]) // 3])
  data = pipeline.train(
    source=f"folder:{tmp_path}",
    split="all",
    ops="decode|resize(4)",
    batch_size=1,
  )
  with pytest.raises(ValueError, match=f"{path}: ") as error:
    next(data.batches(0))
  assert "\n" not in str(error.value) and "{{" not in str(error.value)
