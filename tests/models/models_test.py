import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiers import slow_but

from common.names import find
from models.layers import basic as layers
from models.layers import stochastic_depth
from models.layers.attention import attention
from models.tabular import mlp
from models.vision import conv


def get(name):
  return find("models", name, "config.model.name")


def init(model, seed=0):
  return jax.jit(model.init)(jax.random.key(seed))


def jitted(model):
  return jax.jit(model.apply, static_argnames=("train", "method"))


def image(size, channels, batch=3):
  shape = (batch, size, size, channels)
  return jax.random.normal(jax.random.key(1), shape)


def count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def tokens(vocab_size, shape=(2, 9)):
  return jax.random.randint(jax.random.key(2), shape, 0, vocab_size)


def tiny_decoder(**changes):
  sizes = {"vocab_size": 17, "layers": 2, "dim": 16, "heads": 4, "max_len": 12}
  return get("decoder")(**sizes | changes)


LLAMA = {
  "positions": "rotary",
  "norm": "rmsnorm",
  "activation": "swiglu",
  "bias": False,
  "tie_embeddings": False,
  "kv_heads": 2,
}

# A wide residual network with pre-activations, and a small transformer.
WIDE = {"version": 2, "stem": "cifar", "stem_width": 4, "blocks": (1, 1)}
VIT = {"image_size": 16, "variant": "Ti/8", "layers": 2}


def signature(tree):
  return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


def gan_player(name, of="gan"):
  def make(**kwargs):
    return getattr(get(of)(**kwargs), name)

  return make


def centernet_output(name):
  def make(**kwargs):
    model = get("centernet")(**kwargs)

    def apply(*args, **how):
      found, state = model.apply(*args, **how)
      # The other output is read, so that every parameter has a gradient.
      return found[name] + 0 * sum(x.sum() for x in found.values()), state

    return model._replace(apply=apply)

  return make


def timed(name):
  """A model that reads a time, or a level of noise, of each image, too."""

  def make(**kwargs):
    model = get(name)(**kwargs)

    def apply(params, state, x, **how):
      time_B = jnp.arange(x.shape[0], dtype=jnp.float32)
      return model.apply(params, state, x, time_B, **how)

    return model._replace(apply=apply)

  return make


_UNET = {"channels": 3, "widths": (4, 8), "groups": 2, "dropout": 0.1}

