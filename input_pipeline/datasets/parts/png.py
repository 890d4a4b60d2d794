"""Images as PNG files, without loss."""

import struct
import zlib


def rgb(pixels: bytes, width: int, height: int) -> bytes:
  """A PNG of 8 bits a channel.

  Args:
    pixels: red, green and blue of each pixel, row by row.
    width: of the image.
    height: of the image.
  """
  row = 3 * width
  rows = b"".join(
    b"\0" + pixels[y * row : (y + 1) * row] for y in range(height)
  )
  header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
  return (
    b"\x89PNG\r\n\x1a\n"
    + _chunk(b"IHDR", header)
    + _chunk(b"IDAT", zlib.compress(rows))
    + _chunk(b"IEND", b"")
  )


def _chunk(kind: bytes, content: bytes) -> bytes:
  check = zlib.crc32(kind + content)
  return (
    struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
  )
