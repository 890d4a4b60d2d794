"""Ops on sounds: channels, sampling rates, cutting, log-mel features.

A source yields a sound as "audio", float32 [samples, channels], and its "rate",
int32 [], in samples per second.
"""

import functools
import importlib.util

import numpy as np
import tensorflow as tf

from input_pipeline.ops import Example, on_example, traits

CHANNELS = ("mean", "first", "error")
CROPS = ("random", "center", "start")


@on_example
def mono(example: Example, how: str = "mean", inkey: str = "audio") -> Example:
  """One channel of several: [samples, channels] becomes [samples].

  Args:
    example: has the field; a field [samples] is left as it is.
    how: "mean" of the channels, the "first" of them, or "error" if there are
      several.
    inkey: the field.

  Raises:
    ValueError: there is no such field, or there are several channels.
  """
  if how not in CHANNELS:
    raise ValueError(f"how={how!r}; valid: {', '.join(CHANNELS)}")
  value = _sound(example, inkey)
  if value.shape.rank == 1:
    return example
  if how == "error":
    value = _with_channels(
      value, 1, 'mono("mean") or mono("first") merges them'
    )
  one = value[:, 0] if how != "mean" else tf.reduce_mean(value, axis=1)
  return {**example, inkey: one}


@on_example
def expect_channels(
  example: Example, channels: int, inkey: str = "audio"
) -> Example:
  """The same sound, [samples, channels]; an error for other channels."""
  value = _sound(example, inkey)
  if value.shape.rank != 2:
    raise ValueError(f"the field {inkey!r} has no axis of channels")
  advice = "mono(…) merges them"
  return {**example, inkey: _with_channels(value, channels, advice)}


def _with_channels(value: tf.Tensor, channels: int, advice: str) -> tf.Tensor:
  """Returns the sound, checked to have so many channels."""
  line = f"its channels are not {channels}; {advice}"
  fits = tf.shape(value)[1] == channels
  if not tf.executing_eagerly():
    with tf.control_dependencies([tf.debugging.Assert(fits, [line])]):
      return tf.ensure_shape(tf.identity(value), [None, channels])
  if not fits:
    raise ValueError(f"{value.shape[1]} channels, not {channels}; {advice}")
  return value


@traits(settles=("rate",))
@on_example
def expect_rate(example: Example, rate: int) -> Example:
  """The same sound; an error if its rate is not `rate`, samples per second."""
  with tf.control_dependencies(_checked(example, rate)):
    return {**example, "rate": tf.identity(example["rate"])}


@traits(settles=("rate",), in_python=True)
@on_example
def resample(
  example: Example, rate: int, quality: str = "HQ", inkey: str = "audio"
) -> Example:
  """The sound at `rate` samples per second, from the rate of its record.

  By libsoxr, whose filters have linear phase. "rate" becomes the new rate.

  Args:
    example: has the fields `inkey`, float32 [samples] or [samples, channels],
      and "rate".
    rate: the rate of the result.
    quality: of the filter, from the fastest on: "QQ", "LQ", "MQ", "HQ", "VHQ".
    inkey: the field.

  Raises:
    ValueError: a field is missing, or soxr is not installed.
  """
  _check_rate(rate)
  if quality not in ("QQ", "LQ", "MQ", "HQ", "VHQ"):
    raise ValueError(f"quality={quality!r}; valid: QQ, LQ, MQ, HQ, VHQ")
  if importlib.util.find_spec("soxr") is None:
    raise ValueError(
      "needs soxr, which is not installed: pip install -e '.[audio]'"
    )
  value = tf.cast(_sound(example, inkey), tf.float32)
  convert = functools.partial(_resampled, rate=rate, quality=quality)
  found = tf.numpy_function(
    convert, [value, _rate_of(example)], tf.float32, stateful=False
  )
  found = tf.ensure_shape(found, [None, *value.shape[1:]])
  return {**example, inkey: found, "rate": tf.constant(rate, tf.int32)}


