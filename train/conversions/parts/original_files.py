"""What a converted workdir keeps so that its folder is written as it was read.

Our arrays hold every tensor that the model uses, but not the spelling of their
names, their order, the files they were in, their dtypes if these differ, and
the tensors that the model does not use: causal masks, position ids, poolers,
copies of tied tables. `keep` stores these beside the checkpoint, and `restore`
writes the files of weights from them and from the checkpoint's arrays.
"""

import json
import math
import os
import pathlib
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from common import bounded_file
from common.errors import UserError
from train.conversions.parts import folder as folder_lib

# The folder in a converted workdir.
FOLDER = "hugging_face"
LAYOUT, REST = "layout.json", "rest.bin"
_MOST_LAYOUT = 2**28
_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32}
_BITS |= {"I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8}
_BITS |= {"BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8}
_OURS = {"F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16}
_AT_ONCE = 2**24


class Entry(NamedTuple):
  """A tensor in a file of weights: its name there, its place and its type."""

  name: str
  start: int
  end: int
  dtype: str
  shape: tuple[int, ...]


class Kept(NamedTuple):
  """The files of weights of an original folder.

  headers: {name of a file: its header's bytes}.
  index: the bytes of the index of several files, or None.
  names: {name in our table: name in the files}.
  rest: {name in the files: (first byte, end) in REST}.
  """

  headers: dict[str, bytes]
  index: bytes | None
  names: dict[str, str]
  rest: dict[str, tuple[int, int]]

  def entries(self, part: str) -> list[Entry]:
    """Returns the tensors of a file in the order of their bytes.

    Raises:
      ValueError: they do not fill the file without gaps and overlaps.
    """
    found = []
    for name, value in json.loads(self.headers[part]).items():
      if name != "__metadata__":
        start, end = value["data_offsets"]
        shape = tuple(value["shape"])
        found.append(Entry(name, start, end, value["dtype"], shape))
    found.sort(key=lambda each: (each.start, each.end))
    at = 0
    for each in found:
      bits = _BITS[each.dtype] * math.prod(each.shape)
      if each.start != at or (each.end - at) * 8 != bits:
        raise ValueError(f"{each.name} does not follow the tensor before it")
      at = each.end
    return found


def keep(
  folder: folder_lib.Folder, names: Mapping[str, str], used: Collection[str], to
) -> None:
  """Stores what `restore` needs in the folder `to`.

  Args:
    folder: the opened original.
    names: {name in our table: name in the files}.
    used: the names in the files of the tensors that `restore` is given, or of
      which these are copies.
    to: a folder of the workdir.
  """
  to = pathlib.Path(to)
  to.mkdir(exist_ok=True)
  index = folder.path / folder_lib.INDEX
  headers, rest, at = {}, {}, 0
  parts = sorted({tensor.part for tensor in folder.tensors.values()})
  several = len(parts) > 1
  with (to / REST).open("wb") as out:
    for part in parts:
      descriptor = bounded_file.descriptor(folder.path / part)
      with os.fdopen(descriptor, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = file.read(size)
        headers[part if several else folder_lib.SINGLE] = header.decode()
        for name, value in json.loads(header).items():
          if name == "__metadata__" or name in used:
            continue
          start, end = value["data_offsets"]
          file.seek(8 + size + start)
          _copy(file, out, end - start)
          rest[name] = (at, at + end - start)
          at += end - start
  record = {
    "headers": headers,
    "index": index.read_text("utf-8") if several else None,
    "names": dict(names),
    "rest": rest,
  }
  (to / LAYOUT).write_text(json.dumps(record))


def _copy(source, target, left: int) -> None:
  while left:
    content = source.read(min(left, _AT_ONCE))
    if not content:
      raise ValueError("the file ends early")
    target.write(content)
    left -= len(content)


def kept(of: pathlib.Path) -> Kept | None:
  """Returns what `keep` stored in a folder, or None if there is nothing.

  Raises:
    UserError: it is damaged.
  """
  if not os.path.lexists(of / LAYOUT):
    return None
  try:
    record = json.loads(bounded_file.read(of / LAYOUT, _MOST_LAYOUT))
    headers = {k: v.encode() for k, v in record["headers"].items()}
    for part in headers:
      if pathlib.PurePath(part).name != part or "\\" in part:
        raise ValueError(f"{part} is not the name of a file")
    index = record["index"]
    rest = {k: (int(a), int(b)) for k, (a, b) in record["rest"].items()}
    found = Kept(headers, index and index.encode(), record["names"], rest)
    for part in headers:
      found.entries(part)
  except (AttributeError, KeyError, RecursionError, TypeError) as error:
    raise UserError(f"{of / LAYOUT}: damaged") from error
  except ValueError as error:
    reason = str(error).splitlines()[0][:200]
    raise UserError(f"{of / LAYOUT}: damaged: {reason}") from error
  return found


def restore(
  found: Kept,
  of: pathlib.Path,
  tensors: Mapping[str, Callable[[], np.ndarray]],
  copies: Mapping[str, str],
  to: pathlib.Path,
) -> list[str]:
  """Writes the files of weights as they were; returns their names.

  Args:
    found: from `kept`.
    of: the folder that holds REST.
    tensors: {name in our table: () -> the tensor}.
    copies: {name in our table: the tensor that it equals}.
    to: the folder to write.

  Raises:
    UserError: what was kept does not fit the arrays.
  """
  ours = {theirs: name for name, theirs in found.names.items()}

  def content(entry: Entry, rest) -> bytes:
    name = ours.get(entry.name, entry.name)
    if entry.name in found.rest:
      start, end = found.rest[entry.name]
      rest.seek(start)
      return rest.read(end - start)
    array = tensors[name if name in tensors else copies[name]]()
    if array.shape != entry.shape:
      raise ValueError(f"{entry.name} has another shape")
    return array.astype(_OURS[entry.dtype], copy=False).tobytes()

  try:
    with os.fdopen(bounded_file.descriptor(of / REST), "rb") as rest:
      for part, header in found.headers.items():
        with (to / part).open("xb") as out:
          out.write(len(header).to_bytes(8, "little") + header)
          for entry in found.entries(part):
            written = out.write(content(entry, rest))
            if written != entry.end - entry.start:
              raise ValueError(f"{entry.name} has another size")
  except (KeyError, ValueError) as error:
    raise UserError(f"{of}: damaged: {str(error)[:200]}") from error
  if found.index is not None:
    (to / folder_lib.INDEX).write_bytes(found.index)
  return list(found.headers)
