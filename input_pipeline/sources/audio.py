"""audio:DIR, a folder of .wav files per class."""

import io
import wave

import numpy as np

from input_pipeline.bad_records import Policy
from input_pipeline.reading import bounded
from input_pipeline.reading.paths import fingerprint
from input_pipeline.sources import Source
from input_pipeline.sources.parts.class_folders import class_folders

_SUFFIXES = (".wav", ".wave")


def audio(root: str, policy: Policy = Policy()) -> dict[str, Source]:
  """audio:DIR, a folder of .wav files per class, labelled in sorted order.

  Splits and the order of examples are as in folder:DIR. {"audio": float32
  [samples] within -1 to 1, the mean of the channels, "rate": int32 [],
  samples a second, "label": int32 []}. Whole numbers of 8, 16, 24 and 32 bits
  are read; what is compressed, or holds floats, is an error.
  """
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
      samples[i], rates[i] = _decode(bounded.read_file(path, policy), path)
    return {"audio": samples, "rate": rates, "label": labels[indices]}

  return Source(
    len(paths),
    read,
    lambda index: paths[index],
    num_classes=len(classes),
    class_names=tuple(classes),
    fingerprint=fingerprint(paths),
  )


def _decode(data: bytes, path: str) -> tuple[np.ndarray, int]:
  """(float32 [samples], samples a second) of a .wav file's bytes."""
  try:
    with wave.open(io.BytesIO(data)) as file:
      channels, width = file.getnchannels(), file.getsampwidth()
      rate = file.getframerate()
      frames = file.readframes(file.getnframes())
  except (wave.Error, EOFError, RuntimeError) as error:
    reason = str(error) or "ends in its header"
    raise ValueError(f"{path}: no .wav file: {reason}") from None
  if not channels or not 1 <= width <= 4 or not 0 < rate < 2**31:
    raise ValueError(
      f"{path}: {channels} channels of {8 * width} bits at {rate} Hz"
    )
  whole = len(frames) // (channels * width) * channels * width
  samples = _floats(frames[:whole], width).reshape(-1, channels)
  return samples.mean(1, dtype=np.float32), rate


def _floats(frames: bytes, width: int) -> np.ndarray:
  """float32 within -1 to 1 of little-endian integers of `width` bytes."""
  if width == 1:  # the only one that has no sign
    return (np.frombuffer(frames, np.uint8).astype(np.float32) - 128) / 128
  if width == 3:
    places = np.frombuffer(frames, np.uint8).reshape(-1, 3)
    padded = np.zeros((len(places), 4), np.uint8)
    padded[:, 1:] = places
    return (padded.view("<i4")[:, 0] / 2**31).astype(np.float32)
  whole = np.frombuffer(frames, f"<i{width}")
  return (whole / 2.0 ** (8 * width - 1)).astype(np.float32)
