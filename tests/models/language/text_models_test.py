"""The classical models of texts, against NumPy."""

import itertools

import jax
import numpy as np
import pytest
from tiers import slow_but

from common.names import find


def make(name, **changes):
  return find("models", name, "")(vocab_size=13, num_classes=3, **changes)


def started(model, scale=0.5):
  params, _ = jax.jit(model.init)(jax.random.key(0))
  leaves, treedef = jax.tree.flatten(params)
  rngs = jax.random.split(jax.random.key(1), len(leaves))
  return jax.tree.unflatten(
    treedef,
    [
      scale * jax.random.normal(rng, leaf.shape)
      for leaf, rng in zip(leaves, rngs, strict=True)
    ],
  )


def rows():
  """(tokens, segments): of seven, four and one words."""
  tokens = np.random.default_rng(0).integers(0, 13, (3, 7))
  lengths = np.array([[7], [4], [1]])
  return tokens, (np.arange(7) < lengths).astype(np.int32)


def entries(words, ngrams, buckets):
  """Entries of the table that a text is the mean of, by exact arithmetic."""
  found = list(words)
  for n in range(2, ngrams + 1):
    for i in range(len(words) - n + 1):
      h = 0
      for word in words[i : i + n]:
        h = (h * 116049371 + word * 2654435761) % 2**32
      found.append(13 + (h ^ (h >> 15)) % buckets)
  return found


@pytest.mark.parametrize("ngrams", [1, 2, 3])
def test_fasttext_is_the_mean_of_its_grams(ngrams):
  model = make("fasttext", dim=8, ngrams=ngrams, buckets=50)
  params = started(model)
  tokens, segments = rows()
  got, _ = model.apply(params, {}, tokens, segments_BT=segments)
  table = np.asarray(params["embedding"]["embedding"])
  assert len(table) == (13 if ngrams == 1 else 63)
  output = params["output"]
  for i, length in enumerate((7, 4, 1)):
    words = [int(t) for t in tokens[i, :length]]
    mean = table[entries(words, ngrams, 50)].mean(0)
    want = mean @ output["kernel"] + output["bias"]
    np.testing.assert_allclose(got[i], want, rtol=1e-5, atol=1e-6)


def test_fasttext_bigrams_stay_within_a_segment():
  model = make("fasttext", dim=8, buckets=50)
  params = started(model)
  tokens = np.array([[3, 4, 5, 6]])
  segments = np.array([[1, 1, 2, 2]])
  got, _ = model.apply(
    params, {}, tokens, segments_BT=segments, method="features"
  )
  found = [3, 4, 5, 6, *entries([3, 4], 2, 50)[2:], *entries([5, 6], 2, 50)[2:]]
  want = np.asarray(params["embedding"]["embedding"])[found].mean(0)
  np.testing.assert_allclose(got[0], want, rtol=1e-5)


def test_fasttext_spreads_bigrams_over_the_buckets():
  """A chi-squared of 10,000 pairs over 64 buckets: 63 +- 4 sigma (11.2)."""
  from models.language.fasttext import grams

  a, b = np.meshgrid(np.arange(100), np.arange(100))
  tokens = np.stack([a.ravel(), b.ravel()], 1)
  ids, _ = grams(tokens, np.ones_like(tokens), 2, 64)[1]
  counts = np.bincount(np.asarray(ids).ravel(), minlength=64)
  assert ((counts - 156.25) ** 2 / 156.25).sum() < 63 + 45


def test_fasttext_word_dropout_leaves_words_out_of_the_mean():
  model = make("fasttext", dim=4, ngrams=1, word_dropout=0.5)
  params = started(model)
  table = np.asarray(params["embedding"]["embedding"])
  tokens = np.array([[1, 2, 3]])
  subsets = [
    table[list(chosen)].mean(0) if chosen else np.zeros(4)
    for n in range(4)
    for chosen in itertools.combinations((1, 2, 3), n)
  ]
  found = set()
  for seed in range(40):
    got, _ = model.apply(
      params,
      {},
      tokens,
      rng=jax.random.key(seed),
      train=True,
      method="features",
    )
    off = [np.abs(got[0] - subset).max() for subset in subsets]
    assert min(off) < 1e-5
    found.add(int(np.argmin(off)))
  assert len(found) >= 6  # of 8; each is missed by 40 draws once in 209


