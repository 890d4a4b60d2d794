import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import slow_but

from models.language.encoder_decoder import encoder_decoder
from models.layers.positions import sinusoids
from train import types
from train.generation import beam_search

V, EOS = 19, 1
KINDS = {
  "vaswani": {},
  "pre-norm": {"norm_first": True, "positions": "learned", "max_len": 16},
  "t5": {
    "positions": "relative",
    "buckets": 8,
    "farthest": 6,
    "norm": "rmsnorm",
    "norm_first": True,
    "bias": False,
    "scale_embeddings": False,
    "scale_scores": False,
    "activation": "geglu",
    "tie_embeddings": False,
  },
}


def made(kind, **changes):
  sizes = {"vocab_size": V, "layers": 2, "decoder_layers": 3, "dim": 16}
  model = encoder_decoder(**sizes | {"heads": 4} | KINDS[kind] | changes)
  params, state = jax.jit(model.init)(jax.random.key(0))
  # Norms and biases as well, so that none could be left out unseen.
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  leaves = [
    leaf + 0.1 * jax.random.normal(key, leaf.shape)
    for leaf, key in zip(leaves, keys, strict=True)
  ]
  return model, (jax.tree.unflatten(tree, leaves), state)


def jitted(model):
  return jax.jit(model.apply, static_argnames=("method", "length"))


def tokens(shape, seed):
  return np.random.default_rng(seed).integers(2, V, shape).astype(np.int32)


def padded(lengths, S):
  return (np.arange(S)[None] < np.array(lengths)[:, None]).astype(np.int32)


@pytest.mark.parametrize("kind", slow_but(["t5"], KINDS))
def test_with_the_cache_as_without_token_for_token(kind):
  model, given = made(kind)
  apply = jitted(model)
  inputs, targets = tokens((2, 7), 0), tokens((2, 5), 1)
  segments = padded([7, 4], 7)
  whole, _ = apply(*given, inputs, targets, input_segments_BS=segments)
  cache, _ = apply(*given, inputs, segments, method="start", length=6)
  for t in range(5):
    (logits, cache), _ = apply(
      *given, targets[:, t : t + 1], cache, method="decode"
    )
    np.testing.assert_allclose(logits[:, 0], whole[:, t], atol=2e-5)
  assert int(cache["length"]) == 5
  for name, leaf in cache.items():
    assert name == "length" or leaf.shape[1] == 2, name  # the rows are second


@pytest.mark.parametrize("kind", slow_but(["t5"], KINDS))
def test_packed_pairs_as_alone_and_padding_is_not_seen(kind):
  model, given = made(kind)
  apply = jitted(model)
  sizes = [(4, 3), (5, 6)]
  pairs = [(tokens(s, s), tokens(t, 10 + t)) for s, t in sizes]

  def side(which, extra):
    parts = [pair[which] for pair in pairs]
    lengths = [len(part) for part in parts]
    segments = np.repeat([1, 2], lengths)
    positions = np.concatenate([np.arange(n) for n in lengths])
    row = np.concatenate(parts)
    return [np.pad(x, (0, extra))[None] for x in (row, segments, positions)]

  inputs, input_segments, input_positions = side(0, 3)
  targets, segments, positions = side(1, 2)
  packed, _ = apply(
    *given,
    inputs,
    targets,
    input_segments_BS=input_segments,
    input_positions_BS=input_positions,
    segments_BT=segments,
    positions_BT=positions,
  )
  assert np.isfinite(packed).all()
  before = 0
  for source, target in pairs:
    alone, _ = apply(*given, source[None], target[None])
    found = packed[0, before : before + len(target)]
    np.testing.assert_allclose(found, alone[0], atol=2e-5)
    before += len(target)