# model, keyword arguments, input's shape, output's shape.
TABLE = [
  ("decoder", {"vocab_size": 17, "dim": 16}, (2, 9), (2, 9, 17)),
  ("decoder", {"vocab_size": 17, "dim": 16} | LLAMA, (2, 9), (2, 9, 17)),
  (
    "decoder",
    {"vocab_size": 17, "dim": 16, "block_positions": True},
    (2, 9),
    (2, 9, 17),
  ),
  ("bengio", {"vocab_size": 17, "dim": 4, "hidden": 8}, (2, 9), (2, 9, 17)),
  *(
    (
      "rnn",
      {"vocab_size": 17, "cell": cell, "layers": 2, "dim": 8, "dropout": 0.1},
      (2, 9),
      (2, 9, 17),
    )
    for cell in ("elman", "lstm", "gru")
  ),
  *(
    (
      "bert",
      {"vocab_size": 17, "layers": 2, "dim": 16, "heads": 2} | more,
      (2, 9),
      outputs,
    )
    for more, outputs in (
      ({"head": "mlm"}, (2, 9, 17)),
      ({"head": "tokens", "num_classes": 3, "norm_first": True}, (2, 9, 3)),
      (
        {"head": "classes", "num_classes": 3, "positions": "rotary"},
        (2, 3),
      ),
    )
  ),
  ("tagger", {"vocab_size": 17, "num_classes": 3, "dim": 8}, (2, 9), (2, 9, 3)),
  (
    "tagger",
    {"vocab_size": 17, "num_classes": 3, "feature_dropout": 0.5},
    (2, 9, 4),
    (2, 9, 3),
  ),
  ("mlp", {"in_features": 5, "out_features": 3}, (2, 5), (2, 3)),
  (
    "mlp",
    {"in_features": 5, "out_features": 1, "hidden": ()},
    (2, 5),
    (2, 1),
  ),
  *(
    (
      "conv",
      {"num_classes": 7, "channels": 3, "image_size": size, "variant": variant},
      (2, size, size, 3),
      (2, 7),
    )
    for size in (8, 9, 28)
    for variant in ("lenet", "cifar")
  ),
  ("resnet", {"num_classes": 7, "width": 8}, (2, 32, 32, 3), (2, 7)),
  (
    "resnet",
    {"num_classes": 7, "depth": 50, "width": 4, "stem": "cifar"},
    (2, 8, 8, 3),
    (2, 7),
  ),
  *(
    (
      "vit",
      {
        "num_classes": 7,
        "image_size": 16,
        "variant": "Ti/8",
        "layers": 2,
        "pool": pool,
      },
      (2, 16, 16, 3),
      (2, 7),
    )
    for pool in ("cls", "gap")
  ),
  (
    "resnet",
    {"num_classes": 7, "width": 8, "stem": "deep", "shortcut": "pool"},
    (2, 32, 32, 3),
    (2, 7),
  ),
  ("resnet", {"num_classes": 7, "width": 8, **WIDE}, (2, 9, 9, 3), (2, 7)),
  *(
    ("vit", {"num_classes": 7, **VIT, **more}, (2, 16, 24, 3), (2, 7))
    for more in (
      {"pool": "map", "registers": 2},
      {"distilled": True},
      {"stem": "convolutions"},
    )
  ),
  (
    "mixer",
    {"num_classes": 7, "image_size": 16, "variant": "S/8", "layers": 1},
    (2, 16, 16, 3),
    (2, 7),
  ),
  (
    "convnext",
    {"num_classes": 7, "depths": (1, 1), "dims": (4, 6)},
    (2, 16, 16, 3),
    (2, 7),
  ),
  *(
    (name, {"num_classes": 7, "width": 4, "hidden": (8,), **more}, *shapes)
    for name, more, shapes in (
      ("vgg", {"depth": 11, "batchnorm": True}, ((2, 33, 32, 3), (2, 7))),
      ("alexnet", {"stem": "cifar"}, ((2, 32, 32, 3), (2, 7))),
    )
  ),
  *(
    ("fcn", {"num_classes": 5, "channels": 3, "width": 4}, (2, *hw, 3), out)
    for hw, out in (((16, 24), (2, 16, 24, 5)), ((9, 13), (2, 9, 13, 5)))
  ),
  *(
    (name, {"num_classes": 5, "channels": 3, "width": 4} | more, *shapes)
    for name, more in (
      ("deeplab", {"depth": 18, "features": 4}),
      ("deeplab", {"depth": 18, "head": "fcn", "output_stride": 16}),
      ("unet_segmentation", {"levels": 2, "norm": "group", "dropout": 0.1}),
    )
    for shapes in [((2, 33, 38, 3), (2, 33, 38, 5))]
  ),
  *(
    (
      centernet_output(name),
      {"num_classes": 5, "channels": 3, "width": 4},
      (2, 16, 36, 3),
      (2, 2, 5, size),
    )
    for name, size in (("heat", 5), ("sides", 4))
  ),
  *(
    (timed(name), more, (2, 9, 12, 3), (2, 9, 12, 3))
    for name, more in (
      ("dncnn", {"channels": 3, "depth": 4, "width": 8}),
      ("ffdnet", {"channels": 3, "depth": 4, "width": 8}),
      ("unet", {"num_classes": 3, **_UNET}),
    )
  ),
  (
    timed("dit"),
    {"channels": 3, "image_size": 8, "layers": 2, "dim": 16, "heads": 2},
    (2, 8, 8, 3),
    (2, 8, 8, 3),
  ),
  *(
    (name, {"channels": 3, "widths": (4, 8), "groups": 2} | more, *2 * [size])
    for name, more, size in (
      ("vae", {}, (2, 8, 8, 3)),
      ("vqvae", {"codebook": "gradient"}, (2, 8, 8, 3)),
    )
  ),
  *(
    (
      gan_player("generator"),
      {"image_size": size, "width": 4},
      (2, 64),
      (2, size, size, 1),
    )
    for size in (8, 28, 32, 64)
  ),
  *(
    (
      gan_player("discriminator"),
      {"image_size": size, "width": 4, "channels": 3},
      (2, size, size, 3),
      (2,),
    )
    for size in (8, 28, 32, 64)
  ),
  *(
    (
      gan_player(name, "stylegan2"),
      {"image_size": 28, "base": 112, "latent": 6, "styles": 5} | more,
      inputs,
      outputs,
    )
    for name, more, inputs, outputs in (
      ("generator", {"channels": 3}, (2, 6), (2, 28, 28, 3)),
      ("discriminator", {"products": True}, (2, 28, 28, 1), (2,)),
    )
  ),
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("name", "kwargs", "inputs", "outputs"), TABLE)
def test_every_model_keeps_the_contract(name, kwargs, inputs, outputs, dtype):
  make = get(name) if isinstance(name, str) else name
  model = make(dtype=dtype, **kwargs)
  reads_text = name in ("decoder", "bert", "bengio", "rnn", "tagger")
  kind = jnp.int32 if reads_text else jnp.float32
  x = jax.ShapeDtypeStruct(inputs, kind)
  params, state = jax.eval_shape(model.init, jax.random.key(0))
  for train in (False, True):
    y, new_state = jax.eval_shape(
      lambda *args, train=train: model.apply(
        *args, rng=jax.random.key(0), train=train
      ),
      params,
      state,
      x,
    )
    assert (y.shape, y.dtype) == (outputs, jnp.float32)
    assert signature(new_state) == signature(state)
  # Tracing the gradient finds what has none, such as a windowed reduction.
  grads = jax.eval_shape(
    jax.grad(lambda *args: model.apply(*args)[0].sum()), params, state, x
  )
  assert signature(grads) == signature(params)
  for path, leaf in jax.tree_util.tree_leaves_with_path((params, state)):
    assert all(isinstance(key.key, str) for key in path[1:])
    assert leaf.dtype == jnp.float32


