"""Sounds with an audible class, for fake:audio."""

import numpy as np

from input_pipeline.reading.columns import strings
from input_pipeline.sources import Source


def fake_audio(
  n: int = 64,
  classes: int = 10,
  rate: int = 8000,
  shortest: int = 1000,
  longest: int = 3000,
  channels: int = 1,
  seed: int = 0,
):
  """Sounds of different lengths: a tone of each class under noise.

  {"audio": float32 [samples, channels] in [-1, 1], ragged, "rate": int32 [],
  "label": int32 []}, as audio:DIR has them. The lengths, in samples, are
  uniform from `shortest` to `longest`; the tone of class c is at
  (c + 1) / (classes + 1) of the highest frequency.
  """
  if not 1 <= shortest <= longest:
    raise ValueError(
      f"fake:audio: shortest={shortest} and longest={longest} do not ascend"
    )

  def sound(index: int) -> np.ndarray:
    rng = np.random.default_rng([seed, index])
    time = np.arange(rng.integers(shortest, longest + 1))[:, None]
    turns = (index % classes + 1) / (classes + 1) / 2
    tone = np.sin(2 * np.pi * (turns * time + rng.uniform()))
    noise = rng.standard_normal((len(time), channels))
    return np.clip(0.4 * tone + 0.1 * noise, -1, 1).astype(np.float32)

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    sounds = strings([sound(int(i)) for i in indices])
    return {
      "audio": sounds,
      "rate": np.full(len(indices), rate, np.int32),
      "label": (np.asarray(indices) % classes).astype(np.int32),
    }

  return Source(
    n,
    read,
    str,
    num_classes=classes,
    class_names=tuple(str(c) for c in range(classes)),
    uniform=("rate",),
    ragged={"audio": 2},
  )
