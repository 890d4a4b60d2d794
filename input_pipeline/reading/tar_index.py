"""The positions of the files in a tar archive, from its headers.

Python's tarfile trusts the sizes in an archive: it reads headers of any length
into memory, and loops forever on a negative size. Headers are therefore parsed
here, after POSIX.1-2001 (ustar and pax) and the manual of GNU tar. A tar within
the tar is read in place; nothing is unpacked.
"""

import contextlib
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import BinaryIO, NamedTuple

import numpy as np

from common import bounded_file
from common.files import cache_folder, write_atomically
from input_pipeline.reading import bounded, endings
from input_pipeline.reading.paths import fingerprint

_FORMAT = 2
_BLOCK = 512
# Limits of a path, and of a pax header, which holds a few of them.
_MOST_NAME = 2**16
_MOST_PAX = 2**20
# Why a file in the archive cannot be read; 0 if it can.
_WRONG = (
  "",
  "a link, and links are not followed",
  "a sparse file, which has no position of its own",
  "its name leaves the archive",
  "a tar within a tar within a tar",
)
_LINK, _SPARSE, _LEAVES, _DEEP = 1, 2, 3, 4


class Index(NamedTuple):
  """The files of an archive, in its order.

  names: as in the archive; a file of an inner tar is "INNER.tar/NAME".
  starts: int64, offsets in the archive's file.
  sizes: int64, in bytes.
  wrong: uint8, the code of why it cannot be read; 0 if it can.
  left: {ending: number} of the other files; see endings.of.
  """

  names: list[str]
  starts: np.ndarray
  sizes: np.ndarray
  wrong: np.ndarray
  left: Mapping[str, int] = {}


def reason(code: int) -> str:
  """The text for a code in `Index.wrong`; "" for 0."""
  return _WRONG[code]


def index(path: str, suffixes: tuple[str, ...]) -> Index:
  """The files whose names end in one of `suffixes`; cached on disk.

  Raises:
    ValueError: the archive is cut short, damaged or compressed.
  """
  identity = [_FORMAT, fingerprint([path]), suffixes]
  digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
  kept = os.path.join(cache_folder(), f"{digest}.tar_index")
  found = _load(kept)
  if found is None:
    found = _read(path, suffixes)
    # Without a cache, the next run only takes longer to start.
    with contextlib.suppress(OSError):
      write_atomically(kept, [_packed(found)])
  return found


def _read(path: str, suffixes: tuple[str, ...]) -> Index:
  names, starts, sizes, wrong = [], [], [], []
  left: Counter = Counter()
  try:
    with os.fdopen(bounded_file.descriptor(path), "rb", 0) as file:
      size = os.fstat(file.fileno()).st_size
      for name, start, length, code in _members(file, path, 0, size, ""):
        if name.lower().endswith(suffixes):
          names.append(name)
          starts.append(start)
          sizes.append(length)
          wrong.append(code)
        elif ending := endings.of(name):
          left[ending] += 1
  except OSError as error:
    raise bounded.failure(path, error) from None
  return Index(
    names,
    np.array(starts, np.int64),
    np.array(sizes, np.int64),
    np.array(wrong, np.uint8),
    left,
  )


