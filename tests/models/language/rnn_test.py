"""Recurrent networks and Bengio's model: the recurrence, caches, segments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import slow_but

from models.language.bengio import bengio
from models.language.rnn import CELLS, recurrence, rnn

V = 11
MAKE = {
  **{
    cell: lambda cell=cell, **how: rnn(
      vocab_size=V, cell=cell, layers=2, dim=6, hidden=8, **how
    )
    for cell in CELLS
  },
  "bengio": lambda **how: bengio(vocab_size=V, order=4, dim=6, hidden=8, **how),
}


def tokens(shape=(3, 7), seed=0):
  return jnp.asarray(np.random.default_rng(seed).integers(0, V, shape))


def jitted(model):
  return jax.jit(model.apply, static_argnames="method")


def started(model):
  """Parameters none of which is zero."""
  params, _ = jax.jit(model.init)(jax.random.key(0))
  leaves, treedef = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  return treedef.unflatten(
    [
      x + 0.3 * jax.random.normal(key, x.shape)
      for x, key in zip(leaves, keys, strict=True)
    ]
  )


@pytest.mark.parametrize("name", slow_but(["bengio", "lstm"], sorted(MAKE)))
def test_decoding_with_a_cache_is_the_full_forward(name):
  model = MAKE[name]()
  params, x = started(model), tokens()
  apply = jitted(model)
  want, _ = apply(params, {}, x)
  cache, got = model.init_cache(3, 7), []
  for start, stop in ((0, 4), (4, 5), (5, 7)):
    (logits, cache), _ = apply(params, {}, x[:, start:stop], cache=cache)
    got.append(logits)
  np.testing.assert_allclose(np.concatenate(got, 1), want, atol=1e-5)
  # The batch is the second axis of a cache.
  assert {leaf.shape[1] for leaf in jax.tree.leaves(cache)} == {3}


@pytest.mark.parametrize("name", sorted(MAKE))
def test_a_packed_row_is_its_documents(name):
  model = MAKE[name]()
  params, x = started(model), tokens((1, 9))
  segments = jnp.asarray([[1] * 4 + [2] * 3 + [3] * 2])
  apply = jitted(model)
  got, _ = apply(params, {}, x, segments_BT=segments)
  for part in (slice(0, 4), slice(4, 7), slice(7, 9)):
    want, _ = apply(params, {}, x[:, part])
    np.testing.assert_allclose(got[:, part], want, atol=1e-5)


@pytest.mark.parametrize("name", sorted(MAKE))
def test_causality(name):
  model = MAKE[name]()
  params, x = started(model), tokens()
  apply = jitted(model)
  before, _ = apply(params, {}, x)
  after, _ = apply(params, {}, x.at[:, 3].set((x[:, 3] + 1) % V))
  np.testing.assert_array_equal(before[:, :3], after[:, :3])
  assert (jnp.abs(before - after)[:, 3].max(-1) > 1e-3).all()


def test_bengio_forgets_what_is_older_than_its_order():
  model = MAKE["bengio"]()
  params, x = started(model), tokens()
  apply = jitted(model)
  before, _ = apply(params, {}, x)
  after, _ = apply(params, {}, x.at[:, 0].set((x[:, 0] + 1) % V))
  assert (jnp.abs(before - after)[:, 2].max(-1) > 1e-3).all()
  np.testing.assert_array_equal(before[:, 3:], after[:, 3:])


@pytest.mark.parametrize(
  ("activation", "function"),
  [("tanh", np.tanh), ("relu", lambda x: np.maximum(x, 0))],
)
def test_bengio_is_the_papers_formula(activation, function):
  model = MAKE["bengio"](activation=activation)
  params, x = started(model), tokens((1, 5))
  p = jax.tree.map(np.asarray, params)
  table = p["token_embedding"]["embedding"]
  got, _ = model.apply(params, {}, x)
  text = [V, V, *np.asarray(x[0])]  # marks of a beginning
  for t in range(5):
    c = np.concatenate([table[w] for w in text[t : t + 3]])
    a = function(c @ p["hidden"]["kernel"] + p["hidden"]["bias"])
    want = (
      p["unembedding"]["bias"]
      + c @ p["direct"]["kernel"]
      + a @ p["unembedding"]["kernel"]
    )
    np.testing.assert_allclose(got[0, t], want, atol=1e-5)


@pytest.mark.parametrize("cell", sorted(CELLS))
def test_the_gradient_of_a_recurrence_is_that_of_its_steps(cell):
  """JAX's own, through a loop written out, with rows that start anew."""
  update, gates, states = CELLS[cell]
  T, B, H = 5, 2, 3
  rng = np.random.default_rng(0)

  def normal(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)

  keep_TB = jnp.asarray(rng.integers(0, 2, (T, B)), jnp.float32)
  inputs = (
    normal(H, gates * H),
    normal(gates * H),
    normal(T, B, gates * H),
    tuple(normal(B, H) for _ in range(states)),
  )
  weight_TBH, weights = normal(T, B, H), [normal(B, H) for _ in range(states)]

  def steps(kernel, bias, x_TBG, carry):
    said = []
    for t in range(T):
      carry = tuple(s * keep_TB[t][:, None] for s in carry)
      carry = update(x_TBG[t], carry[0] @ kernel + bias[None], carry)
      said.append(carry[0])
    return jnp.stack(said), carry

  def total(found):
    h_TBH, carry = found
    last = sum(jnp.sum(a * b) for a, b in zip(carry, weights, strict=True))
    return jnp.sum(h_TBH * weight_TBH) + last

  def ours(kernel, bias, x_TBG, carry):
    return recurrence(update, kernel, bias, x_TBG, keep_TB, carry)

  def gradient(run):
    graded = jax.value_and_grad(lambda *a: total(run(*a)), (0, 1, 2, 3))
    return jax.jit(graded)(*inputs)

  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    gradient(ours),
    gradient(steps),
  )


def test_tied_embeddings_are_one_table():
  model = rnn(vocab_size=V, dim=6, tie_embeddings=True)
  params, _ = model.init(jax.random.key(0))
  assert set(params) == {"token_embedding", "layers", "bias"}
  features, _ = model.apply(params, {}, tokens(), method="features")
  logits, _ = model.apply(params, {}, tokens())
  table = params["token_embedding"]["embedding"]
  np.testing.assert_allclose(logits, features @ table.T, atol=1e-6)


def test_wrong_choices_are_named():
  with pytest.raises(ValueError, match="elman, lstm, gru"):
    rnn(vocab_size=V, cell="rnn")
  with pytest.raises(ValueError, match="hidden = 8 = dim = 6"):
    rnn(vocab_size=V, dim=6, hidden=8, tie_embeddings=True)
  with pytest.raises(ValueError, match="layers = 0"):
    rnn(vocab_size=V, layers=0)
  with pytest.raises(ValueError, match="order = 1"):
    bengio(vocab_size=V, order=1)
