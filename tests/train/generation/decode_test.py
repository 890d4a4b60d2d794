import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.generation import sampling


def logits_of(batch=8, vocabulary=12):
  rng = np.random.default_rng(0)
  return (2 * rng.normal(size=(batch, vocabulary))).astype(np.float32)


def softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def brute_force(logits, top_k, top_p):
  """The kept ids of one row, by adding the best one at a time."""
  order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
  order = order[:top_k]
  p = softmax(logits[order].astype(float))
  kept = []
  for i in order:
    if top_p is not None and sum(p[: len(kept)]) >= top_p:
      break
    kept.append(i)
  return set(kept)


@pytest.mark.parametrize("top_k", [None, 1, 3, 12, 40])
@pytest.mark.parametrize("top_p", [None, 0.01, 0.5, 0.9, 0.999, 1.0])
def test_filter_keeps_the_set_of_brute_force(top_k, top_p):
  logits = logits_of()
  found = np.asarray(sampling.filter_logits(jnp.asarray(logits), top_k, top_p))
  for row, wanted in zip(found, logits, strict=True):
    kept = set(np.flatnonzero(np.isfinite(row)))
    assert kept == brute_force(wanted, top_k, top_p)
    np.testing.assert_array_equal(row[list(kept)], wanted[list(kept)])


@pytest.mark.parametrize(
  ("top_k", "top_p"),
  [
    ([900] * 4, None),
    ([5, 3000, 70, 2000], None),  # one row's filter lies beyond the head
    (None, [0.5, 0.9, 1.0, 0.2]),
    (None, [0.999] * 4),
    ([40, 3000, 3000, 1500], [0.9, 0.8, 1.0, 0.99]),
  ],
)
def test_a_vocabulary_that_is_not_sorted_whole(top_k, top_p):
  rng = np.random.default_rng(3)
  logits = np.round(np.float32([[1], [3], [2], [9]]) * rng.normal(size=3000), 1)
  logits = logits.astype(np.float32)  # with ties, and an own spread a row
  found = sampling.filter_logits(
    jnp.asarray(logits),
    top_k and jnp.asarray(top_k),
    top_p and jnp.asarray(top_p),
  )
  for row in range(4):
    k, p = top_k and top_k[row], top_p and top_p[row]
    kept = set(np.flatnonzero(np.isfinite(found[row])))
    if p is None or p == 1.0:
      assert kept == brute_force(logits[row], k, None)
    else:  # sums of 3,000 terms in float32 are right to 1e-5
      assert kept >= brute_force(logits[row], k, p - 1e-5)
      assert kept <= brute_force(logits[row], k, p + 1e-5)


@pytest.mark.parametrize("min_p", [0.0, 0.05, 0.4, 1.0])
def test_min_p_keeps_what_is_so_many_times_as_likely(min_p):
  logits = logits_of()
  found = np.asarray(sampling.filter_logits(jnp.asarray(logits), min_p=min_p))
  p = softmax(logits.astype(float))
  wanted = p >= min_p * p.max(-1, keepdims=True)
  np.testing.assert_array_equal(np.isfinite(found), wanted)
  assert min_p in (0.0, 1.0) or 1 < wanted.sum() / len(wanted) < 12


def test_each_row_has_filters_of_its_own():
  logits = jnp.asarray(logits_of(6))
  rows = [
    {"top_k": 3},
    {"top_p": 0.5},
    {"min_p": 0.3},
    {},
    {"top_k": 5, "top_p": 0.9},
    {"top_k": 1},
  ]
  off = {"top_k": 2**31 - 1, "top_p": 1.0, "min_p": 0.0}
  arrays = {
    name: jnp.asarray([row.get(name, neutral) for row in rows])
    for name, neutral in off.items()
  }
  found = sampling.filter_logits(logits, **arrays)
  for row, settings in enumerate(rows):
    alone = sampling.filter_logits(logits[row : row + 1], **settings)
    np.testing.assert_array_equal(found[row], alone[0])


def test_the_penalty_divides_above_zero_and_multiplies_below():
  logits = jnp.asarray([[2.0, -2.0, 4.0, -4.0], [2.0, -2.0, 4.0, -4.0]])
  seen = jnp.asarray([[True, True, False, False], [True, False, False, True]])
  found = sampling.penalize(logits, seen, jnp.asarray([2.0, 4.0]))
  np.testing.assert_array_equal(
    found, [[1.0, -4.0, 4.0, -4.0], [0.5, -2.0, 4.0, -16.0]]
  )


