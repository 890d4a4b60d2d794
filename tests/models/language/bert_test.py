import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import slow_but

from common.names import find

SIZES = dict(vocab_size=19, layers=2, dim=16, heads=4, hidden=24, max_len=12)


def bert(**changes):
  return find("models", "bert", "")(**SIZES | changes)


def started(model):
  """Its parameters, large enough that all of them are felt."""
  params, _ = jax.jit(model.init)(jax.random.key(0))
  leaves, treedef = jax.tree.flatten(params)
  rngs = jax.random.split(jax.random.key(1), len(leaves))
  return jax.tree.unflatten(
    treedef,
    [
      leaf + 0.3 * jax.random.normal(rng, leaf.shape)
      for leaf, rng in zip(leaves, rngs, strict=True)
    ],
  )


def tokens(T, B=2):
  return np.random.default_rng(0).integers(0, 19, (B, T))


def paths(tree):
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


@pytest.mark.parametrize(
  ("positions", "norm_first"),
  slow_but(
    [("learned", False)],
    itertools.product(["learned", "rotary"], [False, True]),
  ),
)
def test_padding_changes_nothing(positions, norm_first):
  """What stands on padding, and how much of it there is, is not seen."""
  model = bert(positions=positions, norm_first=norm_first)
  params = started(model)
  x_BT = tokens(7)
  alone, _ = model.apply(params, {}, x_BT, segments_BT=np.ones_like(x_BT))
  for filler in (0, 3):
    longer = np.pad(x_BT, ((0, 0), (0, 5)), constant_values=filler)
    segments = np.pad(np.ones_like(x_BT), ((0, 0), (0, 5)))
    got, _ = model.apply(params, {}, longer, segments_BT=segments)
    np.testing.assert_allclose(got[:, :7], alone, atol=2e-5)
  seen, _ = model.apply(params, {}, np.pad(x_BT, ((0, 0), (0, 5))))
  assert np.abs(seen[:, :7] - alone).max() > 0.01


def test_every_token_sees_both_ways():
  model = bert(head="classes", num_classes=3)
  params = started(model)
  x_BT = tokens(6, 1)
  base, _ = model.apply(params, {}, x_BT)
  for place in range(6):
    other = x_BT.copy()
    other[0, place] = (other[0, place] + 1) % 19
    changed, _ = model.apply(params, {}, other)
    assert np.abs(changed - base).max() > 1e-4


def test_types_and_order_matter():
  model = bert()
  params = started(model)
  x_BT = tokens(6)
  base, _ = model.apply(params, {}, x_BT)
  zero, _ = model.apply(params, {}, x_BT, types_BT=np.zeros_like(x_BT))
  np.testing.assert_array_equal(base, zero)
  one, _ = model.apply(params, {}, x_BT, types_BT=np.ones_like(x_BT))
  assert np.abs(one - base).max() > 0.01
  turned, _ = model.apply(params, {}, x_BT[:, ::-1])
  assert np.abs(turned[:, ::-1] - base).max() > 0.01


@pytest.mark.slow
def test_packed_rows_are_their_parts():
  model = bert()
  params = started(model)
  x_BT = tokens(9)
  segments = np.array([[1] * 4 + [2] * 5] * 2)
  positions = np.array([[*range(4), *range(5)]] * 2)
  whole, _ = model.apply(
    params, {}, x_BT, segments_BT=segments, positions_BT=positions
  )
  parts = [model.apply(params, {}, x)[0] for x in (x_BT[:, :4], x_BT[:, 4:])]
  np.testing.assert_allclose(whole, np.concatenate(parts, 1), atol=2e-5)


@pytest.mark.slow
def test_logits_of_places_are_those_of_all():
  model = bert(next_sentence=True)
  params = started(model)
  x_BT, places_BP = tokens(8), np.array([[1, 5, 5], [7, 0, 2]])
  every, _ = model.apply(params, {}, x_BT)
  some, _ = model.apply(params, {}, x_BT, places_BP)
  want = np.take_along_axis(np.asarray(every), places_BP[:, :, None], 1)
  np.testing.assert_allclose(some, want, atol=1e-5)
  (again, follows_B2), _ = model.apply(
    params, {}, x_BT, places_BP, method="pretrain"
  )
  np.testing.assert_allclose(again, some, atol=1e-6)
  assert follows_B2.shape == (2, 2)