def _resampled(
  value: np.ndarray, old: np.ndarray, rate: int, quality: str
) -> np.ndarray:
  import soxr

  if old < 1:
    raise ValueError(f"its rate is {old} samples per second")
  if old == rate or not len(value):
    return value
  return soxr.resample(value, int(old), rate, quality=quality)


@on_example
def crop_or_pad(
  example: Example,
  size: int,
  crop: str = "random",
  inkey: str = "audio",
  fill: float = 0,
  *,
  seed,
) -> Example:
  """`size` elements of a field along its first axis, and a mask.

  A longer field is cropped, a shorter one is padded at its end. The mask,
  float32 [size], 1 on what is real, is the new field "INKEY_mask".

  Args:
    example: has the field.
    size: the number of elements: samples, or frames after log_mel.
    crop: where a longer field is cropped: at "random", for training, in the
      "center" or from the "start".
    inkey: the field.
    fill: the value of the padding.
    seed: of the example and the op.
  """
  if not isinstance(size, int) or size < 1:
    raise ValueError(f"size={size!r} is not a positive integer")
  if crop not in CROPS:
    raise ValueError(f"crop={crop!r}; valid: {', '.join(CROPS)}")
  value = _sound(example, inkey)
  n = tf.shape(value)[0]
  room = tf.maximum(n - size, 0)
  start = {
    "random": lambda: tf.random.stateless_uniform(
      [], seed, 0, room + 1, tf.int32
    ),
    "center": lambda: room // 2,
    "start": lambda: 0,
  }[crop]()
  kept = value[start : start + size]
  ends = [[0, tf.maximum(size - n, 0)], *[[0, 0]] * (value.shape.rank - 1)]
  kept = tf.pad(kept, ends, constant_values=tf.cast(fill, value.dtype))
  kept = tf.ensure_shape(kept, [size, *value.shape[1:]])
  real = tf.cast(tf.range(size) < n, tf.float32)
  return {**example, inkey: kept, f"{inkey}_mask": real}


@traits(settles=("rate",))
@on_example
def log_mel(
  example: Example,
  rate: int,
  mels: int = 80,
  window: float = 0.025,
  hop: float = 0.01,
  low: float = 0.0,
  high: float | None = None,
  floor: float = 1e-10,
  inkey: str = "audio",
) -> Example:
  """Logarithms of the energy in mel bands, float32 [frames, mels].

  Frames of `window` seconds are multiplied by a periodic Hann window. The
  squared magnitude of their Fourier transform, padded to a power of two, is
  summed under triangles, whose corners are equally spaced in
  2595 log10(1 + f / 700) between `low` and `high` and whose height is 1. There
  is a frame for every `hop` seconds at which an entire window is left, and at
  least one; a shorter sound is padded with zeros.

  Args:
    example: has the field `inkey`, [samples], and "rate".
    rate: the rate that the record must have, samples per second.
    mels: the number of bands.
    window: the length of a frame in seconds.
    hop: the time between two frames in seconds.
    low: the lower end of the first band in Hz.
    high: the upper end of the last band in Hz; None is rate / 2.
    floor: the least energy before the natural logarithm.
    inkey: the field, which holds the result.

  Raises:
    ValueError: a field is missing, the record has another rate, or a band
      contains no frequency of the transform.
  """
  _check_rate(rate)
  size, step = round(window * rate), round(hop * rate)
  if size < 2 or step < 1:
    raise ValueError(
      f"window={window!r} and hop={hop!r} seconds are {size} and {step}"
      f" samples at {rate} per second: too few"
    )
  if not floor > 0:
    raise ValueError(f"floor={floor!r} is not positive")
  value = _sound(example, inkey)
  if value.shape.rank != 1:
    raise ValueError(f"the field {inkey!r} has channels: add mono(…) before it")
  length = 2 ** int(np.ceil(np.log2(size)))
  bank = mel_filters(
    rate, length, mels, low, rate / 2 if high is None else high
  )
  with tf.control_dependencies(_checked(example, rate)):
    # In float64, as the logarithm of a quiet band has the rounding of the loud.
    value = tf.cast(value, tf.float64)
  value = tf.pad(value, [[0, tf.maximum(size - tf.shape(value)[0], 0)]])
  frames = tf.signal.frame(value, size, step)
  hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
  spectra = tf.signal.rfft(frames * hann, [length])
  power = tf.square(tf.math.real(spectra)) + tf.square(tf.math.imag(spectra))
  energy = tf.matmul(power, tf.constant(bank))
  logs = tf.cast(tf.math.log(tf.maximum(energy, floor)), tf.float32)
  return {**example, inkey: tf.ensure_shape(logs, [None, mels])}


