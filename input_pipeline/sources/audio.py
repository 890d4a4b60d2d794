"""audio:DIR, a folder of audio files per class."""

import importlib.util
import io

import numpy as np

from input_pipeline.bad_records import Policy, check_size
from input_pipeline.reading import bounded
from input_pipeline.reading.paths import fingerprint
from input_pipeline.sources import Source
from input_pipeline.sources.parts.class_folders import class_folders

_SUFFIXES = (".wav", ".wave", ".flac", ".ogg", ".mp3")


def audio(root: str, policy: Policy = Policy()) -> dict[str, Source]:
  """A folder of audio files per class, labelled in sorted order.

  Splits and the order of examples are as in folder:DIR. {"audio": float32
  [samples], the mean of the channels, "rate": int32 [], samples per second,
  "label": int32 []}. WAV (integers and floats of any width), FLAC, OGG and MP3
  files are decoded by libsndfile. Integers are scaled to -1 to 1; floats are
  taken as they are.

  Raises:
    ValueError: the folder has no such files, or soundfile is not installed.
  """
  if importlib.util.find_spec("soundfile") is None:
    raise ValueError(
      f"audio:{root} needs soundfile, which is not installed: "
      "pip install -e '.[audio]'"
    )
  classes, found = class_folders(f"audio:{root}", root, _SUFFIXES, policy)
  return {name: _split(files, classes, policy) for name, files in found.items()}


def _split(
  files: list[tuple[str, int]], classes: list[str], policy: Policy
) -> Source:
  paths = [path for path, _ in files]
  labels = np.array([label for _, label in files], np.int32)

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    samples = np.empty(len(indices), object)
    rates = np.empty(len(indices), np.int32)
    for i, index in enumerate(indices):
      path = paths[index]
      samples[i], rates[i] = _decode(path, policy)
    return {"audio": samples, "rate": rates, "label": labels[indices]}

  return Source(
    len(paths),
    read,
    lambda index: paths[index],
    num_classes=len(classes),
    class_names=tuple(classes),
    fingerprint=fingerprint(paths),
  )


def _decode(path: str, policy: Policy) -> tuple[np.ndarray, int]:
  """(float32 [samples], samples per second) of a file, its channels averaged.

  Raises:
    ValueError: it is too large, no audio file, or holds values that are not
      finite; one line that names it.
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
  return found.mean(1, dtype=np.float32), rate
