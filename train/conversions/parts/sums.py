"""Verifies the SHA-256 of files against SHA256SUMS or a given digest."""

import hashlib
import os
import pathlib
import re
from collections.abc import Iterable

from common import bounded_file
from common.errors import UserError

NAME = "SHA256SUMS"
_MOST_BYTES = 2**20
_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")


def check(folder: pathlib.Path, names: Iterable[str], given: str | None) -> str:
  """Verifies digests and returns a line that describes what was verified.

  Args:
    folder: the folder of the files.
    names: the names of the files that contain weights.
    given: the digest of the only file of weights, or None.

  Returns:
    The line, or "" if there is no digest.

  Raises:
    UserError: a digest differs, or SHA256SUMS does not list all of `names`, or
      it lists a file that is missing or not in the folder.
  """
  names = list(names)
  if given is not None:
    if not re.fullmatch("[0-9a-fA-F]{64}", given):
      raise UserError(f"--sha256={given}: must be 64 hexadecimal digits")
    if len(names) != 1:
      raise UserError(
        f"--sha256 is for one file, but the weights are in {len(names)} files:"
        f" list their digests in {folder / NAME}"
      )
    _same(folder / names[0], given)
    return f"{names[0]} matches the given SHA-256"
  if not os.path.lexists(folder / NAME):
    return ""
  try:
    text = bounded_file.read(folder / NAME, _MOST_BYTES).decode()
  except ValueError as error:
    raise UserError(f"{folder / NAME}: {error}") from error
  listed = {}
  for number, line in enumerate(text.splitlines(), 1):
    match = _LINE.fullmatch(line)
    if match is None or pathlib.PurePath(match[2]).name != match[2]:
      raise UserError(
        f"{folder / NAME}:{number}: is not a digest followed by the name of a"
        " file in this folder"
      )
    listed[match[2]] = match[1]
  for name in names:
    if name not in listed:
      raise UserError(f"{folder / NAME}: has no line for {name}")
  for name, digest in listed.items():
    _same(folder / name, digest)
  return f"{len(listed)} files match {NAME}"


def _same(path: pathlib.Path, wanted: str) -> None:
  try:
    with os.fdopen(bounded_file.descriptor(path), "rb") as file:
      found = hashlib.file_digest(file, "sha256").hexdigest()
  except ValueError as error:
    raise UserError(str(error)) from error
  if found != wanted.lower():
    raise UserError(f"{path}: its SHA-256 is {found}, not {wanted.lower()}")
