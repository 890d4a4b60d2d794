"""Attention against NumPy in float64, and each kernel against the plain one."""

import functools
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from tiers import slow_but

from models.layers import attention_splash, partition, transformer
from models.layers.attention import SelfAttention, attention, rotary

OPTIONS = {
  "full": {},
  "causal": {"causal": True},
  "window": {"window": 5},
  "soft_cap": {"soft_cap": 0.7},
  "segments": {"segments": True},
  "all": {"causal": True, "window": 6, "soft_cap": 0.7, "segments": True},
}
MESHES = [
  {"context": 2},
  {"context": 4},
  {"context": 8},
  {"data": 2, "context": 4},
  {"context": 2, "tensor": 2},
]


def softmax_attention(
  q, k, v, causal=False, window=None, soft_cap=None, segments_BT=None
):
  """The definition, head by head and position by position, in float64."""
  q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
  out = np.zeros(q.shape)
  for b, t, n in np.ndindex(*q.shape[:3]):
    kept = n // (q.shape[2] // k.shape[2])
    scores = k[b, :, kept] @ q[b, t, n] / np.sqrt(q.shape[-1])
    if soft_cap is not None:
      scores = soft_cap * np.tanh(scores / soft_cap)
    for s in range(k.shape[1]):
      after = (causal or window is not None) and s > t
      before = window is not None and s <= t - window
      other = segments_BT is not None and (
        segments_BT[b, s] != segments_BT[b, t]
      )
      if after or before or other:
        scores[s] = -np.inf
    weights = np.exp(scores - scores.max())
    out[b, t, n] = weights @ v[b, :, kept] / weights.sum()
  return out


def draw(B, T, N, K, H, S=None, dtype=jnp.float32):
  keys = jax.random.split(jax.random.key(0), 3)
  shapes = ((B, T, N, H), (B, S or T, K, H), (B, S or T, K, H))
  return tuple(
    jax.random.normal(key, shape).astype(dtype)
    for key, shape in zip(keys, shapes, strict=True)
  )


def documents(B, T):
  """Rows of two documents of unlike lengths and some padding."""
  segments = np.zeros((B, T), np.int32)
  for b in range(B):
    first, last = T // 3 + b, T - 2 - b
    segments[b, :first], segments[b, first:last] = 1, 2
  return segments


def options_of(name, B, T):
  options = dict(OPTIONS[name])
  if options.pop("segments", False):
    options["segments_BT"] = documents(B, T)
  return options


def mesh_of(**sizes):
  count = int(np.prod(list(sizes.values())))
  return jax.sharding.Mesh(
    np.array(jax.devices()[:count]).reshape(tuple(sizes.values())),
    tuple(sizes),
    axis_types=(AxisType.Auto,) * len(sizes),
  )


def close(got, want, atol=1e-5):
  np.testing.assert_allclose(
    np.asarray(got, np.float64), np.asarray(want, np.float64), atol=atol, rtol=0
  )


# --- the entry ------------------------------------------------------------


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("name", OPTIONS)
def test_each_option_is_the_formula(name, kv_heads):
  B, T = 2, 12
  qkv, options = draw(B, T, 4, kv_heads, 8), options_of(name, B, T)
  close(attention(*qkv, **options), softmax_attention(*qkv, **options), 2e-6)


def test_a_window_counts_the_position_itself():
  q, k, v = draw(1, 6, 1, 1, 4)
  close(attention(q, k, v, window=1), v, 1e-6)


def with_gradients(qkv, call):
  """(outputs, gradients of a weighted sum of them), jitted."""
  weights = jax.random.normal(jax.random.key(1), qkv[0].shape)

  def loss(*qkv):
    out = call(*qkv)
    return jnp.sum(out.astype(jnp.float32) * weights), out

  step = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))
  gradients, out = step(*qkv)
  return out, gradients


def sharded_like_one_device(sizes, options, kv_heads=2):
  """The ring's outputs and gradients, in natural order, beside one device's."""
  qkv = draw(2, 32, 4, kv_heads, 8)
  order = partition.zigzag(32, sizes.get("context", 1))

  def laid_out(*qkv):
    laid = dict(options)
    if "segments_BT" in laid:
      laid["segments_BT"] = jnp.asarray(laid["segments_BT"])[:, order]
    out = attention(*(x[:, order] for x in qkv), **laid)
    return out[:, np.argsort(order)]

  want = with_gradients(qkv, functools.partial(attention, **options))
  with jax.set_mesh(mesh_of(**sizes)):
    got = with_gradients(qkv, laid_out)
  jax.tree.map(close, got, want)


@pytest.mark.parametrize("sizes", slow_but(MESHES[3:], MESHES), ids=str)
def test_a_ring_is_one_device(sizes):
  sharded_like_one_device(sizes, options_of("all", 2, 32))