# Counts that the papers' authors or their libraries publish.
@pytest.mark.parametrize(
  ("name", "kwargs", "published"),
  [
    (
      "decoder",
      {"vocab_size": 50257, "layers": 12, "dim": 768, "heads": 12},
      124_439_808,
    ),
    (
      "decoder",
      LLAMA
      | {
        "vocab_size": 32000,
        "layers": 32,
        "dim": 4096,
        "heads": 32,
        "kv_heads": None,
        "hidden": 11008,
      },
      6_738_415_616,
    ),
    ("vit", {"num_classes": 1000, "variant": "B/16"}, 86_567_656),
    ("vit", {"num_classes": 1000, "variant": "S/16"}, 22_050_664),
    ("resnet", {"num_classes": 1000, "depth": 18}, 11_689_512),
    ("resnet", {"num_classes": 1000, "depth": 34}, 21_797_672),
    ("resnet", {"num_classes": 1000, "depth": 50}, 25_557_032),
    ("resnet", {"num_classes": 1000, "depth": 101}, 44_549_160),
    ("resnet", {"num_classes": 1000, "depth": 50, "inner": 2.0}, 68_883_240),
    (
      "resnet",
      WIDE
      | {"num_classes": 10, "blocks": (4, 4, 4), "width": 160}
      | {"bottleneck": False, "stem_width": 16},
      36_479_194,
    ),
    ("alexnet", {"num_classes": 1000}, 61_100_840),
    ("vgg", {"num_classes": 1000}, 138_357_544),
    (
      "vgg",
      {"num_classes": 1000, "depth": 11, "batchnorm": True},
      132_868_840,
    ),
    ("convnext", {"num_classes": 1000}, 28_589_128),
    ("mixer", {"num_classes": 1000}, 59_880_472),
  ],
)
def test_published_parameter_counts(name, kwargs, published):
  model = get(name)(**kwargs)
  params, _ = jax.eval_shape(model.init, jax.random.key(0))
  assert count(params) == published


