"""Kneser-Ney probabilities against NLTK's."""

import jax.numpy as jnp
import numpy as np
import pytest

from models.language.ngram import ngram

V, ORDER, DISCOUNT = 4, 3, 0.6


@pytest.mark.slow
def test_probabilities_are_nltks():
  """Where the definitions coincide.

  NLTK has one discount, none of unigrams, and no uniform distribution below
  them; and it would count the marks of a beginning as words that follow one
  another, so that it is given the n-grams that end in a word alone.
  """
  lm = pytest.importorskip("nltk.lm")
  rng = np.random.default_rng(0)
  docs = [
    np.concatenate([np.arange(V), rng.integers(V, size=16) % k])
    for k in (2, 3, 4, 3)
  ]
  grams = [
    tuple(map(str, text[i - n + 1 : i + 1]))
    for text in ([V] * (ORDER - 1) + doc.tolist() for doc in docs)
    for i in range(ORDER - 1, len(text))
    for n in range(1, ORDER + 1)
  ]
  theirs = lm.KneserNeyInterpolated(ORDER, discount=DISCOUNT)
  theirs.fit([grams], vocabulary_text=list(map(str, range(V + 1))))
  ours = ngram(
    vocab_size=V,
    order=ORDER,
    capacity=100,
    discount=(0.0,) + (DISCOUNT,) * (ORDER - 1),
  )
  docs_BT = jnp.asarray(np.stack(docs))
  _, state = ours.init(None)
  _, state = ours.apply(
    {}, state, docs_BT[:, :-1], targets_BT=docs_BT[:, 1:], train=True
  )
  held_out = rng.integers(V, size=12)
  logits_BTV, _ = ours.apply({}, state, jnp.asarray(held_out)[None])
  unseen = 0
  for t in range(12):
    text = [V] * (ORDER - 1) + held_out[: t + 1].tolist()
    context = tuple(map(str, text[-(ORDER - 1) :]))
    unseen += not theirs.counts[context]
    want = [theirs.score(str(w), context) for w in range(V)]
    np.testing.assert_allclose(np.exp(logits_BTV[0, t]), want, atol=1e-6)
  assert unseen  # so that falling back to a shorter context was compared
