import math

import jax.numpy as jnp
import numpy as np
import pytest

from train.objectives import metrics


def labelled(size=50, classes=6):
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(size, classes)).astype(np.float32)
  return logits, rng.integers(classes, size=size)


@pytest.mark.parametrize("k", [1, 2, 5, 6])
def test_top_k_is_that_of_a_full_sort(k):
  logits, labels = labelled()
  best = np.argsort(-logits, axis=-1, kind="stable")[:, :k]
  wanted = (best == labels[:, None]).any(-1)
  found = metrics.top_k_correct(jnp.asarray(logits), jnp.asarray(labels), k)
  np.testing.assert_array_equal(found, wanted)
  if k == 1:
    np.testing.assert_array_equal(
      metrics.accuracy(jnp.asarray(logits), jnp.asarray(labels)),
      logits.argmax(-1) == labels,
    )


def test_ties_go_to_the_lower_class_and_nan_is_wrong():
  logits = jnp.asarray(4 * [[1.0, 1.0, 1.0, 0.0]] + [[np.nan] * 4])
  labels = jnp.asarray([0, 1, 2, 3, 0])
  for k, wanted in ((1, [1, 0, 0, 0, 0]), (2, [1, 1, 0, 0, 0])):
    found = metrics.top_k_correct(logits, labels, k)
    np.testing.assert_array_equal(found, wanted)
  with pytest.raises(ValueError, match="k=5 is not within 1..4"):
    metrics.top_k_correct(logits, labels, 5)


def test_top_k_of_tokens_keeps_their_shape():
  logits = jnp.asarray([[[0.0, 2.0], [3.0, 1.0]]])
  found = metrics.accuracy(logits, jnp.asarray([[1, 1]]))
  np.testing.assert_array_equal(found, [[1, 0]])


def test_confusion_matrix_by_hand():
  labels = jnp.asarray([0, 0, 1, 2, 2, 2, 5, -1])
  predictions = jnp.asarray([0, 1, 1, 2, 0, 0, 1, 0])
  mask = jnp.asarray([1, 1, 1, 1, 1, 0, 1, 1])
  found = metrics.confusion_matrix(labels, predictions, 3, mask)
  np.testing.assert_array_equal(found, [[1, 1, 0], [0, 1, 0], [1, 0, 1]])


def test_macro_f1_by_hand():
  # F1: 2/4, 2/3, 2/3 of three classes; the fourth never occurs.
  confusion = np.zeros((4, 4), int)
  confusion[:3, :3] = [[1, 1, 0], [0, 1, 0], [1, 0, 1]]
  wanted = (2 / 4 + 2 / 3 + 2 / 3) / 3
  assert metrics.macro_f1(confusion) == pytest.approx(wanted, rel=1e-12)
  assert metrics.macro_f1(np.zeros((3, 3))) == 0
  assert metrics.macro_f1([[0, 2], [0, 0]]) == 0


def test_confusion_and_f1_are_scikit_learns():
  sklearn = pytest.importorskip("sklearn.metrics")
  rng = np.random.default_rng(1)
  labels = rng.integers(6, size=200)
  predictions = np.where(
    rng.random(200) < 0.6, labels, rng.integers(7, size=200)
  )
  found = metrics.confusion_matrix(
    jnp.asarray(labels), jnp.asarray(predictions), 8
  )
  wanted = sklearn.confusion_matrix(labels, predictions, labels=range(8))
  np.testing.assert_array_equal(found, wanted)
  # Class 6 is predicted and never true, class 7 neither.
  wanted = sklearn.f1_score(
    labels, predictions, average="macro", zero_division=0
  )
  assert metrics.macro_f1(found) == pytest.approx(wanted, rel=1e-12)


def gaussian(seed, size=5, rank=5):
  rng = np.random.default_rng(seed)
  root = rng.normal(size=(size, rank))
  return rng.normal(size=size), root @ root.T


def test_frechet_distance_is_that_of_the_matrix_square_root():
  linalg = pytest.importorskip("scipy.linalg")
  (mu1, sigma1), (mu2, sigma2) = gaussian(0), gaussian(1)
  root = linalg.sqrtm(sigma1 @ sigma2).real
  wanted = np.sum((mu1 - mu2) ** 2) + np.trace(sigma1 + sigma2 - 2 * root)
  found = metrics.frechet_distance(mu1, sigma1, mu2, sigma2)
  assert found == pytest.approx(wanted, rel=1e-10)
  back = metrics.frechet_distance(mu2, sigma2, mu1, sigma1)
  assert back == pytest.approx(wanted, rel=1e-10)


def test_frechet_distance_of_diagonals_is_the_closed_form():
  a, b = np.asarray([1.0, 4.0, 0.0]), np.asarray([9.0, 1.0, 0.0])
  found = metrics.frechet_distance(np.zeros(3), np.diag(a), 2, np.diag(b))
  assert found == pytest.approx(12 + 4 + 1, rel=1e-12)


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_frechet_distance_to_itself_is_zero_also_where_singular(rank):
  mu, sigma = gaussian(2, rank=rank)
  found = metrics.frechet_distance(mu, sigma, mu, sigma)
  # Roots of eigenvalues that ought to be 0 are up to sqrt(1e-16).
  assert 0 <= found < 1e-6


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_merged_moments_are_numpys(parts):
  rng = np.random.default_rng(0)
  features = 1e6 + rng.normal(size=(40, 3))  # sums of squares would cancel
  mask = rng.random(40) < 0.8
  total = metrics.moments_of(np.zeros((0, 3)))
  pieces = zip(
    np.array_split(features, parts), np.array_split(mask, parts), strict=True
  )
  for rows, kept in pieces:
    total += metrics.moments_of(rows, kept)
  kept = features[mask]
  assert total.count == len(kept)
  np.testing.assert_allclose(total.mean, kept.mean(0), 1e-12)
  np.testing.assert_allclose(
    total.covariance(), np.cov(kept, rowvar=False), 1e-7, 1e-7
  )


def test_a_covariance_of_one_example_is_refused():
  with pytest.raises(ValueError, match="needs at least 2 examples, got 1"):
    metrics.moments_of(np.ones((1, 2))).covariance()


def test_bits_per_byte():
  # Uniform over 256 byte tokens: 8 bits each, at 4 bytes a token 2 bits.
  assert metrics.bits_per_byte(10 * math.log(256), 10) == pytest.approx(8)
  assert metrics.bits_per_byte(10 * math.log(256), 40) == pytest.approx(2)
  with pytest.raises(ValueError, match="total_bytes=0"):
    metrics.bits_per_byte(1.0, 0)
