"""Features of texts, images and audio.

The functions return {feature: number}. `print_of_...` returns a small array
that is nearly the same for copies that were scaled or encoded again.
"""

import warnings

import numpy as np

from input_pipeline.bad_records import Policy
from input_pipeline.reading import image_size, pictures

# The number of characters of a text that are measured.
_LONGEST = 100_000
_SIDE = 16
# Samples from here on count as clipped; 16 bits reach 0.99997.
_FULL_SCALE = 0.9999
# The limits for what is read here.
POLICY = Policy(skip=True)


def text_features(text: str) -> dict[str, float]:
  """Returns the number of characters and the shares of their classes."""
  c = np.frombuffer(
    text[:_LONGEST].encode("utf-32-le", "surrogatepass"), np.uint32
  )
  n = max(len(c), 1)
  lower, upper = (c >= 97) & (c <= 122), (c >= 65) & (c <= 90)
  digits = (c >= 48) & (c <= 57) | (c >= 0xFF10) & (c <= 0xFF19)
  han = (c >= 0x3400) & (c <= 0x9FFF) | (c >= 0x20000) & (c <= 0x323AF)
  space = (c == 32) | (c >= 9) & (c <= 13) | (c == 0x3000) | (c == 0xA0)
  marks = (c > 32) & (c < 127) & ~(lower | upper | digits)
  marks |= (c >= 0x3001) & (c <= 0x303F) | (c >= 0xFF01) & (c <= 0xFF0F)
  control = (c < 32) & ~space | (c == 0xFFFD) | (c == 0x7F)
  return {
    "characters": float(len(text)),
    "Latin letters": (lower | upper).sum() / n,
    "upper case": upper.sum() / n,
    "Han characters": han.sum() / n,
    "digits": digits.sum() / n,
    "punctuation": marks.sum() / n,
    "white space": space.sum() / n,
    "broken characters": control.sum() / n,
  }


def decode_image(data: bytes, name: str, policy: Policy) -> np.ndarray:
  """The pixels of an encoded image, uint8 [h, w, 3 or 1], upright.

  Raises:
    ValueError: it is empty, cannot be decoded, or is too large.
  """
  if not data:
    raise ValueError(f"{name}: 0 bytes")
  image_size.check_image(data, name, policy)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      return pictures.decode(data)
  except ValueError as error:
    raise ValueError(f"{name}: {error}") from None


def pixels(image: np.ndarray) -> np.ndarray:
  """The image as uint8 [h, w, c]; floats are taken to be from 0 to 1."""
  image = image[..., None] if image.ndim == 2 else image
  if image.dtype == np.uint8:
    return image
  if image.dtype.kind == "f":
    image = np.nan_to_num(image) * (255 if image.max(initial=0) <= 1 else 1)
  return np.clip(image, 0, 255).astype(np.uint8)


def image_features(image: np.ndarray) -> dict[str, float]:
  """Returns size in pixels, and brightness, contrast, saturation, 0 to 255."""
  image = pixels(image)
  gray = image.mean(-1, dtype=np.float32)
  features = {
    "height": float(image.shape[0]),
    "width": float(image.shape[1]),
    "brightness": float(gray.mean()),
    "contrast": float(gray.std()),
  }
  if image.shape[-1] >= 3:
    rgb = image[..., :3]
    features["saturation"] = float((rgb.max(-1) - rgb.min(-1)).mean())
  return features


def print_of_image(image: np.ndarray) -> np.ndarray:
  """Returns a thumbnail of gray values, uint8 [256], averaged over areas."""
  gray = pixels(image).mean(-1, dtype=np.float32)
  return np.round(_shrunk(_shrunk(gray).T).T).astype(np.uint8).reshape(-1)


def _shrunk(values: np.ndarray) -> np.ndarray:
  """Means over 16 equal parts of the first axis, with fractional pixels."""
  n = len(values)
  total = np.concatenate(
    [np.zeros((1, *values.shape[1:])), np.cumsum(values, 0, np.float64)]
  )
  edges = np.arange(_SIDE + 1) * n / _SIDE
  whole = np.minimum(edges.astype(int), n - 1)
  part = (edges - whole).reshape(-1, *[1] * (values.ndim - 1))
  at = total[whole] + part * values[whole]
  return np.diff(at, axis=0) * _SIDE / n


def audio_features(samples: np.ndarray, rate: float) -> dict[str, float]:
  """Returns duration, loudness (dBFS), clipping and spectral centroid."""
  x = np.asarray(samples, np.float32).reshape(-1)
  if not len(x):
    return dict.fromkeys(
      ("seconds", "loudness", "peak", "clipped", "centroid"), 0.0
    ) | {"loudness": -120.0}
  power = float(np.mean(np.square(x, dtype=np.float64)))
  frames = _spectra(x)
  bins = np.arange(frames.shape[1]) * rate / 2 / (frames.shape[1] - 1)
  energy = frames.sum(0)
  return {
    "seconds": len(x) / rate,
    "loudness": 10 * np.log10(max(power, 1e-12)),
    "peak": float(np.abs(x).max()),
    "clipped": float((np.abs(x) >= _FULL_SCALE).mean()),
    "centroid": float((bins * energy).sum() / max(energy.sum(), 1e-12)),
  }


def print_of_audio(samples: np.ndarray) -> np.ndarray:
  """Returns the log energy of 16 bands at 16 times, uint8 [256]."""
  x = np.asarray(samples, np.float32).reshape(-1)
  if not len(x):
    return np.zeros(_SIDE * _SIDE, np.uint8)
  frames = _spectra(x)
  edges = np.geomspace(2, frames.shape[1], _SIDE + 1).astype(int)
  bands = np.add.reduceat(frames, edges[:-1], axis=1)
  level = np.log10(_shrunk(bands) + 1e-9)
  level -= level.max()
  return np.round(np.clip(level, -6, 0) * 42.5 + 255).astype(np.uint8).ravel()


def _spectra(x: np.ndarray, size: int = 512) -> np.ndarray:
  """Power spectra of windows, float64 [windows, 257]; at most 2,000 of them."""
  x = np.pad(x, (0, max(0, size - len(x))))
  starts = np.linspace(
    0, len(x) - size, min(2000, 1 + (len(x) - size) // (size // 2))
  ).astype(int)
  windows = x[starts[:, None] + np.arange(size)] * np.hanning(size)
  return np.abs(np.fft.rfft(windows, axis=1)) ** 2
