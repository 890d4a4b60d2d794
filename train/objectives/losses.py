"""Losses: pure functions that return a float32 value per example or token.

The caller applies masks and averages. Shapes: B batch, V classes; "..." stands
for any leading axes, such as batch and time.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Score = Callable[[jax.Array], jax.Array]


def distillation(
  logits: jax.Array, teacher_logits: jax.Array, temperature: float = 1.0
) -> jax.Array:
  """KL(teacher || student) of softmax(logits / temperature), in nats.

  Both [..., C]; returns float32 [...]. No gradient reaches the teacher.
  """
  theirs = jax.lax.stop_gradient(teacher_logits.astype(jnp.float32))
  log_p = jax.nn.log_softmax(theirs / temperature)
  log_q = jax.nn.log_softmax(logits.astype(jnp.float32) / temperature)
  return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def hard_distillation(
  logits: jax.Array, teacher_logits: jax.Array, temperature: float = 1.0
) -> jax.Array:
  """Cross-entropy of the teacher's most probable class (arXiv:2012.12877)."""
  return cross_entropy(logits / temperature, jnp.argmax(teacher_logits, -1))


def cross_entropy(
  logits: jax.Array,
  labels: jax.Array,
  label_smoothing: float = 0.0,
  z_loss: float = 0.0,
) -> jax.Array:
  """Cross-entropy -sum_v q_v log softmax(logits)_v, in nats.

  With label smoothing s, q = (1 - s) * labels + s / V (Szegedy et al.,
  arXiv:1512.00567, section 7). z_loss adds z_loss * logsumexp(logits)^2, which
  keeps the logits close to normalized (PaLM, arXiv:2204.02311, section 5).

  Args:
    logits: [..., V], any float dtype; computed in float32.
    labels: integers [...], or probabilities [..., V]. The loss of an integer
      outside 0…V-1 is undefined: mask it.
    label_smoothing: s, in 0…1.
    z_loss: the weight of the z-loss; 1e-4 in PaLM.

  Returns:
    float32 [...].

  Raises:
    ValueError: the shapes of logits and labels do not match.
  """
  logits = logits.astype(jnp.float32)
  log_z = jax.nn.logsumexp(logits, axis=-1)
  if jnp.issubdtype(labels.dtype, jnp.integer) and (
    labels.shape == logits.shape[:-1]
  ):
    index = jnp.expand_dims(labels, -1)
    chosen = jnp.take_along_axis(logits, index, axis=-1, mode="clip")[..., 0]
    mass = 1.0
  elif labels.shape == logits.shape:
    labels = labels.astype(jnp.float32)
    chosen = jnp.sum(labels * logits, axis=-1)
    mass = jnp.sum(labels, axis=-1)
  else:
    raise ValueError(
      f"labels of shape {labels.shape} and dtype {labels.dtype} do not match"
      f" logits of shape {logits.shape}"
    )
  loss = mass * log_z - chosen
  if label_smoothing:
    uniform = log_z - jnp.mean(logits, axis=-1)
    loss = (1 - label_smoothing) * loss + label_smoothing * uniform
  if z_loss:
    loss = loss + z_loss * log_z**2
  return loss


def vectors(values: jax.Array) -> jax.Array:
  """Returns values of shape [B] as [B, 1], and others unchanged."""
  return values[:, None] if values.ndim == 1 else values


def binary_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """-y log sigmoid(z) - (1 - y) log(1 - sigmoid(z)) of each output, in nats.

  It is computed as softplus(z) - y z, which neither overflows nor takes the
  logarithm of 0. The argument must be logits, not the outputs of a sigmoid.

  Args:
    logits: z, any shape and float dtype; computed in float32.
    labels: y, of the same shape, in 0…1.

  Returns:
    float32 of the same shape.

  Raises:
    ValueError: the shapes differ.
  """
  logits, labels = _alike(logits, labels)
  return jax.nn.softplus(logits) - labels * logits


