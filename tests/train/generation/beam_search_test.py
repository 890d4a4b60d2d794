import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.generation import beam_search

V, EOS, START = 4, 3, 0
TABLE = np.random.default_rng(0).normal(size=(97, V)) * 1.5
TABLE -= np.log(np.exp(TABLE).sum(-1, keepdims=True))


def state_of(history, row):
  """Which row of the table tells of the token after these."""
  state = row
  for token in history:
    state = (5 * state + token + 1) % len(TABLE)
  return state


def step(cache, token_N1):
  """A model whose next token depends on all before it, through its cache.

  `state` is [1, N], as a leaf with layers is; `row` and `seen` are [N].
  """
  new_N = (5 * cache["state"][0] + token_N1[:, 0] + 1) % len(TABLE)
  logits_NV = jnp.asarray(TABLE, jnp.float32)[new_N]
  cache = dict(cache, state=new_N[None], count=cache["count"] + 1)
  return logits_NV, cache


def cache_of(rows):
  return {
    "state": jnp.asarray(rows, jnp.int32)[None],
    "memory": jnp.asarray(rows, jnp.int32)[None],  # no step changes it
    "count": jnp.zeros((), jnp.int32),
  }


def log_probability(text, row):
  state, total = row, 0.0
  for before, token in zip([START, *text], text, strict=False):
    state = (5 * state + before + 1) % len(TABLE)
    total += TABLE[state][token]
  return total


def all_texts(limit):
  """Every text that ends, or is cut, within `limit` tokens."""
  words = [t for t in range(V) if t != EOS]
  for n in range(1, limit + 1):
    for head in itertools.product(words, repeat=n - 1):
      yield [*head, EOS]
      if n == limit:
        yield from ([*head, word] for word in words)


def enumerated(row, limit, alpha):
  """All texts, the best first, scored by Wu et al.'s formula."""
  scored = [
    (log_probability(t, row) / ((5 + len(t)) / 6) ** alpha, t)
    for t in all_texts(limit)
  ]
  return sorted(scored, reverse=True)


def text_of(written, b, k):
  n = int(written.lengths_BK[b, k])
  tokens = written.tokens_BKL[b, k].tolist()
  ended = n < len(tokens) and tokens[n] == EOS
  return tokens[: n + ended]


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_a_wide_search_finds_what_enumeration_does(alpha):
  rows, limits = [1, 40, 77], [4, 2, 3]
  search = jax.jit(
    lambda cache: beam_search.beam_search(
      step,
      cache,
      jnp.full(3, START),
      beams=110,  # more than there are continuations at any length
      length=4,
      eos=EOS,
      limit_B=jnp.asarray(limits),
      alpha=alpha,
      pad=9,
    )
  )
  found = search(cache_of(rows))
  for b, (row, limit) in enumerate(zip(rows, limits, strict=True)):
    expected = enumerated(row, limit, alpha)
    for k, (score, text) in enumerate(expected[:20]):
      assert text_of(found, b, k) == text
      np.testing.assert_allclose(found.scores_BK[b, k], score, rtol=1e-5)
    count = min(len(expected), 110)
    assert int((found.scores_BK[b] > -np.inf).sum()) == count
    after = found.tokens_BKL[b, 0, len(expected[0][1]) :]
    assert (np.asarray(after) == 9).all()


def by_hand(row, limit, K, alpha):
  """Beam search with lists, as its docstring says, without stopping early."""
  live, found = [(0.0, [])], []
  for n in range(1, limit + 1):
    grown = [
      (log_probability([*text, token], row), [*text, token])
      for _, text in live
      for token in range(V)
    ]
    best = sorted(grown, reverse=True)[: 2 * K]
    ends = [t[-1] == EOS or n == limit for _, t in best]
    for (total, text), ended in list(zip(best, ends, strict=True))[:K]:
      if ended:
        found.append((total / ((5 + n) / 6) ** alpha, text))
    live = [x for x, ended in zip(best, ends, strict=True) if not ended][:K]
  return sorted(found, reverse=True)[:K]