@pytest.mark.slow
@pytest.mark.parametrize("kind", slow_but(["t5"], ["vaswani", "t5"]))
def test_each_layer_on_its_own_and_remat_give_the_same_gradient(kind):
  inputs, targets = tokens((2, 6), 0), tokens((2, 4), 1)
  found = []
  for how in ({}, {"scan": False}, {"remat": "full"}):
    model, (params, state) = made(kind, **how)

    def loss(params, model=model, state=state):
      logits, _ = model.apply(params, state, inputs, targets)
      return jnp.sum(jax.nn.log_softmax(logits)[..., 3])

    found.append(jax.jit(jax.grad(loss))(params))
  for other in found[1:]:
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4, rtol=1e-4),
      other,
      found[0],
    )


def test_sinusoids_are_those_of_the_paper():
  found = sinusoids(jnp.arange(50)[None], 8)[0]
  t, i = np.arange(50)[:, None], np.arange(4)[None]
  angles = t / 10000 ** (2 * i / 8)
  np.testing.assert_allclose(found[:, 0::2], np.sin(angles), atol=1e-5)
  np.testing.assert_allclose(found[:, 1::2], np.cos(angles), atol=1e-5)


@pytest.mark.slow
def test_what_is_written_is_the_best_token_of_the_logits_each_time():
  model, given = made("pre-norm", vocab_size=6)
  lengths = [7, 3, 5, 1]
  inputs, segments = tokens((4, 7), 0) % 6, padded(lengths, 7)
  variables = types.Variables(*given)
  options = {"length": 9, "eos": EOS, "start": 0, "ratio": 1.0, "extra": 1}

  @jax.jit
  def write(variables, inputs, segments):
    rng = jax.random.key(0)
    return beam_search.write(model, variables, inputs, segments, rng, **options)

  found = write(variables, inputs, segments)
  apply = jitted(model)
  limits = [min(n + 1, 9) for n in lengths]
  fed = np.zeros((4, 10), np.int32)
  for t in range(9):
    logits, _ = apply(*given, inputs, fed[:, :9], input_segments_BS=segments)
    fed[:, t + 1] = np.argmax(logits[:, t], -1)
  for row, limit in enumerate(limits):
    text = fed[row, 1 : limit + 1].tolist()
    text = text[: text.index(EOS)] if EOS in text else text
    n = int(found.lengths_BK[row, 0])
    assert found.tokens_BKL[row, 0, :n].tolist() == text
  one, _ = (
    beam_search.write(
      model, variables, inputs, segments, jax.random.key(0), beams=1, **options
    ),
    None,
  )
  np.testing.assert_array_equal(one.tokens_BKL, found.tokens_BKL)


def test_a_mesh_that_cuts_heads_and_rows_gives_the_same_logits():
  from train import sharding

  model, given = made("t5", dim=16, heads=4)
  inputs, targets = tokens((4, 6), 0), tokens((4, 5), 1)
  expected, _ = jitted(model)(*given, inputs, targets)
  mesh = sharding.make_mesh({"data": 2, "tensor": 2}, jax.devices()[:4])
  from models.language.encoder_decoder import SHARDING

  shardings = sharding.tree_shardings(given, mesh, [(".*", "model")], SHARDING)
  cut = jax.device_put(given, shardings)
  apply = jax.jit(sharding.within(mesh, model.apply))
  found, _ = apply(*cut, inputs, targets)
  np.testing.assert_allclose(found, expected, atol=2e-5)
  kernel = cut[0]["decoder"]["cross"]["query"]["kernel"]
  assert kernel.sharding.shard_shape(kernel.shape) == (3, 16, 8)


@pytest.mark.parametrize(
  "changed, told",
  [
    ({"heads": 3}, "dim = 16 is not a multiple of heads = 3"),
    ({"positions": "rotary"}, "sinusoidal, learned, relative"),
    ({"activation": "elu"}, "relu"),
  ],
)
def test_a_wrong_choice_is_told(changed, told):
  with pytest.raises(ValueError, match=told):
    encoder_decoder(**{"vocab_size": V, "dim": 16, "heads": 4} | changed)


def test_more_tokens_than_learned_positions_are_refused():
  model, given = made("pre-norm", max_len=4)
  with pytest.raises(ValueError, match="5 tokens, but the model's max_len=4"):
    model.apply(*given, tokens((1, 5), 0), tokens((1, 2), 0))
