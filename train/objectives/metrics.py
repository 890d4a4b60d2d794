"""Metrics: pure functions of predictions, or of sums over an evaluation.

Metrics of a batch are computed by JAX and can be used in a jitted step. Metrics
of a whole evaluation are computed by NumPy in float64. C is the number of
classes, D the number of features.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


def top_k_correct(
  logits: jax.Array, labels: jax.Array, k: int = 1
) -> jax.Array:
  """Returns 1 where the label's logit is among the k greatest, 0 elsewhere.

  Ties are resolved in favor of the lower class, as in argmax: the rank of the
  label is the number of logits that are greater, or equal with a lower index.
  Constant logits therefore score like one guess. NaN logits are never correct.

  Args:
    logits: [..., C].
    labels: integers [...].
    k: from 1 to C.

  Returns:
    float32 [...].

  Raises:
    ValueError: k is out of range.
  """
  classes = logits.shape[-1]
  if not 1 <= k <= classes:
    raise ValueError(f"k={k} is not within 1..{classes}, the number of classes")
  index = jnp.expand_dims(labels, -1)
  own = jnp.take_along_axis(logits, index, axis=-1, mode="clip")
  places = jnp.arange(classes).reshape((1,) * (index.ndim - 1) + (-1,))
  before = places < index
  rank = jnp.sum((logits > own) | ((logits == own) & before), axis=-1)
  return ((rank < k) & ~jnp.isnan(own[..., 0])).astype(jnp.float32)


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Returns 1 where argmax(logits) is the label, 0 elsewhere; float32 [...]."""
  return top_k_correct(logits, labels, 1)


def binary_accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Returns 1 where (logit > 0) equals the label, 0 elsewhere.

  Labels are 0 or 1; the result is float32 of the same shape.
  """
  correct = (logits > 0) == (labels > 0.5)
  return (correct & ~jnp.isnan(logits)).astype(jnp.float32)


def confusion_matrix(
  labels: jax.Array,
  predictions: jax.Array,
  num_classes: int,
  mask: jax.Array | None = None,
) -> jax.Array:
  """Returns the number of pairs (true class, predicted class).

  Args:
    labels: integers [...].
    predictions: integers [...].
    num_classes: C; pairs with a class outside 0…C-1 are not counted.
    mask: [...], 1 on pairs that are counted; None counts all.

  Returns:
    int32 [C, C]; rows are true classes.
  """
  valid = (labels >= 0) & (labels < num_classes)
  valid &= (predictions >= 0) & (predictions < num_classes)
  if mask is not None:
    valid &= mask > 0
  cell = jnp.where(valid, labels * num_classes + predictions, num_classes**2)
  counts = jnp.zeros((num_classes**2,), jnp.int32)
  counts = counts.at[cell.reshape(-1)].add(1, mode="drop")
  return counts.reshape(num_classes, num_classes)


def macro_f1(confusion: np.ndarray) -> float:
  """Returns the unweighted mean over classes of F1 = 2 TP / (2 TP + FP + FN).

  Classes that occur neither as labels nor as predictions are left out of the
  mean, as in scikit-learn's f1_score(average="macro") without `labels`. Classes
  that occur only as one of the two have F1 0. The result is 0 if there are no
  classes.

  Args:
    confusion: counts [C, C]; rows are true classes.
  """
  confusion = np.asarray(confusion, np.float64)
  seen = confusion.sum(axis=0) + confusion.sum(axis=1)
  present = seen > 0
  if not present.any():
    return 0.0
  return float(np.mean(2 * np.diag(confusion)[present] / seen[present]))


class Moments(NamedTuple):
  """Mean and scatter of examples; `a + b` merges those of two sets.

  count: float64 scalar, the number of examples.
  mean: float64 [D].
  scatter: float64 [D, D], the sum of outer products about the mean.
  """

  count: np.ndarray
  mean: np.ndarray
  scatter: np.ndarray

  def __add__(self, other: "Moments") -> "Moments":
    """Merges by Chan, Golub and LeVeque (1983), which avoids cancellation."""
    count = self.count + other.count
    share = other.count / max(count, 1)
    delta = other.mean - self.mean
    return Moments(
      count,
      self.mean + share * delta,
      self.scatter
      + other.scatter
      + self.count * share * np.outer(delta, delta),
    )

  def covariance(self) -> np.ndarray:
    """Returns the unbiased covariance scatter / (count - 1), [D, D]."""
    if self.count < 2:
      raise ValueError(
        f"a covariance needs at least 2 examples, got {int(self.count)}"
      )
    return self.scatter / (self.count - 1)


def moments_of(
  features_BD: np.ndarray, mask_B: np.ndarray | None = None
) -> Moments:
  """Returns the Moments of all rows, or of those where `mask_B` is 1."""
  features_BD = np.asarray(features_BD, np.float64)
  if mask_B is not None:
    features_BD = features_BD[np.asarray(mask_B) > 0]
  count = np.asarray(len(features_BD), np.float64)
  mean = features_BD.sum(axis=0) / max(count, 1)
  centred_BD = features_BD - mean
  return Moments(count, mean, centred_BD.T @ centred_BD)


def frechet_distance(
  mu1: np.ndarray, sigma1: np.ndarray, mu2: np.ndarray, sigma2: np.ndarray
) -> float:
  """Returns the squared Fréchet distance between two Gaussians.

  It is |mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), where S is sigma (Heusel
  et al., arXiv:1706.08500, equation 6). tr (S1 S2)^(1/2) is computed as
  tr (R S2 R)^(1/2) with R = S1^(1/2). This matrix has the same eigenvalues and
  is symmetric, so the result is real, also for singular covariances.

  Args:
    mu1: mean [D].
    sigma1: covariance [D, D], symmetric and positive semi-definite.
    mu2: mean of the other distribution, [D].
    sigma2: covariance of the other distribution, [D, D].

  Returns:
    The distance, at least 0, in float64.
  """
  mu1, sigma1, mu2, sigma2 = (
    np.asarray(x, np.float64) for x in (mu1, sigma1, mu2, sigma2)
  )
  values, vectors = np.linalg.eigh(sigma1)
  # Rounding makes zero eigenvalues slightly negative.
  root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
  product = np.linalg.eigvalsh(root @ sigma2 @ root)
  cross = np.sqrt(np.maximum(product, 0)).sum()
  distance = (
    np.sum((mu1 - mu2) ** 2) + np.trace(sigma1) + np.trace(sigma2) - 2 * cross
  )
  return float(max(distance, 0.0))


def bits_per_byte(total_nats: float, total_bytes: float) -> float:
  """Returns total_nats / (ln 2 * total_bytes).

  Unlike losses per token, bits per byte are comparable between tokenizers.

  Raises:
    ValueError: `total_bytes` is not positive.
  """
  if total_bytes <= 0:
    raise ValueError(f"total_bytes={total_bytes} is not positive")
  return float(total_nats / (np.log(2) * total_bytes))