def perceptron(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """The perceptron criterion max(0, -t z), where t = 2 y - 1.

  Its gradient with respect to z is -t where t z <= 0, and 0 elsewhere.
  Stochastic gradient descent is thus Rosenblatt's rule (Psychological Review
  65, 1958), which also corrects examples on the decision boundary.

  Args:
    logits: z, any shape and float dtype; computed in float32.
    labels: y, of the same shape, 0 or 1.

  Returns:
    float32 of the same shape.

  Raises:
    ValueError: the shapes differ.
  """
  logits, labels = _alike(logits, labels)
  margin = (2 * labels - 1) * logits
  # jnp.maximum would have the gradient 1/2 on the boundary.
  return jnp.where(margin <= 0, -margin, 0.0)


def _alike(logits: jax.Array, labels: jax.Array):
  """Returns both in float32; raises ValueError if their shapes differ."""
  if logits.shape != labels.shape:
    raise ValueError(f"logits have shape {logits.shape}, labels {labels.shape}")
  return logits.astype(jnp.float32), labels.astype(jnp.float32)


def squared_error(predictions: jax.Array, targets: jax.Array) -> jax.Array:
  """Elementwise (predictions - targets)^2 in float32.

  Raises:
    ValueError: the shapes differ. (Broadcasting [B, 1] to [B] is a common
      mistake.)
  """
  if predictions.shape != targets.shape:
    raise ValueError(
      f"predictions have shape {predictions.shape}, targets {targets.shape}"
    )
  return jnp.square(
    predictions.astype(jnp.float32) - targets.astype(jnp.float32)
  )


def generator(fake_logits: jax.Array, kind: str = "nonsaturating") -> jax.Array:
  """The loss of a GAN's generator, float32 [B].

  "nonsaturating": -log sigmoid(D(G(z))) = softplus(-D(G(z))), Goodfellow et
  al., arXiv:1406.2661, section 3. "wasserstein": -D(G(z)), Arjovsky et al.,
  arXiv:1701.07875, algorithm 1.

  Args:
    fake_logits: D(G(z)), [B].
    kind: "nonsaturating" or "wasserstein".

  Raises:
    ValueError: `kind` is neither of these.
  """
  _check_kind(kind)
  fake_logits = fake_logits.astype(jnp.float32)
  if kind == "wasserstein":
    return -fake_logits
  return jax.nn.softplus(-fake_logits)


def discriminator(
  real_logits: jax.Array,
  fake_logits: jax.Array,
  kind: str = "nonsaturating",
) -> jax.Array:
  """The loss of a GAN's discriminator or critic, float32 [B].

  "nonsaturating": -log sigmoid(D(x)) - log(1 - sigmoid(D(G(z)))), Goodfellow et
  al., arXiv:1406.2661, equation 1. "wasserstein": D(G(z)) - D(x), Arjovsky et
  al., arXiv:1701.07875, algorithm 1.

  Args:
    real_logits: D(x), [B].
    fake_logits: D(G(z)), [B].
    kind: "nonsaturating" or "wasserstein".

  Raises:
    ValueError: `kind` is neither of these.
  """
  _check_kind(kind)
  real_logits = real_logits.astype(jnp.float32)
  fake_logits = fake_logits.astype(jnp.float32)
  if kind == "wasserstein":
    return fake_logits - real_logits
  return jax.nn.softplus(-real_logits) + jax.nn.softplus(fake_logits)


def r1_penalty(score: Score, real: jax.Array, gamma: float) -> jax.Array:
  """R1: gamma / 2 * |grad D(x)|^2 on real data (arXiv:1801.04406, eq. 9).

  Args:
    score: [B, ...] -> [B]; the score of an example must not depend on others.
    real: real examples, [B, ...].
    gamma: the weight of the penalty.

  Returns:
    float32 [B].
  """
  return 0.5 * gamma * _squared_slope(score, real)


def gradient_penalty(
  score: Score, mixed: jax.Array, weight: float
) -> jax.Array:
  """The penalty weight * (|grad D(x)| - 1)^2 of WGAN-GP (arXiv:1704.00028).

  Args:
    score: [B, ...] -> [B]; the score of an example must not depend on others.
    mixed: [B, ...]; in the paper u * real + (1 - u) * fake, where u is drawn
      uniformly from 0…1 for each example.
    weight: the weight of the penalty, lambda in the paper, where it is 10.

  Returns:
    float32 [B].
  """
  squared = _squared_slope(score, mixed)
  # The derivative of sqrt is infinite at 0, and inf * 0 is NaN in the gradient.
  norm = jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0)
  return weight * (norm - 1) ** 2


def _check_kind(kind: str) -> None:
  if kind not in ("nonsaturating", "wasserstein"):
    raise ValueError(
      f'loss "{kind}" is neither "nonsaturating" nor "wasserstein"'
    )


def _squared_slope(score: Score, x: jax.Array) -> jax.Array:
  slope = jax.grad(lambda x: jnp.sum(score(x).astype(jnp.float32)))(x)
  return jnp.sum(
    jnp.square(slope.astype(jnp.float32)), axis=tuple(range(1, x.ndim))
  )
