"""Losses and measures of representations, against NumPy and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.objectives import features, masked_patches
from train.objectives import metric_learning as metric
from train.objectives import self_distillation as dino

RNG = np.random.default_rng(0)
X = RNG.normal(size=(9, 4)).astype(np.float32)
LABEL = np.array([0, 0, 1, 1, 1, 2, 0, 3, 2])
MASK = np.array([1, 1, 1, 1, 1, 1, 0, 1, 1], np.float32)


def unit(x, axis=-1):
  return x / np.linalg.norm(x, axis=axis, keepdims=True)


def softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def triplets(mining, margin):
  """[(anchor, value)] by loops over the real examples."""
  d = np.linalg.norm(X[:, None] - X[None], axis=-1)
  real, found = np.flatnonzero(MASK), []
  for a in real:
    positive = [p for p in real if p != a and LABEL[p] == LABEL[a]]
    negative = [d[a, n] for n in real if LABEL[n] != LABEL[a]]
    if not positive:
      continue
    if mining == "hard":
      worst = max(d[a, p] for p in positive)
      found.append((a, max(0, worst - min(negative) + margin)))
      continue
    for p in positive:
      farther = [each for each in negative if each > d[a, p]]
      n = min(farther) if farther else max(negative)
      found.append((a, max(0, d[a, p] - n + margin)))
  return found


@pytest.mark.parametrize("mining", metric.MINING)
def test_triplets_are_those_of_loops(mining):
  value, weight = jax.jit(
    lambda x: metric.triplet(x, LABEL, MASK, margin=0.7, mining=mining)
  )(X)
  wanted = triplets(mining, 0.7)
  np.testing.assert_allclose(
    (value * weight).sum(), sum(v for _, v in wanted), rtol=1e-5
  )
  assert weight.sum() == len(wanted)
  assert sum(v > 0 for _, v in wanted) > 3
  # Also where all embeddings are equal.
  gradient = jax.jit(
    jax.grad(lambda x: metric.triplet(x, LABEL, MASK, mining=mining)[0].sum())
  )
  assert np.isfinite(gradient(jnp.zeros((9, 4)))).all()


@pytest.mark.parametrize("margin", [0.0, 0.5, 2.0])
def test_arcface_adds_the_margin_to_the_angle(margin):
  kernel = RNG.normal(size=(4, 4)).astype(np.float32)
  got = metric.arcface_logits(X, kernel, LABEL, margin=margin, scale=10.0)
  cosine = unit(X) @ unit(kernel, 0)
  wanted = cosine.copy()
  for i, c in enumerate(LABEL):
    angle = np.arccos(cosine[i, c])
    wanted[i, c] = np.cos(angle + margin)
    if angle > np.pi - margin:
      wanted[i, c] = cosine[i, c] - margin * np.sin(margin)
  np.testing.assert_allclose(got, 10 * wanted, atol=2e-5)


def test_nt_xent_is_that_of_loops():
  other = X + 0.3 * RNG.normal(size=X.shape).astype(np.float32)
  nats, correct = metric.nt_xent(X, other, MASK, 0.2)
  z, real = unit(np.concatenate([X, other])), np.tile(MASK, 2) > 0
  wanted, right = np.zeros(18), np.zeros(18)
  for i in np.flatnonzero(real):
    rest = [j for j in np.flatnonzero(real) if j != i]
    s = np.array([z[i] @ z[j] for j in rest]) / 0.2
    target = rest.index((i + 9) % 18)
    wanted[i] = -np.log(softmax(s)[target])
    right[i] = s.argmax() == target
  kept = MASK > 0
  wanted, right = wanted.reshape(2, 9).mean(0), right.reshape(2, 9).mean(0)
  np.testing.assert_allclose(nats[kept], wanted[kept], rtol=1e-4)
  np.testing.assert_allclose(correct[kept], right[kept])


def test_dino_is_that_of_loops():
  student = RNG.normal(size=(4, 3, 5)).astype(np.float32)
  teacher = RNG.normal(size=(2, 3, 5)).astype(np.float32)
  center = RNG.normal(size=5).astype(np.float32)
  got = dino.self_distillation(
    student, teacher, center, teacher_temperature=0.3
  )
  wanted = [
    -(softmax((teacher[u] - center) / 0.3) * np.log(softmax(student[v] / 0.1)))
    for u in range(2)
    for v in range(4)
    if u != v
  ]
  np.testing.assert_allclose(got, np.mean(wanted, 0).sum(-1), rtol=1e-5)
  moved = dino.moved_center(center, teacher, jnp.asarray([1.0, 0.0, 1.0]), 0.8)
  mean = teacher[:, [0, 2]].mean((0, 1))
  np.testing.assert_allclose(moved, 0.8 * center + 0.2 * mean, rtol=1e-5)
  p = softmax((teacher - center) / 0.3)
  np.testing.assert_allclose(
    dino.entropy(teacher, center, 0.3),
    -(p * np.log(p)).sum(-1).mean(0),
    rtol=1e-5,
  )


def test_hidden_patches_are_those_of_the_largest_noise():
  noise = RNG.random((2, 8)).astype(np.float32)
  visible, hidden = masked_patches.visible(noise, 0.75)
  for row in range(2):
    assert visible[row].tolist() == np.argsort(noise[row])[:2].tolist()
    assert sorted(np.flatnonzero(hidden[row] == 0)) == sorted(visible[row])
  x = RNG.normal(size=(1, 2, 12)).astype(np.float32)
  found, mean, deviation = masked_patches.standardized(x)
  wanted = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True, ddof=1)
  np.testing.assert_allclose(found, wanted, atol=1e-5)
  np.testing.assert_allclose(found * deviation + mean, x, atol=1e-5)


def test_the_linear_probe_is_scikit_learns():
  linear = pytest.importorskip("sklearn.linear_model")
  x = RNG.normal(size=(60, 5)).astype(np.float32)
  label = (x @ RNG.normal(size=(5, 3)) + RNG.normal(size=(60, 3))).argmax(1)
  kernel, bias = features.fit(x, label, 0.01, num_classes=3)
  model = linear.LogisticRegression(C=1 / (60 * 0.01), tol=1e-8, max_iter=500)
  model.fit(x, label)
  np.testing.assert_allclose(kernel.T, model.coef_, atol=2e-3)
  np.testing.assert_allclose(
    bias - bias.mean(), model.intercept_ - model.intercept_.mean(), atol=2e-3
  )
  # A constant feature, and those of another scale, do no harm.
  scaled = (x - x.mean(0)) / x.std(0)
  scaled[:, 0], wide = 0, 1000 * x
  wide[:, 0] = 7
  guess = features.linear_probe(wide, label, wide, 3, (0.01,))
  wanted = model.fit(scaled, label).predict(scaled)
  assert (guess == wanted).mean() > 0.98


@pytest.mark.parametrize("k", [1, 3])
def test_neighbours_recall_and_votes(k):
  places, similar = features.neighbours(X, None, k)
  cosine = unit(X) @ unit(X).T
  hits, votes = [], []
  for i in range(9):
    order = [j for j in np.argsort(-cosine[i]) if j != i][:k]
    assert places[i].tolist() == order
    np.testing.assert_allclose(similar[i], cosine[i, order], rtol=1e-5)
    if (LABEL[i] == LABEL).sum() > 1:
      hits.append(LABEL[i] in LABEL[order])
    weight = np.zeros(4)
    for j in order:
      weight[LABEL[j]] += np.exp(cosine[i, j] / 0.07)
    votes.append(weight.argmax())
  assert features.recall(places, LABEL, LABEL, k) == np.mean(hits)
  got = features.vote(places, similar, LABEL, 4)
  assert got.tolist() == votes
  known, _ = features.neighbours(X[:2], X[2:], 20)
  assert known.shape == (2, 7)
