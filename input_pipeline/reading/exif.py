"""The EXIF orientation of photographs, and how it is applied.

Cameras store the pixels as the sensor read them, and how the image is to be
turned for display as the EXIF tag 0x0112 (CIPA DC-008, section 4.6.4).
"""

from collections.abc import Iterator

import numpy as np

_ORIENTATION = 0x0112
_PNG = b"\x89PNG\r\n\x1a\n"
# Markers of JPEG that no length follows.
_BARE = {0x01, *range(0xD0, 0xD9)}
# The first scan and the end of the image.
_LAST = (0xD9, 0xDA)
# The integer types of TIFF, with their sizes in bytes: BYTE, SHORT, LONG.
_SIZES = {1: 1, 3: 2, 4: 4}


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
  """Yields (marker, start, size) of the segments before the first scan.

  `start` is the position after the length, and `size` excludes the length.
  """
  place = 2
  while place + 4 <= len(data):
    if data[place] != 0xFF:
      place += 1  # decoders search for the next marker as well
      continue
    marker = data[place + 1]
    if marker == 0xFF:
      place += 1
      continue
    if marker in _BARE or marker == 0:
      place += 2
      continue
    size = max(2, int.from_bytes(data[place + 2 : place + 4], "big"))
    yield marker, place + 4, size - 2
    if marker in _LAST:
      return
    place += 2 + size


def orientation(data: bytes) -> int:
  """The orientation of a JPEG, PNG or WebP, 1 to 8; 1 if it has none."""
  if data[:3] == b"\xff\xd8\xff":
    return _tag(_of_jpeg(data))
  if data[:8] == _PNG:
    return _tag(_of_png(data))
  if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
    return _tag(_of_webp(data))
  return 1


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
  """The image [h, w, ...] as it is displayed; 5 to 8 exchange h and w."""
  if orientation in (2, 5, 7):
    image = image[:, ::-1]
  # A mirrored image is then turned by 0, 90 or 270 degrees to the left.
  turns = {3: 2, 5: 1, 6: 3, 7: 3, 8: 1}.get(orientation, 0)
  if orientation == 4:
    image = image[::-1]
  return np.rot90(image, turns)


def _of_jpeg(data: bytes) -> bytes:
  for marker, start, size in jpeg_segments(data):
    if marker == 0xE1 and data[start : start + 6] == b"Exif\0\0":
      return data[start + 6 : start + size]
  return b""


def _of_png(data: bytes) -> bytes:
  place = 8
  while place + 8 <= len(data):
    size = int.from_bytes(data[place : place + 4], "big")
    if data[place + 4 : place + 8] == b"eXIf":
      return data[place + 8 : place + 8 + size]
    place += 12 + size
  return b""


def _of_webp(data: bytes) -> bytes:
  place = 12
  while place + 8 <= len(data):
    size = int.from_bytes(data[place + 4 : place + 8], "little")
    if data[place : place + 4] == b"EXIF":
      return data[place + 8 : place + 8 + size].removeprefix(b"Exif\0\0")
    place += 8 + size + size % 2
  return b""


def _tag(block: bytes) -> int:
  """The orientation in a TIFF structure, or 1."""
  order = {b"II": "little", b"MM": "big"}.get(block[:2])
  if order is None:
    return 1

  def number(place: int, size: int) -> int:
    return int.from_bytes(block[place : place + size], order)

  start = number(4, 4)
  for i in range(min(number(start, 2), len(block) // 12)):
    place = start + 2 + 12 * i
    if number(place, 2) == _ORIENTATION:
      found = number(place + 8, _SIZES.get(number(place + 2, 2), 0))
      return found if 1 <= found <= 8 else 1
  return 1