def _members(
  file: BinaryIO, path: str, start: int, stop: int, inside: str
) -> Iterator[tuple[str, int, int, int]]:
  """Yields (name, start, size, code) of each file in a range.

  Args:
    file: the outermost archive.
    path: its path, for errors.
    start: the offset of the archive to read.
    stop: its end.
    inside: the name of the inner tar to read, with a "/"; or "".
  """
  where = f"{path}: {inside.rstrip('/')}" if inside else path
  extended: dict[str, str] = {}
  while True:
    header = _at(file, start, _BLOCK, stop, where)
    if not header.strip(b"\0"):
      return
    name, size, kind = _parsed(header, start, where)
    start += _BLOCK
    if kind in b"LxgK":
      # It describes the next header: a long name, a size.
      if kind == b"K"[0]:
        pass
      elif size > (_MOST_NAME if kind == b"L"[0] else _MOST_PAX):
        raise ValueError(f"{where}: damaged: a name of {size:,} bytes")
      else:
        content = _at(file, start, size, stop, where)
        if kind == b"L"[0]:
          extended["path"] = _text(content.rstrip(b"\0"))
        elif kind == b"x"[0]:
          extended |= _pax(content, where)
      start += -(-size // _BLOCK) * _BLOCK
      continue
    if "size" in extended:
      size = _count(extended["size"], 10, where)
    name = extended.get("path", name)
    sparse = kind == b"S"[0] or any(
      k.startswith("GNU.sparse") for k in extended
    )
    extended = {}
    link = kind in b"12"
    length = 0 if link or kind in b"3456" else size
    if start + length > stop:
      raise ValueError(f"{where}: cut short in {name!r}")
    if kind in b"\0" + b"0712S":
      inner = name.lower().endswith(".tar") and not (link or sparse)
      if inner and not inside and not _leaves(name):
        yield from _members(file, path, start, start + length, f"{name}/")
      else:
        code = _LINK if link else _SPARSE if sparse else 0
        code = code or (_LEAVES if _leaves(name) else _DEEP if inner else 0)
        yield inside + name, start, length, code
    start += -(-length // _BLOCK) * _BLOCK


def _at(file: BinaryIO, start: int, size: int, stop: int, where: str) -> bytes:
  content = b""
  if start + size <= stop:
    file.seek(start)
    content = file.read(size)
  if len(content) != size:
    raise ValueError(f"{where}: cut short: it has no end after byte {start:,}")
  return content


def _parsed(header: bytes, place: int, where: str) -> tuple[str, int, int]:
  """(name, size, type) of a header; ValueError if it is not one."""
  given = _number(header[148:156], where)
  blank = header[:148] + b" " * 8 + header[156:]
  if sum(blank) != given:
    compressed = header[:3] == b"\x1f\x8b\x08" or header[:4] in (
      b"BZh9",
      b"\x28\xb5\x2f\xfd",
      b"\xfd7zX",
    )
    if compressed and place == 0:
      raise ValueError(
        f"{where}: is compressed and has no random access; decompress it to a "
        ".tar first"
      )
    raise ValueError(f"{where}: damaged: no header of a tar at byte {place:,}")
  name = _text(header[:100].split(b"\0")[0])
  if header[257:263] == b"ustar\0":
    prefix = _text(header[345:500].split(b"\0")[0])
    name = f"{prefix}/{name}" if prefix else name
  return name, _number(header[124:136], where), header[156]


def _number(field: bytes, where: str) -> int:
  if field[0] & 0x80:  # of GNU tar: big endian, two's complement
    value = int.from_bytes(field[1:], "big") | (field[0] & 0x7F) << (
      8 * (len(field) - 1)
    )
    if field[0] & 0x40:
      raise ValueError(f"{where}: damaged: a negative size")
    return value
  return _count(_text(field.split(b"\0")[0]).strip() or "0", 8, where)


def _count(text: str, base: int, where: str) -> int:
  if not text.isascii() or not text.isdigit() or len(text) > 20:
    raise ValueError(f"{where}: damaged: {text[:20]!r} is no number")
  try:
    return int(text, base)
  except ValueError:
    raise ValueError(f"{where}: damaged: {text!r} is no number") from None


def _pax(content: bytes, where: str) -> dict[str, str]:
  """The lines "LENGTH KEY=VALUE" of a pax header."""
  found = {}
  while content.strip(b"\0"):
    digits, _, _ = content[:20].partition(b" ")
    length = _count(_text(digits), 10, where)
    key, equals, value = content[len(digits) + 1 : length].partition(b"=")
    if not equals or length > len(content) or value[-1:] != b"\n":
      raise ValueError(f"{where}: damaged: a pax header")
    found[_text(key)] = _text(value.removesuffix(b"\n"))
    content = content[length:]
  return found


def _text(content: bytes) -> str:
  return content.decode("utf-8", "backslashreplace")


def _leaves(name: str) -> bool:
  parts = name.replace("\\", "/").split("/")
  return not parts[0] and len(parts) > 1 or ".." in parts or "\0" in name


def _packed(index: Index) -> bytes:
  content = io.BytesIO()
  names = np.frombuffer("\0".join(index.names).encode(), np.uint8)
  left = np.frombuffer(json.dumps(index.left).encode(), np.uint8)
  numbers = {k: getattr(index, k) for k in ("starts", "sizes", "wrong")}
  np.savez(content, names=names, left=left, **numbers)
  return content.getvalue()


def _load(path: str) -> Index | None:
  """The cached index; None if there is none or it is damaged."""
  try:
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as kept:
      names = kept["names"].tobytes().decode().split("\0")
      starts, sizes, wrong = (kept[k] for k in ("starts", "sizes", "wrong"))
      left = json.loads(kept["left"].tobytes())
  except Exception:  # a damaged cache is made anew
    return None
  if not len(starts):
    names = []
  whole = len(names) == len(starts) == len(sizes) == len(wrong)
  whole = whole and starts.dtype == sizes.dtype == np.int64
  if not whole or (wrong >= len(_WRONG)).any():
    return None
  return Index(names, starts, sizes, wrong, left)
