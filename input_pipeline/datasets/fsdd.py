"""FSDD: recordings of spoken digits, as a folder a digit."""

from input_pipeline.datasets import Dataset, File, Files, Written
from input_pipeline.datasets.parts import archives

_COMMIT = "26eb9aaf76e81b692f806f9140c2d2777410d7a1"
_NAME = r"([0-9])_[a-z]+_([0-9]+)\.wav"
# The official split: of each digit and speaker, the first five are the test.
_TESTS = 5
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
    digests="none: GitHub makes the archive of this commit when it is asked",
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
  for path in files.values():
    for name, content in archives.members(path, rf"(.*/)?{_NAME}"):
      file = name.rpartition("/")[2]
      digit, index = file[0], int(file.rpartition("_")[2].split(".")[0])
      split = "test" if index < _TESTS else "train"
      yield f"{split}/{digit}/{file}", content