def test_ties_are_kept_by_lower_id():
  logits = jnp.asarray([[0.0, 1.0, 1.0, 1.0]])
  for found in (
    sampling.filter_logits(logits, top_k=2),
    sampling.filter_logits(logits, top_p=0.5),  # each of the best has 0.297
  ):
    np.testing.assert_array_equal(
      np.isfinite(found), [[False, True, True, False]]
    )


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"top_k": 0}, "top_k=0"),
    ({"top_p": 0.0}, "top_p=0.0"),
    ({"top_p": 1.1}, "top_p=1.1"),
  ],
)
def test_a_wrong_filter_is_named(settings, message):
  with pytest.raises(ValueError, match=message):
    sampling.filter_logits(jnp.zeros((1, 3)), **settings)


def draws(logits, count=20000, **settings):
  keys = jax.random.split(jax.random.key(0), count)
  sample = jax.vmap(
    lambda key: sampling.sample_logits(logits[None], key, **settings)[0]
  )
  return np.bincount(jax.jit(sample)(keys), minlength=len(logits))


@pytest.mark.parametrize(
  "settings",
  [
    {},
    {"temperature": 0.5},
    {"temperature": 2.0, "top_k": 4},
    {"top_p": 0.8},
  ],
)
def test_samples_follow_the_softmax(settings):
  stats = pytest.importorskip("scipy.stats")
  logits = logits_of(1, 7)[0]
  counts = draws(jnp.asarray(logits), **settings)
  scaled = logits / settings.get("temperature", 1)
  kept = sorted(
    brute_force(scaled, settings.get("top_k"), settings.get("top_p"))
  )
  assert counts.sum() == counts[kept].sum()
  wanted = 20000 * softmax(scaled[kept].astype(float))
  # The key is fixed: this passes always or never. 1e-3 would be bad luck.
  assert stats.chisquare(counts[kept], wanted).pvalue > 1e-3


def test_temperature_is_each_rows_own_and_zero_is_greedy():
  logits = jnp.zeros((4, 6)).at[:, 2].set(1.0).at[:, 4].set(1.0)
  temperature = jnp.asarray([0.0, 1e-3, 1e4, 0.0])
  found = jnp.stack(
    [
      sampling.sample_logits(logits, jax.random.key(i), temperature)
      for i in range(40)
    ]
  )
  assert found.dtype == jnp.int32
  assert set(np.asarray(found[:, [0, 3]]).flat) == {2}  # the lower of equals
  assert set(np.asarray(found[:, 1]).flat) == {2, 4}
  assert len(set(np.asarray(found[:, 2]).flat)) == 6
  greedy = sampling.sample_logits(
    jnp.asarray(logits_of()), jax.random.key(0), 0.0
  )
  np.testing.assert_array_equal(greedy, logits_of().argmax(-1))


def sum_step(cache, token_B1):
  """The next token is best the sum of those fed so far, modulo 7."""
  cache = cache + token_B1[:, 0]
  return jax.nn.one_hot(cache % 7, 7), cache


@pytest.mark.parametrize("compiled", [False, True])
def test_greedy_generation_continues_ragged_prompts(compiled):
  tokens = np.asarray([[1, 2, 6, 6, 6, 6], [3, 5, 5, 5, 5, 5]])
  mask = np.asarray([[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0]])
  wanted = tokens.copy()
  for row, kept in zip(wanted, mask, strict=True):
    for i in range(1, 6):
      row[i] = row[i] if kept[i] else row[:i].sum() % 7
  generate = sampling.generate
  if compiled:
    generate = jax.jit(generate, static_argnums=0)
  found = generate(
    sum_step,
    jnp.zeros(2, jnp.int32),
    jnp.asarray(tokens),
    jnp.asarray(mask),
    jax.random.key(0),
    temperature=0.0,
  )
  np.testing.assert_array_equal(found, wanted)
  assert found.dtype == jnp.asarray(tokens).dtype


def test_sampled_generation_is_the_loop_of_folded_keys():
  table = jnp.asarray(logits_of(12, 12))
  tokens, rng = jnp.zeros((3, 9), jnp.int32), jax.random.key(3)
  mask = jnp.arange(9)[None] < jnp.asarray([[1], [2], [4]])
  found = sampling.generate(
    lambda cache, token_B1: (table[token_B1[:, 0]], cache),
    (),
    tokens,
    mask,
    rng,
    temperature=0.8,
    top_k=5,
    top_p=0.9,
  )
  wanted = tokens
  for i in range(8):
    drawn = sampling.sample_logits(
      table[wanted[:, i]], jax.random.fold_in(rng, i), 0.8, 5, 0.9
    )
    wanted = wanted.at[:, i + 1].set(jnp.where(mask[:, i + 1], 0, drawn))
  np.testing.assert_array_equal(found, wanted)


def test_generation_of_a_prompt_alone_returns_it():
  tokens = jnp.asarray([[4], [5]])
  found = sampling.generate(
    sum_step,
    jnp.zeros(2, jnp.int32),
    tokens,
    jnp.ones((2, 1)),
    jax.random.key(0),
  )
  np.testing.assert_array_equal(found, tokens)
