"""audio:DIR, a folder of audio files per class, or of any audio files."""

import importlib.util
import io
from collections.abc import Callable

import numpy as np

from input_pipeline.bad_records import Policy, check_size
from input_pipeline.reading import bounded, endings
from input_pipeline.sources import Source
from input_pipeline.sources.parts import class_folders, loose_files


def audio(rest: str, policy: Policy = Policy()) -> dict[str, Source]:
  """A folder of audio files per class, labelled in sorted order.

  audio:DIR?label=stem takes the class of a file from its name instead, the part
  before the first "_", and audio:DIR?label=none has no labels; the files may
  lie in any folders below DIR.

  Splits, the order of examples and files of other formats are as in folder:DIR.
  {"audio": float32 [samples, channels], ragged, "rate": int32 [], samples per
  second, "label": int32 []}. WAV (integers and floats of any width), FLAC, OGG,
  Opus, MP3, AIFF, AU and CAF files are decoded by libsndfile. Integers are
  scaled to -1 to 1; floats are taken as they are. The op mono(…) makes one
  channel of several. Files whose rate differs from the first one's are an
  error unless an op names a rate: resample, expect_rate or log_mel.

  Raises:
    ValueError: the folder has no such files, too many of other formats, or
      soundfile is not installed.
  """
  root, _, label = rest.partition("?label=")
  if importlib.util.find_spec("soundfile") is None:
    raise ValueError(
      f"audio:{rest} needs soundfile, which is not installed: "
      "pip install -e '.[audio]'"
    )

  def reader(paths: list[str], labels: np.ndarray | None) -> Callable:
    def read(indices: np.ndarray) -> dict[str, np.ndarray]:
      samples = np.empty(len(indices), object)
      rates = np.empty(len(indices), np.int32)
      for i, index in enumerate(indices):
        samples[i], rates[i] = _decode(paths[index], policy)
      found = {"audio": samples, "rate": rates}
      return found if labels is None else {**found, "label": labels[indices]}

    return read

  given = (f"audio:{rest}", root, endings.AUDIO, policy, reader)
  if label:
    found = loose_files.sources(*given, label)
  else:
    found = class_folders.sources(*given)
  return {
    k: source._replace(uniform=("rate",), ragged={"audio": 2})
    for k, source in found.items()
  }


def _decode(path: str, policy: Policy) -> tuple[np.ndarray, int]:
  """(float32 [samples, channels], samples per second) of a file.

  Raises:
    ValueError: it is too large, no audio file, has no samples, or holds values
      that are not finite; one line that names it.
  """
  import soundfile

  data = bounded.read_file(path, policy)
  try:
    with soundfile.SoundFile(io.BytesIO(data)) as file:
      # A small file can decode to any length. Every WAV file that may be read
      # has at most as many samples as bytes.
      samples = file.frames * file.channels
      check_size(samples, path, policy, "decoded samples of ")
      found, rate = file.read(dtype="float32", always_2d=True), file.samplerate
  except soundfile.SoundFileError as error:
    reason = getattr(error, "error_string", str(error)).strip(" .")
    raise ValueError(f"{path}: not a readable audio file: {reason}") from None
  if not np.isfinite(found).all():
    raise ValueError(f"{path}: holds samples that are not finite")
  if not len(found) and not policy.hollow:
    raise ValueError(f"{path}: holds no samples")
  return found, rate
