"""Which files of a folder or archive are read, by their endings."""

import collections
import os
from collections.abc import Mapping

from input_pipeline.bad_records import Policy

AUDIO = (
  ".wav", ".wave", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3",
  ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf",
)  # fmt: skip
_IMAGES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif")
_OF_PILLOW = {
  "WEBP": (".webp",),
  "TIFF": (".tif", ".tiff"),
  "AVIF": (".avif",),
}
# Files that describe the data, or that programs leave behind.
_SIDE_NAMES = (
  "readme", "license", "licence", "copying", "notice", "changelog", "citation",
  "thumbs.db", "desktop.ini", "sha256sums", "md5sums",
)  # fmt: skip
_SIDE = (
  ".txt", ".md", ".rst", ".json", ".jsonl", ".csv", ".tsv", ".xml", ".yaml",
  ".yml", ".toml", ".html", ".log", ".lst", ".md5", ".sha1", ".sha256", ".py",
  ".sh", ".lab", ".textgrid", ".srt",
)  # fmt: skip
# The endings that a note lists.
_FEW = 5

Counts = Mapping[str, int]


def images() -> tuple[str, ...]:
  """The endings of images that can be decoded on this machine."""
  from input_pipeline.reading import pictures

  known = pictures.formats()
  more = [e for f, found in _OF_PILLOW.items() if f in known for e in found]
  return (*_IMAGES, *more)


def hidden(name: str) -> bool:
  """Whether a file or folder is not meant to be seen."""
  return name.startswith(".") or name == "__MACOSX"


def of(path: str) -> str:
  """The ending of a file as it is counted; "" for a file that is not data.

  Hidden files, descriptions such as README, and tables or transcripts beside
  the data are not counted.
  """
  name = os.path.basename(path).lower()
  stem, ending = os.path.splitext(name)
  if hidden(name) or ending in _SIDE or name in _SIDE_NAMES:
    return ""
  return "" if stem in _SIDE_NAMES else ending or "no ending"


def unread(uri: str, read: int, left: Counts, valid, policy: Policy) -> str:
  """Returns a line that counts the files that are not read, or "".

  Args:
    uri: of the folder.
    read: the number of files that are read.
    left: {ending: number of files that are not read}.
    valid: the endings of files that are read.
    policy: how large a share may be left.

  Raises:
    ValueError: more than `max_bad_share` of the files are not read.
  """
  count = sum(left.values())
  if not count:
    return ""
  most = collections.Counter(left).most_common()
  named = ", ".join(f"{n:,} {ending}" for ending, n in most[:_FEW])
  named += ", …" if len(most) > _FEW else ""
  line = f"{uri}: {count:,} of {read + count:,} files are not read: {named}"
  if count > policy.max_bad_share * (read + count):
    raise ValueError(
      f"{line}; valid: {' '.join(valid)}; convert or move them, or raise "
      f"max_bad_share={policy.max_bad_share:g}"
    )
  return line
