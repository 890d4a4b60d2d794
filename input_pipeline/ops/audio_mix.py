"""Ops that mix a sound with one of the second source: noise, room responses.

The config's data.second names that source and ops of its own, such as
dict(source="audio:NOISES", ops="mono|resample(8000)").
"""

import tensorflow as tf

from input_pipeline.ops import Example, on_example, traits
from input_pipeline.ops.parts.second import PREFIX


@traits(takes_second=True)
@on_example
def add_noise(
  example: Example,
  snr_low: float,
  snr_high: float,
  p: float = 1.0,
  inkey: str = "audio",
  *,
  seed,
) -> Example:
  """A record of the second source added at a random signal-to-noise ratio.

  The noise begins at a random sample of its record and is repeated up to the
  length of the sound. The ratio of the mean squares of both, in dB, is uniform
  from `snr_low` to `snr_high`. A silent sound or a silent noise is left alone.

  Args:
    example: has the field, [samples] or [samples, channels], and the field of
      the second record.
    snr_low: the least ratio in dB.
    snr_high: the largest ratio in dB.
    p: the probability that noise is added.
    inkey: the field, of both records.
    seed: of the example and the op.

  Raises:
    ValueError: a field is missing, or the records differ in rate or channels.
  """
  if not snr_low <= snr_high:
    raise ValueError(f"snr_low={snr_low!r} and snr_high={snr_high!r} descend")
  sound, noise = _pair(example, inkey)
  draws = tf.random.stateless_uniform([3], seed)
  n, size = tf.shape(noise)[0], tf.shape(sound)[0]
  start = tf.minimum(
    tf.cast(draws[0] * tf.cast(n, tf.float32), tf.int32), n - 1
  )
  noise = tf.gather(noise, (start + tf.range(size)) % n)
  snr = snr_low + draws[1] * (snr_high - snr_low)
  ratio = tf.pow(10.0, snr / 10)
  gain = tf.sqrt(tf.math.divide_no_nan(_power(sound), ratio * _power(noise)))
  gain = tf.where(draws[2] < p, gain, 0.0)
  return {**example, inkey: sound + gain * noise}


@traits(takes_second=True)
@on_example
def reverberate(
  example: Example, p: float = 1.0, inkey: str = "audio", *, seed
) -> Example:
  """The sound in a room, whose impulse response is the second record.

  The sound is convolved with the response, from the response's largest sample
  on, so that it does not move; its length and its mean square stay the same.

  Args:
    example: has the field, [samples], and the field of the second record.
    p: the probability of the room.
    inkey: the field, of both records.
    seed: of the example and the op.

  Raises:
    ValueError: a field is missing, or the records differ in rate, or have
      channels.
  """
  sound, response = _pair(example, inkey)
  if sound.shape.rank != 1:
    raise ValueError(f"the field {inkey!r} has channels: add mono(…) before it")
  size = tf.shape(sound)[0]
  response = response[tf.argmax(tf.abs(response), output_type=tf.int32) :]
  length = [size + tf.shape(response)[0] - 1]
  spectrum = tf.signal.rfft(tf.cast(sound, tf.float64), length)
  spectrum *= tf.signal.rfft(tf.cast(response, tf.float64), length)
  heard = tf.cast(tf.signal.irfft(spectrum, length)[:size], tf.float32)
  gain = tf.sqrt(tf.math.divide_no_nan(_power(sound), _power(heard)))
  chance = tf.random.stateless_uniform([], seed) < p
  kept = tf.where(chance & (size > 0), gain * heard, sound)
  return {**example, inkey: tf.ensure_shape(kept, sound.shape)}


def _power(sound: tf.Tensor) -> tf.Tensor:
  return tf.math.divide_no_nan(
    tf.reduce_sum(tf.square(sound)), tf.cast(tf.size(sound), tf.float32)
  )


def _pair(example: Example, inkey: str) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns the field of an example and of its second record, not empty.

  Raises:
    ValueError: they do not fit.
  """
  for name in (inkey, PREFIX + inkey):
    if name not in example:
      raise ValueError(f"no field {name!r}; valid: {', '.join(example)}")
  sound, other = (
    tf.cast(example[name], tf.float32) for name in (inkey, PREFIX + inkey)
  )
  if sound.shape.rank != other.shape.rank:
    raise ValueError(
      "one of the records has an axis of channels, the other has none: add"
      " mono(…) to both ops"
    )
  rates = [example.get(name) for name in ("rate", PREFIX + "rate")]
  empty = "the record of the second source is empty"
  checks = [(tf.shape(other)[0] > 0, empty)]
  if sound.shape.rank > 1:
    same = tf.reduce_all(tf.shape(sound)[1:] == tf.shape(other)[1:])
    checks.append((same, "its channels are not those of the second source"))
  if None not in rates:
    differ = "its rate is not that of the second source; resample(…) converts"
    checks.append((tf.equal(*rates), differ))
  if tf.executing_eagerly():
    for holds, line in checks:
      if not holds:
        raise ValueError(line)
    return sound, other
  asserted = [tf.debugging.Assert(holds, [line]) for holds, line in checks]
  with tf.control_dependencies(asserted):
    return sound, tf.identity(other)