def test_unknown_names_and_values_are_named():
  with pytest.raises(ValueError, match='did you mean "decoder".*resnet'):
    get("decodr")
  with pytest.raises(ValueError, match="layernorm, rmsnorm"):
    jax.eval_shape(tiny_decoder(norm="batch").init, jax.random.key(0))
  for name, kwargs, message in (
    ("decoder", {"vocab_size": 9, "positions": "alibi"}, "learned, rotary"),
    ("decoder", {"vocab_size": 9, "kv_heads": 3}, "kv_heads = 3"),
    ("decoder", {"vocab_size": 9, "dtype": "int8"}, "bfloat16"),
    ("decoder", {"vocab_size": 9, "dtype": "float3"}, "float3.*bfloat16"),
    ("resnet", {"num_classes": 9, "depth": 19}, "18, 34, 50"),
    ("vit", {"num_classes": 9, "variant": "X/16"}, "Ti, S, B, L"),
    ("vit", {"num_classes": 9, "image_size": 30}, "image_size = 30"),
    ("gan", {"image_size": 27}, "image_size = 27"),
    ("stylegan2", {"image_size": 28, "base": 20}, "base = 20"),
    ("dncnn", {"channels": 1, "depth": 2}, "depth = 2"),
    ("unet", {"channels": 1, "widths": (30,)}, "width of 30"),
    ("dit", {"channels": 1, "image_size": 9}, "image_size = 9"),
    ("vae", {"channels": 1, "widths": (30,)}, "width 30"),
    ("vqvae", {"channels": 1, "codebook": "mean"}, "ema, gradient"),
    ("mixer", {"num_classes": 9, "variant": "Ti/16"}, "S, B, L"),
    ("convnext", {"num_classes": 9, "dims": (4,)}, "differ in length"),
  ):
    with pytest.raises(ValueError, match=message):
      get(name)(**kwargs)
  with pytest.raises(ValueError, match="max_len = 12"):
    model = tiny_decoder()
    model.apply(*init(model), tokens(17, (1, 13)))
  with pytest.raises(ValueError, match="unknown.*extra"):
    params, state = init(model)
    model.apply(params | {"extra": jnp.ones(1)}, state, tokens(17))


# --- attention -----------------------------------------------------------


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked_heads", [0, 1, 6])
def test_attention_is_the_formula(kv_heads, causal, masked_heads):
  B, T, N, H = 2, 5, 6, 4
  rng = np.random.default_rng(0)
  q = rng.normal(size=(B, T, N, H)).astype("float32")
  k, v = rng.normal(size=(2, B, T, kv_heads, H)).astype("float32")
  mask = rng.random((B, masked_heads or 1, T, T)) < 0.7
  mask |= np.eye(T, dtype=bool)
  if not masked_heads:
    mask = np.ones((1, 1, T, T), bool)
  want = np.zeros_like(q)
  for b in range(B):
    for n in range(N):
      group = n // (N // kv_heads)
      scores = q[b, :, n] @ k[b, :, group].T / np.sqrt(H)
      allowed = np.broadcast_to(mask, (B, N, T, T))[b, n]
      if causal:
        allowed = allowed & np.tri(T, dtype=bool)
      weights = np.exp(scores) * allowed
      weights /= weights.sum(-1, keepdims=True)
      want[b, :, n] = weights @ v[b, :, group]
  got = attention(
    q,
    k,
    v,
    causal=causal,
    mask_BNTS=jnp.asarray(mask) if masked_heads else None,
  )
  np.testing.assert_allclose(got, want, atol=1e-6)


