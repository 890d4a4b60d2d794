"""The record of a checkpoint: JSON beside its arrays, with their digests."""

import hashlib
import json
import os
import pathlib
import re
from typing import Any

from common.errors import UserError
from train.checkpointing import storage_errors

# The format of a record; a reader supports its own and all earlier ones.
FORMAT = 2
ARRAYS, FORMAT_KEY, _SEAL = "arrays", "format", "seal"
# Names the arrays that are saved once for all checkpoints; since format 2.
FROZEN = "frozen"
# The fields of a record that are not the run's.
OWN = (ARRAYS, FORMAT_KEY, FROZEN)
# The fields of a record that are checked when it is read.
_TYPES = {
  "position": int,
  "evaluated": bool,
  "health": dict,
  "rollbacks": int,
  FORMAT_KEY: int,
  ARRAYS: dict,
}
_MAX_RECORD_BYTES = 2**26


class DamagedError(UserError):
  """A checkpoint differs from what was saved."""


class FrozenError(UserError):
  """The frozen arrays, which all checkpoints share, are missing or damaged."""


def sealed(record: dict[str, Any], arrays: dict[str, list]) -> dict[str, Any]:
  """Returns the content of a checkpoint's record, as `read` expects it.

  Args:
    record: the facts that are needed to resume, as JSON.
    arrays: {path: [dtype, shape, digest]}.
  """
  # Without frozen arrays, earlier releases can still read the checkpoint.
  version = FORMAT if FROZEN in record else 1
  content = {**record, FORMAT_KEY: version, ARRAYS: arrays}
  return {**content, _SEAL: seal(content)}


def seal(content: dict[str, Any]) -> str:
  """Returns the digest of a record's content."""
  text = json.dumps(content, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def read(directory: str | os.PathLike, step: int) -> dict[str, Any]:
  """Reads the record that was passed to `save` for `step`.

  Raises:
    DamagedError: it is missing or differs from what was written.
    UserError: it was written by a later release.
  """
  path = pathlib.Path(directory) / str(step) / "data" / "metadata"
  try:
    if path.stat().st_size > _MAX_RECORD_BYTES:
      raise ValueError("too large for a record")
    content = json.loads(path.read_bytes())
    if isinstance(content, dict) and set(content) == {"position"}:
      return content  # written before digests were introduced
    given = content.pop(_SEAL, None) if isinstance(content, dict) else None
    if given is None or given != seal(content):
      raise ValueError("the record differs from what was written")
    wrong = [
      k for k, kind in _TYPES.items() if type(content.get(k)) is not kind
    ]
  except (OSError, ValueError, RecursionError) as error:
    raise DamagedError(storage_errors.one_line(error, f"{path}")) from error
  if type(content.get(FORMAT_KEY)) is int and content[FORMAT_KEY] > FORMAT:
    raise UserError(
      f"{path}: written by a later release in format {content[FORMAT_KEY]}, but"
      f" this one supports up to format {FORMAT}: update Tessera"
    )
  if not wrong and not _is_place(content.get(FROZEN)):
    wrong = [FROZEN]
  if wrong or not all(map(_is_described, content[ARRAYS].values())):
    raise DamagedError(f"{path}: {(wrong or [ARRAYS])[0]!r} is malformed")
  return content


def _is_place(entry: Any) -> bool:
  """Whether an entry for frozen arrays is missing or well-formed."""
  if entry is None:
    return True
  return (
    isinstance(entry, dict)
    and isinstance(entry.get("digest"), str)
    and re.fullmatch("[0-9a-f]{16}", entry["digest"]) is not None
    and isinstance(entry.get("paths"), list)
    and all(isinstance(path, str) for path in entry["paths"])
  )


def _is_described(array: Any) -> bool:
  """Whether `array` is [dtype, shape, digest], as `save` writes it."""
  return (
    isinstance(array, list)
    and [type(part) for part in array] == [str, list, str]
    and all(type(size) is int for size in array[1])
  )
