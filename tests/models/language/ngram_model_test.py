"""Counts and probabilities of models/language/ngram.py against NumPy's, and by
hand."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import slow_but

from input_pipeline.cleaning.parts import ngram as numpy_ngram
from models.language.ngram import contexts, ngram
from train import types
from train.generation import sampling
from train.tasks.language_modeling import language_modeling

V = 5


def documents(count=12, size=20, seed=0):
  """Texts with repeated n-grams and unseen ones."""
  rng = np.random.default_rng(seed)
  return np.stack(
    [rng.integers(V, size=size) % rng.integers(1, V + 1) for _ in range(count)]
  )


def learned(model, docs_BT, batch=4):
  """model_state after one pass; each row is a document."""
  step = jax.jit(
    lambda state, x, y: model.apply({}, state, x, targets_BT=y, train=True)[1]
  )
  _, state = model.init(None)
  for i in range(0, len(docs_BT), batch):
    rows = jnp.asarray(docs_BT[i : i + batch])
    state = step(state, rows[:, :-1], rows[:, 1:])
  return state


def probabilities(model, state, docs_BT):
  return np.exp(jax.jit(model.apply)({}, state, jnp.asarray(docs_BT))[0])


def same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("discount", [None, 0.75])
def test_probabilities_are_numpys(order, discount):
  docs_BT = documents()
  wanted = numpy_ngram.fit(list(docs_BT), order, V, discount)
  model = ngram(vocab_size=V, order=order, capacity=300, discount=discount)
  held_out = documents(seed=1)  # contexts that were never seen as well
  p_BTV = probabilities(model, learned(model, docs_BT), held_out)
  for doc, p_TV in zip(held_out, p_BTV, strict=True):
    for t in (0, 3, 19):
      want_V = numpy_ngram.distribution(wanted, doc[: t + 1])
      np.testing.assert_allclose(p_TV[t], want_V, atol=1e-6)
  np.testing.assert_allclose(p_BTV.sum(-1), 1, atol=1e-6)


@pytest.mark.parametrize("vocab_size", slow_but([V], [V, 5000]))
def test_nats_are_the_log_probabilities_of_the_targets(vocab_size):
  docs_BT = documents()
  model = ngram(vocab_size=vocab_size, order=4, capacity=300)
  state = learned(model, docs_BT)
  held_out = jnp.asarray(documents(seed=1))
  inputs_BT, targets_BT = held_out[:, :-1], held_out[:, 1:]
  logits_BTV, _ = model.apply({}, state, inputs_BT)
  found, unchanged = model.apply(
    {}, state, inputs_BT, targets_BT=targets_BT, method="nats"
  )
  wanted = -jnp.take_along_axis(logits_BTV, targets_BT[..., None], -1)[..., 0]
  np.testing.assert_allclose(found, wanted, rtol=1e-6)
  same(unchanged, state)


def test_the_loss_of_a_large_vocabulary_needs_little_memory():
  model = ngram(vocab_size=20_000, order=3, capacity=1000)
  task = language_modeling(model)
  rows = jax.ShapeDtypeStruct((8, 512), jnp.int32)
  batch = {"inputs": rows, "targets": rows, "mask": rows}
  variables = jax.eval_shape(task.init, None, batch)
  loss = jax.jit(
    lambda v, b: task.losses["loss"](v, b, types.Context(None, 0, True))
  )
  used = loss.lower(variables, batch).compile().memory_analysis()
  # A float for every token at every position would take 328 MB.
  assert used.temp_size_in_bytes < 10_000_000


def test_tables_are_as_large_as_the_data_and_within_a_bound():
  sized = ngram(vocab_size=99, order=3, capacity=None, corpus_tokens=5000)
  tables = sized.init(None)[1]
  assert [t["counts"].size for t in tables.values()] == [100, 5000, 5000]
  with pytest.raises(ValueError, match="may need 0.1 GB, more than most_by"):
    ngram(
      vocab_size=9999,
      order=3,
      capacity=None,
      corpus_tokens=4_000_000,
      most_bytes=10**7,
    )


def test_keys_of_several_words_are_numpys():
  """A vocabulary of which 32 bits hold two tokens, and an order of five."""
  rng = np.random.default_rng(0)
  docs_BT = rng.choice([3, 999, 4000, 39_999], (6, 30))
  size = 40_000
  model = ngram(vocab_size=size, order=5, capacity=400)
  wanted = numpy_ngram.fit(list(docs_BT), 5, size)
  assert model.init(None)[1]["order_5"]["keys"].shape == (3, 400)
  p_TV = probabilities(model, learned(model, docs_BT, 3), docs_BT[:1, :4])[0]
  for t in range(4):
    want_V = numpy_ngram.distribution(wanted, docs_BT[0, : t + 1])
    np.testing.assert_allclose(p_TV[t], want_V, atol=1e-6)


def test_counts_are_what_counting_by_hand_gives():
  docs_BT = documents()
  state = learned(ngram(vocab_size=V, order=3, capacity=300), docs_BT)
  times = collections.Counter()
  for doc in docs_BT:
    text = [V, V, *doc]
    times.update(tuple(text[i : i + 3]) for i in range(len(doc)))
  table = state["order_3"]
  found = {
    (int(key) // 36, int(key) // 6 % 6, int(key) % 6): int(count)
    for key, count in zip(table["keys"][0], table["counts"], strict=True)
    if count
  }
  assert found == times
  # Below the highest order: how many different tokens precede.
  pairs = collections.Counter((b, c) for _, b, c in times)
  np.testing.assert_array_equal(
    sorted(pairs.values()),
    sorted(int(c) for c in state["order_2"]["counts"] if c),
  )


@pytest.mark.slow
def test_no_order_of_the_batches_changes_the_tables():
  docs_BT = documents()
  model = ngram(vocab_size=V, order=4, capacity=300)
  want = learned(model, docs_BT)
  same(learned(model, docs_BT[::-1].copy()), want)
  same(learned(model, docs_BT[[5, 1, 8, 0, 11, 3, 7, 9, 2, 10, 6, 4]]), want)
  same(learned(model, docs_BT, batch=6), want)


def test_masked_targets_are_not_counted():
  docs_BT = documents()
  lengths = np.arange(12) + 3
  model = ngram(vocab_size=V, order=3, capacity=300)
  mask_BT = np.arange(19)[None] < (lengths - 1)[:, None]
  junk_BT = np.where(np.arange(20)[None] < lengths[:, None], docs_BT, 1)
  _, state = model.apply(
    {},
    model.init(None)[1],
    jnp.asarray(junk_BT[:, :-1]),
    targets_BT=jnp.asarray(junk_BT[:, 1:]),
    mask_BT=jnp.asarray(mask_BT, jnp.float32),
    train=True,
  )
  cut = [doc[:n] for doc, n in zip(docs_BT, lengths, strict=True)]
  wanted = numpy_ngram.fit(cut, 3, V)
  p_BTV = probabilities(model, state, docs_BT)
  for t in range(20):
    want_V = numpy_ngram.distribution(wanted, docs_BT[0, : t + 1])
    np.testing.assert_allclose(p_BTV[0, t], want_V, atol=1e-6)


@pytest.mark.slow
def test_packed_rows_count_their_documents():
  docs = [doc[:n] for doc, n in zip(documents(4), (7, 5, 9, 4), strict=True)]
  inputs, targets, segments = np.zeros((3, 2, 16), np.int32)
  for row, pair in enumerate((docs[:2], docs[2:])):
    at = 0
    for number, doc in enumerate(pair, start=1):
      span = slice(at, at + len(doc) - 1)
      inputs[row, span], targets[row, span] = doc[:-1], doc[1:]
      segments[row, span] = number
      at = span.stop
  model = ngram(vocab_size=V, order=3, capacity=300)
  batch = {
    "targets_BT": jnp.asarray(targets),
    "mask_BT": jnp.asarray(segments > 0, jnp.float32),
    "segments_BT": jnp.asarray(segments),
  }
  _, empty = model.init(None)
  _, state = model.apply({}, empty, jnp.asarray(inputs), train=True, **batch)
  wanted = numpy_ngram.fit(docs, 3, V)
  logits_BTV, _ = model.apply(
    {}, state, jnp.asarray(inputs), segments_BT=batch["segments_BT"]
  )
  for t, prefix in ((4, docs[0][:5]), (6, docs[1][:1]), (8, docs[1][:3])):
    want_V = numpy_ngram.distribution(wanted, prefix)
    np.testing.assert_allclose(np.exp(logits_BTV[0, t]), want_V, atol=1e-6)


def test_what_finds_no_place_is_told(capfd):
  docs_BT = documents()
  model = ngram(vocab_size=V, order=3, capacity=40)
  state = learned(model, docs_BT)
  jax.effects_barrier()
  padded = np.pad(docs_BT, ((0, 0), (2, 0)), constant_values=V)
  grams = np.lib.stride_tricks.sliding_window_view(padded, 3, axis=1)
  wanted = len(np.unique(grams.reshape(-1, 3), axis=0))
  assert wanted > 40
  assert int(state["order_3"]["lost"]) > 0
  assert int(state["order_2"]["lost"]) == 0
  (line,) = capfd.readouterr().err.strip().splitlines()
  assert "order 3" in line
  assert "capacity = 40" in line
  # What is left still sums to one.
  p_BTV = probabilities(model, state, docs_BT)
  np.testing.assert_allclose(p_BTV.sum(-1), 1, atol=1e-6)


@pytest.mark.slow
def test_a_cache_is_the_full_forward_and_generation_follows_the_counts():
  docs_BT = np.tile(np.arange(24) % 4, (3, 1))  # 0 1 2 3 0 1 2 3 …
  model = ngram(vocab_size=V, order=3, capacity=100)
  state = learned(model, docs_BT, 3)
  x = jnp.asarray(documents(2))
  apply = jax.jit(model.apply)
  want, _ = apply({}, state, x)
  cache, got = model.init_cache(2, 20), []
  for start, stop in ((0, 3), (3, 4), (4, 20)):
    (logits, cache), _ = apply({}, state, x[:, start:stop], cache=cache)
    got.append(logits)
  np.testing.assert_allclose(np.concatenate(got, 1), want, atol=1e-6)
  assert cache["context"].shape == (2, 2)  # [n - 1, B]
  step, cache = sampling.stepper(model, types.Variables({}, state), 1, 12)
  tokens_BL = jnp.asarray([[2] + [0] * 11])
  mask_BL = jnp.arange(12)[None] < 1
  written = sampling.generate(
    step, cache, tokens_BL, mask_BL, jax.random.key(0), temperature=0.0
  )
  assert written[0].tolist() == [2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1]


def test_contexts_end_at_their_own_token():
  found = contexts(jnp.asarray([[7, 8, 9]]), 2, 99)
  assert [x.tolist() for x in found] == [[[99, 7, 8]], [[7, 8, 9]]]
  segments = jnp.asarray([[1, 2, 2]])
  found = contexts(jnp.asarray([[7, 8, 9]]), 2, 99, segments_BT=segments)
  assert [x.tolist() for x in found] == [[[99, 99, 8]], [[7, 8, 9]]]


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"order": 0}, "order = 0"),
    ({"capacity": 0}, "capacity = 0"),
    ({"discount": 1.5}, "discount = 1.5"),
    ({"discount": (0.5, 0.5)}, "5 of them"),
  ],
)
def test_arguments_out_of_range_are_named(settings, message):
  with pytest.raises(ValueError, match=message):
    ngram(vocab_size=V, **settings)
