"""The chain against all sequences of tags, one by one."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.objectives import crf

B, T, C = 4, 5, 3
MASKS = np.array(
  [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 1, 0, 1, 1], [0, 0, 0, 0, 0]], float
)


def example(seed):
  rng = np.random.default_rng(seed)
  chain = crf.Chain(*(rng.normal(size=shape) for shape in ((C,), (C, C), (C,))))
  logits = rng.normal(size=(B, T, C))
  return chain, logits, rng.integers(C, size=(B, T))


def score(chain, logits_NC, tags):
  """The definition, by hand."""
  if not len(tags):
    return 0.0
  total = chain.start_C[tags[0]] + chain.end_C[tags[-1]]
  total += sum(logits_NC[i, tag] for i, tag in enumerate(tags))
  return total + sum(
    chain.transitions_CC[a, b] for a, b in itertools.pairwise(tags)
  )


@pytest.mark.parametrize("seed", range(3))
def test_likelihood_and_viterbi_are_those_of_all_sequences(seed):
  chain, logits, tags = example(seed)
  arrays = jax.tree.map(jnp.asarray, chain)
  found = crf.log_likelihood(arrays, jnp.array(logits), tags, MASKS)
  best = np.asarray(crf.viterbi(arrays, jnp.array(logits), MASKS))
  for b in range(B):
    real = np.flatnonzero(MASKS[b])
    every = list(itertools.product(range(C), repeat=len(real)))
    scores = [score(chain, logits[b, real], each) for each in every]
    log_z = np.logaddexp.reduce(scores)
    wanted = score(chain, logits[b, real], tags[b, real]) - log_z
    np.testing.assert_allclose(found[b], wanted, rtol=1e-5, atol=1e-5)
    assert tuple(best[b, real]) == every[int(np.argmax(scores))]


def test_the_gradient_is_marginals_less_counts():
  chain, logits, tags = example(7)
  arrays = jax.tree.map(jnp.asarray, chain)
  slope = jax.grad(lambda x: crf.log_likelihood(arrays, x, tags, MASKS)[0])(
    jnp.array(logits)
  )[0]
  every = np.array(list(itertools.product(range(C), repeat=T)))
  scores = np.array([score(chain, logits[0], each) for each in every])
  p = np.exp(scores - np.logaddexp.reduce(scores))
  marginals = np.stack(
    [[p[every[:, t] == c].sum() for c in range(C)] for t in range(T)]
  )
  wanted = np.eye(C)[tags[0]] - marginals
  np.testing.assert_allclose(slope, wanted, atol=1e-5)


def test_what_is_masked_does_not_matter():
  chain, logits, tags = example(1)
  arrays = jax.tree.map(jnp.asarray, chain)
  hidden = MASKS[:, :, None] == 0
  other = np.where(hidden, 1e3, logits)
  a, b = (
    crf.log_likelihood(arrays, jnp.array(x), t, MASKS)
    for x, t in ((logits, tags), (other, np.where(hidden[..., 0], 0, tags)))
  )
  np.testing.assert_array_equal(a, b)
