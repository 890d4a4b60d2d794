"""Decompresses files in pieces: gzip with many members, and Zstandard."""

import zlib
from collections.abc import Generator, Iterator
from typing import BinaryIO

_READ = 2**16
_PIECE = 2**20
# Larger windows are refused, as the `zstd` program does by default.
_ZSTD_WINDOW = 2**27


def is_compressed(path: str) -> bool:
  """Whether a file is compressed, judged by its name."""
  return path.endswith((".gz", ".zst", ".zstd"))


def pieces(file: BinaryIO, path: str) -> Iterator[tuple[int, bytes]]:
  """Yields (offset of its gzip member in the file, content) of each piece.

  No piece is larger than 1 MiB. A file whose name does not end in .gz or .zst
  counts as one member and is not changed.

  Args:
    file: open at its beginning.
    path: its name, which decides how it is read, and appears in errors.

  Raises:
    ValueError: it cannot be decompressed to its end, or its name ends in .bz2
      or .xz.
  """
  if path.endswith(".gz"):
    return _gzip(file, path)
  if path.endswith((".zst", ".zstd")):
    return _zstd(file, path)
  if path.endswith((".bz2", ".xz")):
    kind = path.rpartition(".")[2]
    raise ValueError(
      f"{path}: .{kind} files are not read; decompress it, or compress it again"
      " as .gz or .zst"
    )
  return ((0, piece) for piece in iter(lambda: file.read(_PIECE), b""))


def _gzip(file: BinaryIO, path: str) -> Iterator[tuple[int, bytes]]:
  offset = 0  # in the file, of the end of `data`
  data = file.read(_READ)
  offset += len(data)
  while data:
    member = offset - len(data)
    inflater = zlib.decompressobj(31)
    # The last piece is held back until the member's checksum is verified.
    held = b""
    while not inflater.eof:
      if not data:
        data = file.read(_READ)
        offset += len(data)
      if not data:
        if held:
          yield member, held
        raise ValueError(f"{path}: broken gzip file: it ends too early")
      try:
        piece = inflater.decompress(data, _PIECE)
      except zlib.error as error:
        raise ValueError(f"{path}: broken gzip file: {error}") from None
      data = inflater.unconsumed_tail or inflater.unused_data
      if piece:
        if held:
          yield member, held
        held = piece
    if held:
      yield member, held
    # A file may be padded with zeros, as on tapes.
    while not (data := data.lstrip(b"\0")):
      data = file.read(_READ)
      offset += len(data)
      if not data:
        return


def _zstd(file: BinaryIO, path: str) -> Iterator[tuple[int, bytes]]:
  try:
    import zstandard
  except ModuleNotFoundError:
    raise ValueError(
      f"{path}: a .zst file needs zstandard, which is not installed: "
      "pip install -e '.[clean]'"
    ) from None
  inflater = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
  watched = _Watched(file)
  try:
    with inflater.stream_reader(
      watched, read_size=_READ, read_across_frames=True, closefd=False
    ) as reader:
      while piece := reader.read(_PIECE):
        yield 0, piece
  except zstandard.ZstdError as error:
    raise ValueError(f"{path}: broken zstd file: {error}") from None
  if watched.inside():
    raise ValueError(f"{path}: broken zstd file: it ends too early")


class _Watched:
  """A Zstandard file that records whether it ends inside a frame.

  The decoder does not report this: it reads a truncated file like a complete
  one. The format is described in RFC 8878, section 3.1.
  """

  def __init__(self, file: BinaryIO):
    self._file = file
    self._walk = _frames()
    self._take, self._skip = next(self._walk)
    self._held = b""

  def inside(self) -> bool:
    """Whether what was read so far ends inside a frame."""
    return bool(self._take != 4 or self._skip or self._held)

  def read(self, size: int = -1) -> bytes:
    """Reads as a file does."""
    data = self._file.read(size)
    at = 0
    while at < len(data):
      if self._skip:
        step = min(self._skip, len(data) - at)
        self._skip -= step
      else:
        step = min(self._take - len(self._held), len(data) - at)
        self._held += data[at : at + step]
      at += step
      if not self._skip and len(self._held) == self._take:
        self._take, self._skip = self._walk.send(self._held)
        self._held = b""
    return data


def _frames() -> Generator[tuple[int, int], bytes, None]:
  """Yields (bytes to take, bytes to skip before them); receives those taken.

  It takes 4 bytes only at the beginning of a frame.
  """
  skip = 0
  while True:
    magic = yield 4, skip
    if magic[1:] == b"\x2a\x4d\x18" and magic[0] >> 4 == 5:
      size = yield 2, 0
      size += yield 2, 0
      skip = int.from_bytes(size, "little")
      continue
    (descriptor,) = yield 1, 0
    single = descriptor >> 5 & 1
    content = (single, 2, 4, 8)[descriptor >> 6]
    skip = (1 - single) + (0, 1, 2, 4)[descriptor & 3] + content
    last = 0
    while not last:
      header = int.from_bytes((yield 3, skip), "little")
      last, kind, size = header & 1, header >> 1 & 3, header >> 3
      skip = 1 if kind == 1 else size
    skip += 4 * (descriptor >> 2 & 1)
