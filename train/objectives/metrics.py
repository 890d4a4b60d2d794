"""Metrics: pure functions of predictions, and of sums that evaluations merge.

Those over a batch are of jax and go into a jitted step; those over a whole
evaluation are of NumPy in float64. C is the number of classes, D of features.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


def top_k_correct(
  logits: jax.Array, labels: jax.Array, k: int = 1
) -> jax.Array:
  """1 where the label's logit is among the k greatest, else 0.

  Ties go to the lower class, as in argmax: the label's rank is the number of
  classes that are greater, or equal and of lower index. So constant logits
  score as one guess would, not as perfect. NaN logits are never correct.

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
    raise ValueError(f"top-{k} of {classes} classes")
  index = jnp.expand_dims(labels, -1)
  own = jnp.take_along_axis(logits, index, axis=-1, mode="clip")
  places = jnp.arange(classes).reshape((1,) * (index.ndim - 1) + (-1,))
  before = places < index
  rank = jnp.sum((logits > own) | ((logits == own) & before), axis=-1)
  return ((rank < k) & ~jnp.isnan(own[..., 0])).astype(jnp.float32)


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """1 where argmax(logits) is the label, else 0; float32 [...]."""
  return top_k_correct(logits, labels, 1)


def binary_accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """1 where logit > 0 is the label, 0 or 1; else 0. float32, same shape."""
  correct = (logits > 0) == (labels > 0.5)
  return (correct & ~jnp.isnan(logits)).astype(jnp.float32)


def confusion_matrix(
  labels: jax.Array,
  predictions: jax.Array,
  num_classes: int,
  mask: jax.Array | None = None,
) -> jax.Array:
  """Counts by (true class, predicted class).

  Args:
    labels: integers [...].
    predictions: integers [...].
    num_classes: C; a pair with either outside 0…C-1 is not counted.
    mask: [...], 1 on what counts.

  Returns:
    int32 [C, C], rows the true class.
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
  """Unweighted mean over classes of F1 = 2 TP / (2 TP + FP + FN).

  A class that is neither true nor predicted anywhere is left out of the mean,
  as scikit-learn's f1_score(average="macro") does without `labels`; one that is
  only true or only predicted has F1 0. Without any class the result is 0.

  Args:
    confusion: counts [C, C], rows the true class.
  """
  confusion = np.asarray(confusion, np.float64)
  seen = confusion.sum(axis=0) + confusion.sum(axis=1)
  present = seen > 0
  if not present.any():
    return 0.0
  return float(np.mean(2 * np.diag(confusion)[present] / seen[present]))


class Moments(NamedTuple):
  """Sums from which a mean and a covariance follow; `a + b` elementwise merges.

  count: float64 scalar, examples.
  mean: float64 [D].
  scatter: float64 [D, D], the sum of outer products about the mean.
  """

  count: np.ndarray
  mean: np.ndarray
  scatter: np.ndarray

  def __add__(self, other: "Moments") -> "Moments":
    """Chan, Golub and LeVeque (1983): stable where sums of squares cancel."""
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
    """Unbiased, [D, D]: scatter / (count - 1), as np.cov."""
    if self.count < 2:
      raise ValueError(f"a covariance of {int(self.count)} examples")
    return self.scatter / (self.count - 1)


def moments_of(
  features_BD: np.ndarray, mask_B: np.ndarray | None = None
) -> Moments:
  """The Moments of the rows that `mask_B`, if given, keeps."""
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
  """The squared Fréchet distance of two Gaussians.

  |mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), with S for sigma: Heusel et
  al., arXiv:1706.08500, equation 6. tr (S1 S2)^(1/2) is taken as
  tr (R S2 R)^(1/2) with R = S1^(1/2): the same eigenvalues, but of a symmetric
  matrix, so it stays real, also for singular covariances.

  Args:
    mu1: mean [D].
    sigma1: covariance [D, D], symmetric and positive semi-definite.
    mu2: of the other distribution.
    sigma2: of the other distribution.

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
  """total_nats / (ln 2 * total_bytes): comparable between tokenizers.

  Raises:
    ValueError: there are no bytes.
  """
  if total_bytes <= 0:
    raise ValueError(f"bits per byte of {total_bytes} bytes")
  return float(total_nats / (np.log(2) * total_bytes))