# --- decoder -------------------------------------------------------------


@pytest.mark.parametrize(
  "kwargs", [{}, LLAMA, LLAMA | {"kv_heads": 1}, {"head_dim": 6}]
)
def test_decoding_with_a_cache_is_the_full_forward(kwargs):
  model = tiny_decoder(**kwargs)
  params, state = init(model)
  x = tokens(17, (2, 9))
  want, _ = model.apply(params, state, x)
  step = jax.jit(lambda x, cache: model.apply(params, state, x, cache=cache)[0])
  cache = model.init_cache(2, 12)
  got = []
  for start, stop in ((0, 4), (4, 6), (6, 7), (7, 8), (8, 9)):
    logits, cache = step(x[:, start:stop], cache)
    got.append(logits)
  np.testing.assert_allclose(np.concatenate(got, 1), want, atol=1e-5)
  assert int(cache["length"]) == 9


def test_causality():
  model = tiny_decoder()
  params, state = init(model)
  x = tokens(17, (1, 9))
  before, _ = jitted(model)(params, state, x)
  after, _ = jitted(model)(params, state, x.at[0, 5].add(1) % 17)
  np.testing.assert_array_equal(before[:, :5], after[:, :5])
  assert (jnp.abs(before - after)[:, 5:].max(axis=-1) > 0).all()


@pytest.mark.parametrize("kwargs", slow_but([LLAMA], [{}, LLAMA]))
def test_a_prefix_is_seen_by_all_and_the_rest_is_causal(kwargs):
  model = tiny_decoder(**kwargs)
  params, state = init(model)
  x, prefix_B = tokens(17), jnp.asarray([4, 1])

  def logits(x, prefix_B=prefix_B):
    return model.apply(params, state, x, prefix_B=prefix_B)[0]

  want = logits(x)
  # What is changed at 3 changes row 0 everywhere, and row 1 from there on.
  moved = jnp.abs(logits(x.at[:, 3].set((x[:, 3] + 1) % 17)) - want).max(-1)
  assert (moved[0] > 0).all()
  assert (moved[1, :3] == 0).all()
  assert (moved[1, 3:] > 0).all()
  # What comes after the prefix changes nothing before it.
  moved = jnp.abs(logits(x.at[:, 6].set((x[:, 6] + 1) % 17)) - want).max(-1)
  assert (moved[:, :6] == 0).all()
  # No prefix, or one of the first token alone, is causal.
  plain, _ = model.apply(params, state, x)
  for size in (0, 1):
    got = logits(x, jnp.full(2, size))
    np.testing.assert_allclose(got, plain, atol=1e-6)
  # A cache that took the prefix at once goes on from it.
  cache, parts = model.init_cache(2, 9), []
  for start, stop in ((0, 5), (5, 6), (6, 9)):
    part, cache = model.apply(
      params, state, x[:, start:stop], cache=cache, prefix_B=prefix_B
    )[0]
    parts.append(part)
  np.testing.assert_allclose(np.concatenate(parts, 1), want, atol=1e-5)


def test_places_within_a_blank_have_an_embedding():
  model = tiny_decoder(block_positions=True)
  params, state = init(model)
  table = params["block_position_embedding"]["embedding"]
  x, places = tokens(17), jnp.asarray([[0, 0, 1, 2, 3, 1, 2, 3, 4]])
  got, _ = model.apply(params, state, x, block_positions_BT=places)
  # The embedding of positions may as well hold them.
  plain = {k: v for k, v in params.items() if k != "block_position_embedding"}
  position = params["position_embedding"]["embedding"]
  sums = position.at[:9].add(table[places[0]])
  plain["position_embedding"] = {"embedding": sums}
  want, _ = tiny_decoder().apply(plain, state, x)
  np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.slow