@pytest.mark.parametrize(
  "name", slow_but(["window"], [n for n in OPTIONS if n != "all"])
)
def test_a_ring_has_each_option(name):
  sharded_like_one_device({"data": 2, "context": 4}, options_of(name, 2, 32))


@pytest.mark.parametrize("kv_heads", slow_but([2], [1, 2, 4]))
@pytest.mark.parametrize("sizes", [{"tensor": 4}, {"context": 2, "tensor": 4}])
def test_heads_are_cut_however_few_serve_them(sizes, kv_heads):
  sharded_like_one_device(sizes, {"causal": True}, kv_heads)


def test_a_ring_within_a_shard_map():
  qkv = draw(2, 16, 2, 1, 4)
  want = attention(*qkv, causal=True)
  order = partition.zigzag(16, 4)

  @jax.jit
  def outer(*qkv):
    inner = jax.shard_map(
      functools.partial(attention, causal=True),
      in_specs=P("data"),
      out_specs=P("data"),
      axis_names={"data"},
      check_vma=False,
    )
    return inner(*(x[:, order] for x in qkv))

  with jax.set_mesh(mesh_of(data=2, context=4)):
    close(outer(*qkv), want[:, order])


def test_a_sequence_that_no_ring_can_cut():
  qkv = draw(1, 6, 2, 2, 4)
  with jax.set_mesh(mesh_of(context=4)):
    close(attention(*qkv), softmax_attention(*qkv))
    with pytest.raises(ValueError, match="8 equal chunks"):
      attention(*qkv, causal=True)


def sends(text):
  """How often a device sends, by collective: its loops count their turns."""
  parts = re.split(r"\n(?=%|ENTRY)", text)
  bodies = {re.match(r"(?:ENTRY )?(%\S+)", part)[1]: part for part in parts[1:]}
  turns = {
    body: int(count)
    for body, count in re.findall(
      r"body=(%[\w.]+),.*?known_trip_count.*?(\d+)", text
    )
  }
  kinds = "all-gather|all-to-all|all-reduce|reduce-scatter|collective-permute"
  found = {}
  for name, part in bodies.items():
    for kind in re.findall(rf"({kinds})(?:-start)?\(", part):
      found[kind] = found.get(kind, 0) + turns.get(name, 1)
  return found


@pytest.fixture(scope="module")
def ring_programs():
  """The compiled forward pass and its gradient, on a ring of 4."""
  mesh = mesh_of(context=4)
  along = NamedSharding(mesh, P(None, "context"))
  with jax.set_mesh(mesh):
    qkv = [
      jax.ShapeDtypeStruct((1, 4096, n, 16), jnp.float32, sharding=along)
      for n in (2, 1, 1)
    ]

    def loss(*qkv):
      return jnp.sum(attention(*qkv, causal=True) ** 2)

    forward = jax.jit(functools.partial(attention, causal=True))
    backward = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    return [f.lower(*qkv).compile() for f in (forward, backward)]


def test_a_ring_sends_what_theory_says(ring_programs):
  forward, backward = (sends(program.as_text()) for program in ring_programs)
  # k and v, n - 1 times; then again, and their gradients n times.
  assert forward == {"collective-permute": 2 * 3}
  assert backward == {"collective-permute": 2 * 3 + 2 * 3 + 2 * 4}


@pytest.mark.parametrize("policy", ["full", "attention", None])
def test_a_ring_never_holds_its_scores(policy):
  """Nor what they are computed from, in a scan over layers, under remat."""
  mesh = mesh_of(context=4)
  x_BTNH = jax.ShapeDtypeStruct(
    (1, 4096, 2, 16),
    jnp.float32,
    sharding=NamedSharding(mesh, P(None, "context")),
  )

  def layer(x_BTNH, _):
    return attention(x_BTNH, x_BTNH, x_BTNH, causal=True), None

  if policy is not None:
    policy = transformer.REMAT[policy]
    layer = jax.checkpoint(layer, policy=policy, prevent_cse=False)

  def loss(x_BTNH):
    return jnp.sum(jax.lax.scan(layer, x_BTNH, length=2)[0] ** 2)

  with jax.set_mesh(mesh):
    program = jax.jit(jax.grad(loss)).lower(x_BTNH).compile()
  all_scores = 4 * 2 * 1024 * 4096  # float32, 2 heads, this device's queries
  assert program.memory_analysis().temp_size_in_bytes < all_scores / 2


# --- kernels --------------------------------------------------------------