@pytest.mark.parametrize("beams", [1, 2, 3])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_narrow_search_is_that_of_the_docstring(beams, alpha):
  rows = list(range(0, 90, 7))
  found = beam_search.beam_search(
    step,
    cache_of(rows),
    jnp.full(len(rows), START),
    beams=beams,
    length=6,
    eos=EOS,
    alpha=alpha,
  )
  for b, row in enumerate(rows):
    expected = by_hand(row, 6, beams, alpha)
    # Stopping early may leave out what is worse than the best found.
    assert text_of(found, b, 0) == expected[0][1]
    np.testing.assert_allclose(
      found.scores_BK[b, : len(expected)], [s for s, _ in expected], rtol=1e-5
    )


def test_greedy_takes_the_best_token_until_the_end():
  rows, limits = [3, 11, 60, 71], [7, 7, 2, 7]
  found = beam_search.sample(
    step,
    cache_of(rows),
    jnp.full(4, START),
    jax.random.key(0),
    length=7,
    eos=EOS,
    limit_B=jnp.asarray(limits),
  )
  for b, (row, limit) in enumerate(zip(rows, limits, strict=True)):
    text = []
    while len(text) < limit and EOS not in text:
      text.append(int(np.argmax(TABLE[state_of([START, *text], row)])))
    assert text_of(found, b, 0) == text
    np.testing.assert_allclose(
      found.scores_BK[b, 0], log_probability(text, row), rtol=1e-5
    )


def test_draws_have_the_models_frequencies():
  n = 4000
  found = beam_search.sample(
    step,
    cache_of([5] * n),
    jnp.full(n, START),
    jax.random.key(1),
    length=2,
    eos=EOS,
    temperature=1.0,
  )
  firsts = np.bincount(found.tokens_BKL[:, 0, 0], minlength=V) / n
  expected = np.exp(TABLE[state_of([START], 5)])
  # Four standard deviations of a share of n draws.
  assert np.all(np.abs(firsts - expected) < 4 * 0.5 / np.sqrt(n))
  again = beam_search.sample(
    step,
    cache_of([5] * n),
    jnp.full(n, START),
    jax.random.key(1),
    length=2,
    eos=EOS,
    temperature=1.0,
  )
  np.testing.assert_array_equal(found.tokens_BKL, again.tokens_BKL)


def test_an_end_token_that_is_the_padding_too():
  table = jnp.asarray([[0.0, 9.0, 0.0]])  # never ends by itself

  def endless(cache, token_N1):
    return jnp.repeat(table, len(token_N1), 0), cache

  found = beam_search.sample(
    endless,
    {},
    jnp.zeros(2, jnp.int32),
    jax.random.key(0),
    length=5,
    eos=0,
    limit_B=jnp.asarray([2, 5]),
  )
  assert found.lengths_BK[:, 0].tolist() == [2, 5]
  assert found.tokens_BKL[0, 0].tolist() == [1, 1, 0, 0, 0]


def test_early_stop_ends_with_the_first_found():
  # The penalty favours long texts, and the first that end are short.
  found = {
    early: beam_search.beam_search(
      step,
      cache_of(list(range(50))),
      jnp.full(50, START),
      beams=2,
      length=8,
      eos=EOS,
      alpha=2.0,
      early_stop=early,
    )
    for early in (False, True)
  }
  best = {k: np.asarray(v.scores_BK[:, 0]) for k, v in found.items()}
  assert (best[True] <= best[False] + 1e-6).all()
  assert (best[True] < best[False] - 1e-6).any()


@pytest.mark.parametrize(
  "changed, told",
  [
    ({"beams": 0}, "beams=0"),
    ({"alpha": -1.0}, "alpha=-1"),
    ({"length": 0}, "length=0"),
  ],
)
def test_what_makes_no_search_is_told(changed, told):
  options = {"beams": 2, "length": 3, "eos": EOS} | changed
  with pytest.raises(ValueError, match=told):
    beam_search.beam_search(step, cache_of([1]), jnp.zeros(1, int), **options)