def test_scan_and_remat_change_no_loss_and_no_gradient():
  x = tokens(17)
  params, state = init(tiny_decoder())

  def value_and_grad(**kwargs):
    model = tiny_decoder(dropout=0.3, **kwargs)

    def loss(params):
      logits, _ = model.apply(
        params, state, x, rng=jax.random.key(3), train=True
      )
      return jnp.mean(jax.nn.logsumexp(logits, -1) - logits[..., 0])

    return jax.tree.leaves(jax.jit(jax.value_and_grad(loss))(params))

  want = value_and_grad()
  for kwargs in (
    {"scan": False},
    {"remat": "full"},
    {"remat": "dots"},
    {"remat": "full", "scan": False},
  ):
    for one_want, one_got in zip(want, value_and_grad(**kwargs), strict=True):
      np.testing.assert_allclose(one_got, one_want, rtol=1e-5, atol=1e-6)


def test_compiled_program_does_not_grow_with_depth():
  def size(layers):
    model = tiny_decoder(layers=layers)
    params, state = jax.eval_shape(model.init, jax.random.key(0))
    return len(jax.jit(model.apply).lower(params, state, tokens(17)).as_text())

  assert size(32) < 1.05 * size(2)


def test_initialization_is_gpt2s():
  model = get("decoder")(vocab_size=500, layers=8, dim=128)
  params, _ = init(model)
  blocks = params["blocks"]
  for kernel, std in (
    (params["token_embedding"]["embedding"], 0.02),
    (params["position_embedding"]["embedding"], 0.02),
    (blocks["attention"]["query"]["kernel"], 0.02),
    (blocks["feed_forward"]["up"]["kernel"], 0.02),
    (blocks["attention"]["out"]["kernel"], 0.02 / 16**0.5),
    (blocks["feed_forward"]["down"]["kernel"], 0.02 / 16**0.5),
  ):
    np.testing.assert_allclose(kernel.std(), std, rtol=0.02)
  first, second = blocks["attention"]["query"]["kernel"][:2]
  assert jnp.abs(first - second).max() > 0.01


@pytest.mark.parametrize(
  "name",
  slow_but(
    ["decoder", "convnext"], ["decoder", "vit", "conv", "resnet", "convnext"]
  ),
)
def test_dropout_is_for_training_and_follows_the_key(name):
  kwargs, x = {
    "decoder": ({"vocab_size": 17, "dim": 16}, tokens(17)),
    "vit": (
      {"image_size": 8, "patch": 4, "dim": 16, "heads": 2, "layers": 2},
      image(8, 3),
    ),
    "conv": ({"image_size": 8, "channels": 3}, image(8, 3)),
    "resnet": ({"width": 4, "stem": "cifar", "blocks": (1, 2)}, image(8, 3, 8)),
    "convnext": (
      {"depths": (1, 1), "dims": (4, 6), "layer_scale": 1.0},
      image(8, 3, 8),
    ),
  }[name]
  rates = {"convnext": {"drop_path": 0.5}, "resnet": {"drop_path": 0.5}}
  if name != "decoder":
    kwargs = kwargs | {"num_classes": 5}
  plain = get(name)(**kwargs)
  model = get(name)(**rates.get(name, {"dropout": 0.5}), **kwargs)
  params, state = init(model)
  method = "features"  # a vision transformer's logits start at zero
  want, _ = jitted(plain)(params, state, x, method=method)
  apply = jitted(model)

  def run(**how):
    return apply(params, state, x, method=method, **how)[0]

  np.testing.assert_array_equal(run(), want)
  np.testing.assert_array_equal(run(rng=jax.random.key(0)), want)
  one = run(rng=jax.random.key(1), train=True)
  np.testing.assert_array_equal(one, run(rng=jax.random.key(1), train=True))
  assert jnp.abs(one - run(rng=jax.random.key(2), train=True)).max() > 0.01
  with pytest.raises(ValueError, match="rng"):
    run(train=True)


