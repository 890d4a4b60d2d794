"""The content of a .npy file as an array, without pickle."""

import io
import math

import numpy as np
from numpy.lib import format as npy_format

# Of a header, which is read as a literal.
_MOST_HEADER = 4096


def array_of(content: bytes) -> np.ndarray:
  """Returns the array of numbers that a .npy file holds.

  Raises:
    ValueError: it holds something else, or its size is not the header's.
  """
  file = io.BytesIO(content)
  try:
    version = npy_format.read_magic(file)
    read = {
      (1, 0): npy_format.read_array_header_1_0,
      (2, 0): npy_format.read_array_header_2_0,
    }[version]
    shape, fortran, dtype = read(file, max_header_size=_MOST_HEADER)
  except (ValueError, KeyError, SyntaxError, RecursionError, MemoryError):
    raise ValueError("not an array in the format .npy") from None
  if dtype.kind not in "biuf":
    raise ValueError(f"an array of {dtype}, not of numbers")
  left = content[file.tell() :]
  # The header is checked before anything of the size it claims is allocated.
  if (
    math.prod(shape) * dtype.itemsize != len(left) or min(shape, default=0) < 0
  ):
    raise ValueError(f"an array of {len(left):,} bytes, not of shape {shape}")
  flat = np.frombuffer(left, dtype).astype(dtype.newbyteorder("="), copy=False)
  return flat.reshape(shape, order="F" if fortran else "C")
