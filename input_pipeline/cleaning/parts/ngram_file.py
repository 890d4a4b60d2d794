"""Stores an n-gram model and its tokenizer in an .npz file without pickles."""

import io
import os
import zipfile

import numpy as np

from common import bounded_file
from common.files import write_atomically
from input_pipeline.cleaning.parts import ngram
from input_pipeline.cleaning.parts.ngram import MAX_ORDER, NGram
from input_pipeline.tokenizers import Tokenizer, rebuild

_FORMAT = "tessera n-gram 1"
_PLAIN = ("format", "vocab_size", "discounts", "spec", "content")
_KINDS = ("keys", "counts")


def save(path: str, model: NGram, tokenizer: Tokenizer) -> None:
  """Writes the file atomically; equal models give equal bytes.

  Raises:
    ValueError: the tokenizer has another vocabulary.
  """
  if tokenizer.vocab_size != model.vocab_size:
    raise ValueError(
      f"{path}: {model.vocab_size} ids in the model, {tokenizer.vocab_size} in "
      f"the tokenizer {tokenizer.spec!r}"
    )
  arrays = {
    "format": np.frombuffer(_FORMAT.encode(), np.uint8),
    "vocab_size": np.array([model.vocab_size], np.int64),
    "discounts": np.array(model.discounts),
    "spec": np.frombuffer(tokenizer.spec.encode(), np.uint8),
    "content": np.frombuffer(tokenizer.content, np.uint8),
  }
  for n, (keys, counts) in enumerate(
    zip(model.keys, model.counts, strict=True), start=1
  ):
    arrays[f"keys_{n}"], arrays[f"counts_{n}"] = _small(keys), _small(counts)
  file = io.BytesIO()
  np.savez(file, allow_pickle=False, **arrays)
  write_atomically(os.path.abspath(path), [file.getbuffer()])


def _small(values: np.ndarray) -> np.ndarray:
  """Casts to the smallest type that holds the largest value; all are >= 0."""
  return values.astype(np.min_scalar_type(int(values.max())))


def load(path: str) -> tuple[NGram, Tokenizer]:
  """Reads a file written by `save`.

  Raises:
    ValueError: the file is missing, damaged or of another kind; one
      line that names it.
  """
  path = os.path.expanduser(path)
  with os.fdopen(bounded_file.descriptor(path), "rb") as file:
    try:
      return _parse(_members(file))
    except (
      ValueError,
      TypeError,
      KeyError,
      EOFError,
      OSError,
      RecursionError,
      MemoryError,
      SyntaxError,
      OverflowError,
      NotImplementedError,  # a kind of zip that Python does not support
      RuntimeError,  # an encrypted file
      zipfile.BadZipFile,
    ) as error:
      reason = (str(error).strip().splitlines() or ["damaged"])[0]
      raise ValueError(f"{path}: not an n-gram model: {reason}") from None


def _members(file) -> dict[str, np.ndarray]:
  """Returns the arrays of an .npz; none may claim more data than exists."""
  size = os.fstat(file.fileno()).st_size
  found: dict[str, np.ndarray] = {}
  with zipfile.ZipFile(file) as archive:
    infos = archive.infolist()
    if len(infos) > len(_PLAIN) + 2 * MAX_ORDER:
      raise ValueError("too many arrays")
    if sum(info.file_size for info in infos) > size:
      raise ValueError("its arrays are larger than the file")
    for info in infos:
      if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{info.filename} is compressed")
      content = archive.read(info)
      header = io.BytesIO(content)
      np.lib.format.read_magic(header)
      shape, _, dtype = np.lib.format.read_array_header_1_0(header)
      if dtype.kind not in "iuf" or len(shape) != 1:
        raise ValueError(
          f"{info.filename} is not a one-dimensional array of numbers"
        )
      array = np.frombuffer(content, dtype, offset=header.tell())
      if array.shape != shape:
        raise ValueError(f"{info.filename} differs in length from its header")
      found[info.filename.removesuffix(".npy")] = array
  return found


def _parse(arrays: dict[str, np.ndarray]) -> tuple[NGram, Tokenizer]:
  if arrays["format"].tobytes() != _FORMAT.encode():
    raise ValueError(f"its format is not {_FORMAT!r}")
  discounts = arrays["discounts"].astype(np.float64).tolist()
  order = len(discounts)
  names = [f"{kind}_{n + 1}" for n in range(order) for kind in _KINDS]
  if set(arrays) != {*_PLAIN, *names} or not 1 <= order <= MAX_ORDER:
    raise ValueError("its arrays are not those of a model of any order")
  if not all(0 < discount <= 1 for discount in discounts):
    raise ValueError("a discount is not within (0, 1]")
  tokenizer = rebuild(
    arrays["spec"].tobytes().decode(), arrays["content"].tobytes()
  )
  vocab_size = tokenizer.vocab_size
  if arrays["vocab_size"].tolist() != [vocab_size]:
    raise ValueError("its tokenizer has another vocabulary")
  keys = [_whole(arrays[f"keys_{n + 1}"]) for n in range(order)]
  counts = [_whole(arrays[f"counts_{n + 1}"]) for n in range(order)]
  contexts = 1
  for key, count in zip(keys, counts, strict=True):
    if len(key) != len(count) or not len(key) or (np.diff(key) <= 0).any():
      raise ValueError("its n-grams are not in order")
    if key[-1] >= contexts * (vocab_size + 1) or not count.any():
      raise ValueError("an n-gram has no beginning, or none was counted")
    if count[key % (vocab_size + 1) == vocab_size].any():
      raise ValueError("a mark of a beginning is counted")
    contexts = len(key)
  return ngram.assemble(vocab_size, keys, counts, discounts), tokenizer


def _whole(array: np.ndarray) -> np.ndarray:
  """Casts to int64; none may be negative or too large to be summed."""
  if array.dtype.kind not in "iu" or (array.size and array.min() < 0):
    raise ValueError("a key or a count is not an integer")
  if array.size and int(array.max()) >= 2**62:
    raise ValueError("a key or a count is too large")
  return array.astype(np.int64)
