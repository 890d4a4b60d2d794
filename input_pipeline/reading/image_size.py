"""The size of an encoded image, read from its header.

A few bytes can claim an image of any size, and decoders allocate memory for it.
The claim is therefore checked before an image is decoded.
"""

from input_pipeline.bad_records import Policy, check_size
from input_pipeline.reading import exif, pictures

# Start-of-frame markers of JPEG: 0xC0 to 0xCF except DHT, JPG and DAC.
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# The first bytes of a TIFF of either byte order.
_TIFF = (b"II*\0", b"MM\0*")


def check_image(data: bytes, name: str, policy: Policy) -> None:
  """Raises ValueError for an image that would decode to too many bytes.

  The estimate is three bytes per pixel, plus one for each pixel of the frames
  of a GIF. Other formats than those of image_size are left to the decoder,
  which refuses them.
  """
  width, height, frames = image_size(data)
  what = f"an image of {width:,} x {height:,} pixels, "
  check_size(3 * width * height + frames, name, policy, what)


def is_image(data: bytes) -> bool:
  """Returns whether the bytes begin as those of an encoded image do."""
  if data[:2] == b"BM":  # So do words; four reserved bytes are 0.
    return data[6:10] == bytes(4)
  if data[:3] == b"GIF":
    return data[3:4] == b"8"
  return any(image_size(data)[:2])


def image_size(data: bytes) -> tuple[int, int, int]:
  """(width, height, pixels in the frames of a GIF); zeros if unknown.

  The size is that of the upright image. The formats are JPEG, PNG, BMP, GIF,
  WebP, TIFF and AVIF.
  """
  if data[:3] == b"\xff\xd8\xff":
    return *_turned(data, *_jpeg(data)), 0
  if data[:8] == b"\x89PNG\r\n\x1a\n":
    size = _number(data, 16, 4, "big"), _number(data, 20, 4, "big")
    return *_turned(data, *size), 0
  if data[:2] == b"BM":
    # A negative height means that rows are stored from top to bottom.
    height = int.from_bytes(data[22:26], "little", signed=True)
    width = int.from_bytes(data[18:22], "little", signed=True)
    return abs(width), abs(height), 0
  if data[:3] == b"GIF":
    return _number(data, 6, 2), _number(data, 8, 2), _gif_frames(data)
  if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
    return *_turned(data, *_webp(data)), 0
  if data[:4] in _TIFF or data[4:8] == b"ftyp":
    return *pictures.size(data), 0
  return 0, 0, 0


def _turned(data: bytes, width: int, height: int) -> tuple[int, int]:
  return (height, width) if exif.orientation(data) > 4 else (width, height)


def _number(data: bytes, place: int, size: int, order: str = "little") -> int:
  return int.from_bytes(data[place : place + size], order)


def _jpeg(data: bytes) -> tuple[int, int]:
  """(width, height) of the largest frame before the scan."""
  found = (0, 0)
  for marker, start, _ in exif.jpeg_segments(data):
    if marker in _FRAMES:
      height = _number(data, start + 1, 2, "big")
      width = _number(data, start + 3, 2, "big")
      found = max(found, (width, height), key=lambda size: size[0] * size[1])
  return found


def _gif_frames(data: bytes) -> int:
  """The pixels of all frames, which a decoder holds at once."""
  if len(data) < 13:
    return 0
  pixels, place = 0, 13 + _table(data[10])
  while place < len(data):
    kind = data[place]
    if kind == 0x2C and place + 10 <= len(data):
      pixels += _number(data, place + 5, 2) * _number(data, place + 7, 2)
      place += 11 + _table(data[place + 9])
    elif kind == 0x21:
      place += 2
    else:
      break
    while place < len(data) and data[place]:
      place += 1 + data[place]
    place += 1
  return pixels


def _table(flags: int) -> int:
  """The bytes of the colour table that the flags announce."""
  return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _webp(data: bytes) -> tuple[int, int]:
  if data[12:16] == b"VP8X":
    return 1 + _number(data, 24, 3), 1 + _number(data, 27, 3)
  if data[12:16] == b"VP8L":
    bits = _number(data, 21, 4)
    return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
  return _number(data, 26, 2) & 0x3FFF, _number(data, 28, 2) & 0x3FFF