def test_the_body_is_the_same_under_every_head():
  bodies = []
  for head in ("mlm", "classes", "tokens", "span"):
    made = jax.eval_shape(
      bert(head=head, num_classes=3).init, jax.random.key(0)
    )
    found = paths(made[0])
    bodies.append({k: v for k, v in found.items() if k[:5] != "head/"})
    assert len(found) > len(bodies[-1])
  assert bodies[0] == bodies[1] == bodies[2] == bodies[3]


def test_bert_base_has_its_published_size():
  """110M parameters in the paper; exactly so by the shapes of its release."""
  model = find("models", "bert", "")(vocab_size=30522, next_sentence=True)
  params, _ = jax.eval_shape(model.init, jax.random.key(0))
  body = {k: v for k, v in params.items() if k != "head"}
  pooler = params["head"]["next_sentence"]["pooler"]
  size = sum(leaf.size for leaf in jax.tree.leaves((body, pooler)))
  assert size == 109_482_240


def test_flops_are_those_of_the_products():
  for head, outputs in (("mlm", 16 + 19), ("tokens", 3)):
    got = bert(head=head, num_classes=3).flops(5)
    layer = 5 * (4 * 16 * 16 + 2 * 16 * 24) + 2 * 5 * 5 * 16
    assert got == 2 * (2 * layer + 5 * 16 * outputs)


def test_dropout_is_of_training_alone():
  model = bert(head="classes", num_classes=3, dropout=0.5)
  params = started(model)
  x_BT = tokens(6)
  base, _ = model.apply(params, {}, x_BT)
  drawn = [
    model.apply(params, {}, x_BT, rng=jax.random.key(i), train=True)[0]
    for i in (0, 0, 1)
  ]
  np.testing.assert_array_equal(drawn[0], drawn[1])
  assert not jnp.array_equal(drawn[0], drawn[2])
  assert not jnp.array_equal(drawn[0], base)


def test_the_mean_is_of_a_rows_own_tokens():
  model = bert(head="classes", num_classes=3, pooling="mean")
  params = started(model)
  x_BT = tokens(6)
  segments = np.array([[1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 0, 0]])
  got, _ = model.apply(params, {}, x_BT, segments_BT=segments)
  x_BTD, _ = model.apply(
    params, {}, x_BT, segments_BT=segments, method="features"
  )

  def dense(name, x):
    return x @ params["head"][name]["kernel"] + params["head"][name]["bias"]

  mean = np.asarray(x_BTD[0, :4]).mean(axis=0)
  want = dense("output", np.tanh(dense("pooler", mean)))
  np.testing.assert_allclose(got[0], want, atol=1e-5)
  # A row of padding alone, such as fills up a batch, is no NaN.
  want = dense("output", np.tanh(dense("pooler", np.zeros(16))))
  np.testing.assert_allclose(got[1], want, atol=1e-5)
  every, _ = model.apply(params, {}, x_BT)
  ones, _ = model.apply(params, {}, x_BT, segments_BT=np.ones_like(x_BT))
  np.testing.assert_allclose(every, ones, atol=1e-5)


def test_words_that_are_left_out_are_not_seen():
  """At a rate of nearly 1 a text is its positions and types alone."""
  model = bert(head="classes", num_classes=3, word_dropout=0.9999, dropout=0.0)
  params = started(model)
  got, _ = model.apply(params, {}, tokens(6), rng=jax.random.key(0), train=True)
  zeros = jnp.zeros_like(params["token_embedding"]["embedding"])
  wordless = params | {"token_embedding": {"embedding": zeros}}
  want, _ = model.apply(wordless, {}, tokens(6))
  np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize(
  ("changes", "told"),
  [
    (dict(head="nsp"), "head = 'nsp' is none of: mlm, classes, tokens, span"),
    (dict(head="classes"), "needs num_classes"),
    (dict(pooling="max"), "pooling = 'max' is none of: first, mean"),
    (dict(head="span", next_sentence=True), 'next_sentence needs head = "mlm"'),
    (dict(heads=3), "dim = 16 is not a multiple of heads = 3"),
    (dict(heads=16, positions="rotary"), "rotary positions need an even"),
    (dict(dropout=1.0), "dropout = 1.0"),
  ],
)
def test_what_does_not_go_together_is_told(changes, told):
  with pytest.raises(ValueError, match=told):
    jax.eval_shape(bert(**changes).init, jax.random.key(0))


def test_a_row_beyond_max_len_is_told():
  model = bert()
  with pytest.raises(ValueError, match="13 tokens, but the model's max_len"):
    jax.eval_shape(model.apply, started(model), {}, tokens(13))