@pytest.mark.parametrize("name", slow_but(["all"], ["causal", "all"]))
@pytest.mark.parametrize("sizes", [{}, {"data": 2, "tensor": 2}], ids=str)
def test_splash_is_the_plain_path(name, sizes, monkeypatch):
  monkeypatch.setattr(attention_splash, "BLOCKS", (128,))
  B, T = 2, 256
  qkv, options = draw(B, T, 2, 2, 64), options_of(name, B, T)
  if "window" in options:
    options["window"] = 70
  want = with_gradients(qkv, functools.partial(attention, **options))
  splash = functools.partial(attention_splash.splash, **options, interpret=True)
  if not sizes:
    got = with_gradients(qkv, splash)
  else:
    with jax.set_mesh(mesh_of(**sizes)):
      got = with_gradients(qkv, splash)
  jax.tree.map(close, got, want)


B_TPU, T_TPU, N_TPU, K_TPU, H_TPU = 2, 1024, 4, 1, 64


def splash_program() -> str:
  """The gradient's program on a TPU mesh, under scan and remat."""
  from jax.experimental import topologies

  topology = topologies.get_topology_desc(
    platform="tpu", topology_name="v5e:2x2"
  )
  mesh = jax.sharding.Mesh(
    np.array(topology.devices).reshape(2, 2),
    ("fsdp", "tensor"),
    axis_types=(AxisType.Auto,) * 2,
  )
  B, T, N, K, H = B_TPU, T_TPU, N_TPU, K_TPU, H_TPU

  def layer(x_BTD, w_DI):
    qkv = jnp.split(x_BTD @ w_DI, [N * H, (N + K) * H], axis=-1)
    q_BTNH, k_BTKH, v_BTKH = (x.reshape(B, T, -1, H) for x in qkv)
    out_BTNH = attention(q_BTNH, k_BTKH, v_BTKH, causal=True)
    return x_BTD + out_BTNH.reshape(B, T, N * H), None

  def loss(w_LDI, x_BTD):
    policy = transformer.REMAT["attention"]
    body = jax.checkpoint(layer, policy=policy, prevent_cse=False)
    return jnp.sum(jax.lax.scan(body, x_BTD, w_LDI)[0] ** 2)

  def like(shape, *axes):
    sharding = NamedSharding(mesh, P(*axes))
    return jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=sharding)

  with jax.set_mesh(mesh):
    assert partition.platform() == "tpu"
    return (
      jax.jit(jax.grad(loss))
      .lower(
        like((2, N * H, (N + 2 * K) * H), None, "fsdp", "tensor"),
        like((B, T, N * H), "fsdp"),
      )
      .compile()
      .as_text()
    )