def test_layers_drop_out_independently():
  model = tiny_decoder(dropout=0.5, layers=2)
  params, state = jax.tree.map(jnp.zeros_like, init(model))
  params["final_norm"]["scale"] += 1
  # Each layer now adds ones: twice the same mask could not leave three values.
  params["blocks"]["attention"]["out"]["bias"] += 1
  x_BTD, _ = model.apply(
    params,
    state,
    tokens(17),
    rng=jax.random.key(0),
    train=True,
    method="features",
  )
  distinct = [len(np.unique(row)) for row in x_BTD.reshape(-1, 16)]
  assert max(distinct) == 3


def test_stochastic_depth_drops_whole_examples():
  layer = stochastic_depth.stochastic_depth(0.25, 4, nnx.Rngs(0))
  layer.deterministic = False
  y_BHWC = np.asarray(layer(jnp.ones((400, 2, 2, 3))))
  found = {tuple(np.unique(example)) for example in y_BHWC}
  assert found == {(0.0,), (np.float32(4 / 3),)}
  assert 0.65 < (y_BHWC[:, 0, 0, 0] > 0).mean() < 0.85
  assert stochastic_depth.rates_of_depth(0.2, 3) == [0.0, 0.1, 0.2]


@pytest.mark.parametrize("version", [1, 2])
def test_blocks_with_zero_init_begin_as_their_shortcuts(version):
  model = get("resnet")(
    **WIDE | {"version": version, "blocks": (3,)},
    num_classes=2,
    bottleneck=False,
    width=4,
    zero_init=True,
  )
  params, state = init(model)
  x = image(8, 3)
  want, _ = model.apply(params, state, x, method="stages")
  # The blocks of the same width add nothing, whatever is in them.
  for block in params["blocks"].values():
    block["convs"]["0"]["conv"]["kernel"] += 1.0
  got, _ = model.apply(params, state, x, method="stages")
  np.testing.assert_array_equal(got[0], want[0])
  assert np.asarray(want[0]).std() > 0.1


# --- batch statistics ----------------------------------------------------


@pytest.mark.parametrize("name", ["resnet", "conv"])
def test_batch_statistics_change_in_training_alone(name):
  kwargs = {"num_classes": 5, "channels": 3}
  if name == "conv":
    kwargs |= {"image_size": 16, "batchnorm": True}
  else:
    kwargs |= {"width": 4}
  model = get(name)(**kwargs)
  params, state = init(model)
  x = image(16, 3)
  _, same = jitted(model)(params, state, x)
  _, moved = jitted(model)(params, state, x, train=True)
  for before, after, later in zip(
    *(jax.tree.leaves(tree) for tree in (state, same, moved)), strict=True
  ):
    np.testing.assert_array_equal(before, after)
    assert jnp.abs(before - later).max() > 1e-4


def test_a_pooled_gradient_is_that_of_each_operation_alone():
  """However it is compiled: a pixel may be computed anew, rounded otherwise."""
  x_BHWC = np.random.default_rng(0).normal(size=(8, 8, 8, 1))
  by_BHWC = np.random.default_rng(1).normal(size=(8, 4, 4, 1))

  def pooled(x):
    y = conv.max_pool(jax.nn.relu(layers.BatchNorm(1)(x)))
    return (y * jnp.float32(by_BHWC)).sum()

  x_BHWC = jnp.float32(x_BHWC)
  with jax.disable_jit():
    alone = jax.grad(pooled)(x_BHWC)
  found = jax.jit(jax.grad(pooled))(x_BHWC)
  np.testing.assert_allclose(found, alone, atol=1e-6)


