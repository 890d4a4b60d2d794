"""A Hugging Face folder: config.json and tensors, in one file or several.

The files are not trusted: sizes and names are checked before they are used.
safetensors itself checks that the tensors fill a file without gaps or overlaps.
"""

import contextlib
import json
import os
import pathlib
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from common import bounded_file
from common.errors import UserError
from train.conversions.parts import sums
from train.conversions.parts.family import short

CONFIG, SINGLE = "config.json", "model.safetensors"
INDEX = "model.safetensors.index.json"
MOST_CONFIG, _MOST_VOCABULARY = 2**22, 2**26
# Copied into a converted workdir and back into an exported folder, with the
# largest size of each in bytes.
COMPANIONS = {
  **dict.fromkeys(
    (
      *("added_tokens.json", "chat_template.jinja", "chat_template.json"),
      *("config_sentence_transformers.json", "generation_config.json"),
      *("modules.json", "preprocessor_config.json", "processor_config.json"),
      *("sentence_bert_config.json", "special_tokens_map.json"),
      *("tokenizer_config.json", "1_Pooling/config.json"),
    ),
    MOST_CONFIG,
  ),
  **dict.fromkeys(
    (
      *("merges.txt", "spiece.model", "tokenizer.json", "tokenizer.model"),
      *("vocab.json", "vocab.txt"),
    ),
    _MOST_VOCABULARY,
  ),
}
_MOST_HEADER, _MOST_INDEX = 2**24, 2**26
_MOST_PARTS = 10_000
_PICKLES = (".bin", ".ckpt", ".h5", ".msgpack", ".pkl", ".pt", ".pth")


class Tensor(NamedTuple):
  """A tensor's entry in a header; `part` is the name of its file."""

  part: str
  dtype: str
  shape: tuple[int, ...]


class Folder(NamedTuple):
  """A folder whose headers have been read.

  path: the path of the folder.
  config: the contents of config.json.
  tensors: {name: Tensor}.
  read: (name) -> the tensor; only this tensor is loaded into memory.
  note: a line about verified digests, or "".
  """

  path: pathlib.Path
  config: dict[str, Any]
  tensors: dict[str, Tensor]
  read: Any
  note: str


def library():
  """Imports and returns the module safetensors.

  Raises:
    UserError: it is not installed.
  """
  try:
    import safetensors.numpy
  except ImportError:
    raise UserError(
      "safetensors is not installed: pip install -e '.[text]'"
    ) from None
  return safetensors


@contextlib.contextmanager
def opened(
  path: str,
  sha256: str | None = None,
  check: bool = True,
  unnamed: bool = False,
) -> Iterator[Folder]:
  """Opens a folder, or the folder of a single .safetensors file.

  Args:
    path: the folder or the file.
    sha256: the expected digest of the only file of weights, or None.
    check: whether digests are verified.
    unnamed: whether a single file may lack a config.json; the config is then
      {}.

  Yields:
    The Folder. Its files are closed at the end of the context.

  Raises:
    UserError: there is no such folder, or a file in it is missing or damaged.
  """
  folder, parts, index = pathlib.Path(path), None, None
  if folder.suffix == ".safetensors" and not folder.is_dir():
    folder, parts = folder.parent, [folder.name]
  if not folder.is_dir():
    raise UserError(f"{path}: there is no such folder")
  config = {}
  if not unnamed or parts is None or os.path.lexists(folder / CONFIG):
    config = read_json(folder / CONFIG, MOST_CONFIG)
  if parts is None:
    parts, index = _parts(folder)
  note = sums.check(folder, parts, sha256) if check else ""
  safetensors = library()
  with contextlib.ExitStack() as stack:
    tensors: dict[str, Tensor] = {}
    handles = {}
    for part in parts:
      file = folder / part
      header = _header(file)
      with _reported(safetensors, file):
        handles[part] = stack.enter_context(
          safetensors.safe_open(file, framework="numpy")
        )
      for name, tensor in header.items():
        if name in tensors:
          raise UserError(
            f"{file}: {short(name)} is in {tensors[name].part} as well"
          )
        tensors[name] = Tensor(part, tensor["dtype"], tuple(tensor["shape"]))
    if index is not None:
      _check_index(folder, index, tensors)

    def read(name: str) -> np.ndarray:
      part = tensors[name].part
      with _reported(safetensors, folder / part):
        return handles[part].get_tensor(name)

    yield Folder(folder, config, tensors, read, note)


@contextlib.contextmanager
def _reported(safetensors, file) -> Iterator[None]:
  try:
    yield
  except (safetensors.SafetensorError, OSError, ValueError, TypeError) as error:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    raise UserError(f"{file}: damaged: {lines[0][:200]}") from error