@pytest.mark.slow
def test_splash_compiles_for_a_tpu_on_a_mesh():
  """Under fsdp, tensor, scan and remat, by the TPU's own compiler.

  In a process of its own: once libtpu is loaded, JAX's profiler crashes.
  """
  pytest.importorskip("libtpu")
  done = subprocess.run(
    [sys.executable, "-c", "import attention_test as a; a.print_program()"],
    env={
      **os.environ,
      "PYTHONPATH": os.pathsep.join([*sys.path, os.path.dirname(__file__)]),
      "TPU_SKIP_MDS_QUERY": "1",
      "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    },
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  text = done.stdout
  for kernel in ("fwd", "dq", "dkv"):
    assert f"splash_mha_{kernel}" in text
  # What the policy keeps is not computed again.
  assert text.count("tpu_custom_call") == 3
  assert f"{T_TPU},{T_TPU}]" not in text


def print_program():
  print(splash_program())


@pytest.mark.parametrize("name", OPTIONS)
def test_cudnn_is_asked_for_the_same(name, monkeypatch):
  """By JAX's own plain version of what cuDNN is asked for."""
  asked, plain = [], jax.nn.dot_product_attention

  def stand_in(*args, implementation, **kwargs):
    asked.append(implementation)
    return plain(*args, implementation="xla", **kwargs)

  monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
  monkeypatch.setattr(partition, "platform", lambda: "gpu")
  B, T = 2, 12
  options = options_of(name, B, T)
  qkv = draw(B, T, 4, 2, 8, dtype=jnp.bfloat16)
  close(attention(*qkv, **options), softmax_attention(*qkv, **options), 0.03)
  assert asked == ([] if "soft_cap" in options else ["cudnn"])


# --- the module -----------------------------------------------------------


def self_attention(**options):
  return SelfAttention(
    16,
    heads=4,
    kv_heads=2,
    head_dim=8,
    causal=True,
    rope_theta=100.0,
    kernel_init=nnx.initializers.normal(0.3),
    out_init=nnx.initializers.normal(0.3),
    rngs=nnx.Rngs(0),
    **options,
  )


@pytest.mark.slow
def test_packed_is_unpacked():
  """Two documents in one row, as each in a row of its own with padding."""
  layer, T, first, second = self_attention(), 20, 7, 11
  x_TD = jax.random.normal(jax.random.key(0), (T, 16))
  weights_TD = jax.random.normal(jax.random.key(1), (T, 16))
  ends = first + second
  packed = {
    "x": x_TD[None],
    "weights": weights_TD.at[ends:].set(0)[None],
    "segments": jnp.array([[1] * first + [2] * second + [0] * (T - ends)]),
    "positions": jnp.array([[*range(first), *range(second), *range(T - ends)]]),
  }

  def alone(array_T, start, stop):
    filled = jnp.zeros_like(array_T)
    return filled.at[: stop - start].set(array_T[start:stop])

  cuts = ((0, first), (first, ends))
  unpacked = {
    "x": jnp.stack([alone(x_TD, *cut) for cut in cuts]),
    "weights": jnp.stack([alone(weights_TD, *cut) for cut in cuts]),
    "segments": jnp.array([[1] * n + [0] * (T - n) for n in (first, second)]),
    "positions": jnp.tile(jnp.arange(T)[None], (2, 1)),
  }
  graphdef, params = nnx.split(layer)

  @jax.jit
  def run(params, rows):
    def loss(params, x_BTD):
      out_BTD, _ = nnx.merge(graphdef, params)(
        x_BTD, segments_BT=rows["segments"], positions_BT=rows["positions"]
      )
      return jnp.sum(out_BTD * rows["weights"]), out_BTD

    return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, rows["x"])

  (got_params, got_x), got = run(params, packed)
  (want_params, want_x), want = run(params, unpacked)
  assert np.isfinite(got).all()
  for have, wanted in ((got, want), (got_x, want_x)):
    close(have[0, :first], wanted[0, :first], 1e-6)
    close(have[0, first:ends], wanted[1, :second], 1e-6)
  # Sums over all tokens, in another order.
  jax.tree.map(functools.partial(close, atol=1e-5), got_params, want_params)


@pytest.mark.parametrize("options", [{}, {"window": 3, "soft_cap": 0.5}])
def test_a_cache_changes_nothing(options):
  layer = self_attention(**options)
  x_BTD = jax.random.normal(jax.random.key(0), (2, 8, 16))
  want_BTD, _ = layer(x_BTD)
  cache = {name: jnp.zeros((2, 2, 8, 8)) for name in ("key", "value")}
  step = nnx.jit(lambda layer, *args: layer(*args))
  for t in range(8):
    got_BTD, cache = step(layer, x_BTD[:, t : t + 1], cache, t)
    close(got_BTD[:, 0], want_BTD[:, t], 1e-5)


def test_a_layer_on_a_ring_knows_its_positions():
  layer = self_attention(window=9)
  x_BTD = jax.random.normal(jax.random.key(0), (2, 16, 16))
  want_BTD, _ = layer(x_BTD)
  order = partition.zigzag(16, 2)
  with jax.set_mesh(mesh_of(data=2, context=2, tensor=2)):
    got_BTD, _ = nnx.jit(lambda layer, x: layer(x))(layer, x_BTD[:, order])
  close(got_BTD, want_BTD[:, order])


def test_rotary_takes_positions_by_the_row():
  x_BTNH = draw(2, 6, 2, 2, 8)[0]
  positions_BT = jnp.array([[0, 1, 2, 3, 4, 5], [0, 1, 2, 0, 1, 2]])
  got_BTNH = rotary(x_BTNH, positions_BT, 100.0)
  for row in range(2):
    x_1TNH = x_BTNH[row : row + 1]
    want_1TNH = rotary(x_1TNH, positions_BT[row], 100.0)
    np.testing.assert_array_equal(got_BTNH[row : row + 1], want_1TNH)
  # Angle t * theta^(-2h/H) for the pair (h, h + H/2), by hand for t = 5, h = 1.
  angle = 5 * 100.0 ** (-2 / 8)
  first, second = x_BTNH[0, 5, 0, 1], x_BTNH[0, 5, 0, 5]
  want = first * np.cos(angle) - second * np.sin(angle)
  close(got_BTNH[0, 5, 0, 1], want, 1e-6)


@pytest.mark.parametrize(
  "options, message",
  [
    ({"window": 0}, "window = 0"),
    ({"soft_cap": 0.0}, "soft_cap = 0.0"),
    ({"segments_BT": np.ones((1, 4), np.int32)}, "4 and 6"),
  ],
)
def test_wrong_options_are_named(options, message):
  with pytest.raises(ValueError, match=message):
    attention(*draw(1, 4, 1, 1, 4, S=6), **options)
  with pytest.raises(ValueError, match="cache"):
    self_attention()(
      jnp.zeros((1, 4, 16)), {}, segments_BT=np.ones((1, 4), np.int32)
    )