def test_the_first_of_equal_pixels_takes_the_gradient_and_nan_stays():
  x_BHWC = jnp.float32([[3, 3, 9], [1, 3, 9], [9, 9, 9]]).reshape(1, 3, 3, 1)
  value, back = jax.vjp(conv.max_pool, x_BHWC)
  assert value.ravel().tolist() == [3]
  (found,) = back(jnp.ones_like(value))
  assert found.ravel().tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0]
  for place in range(4):
    x_B22C = jnp.zeros(4).at[place].set(jnp.nan).reshape(1, 2, 2, 1)
    assert jnp.isnan(conv.max_pool(x_B22C)).all()


def test_a_wider_pooling_is_the_largest_of_its_windows():
  x_BHWC = np.random.default_rng(0).normal(size=(2, 7, 8, 3))
  wanted = np.zeros((2, 2, 2, 3))
  for i, j in np.ndindex(2, 2):
    window = x_BHWC[:, 3 * i : 3 * i + 3, 3 * j : 3 * j + 3]
    wanted[:, i, j] = window.max((1, 2))
  found = conv.max_pool(jnp.float32(x_BHWC), 3)
  np.testing.assert_allclose(found, np.float32(wanted))
  np.testing.assert_array_equal(conv.max_pool(x_BHWC, 1), x_BHWC)


def test_a_valid_convolution_sees_no_padding():
  """By the definition, in loops; then each pooled and unpooled size."""
  settings = dict(num_classes=3, channels=2, image_size=6, features=(2, 4, 5))
  model = conv.conv(**settings, padding="valid", pooling=(1, 1))
  params, state = model.init(jax.random.key(0))
  params = jax.tree.map(np.asarray, params)
  assert params["dense"]["0"]["kernel"].shape == (2 * 2 * 4, 5)
  image = np.random.default_rng(0).normal(size=(1, 6, 6, 2))
  x = image
  for layer in ("0", "1"):
    kernel = np.asarray(params["convs"][layer]["kernel"], float)
    size = x.shape[1] - 2
    y = np.zeros((1, size, size, kernel.shape[-1]))
    for i, j in np.ndindex(size, size):
      patch = x[0, i : i + 3, j : j + 3]
      y[0, i, j] = np.einsum("hwi,hwio->o", patch, kernel)
    x = np.maximum(y + np.asarray(params["convs"][layer]["bias"]), 0)
  dense = params["dense"]["0"]
  wanted = np.maximum(x.reshape(1, -1) @ dense["kernel"] + dense["bias"], 0)
  found, _ = model.apply(params, state, jnp.float32(image), method="features")
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  ("settings", "said"),
  [
    (dict(padding="full"), "padding = 'full'"),
    (dict(pooling=(2,)), r"pooling = \(2,\)"),
    (dict(pooling=(0, 2)), r"pooling = \(0, 2\)"),
    (dict(image_size=4, padding="valid"), "4 x 4 are too small"),
    (dict(image_size=3), "3 x 3 are too small"),
  ],
)
def test_images_that_the_poolings_leave_nothing_of(settings, said):
  given = dict(num_classes=3, channels=1, image_size=8) | settings
  with pytest.raises(ValueError, match=said):
    conv.conv(**given)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "identity"])
def test_the_activations_of_a_perceptron_are_numpys(activation):
  functions = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "identity": lambda x: x,
  }
  model = mlp.mlp(
    in_features=3, out_features=2, hidden=(4,), activation=activation
  )
  params, state = model.init(jax.random.key(0))
  params = jax.tree.map(np.asarray, params)
  x = np.random.default_rng(0).normal(size=(5, 3))
  first, last = (params["layers"][i] for i in ("0", "1"))
  hidden = functions[activation](x @ np.asarray(first["kernel"], float))
  wanted = hidden @ np.asarray(last["kernel"]) + last["bias"]
  found, _ = model.apply(params, state, jnp.float32(x))
  np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
