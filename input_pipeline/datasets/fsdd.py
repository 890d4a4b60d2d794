"""FSDD: recordings of spoken digits, as a folder a digit."""

import hashlib

from input_pipeline.datasets import Dataset, File, Files, Written
from input_pipeline.datasets.parts import archives

_COMMIT = "26eb9aaf76e81b692f806f9140c2d2777410d7a1"
_NAME = r"[0-9]_[a-z]+_[0-9]+\.wav"
# The official split: of each digit and speaker, the first five are the test.
_TESTS = 5
# Of a line "NAME SHA-256" of each recording, in the order of the names. That of
# the archive is not known: GitHub compresses it when it is asked.
_CONTENT = "dbd573d7cafe79c4b49f65718115e1304e24e067fa39eff18a660dc6cb9c360f"
_ARCHIVE = File(
  "https://codeload.github.com/Jakobovski/free-spoken-digit-dataset/tar.gz/"
  f"{_COMMIT}",
  f"speech_fsdd/{_COMMIT}.tar.gz",
)


def fsdd() -> Dataset:
  """The data set, in the official splits."""
  return Dataset(
    what="3,000 spoken digits of six speakers, 8 kHz (Jackson et al. 2018)",
    licence="CC BY-SA 4.0",
    origin="https://github.com/Jakobovski/free-spoken-digit-dataset",
    digests="of all recordings together, computed from a copy at this commit",
    files=(_ARCHIVE,),
    copies=(
      File("", "speech_fsdd/train.tar"),
      File("", "speech_fsdd/test.tar"),
    ),
    holds=("test", "train"),
    write=_write,
    configs=("digits_fsdd",),
  )


def _write(files: Files) -> Written:
  """SPLIT/DIGIT/DIGIT_SPEAKER_INDEX.wav."""
  found = {
    name.rpartition("/")[2]: content
    for path in files.values()
    for name, content in archives.members(path, rf"(.*/)?{_NAME}")
  }
  if _ARCHIVE.name in files:
    lines = (
      f"{name} {hashlib.sha256(found[name]).hexdigest()}\n"
      for name in sorted(found)
    )
    if hashlib.sha256("".join(lines).encode()).hexdigest() != _CONTENT:
      raise ValueError(
        f"{files[_ARCHIVE.name]}: its recordings are not those of the commit"
      )
  for name in sorted(found):
    index = int(name.removesuffix(".wav").rpartition("_")[2])
    split = "test" if index < _TESTS else "train"
    yield f"{split}/{name[0]}/{name}", found[name]