@functools.lru_cache(maxsize=8)
def mel_filters(
  rate: int, length: int, mels: int, low: float, high: float
) -> np.ndarray:
  """Triangular filters, float64 [length // 2 + 1, mels].

  Args:
    rate: samples per second.
    length: of the Fourier transform, in samples.
    mels: the number of filters.
    low: the lower end of the first one in Hz.
    high: the upper end of the last one in Hz.

  Raises:
    ValueError: an argument is out of range, or a filter is empty.
  """
  if not isinstance(mels, int) or mels < 1:
    raise ValueError(f"mels={mels!r} is not a positive integer")
  if not 0 <= low < high <= rate / 2:
    raise ValueError(
      f"low={low!r} and high={high!r} are not ascending within 0 and half of"
      f" the rate, {rate / 2:g} Hz"
    )
  ends = 2595 * np.log10(1 + np.array([low, high]) / 700)
  corners = 700 * (10 ** (np.linspace(*ends, mels + 2) / 2595) - 1)
  bins = np.arange(length // 2 + 1)[:, None] * rate / length
  rising = (bins - corners[:-2]) / (corners[1:-1] - corners[:-2])
  falling = (corners[2:] - bins) / (corners[2:] - corners[1:-1])
  found = np.maximum(0, np.minimum(rising, falling))
  empty = np.flatnonzero(found.sum(0) == 0)
  if len(empty):
    raise ValueError(
      f"mels={mels}: the band {empty[0]} is narrower than the"
      f" {rate / length:g} Hz between two frequencies; fewer mels, or a longer"
      " window"
    )
  return found


def _sound(example: Example, inkey: str) -> tf.Tensor:
  if inkey not in example:
    raise ValueError(f"no field {inkey!r}; valid: {', '.join(example)}")
  value = tf.convert_to_tensor(example[inkey])
  if not value.shape.rank or not value.dtype.is_floating:
    raise ValueError(f"the field {inkey!r} is no array of real numbers")
  line = f"the field {inkey!r} is a sound without samples"
  if tf.executing_eagerly():  # The error is then a line of its own.
    if not len(value):
      raise ValueError(line)
    return value
  check = tf.debugging.Assert(tf.shape(value)[0] > 0, [line])
  with tf.control_dependencies([check]):
    return tf.identity(value)


def _check_rate(rate: int) -> None:
  if not isinstance(rate, int) or isinstance(rate, bool) or rate < 1:
    raise ValueError(f"rate={rate!r} is not a positive integer")


def _rate_of(example: Example) -> tf.Tensor:
  if "rate" not in example:
    raise ValueError(f"no field 'rate'; valid: {', '.join(example)}")
  return tf.convert_to_tensor(example["rate"])


def _checked(example: Example, rate: int) -> list:
  """Returns the operations that assert the rate of a record, if traced.

  Raises:
    ValueError: in eager mode, the record has another rate.
  """
  _check_rate(rate)
  found = _rate_of(example)
  if not tf.executing_eagerly():
    line = f"its rate is not {rate} samples per second"
    return [tf.debugging.Assert(found == rate, [line])]
  if found != rate:
    raise ValueError(
      f"its rate is {int(found)} samples per second, not {rate}; the op"
      f" resample({rate}) converts it"
    )
  return []