def test_text_cnn_is_its_formula():
  model = make("text_cnn", dim=5, widths=(2, 3), filters=6)
  params = started(model)
  tokens, segments = rows()
  got, _ = model.apply(params, {}, tokens, segments_BT=segments)
  table = np.asarray(params["embedding"]["embedding"])
  for i, length in enumerate((7, 4, 1)):
    features = []
    for W in (2, 3):
      dense = params["filters"][str(W)]
      x = np.zeros((length + 2 * (W - 1), 5))
      x[W - 1 : W - 1 + length] = table[tokens[i, :length]]
      kernel = np.asarray(dense["kernel"]).reshape(W, 5, 6)
      response = [
        np.einsum("wd,wdf->f", x[t : t + W], kernel) + dense["bias"]
        for t in range(length + W - 1)
      ]
      features.append(np.maximum(response, 0).max(0))
    output = params["output"]
    want = np.concatenate(features) @ output["kernel"] + output["bias"]
    np.testing.assert_allclose(got[i], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  "name", slow_but(["fasttext"], ["fasttext", "text_cnn"])
)
def test_padding_is_not_seen(name):
  model = make(name)
  params = started(model)
  tokens, segments = rows()
  short, _ = model.apply(params, {}, tokens, segments_BT=segments)
  more = ((0, 0), (0, 4))
  longer, _ = model.apply(
    params,
    {},
    np.pad(tokens, more, constant_values=9),
    segments_BT=np.pad(segments, more),
  )
  np.testing.assert_allclose(longer, short, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
  ("name", "changes", "told"),
  [
    ("fasttext", dict(ngrams=0), "ngrams = 0 is below 1"),
    ("fasttext", dict(word_dropout=1.0), "not in"),
    ("text_cnn", dict(widths=(3, 3)), "distinct positive"),
    ("text_cnn", dict(dropout=-0.1), "not in"),
  ],
)
def test_what_is_wrong_is_told(name, changes, told):
  with pytest.raises(ValueError, match=told):
    make(name, **changes)


def test_fasttext_adds_a_mean_of_each_kind():
  model = make("fasttext", dim=8, ngrams=1, kinds=2)
  params = started(model)
  tokens = np.array([[3, 4, 5, 6, 0]])
  kinds = np.array([[1, 2, 2, 2, 0]])
  got, _ = model.apply(params, {}, tokens, segments_BT=kinds, method="features")
  table = np.asarray(params["embedding"]["embedding"])
  want = table[3] + table[[4, 5, 6]].mean(0)
  np.testing.assert_allclose(got[0], want, rtol=1e-5)
  with pytest.raises(ValueError, match="set ngrams = 1, not 2"):
    make("fasttext", dim=8, ngrams=2, kinds=2)


def test_the_linear_tagger_sums_features_of_a_word_and_its_neighbours():
  """What a label depends on, by changing one feature at a time."""
  model = find("models", "tagger", "")(
    vocab_size=4099, num_classes=3, dim=None, linear_window=1
  )
  params = started(model)
  tokens = np.random.default_rng(0).integers(1, 4099, (1, 5, 7))
  segments = np.array([[1, 1, 1, 1, 0]])

  def logits(tokens):
    return np.asarray(model.apply(params, {}, tokens, segments_BT=segments)[0])

  before = logits(tokens)
  for feature in range(7):
    changed = tokens.copy()
    changed[0, 1, feature] = 1 + changed[0, 1, feature] % 4098
    moved = np.abs(logits(changed) - before)[0].max(-1) > 1e-7
    near = feature in (1, 2, 3, 4)
    assert moved[:4].tolist() == [near, True, near, False]
  # Its own features are entries of the table; 0 is none.
  table = np.asarray(params["linear"]["table"]["embedding"])
  fewer = tokens.copy()
  fewer[0, 1, 6] = 0
  np.testing.assert_allclose(
    (before - logits(fewer))[0, 1], table[tokens[0, 1, 6]], atol=1e-5
  )
  # Padding is like no word at all.
  padded = tokens.copy()
  padded[0, 4] = 5
  np.testing.assert_array_equal(logits(padded)[0, :4], before[0, :4])
  with pytest.raises(ValueError, match="leaves no classifier"):
    find("models", "tagger", "")(vocab_size=9, num_classes=3, dim=None)