def _parts(folder: pathlib.Path) -> tuple[list[str], dict | None]:
  """Returns (names of the files of weights, the index's weight_map or None)."""
  if os.path.lexists(folder / SINGLE):
    return [SINGLE], None
  if os.path.lexists(folder / INDEX):
    index = read_json(folder / INDEX, _MOST_INDEX).get("weight_map")
    if not isinstance(index, dict) or not index:
      raise UserError(f"{folder / INDEX}: has no weight_map")
    for name, part in index.items():
      plain = isinstance(part, str) and pathlib.PurePath(part).name == part
      if not plain or not part.endswith(".safetensors") or "\\" in part:
        raise UserError(
          f"{folder / INDEX}: {short(name)} is in {short(part)}, which is not a"
          " .safetensors file in this folder"
        )
    parts = sorted(set(index.values()))
    if len(parts) > _MOST_PARTS:
      raise UserError(f"{folder / INDEX}: lists {len(parts)} files, too many")
    for part in parts:
      if not (folder / part).is_file():
        raise UserError(f"{folder / part}: missing, but listed in {INDEX}")
    return parts, index
  pickles = sorted(
    p.name for p in folder.iterdir() if p.suffix in _PICKLES and p.is_file()
  )
  if pickles:
    raise UserError(
      f"{folder}: its weights are in {pickles[0]}, and pickles are not read"
      f" because they can run code: save the weights as {SINGLE}"
    )
  raise UserError(f"{folder}: has neither {SINGLE} nor {INDEX}")


def _check_index(folder, index, tensors) -> None:
  for name in sorted(index.keys() | tensors.keys()):
    there = tensors[name].part if name in tensors else None
    if index.get(name) != there:
      raise UserError(
        f"{folder / INDEX}: {short(name)} is in {there or 'no file'}, but the"
        f" index lists it in {index.get(name) or 'no file'}"
      )


def _header(file: pathlib.Path) -> dict[str, dict]:
  """Reads the header of a file, with a bounded size and unique names."""
  try:
    with os.fdopen(bounded_file.descriptor(file), "rb") as opened_file:
      whole = os.fstat(opened_file.fileno()).st_size
      start = opened_file.read(8)
      size = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
      if not 0 < size <= min(whole - 8, _MOST_HEADER):
        raise ValueError(
          f"{file}: damaged: its header claims {size:,} bytes, but the file has"
          f" {whole:,}"
        )
      text = opened_file.read(size)
    header = json.loads(text, object_pairs_hook=_once)
  except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
    raise UserError(f"{file}: damaged: its header is not JSON") from error
  except ValueError as error:
    at = "" if str(error).startswith(str(file)) else f"{file}: damaged: "
    raise UserError(f"{at}{error}") from error
  if not isinstance(header, dict):
    raise UserError(f"{file}: damaged: its header is not a JSON object")
  header.pop("__metadata__", None)
  for name, tensor in header.items():
    if (
      not isinstance(tensor, dict)
      or not isinstance(tensor.get("dtype"), str)
      or not isinstance(tensor.get("shape"), list)
      or not all(type(n) is int and 0 <= n < 2**48 for n in tensor["shape"])
    ):
      raise UserError(f"{file}: damaged: {short(name)} has no dtype or shape")
  return header


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  found = dict(pairs)
  if len(found) != len(pairs):
    names = [name for name, _ in pairs]
    double = next(name for name in found if names.count(name) > 1)
    raise ValueError(f"{short(double)} occurs twice")
  return found


def read_json(path: pathlib.Path, most: int) -> dict[str, Any]:
  """Reads the JSON object in a file of at most `most` bytes.

  Raises:
    UserError: the file is missing, too large or not a JSON object.
  """
  if not os.path.lexists(path):
    raise UserError(f"{path.parent}: has no {path.name}")
  try:
    found = json.loads(bounded_file.read(path, most))
  except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
    raise UserError(f"{path}: not JSON") from error
  except ValueError as error:
    at = "" if str(error).startswith(str(path)) else f"{path}: "
    raise UserError(f"{at}{error}") from error
  if not isinstance(found, dict):
    raise UserError(f"{path}: not a JSON object")
  return found


def read_text(path: pathlib.Path, most: int) -> str:
  """Reads a UTF-8 file of at most `most` bytes; UserError if it cannot be."""
  try:
    return bounded_file.read(path, most).decode("utf-8")
  except UnicodeDecodeError as error:
    raise UserError(f"{path}: not UTF-8") from error
  except ValueError as error:
    raise UserError(str(error)) from error


def write(
  folder: pathlib.Path, tensors: Iterator[tuple[str, int, Any]], most: int
) -> list[str]:
  """Writes tensors to one or more files and returns the names of the files.

  Args:
    folder: an existing folder.
    tensors: (name, bytes, () -> array); the arrays of one file are in memory
      at a time.
    most: the maximum number of bytes per file; a larger tensor gets a file of
      its own.
  """
  files: list[list[tuple[str, Any]]] = [[]]
  held = total = 0
  for name, size, make in tensors:
    if files[-1] and held + size > most:
      files.append([])
      held = 0
    files[-1].append((name, make))
    held, total = held + size, total + size
  save = library().numpy.save_file
  names = [SINGLE]
  if len(files) > 1:
    count = len(files)
    names = [
      f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)
    ]
    parts = zip(names, files, strict=True)
    index = {
      "metadata": {"total_size": total},
      "weight_map": {key: part for part, held in parts for key, _ in held},
    }
    write_json(folder / INDEX, index)
  for name, content in zip(names, files, strict=True):
    arrays = {key: make() for key, make in content}
    save(arrays, folder / name, metadata={"format": "pt"})
  return names


def write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
  """Writes a JSON file as Hugging Face does, with sorted keys."""
  path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
