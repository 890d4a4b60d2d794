import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.textbook import linear_regression
from train import build, loop
from train.checkpointing import checkpoint
from train.optimization import optax_names, optimizers

STEPS = 10


def tree(seed=0):
  rng = np.random.default_rng(seed)
  shapes = {
    "blocks": {"kernel": (2, 3, 4), "bias": (2, 4), "norm": (2, 3)},
    "token": {"embedding": (5, 3)},
  }
  return jax.tree.map(
    lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32),
    shapes,
    is_leaf=lambda x: isinstance(x, tuple),
  )


def quadratic(params):
  return sum(jnp.sum((leaf - 0.3) ** 2) for leaf in jax.tree.leaves(params))


def make(total_steps=STEPS, **config):
  return optimizers.make(config, total_steps)


def vector(seed=0):
  return np.random.default_rng(seed).normal(size=5).astype(np.float32)


def gradients(seed=1):
  """Given ones, exact in float32 and in float64, so that only updates round."""
  rng = np.random.default_rng(seed)
  return rng.normal(size=(STEPS, 5)).astype(np.float32)


def run(optimizer, start, grads):
  """Every iterate of one parameter, "kernel"."""
  params = {"kernel": jnp.asarray(start)}
  state = optimizer.init(params)
  step = jax.jit(
    lambda g, s, p: optimizer.update({"kernel": g}, s, p, jnp.float32(1))
  )
  found = []
  for g in grads:
    updates, state = step(jnp.asarray(g), state, params)
    params = optax.apply_updates(params, updates)
    found.append(np.asarray(params["kernel"]))
  return np.stack(found)


# The papers' equations in float64, t from 1; each yields the iterates.


def numpy_sgd(w, grads, lr=0.1):
  for g in grads:
    w = w - lr * g
    yield w


def numpy_momentum(w, grads, lr=0.1, mu=0.9):
  """Polyak 1964, as in Sutskever et al. 2013 (equations 1 and 2)."""
  v = 0
  for g in grads:
    v = mu * v - lr * g
    w = w + v
    yield w


def numpy_rmsprop(w, grads, lr=0.1, rho=0.9, eps=1e-8, inside=True):
  """Hinton, lecture 6e. optax adds eps inside the root; PyTorch, outside."""
  v = 0
  for g in grads:
    v = rho * v + (1 - rho) * g**2
    root = np.sqrt(v + eps) if inside else np.sqrt(v) + eps
    w = w - lr * g / root
    yield w


def numpy_adam(w, grads, lr=0.1, b1=0.9, b2=0.999, eps=1e-8, decay=0.0):
  """Kingma and Ba, algorithm 1; decay as Loshchilov and Hutter, algorithm 2.

  Their decay is multiplied by the schedule alone; ours, as optax's and
  PyTorch's, by the rate.
  """
  m = v = 0
  for t, g in enumerate(grads, 1):
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g**2
    direction = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
    w = w - lr * (direction + decay * w)
    yield w


def numpy_adamax(w, grads, lr=0.1, b1=0.9, b2=0.999, eps=1e-8):
  """Kingma and Ba, algorithm 2; eps, which it lacks, is optax's: on |g|."""
  m = u = 0
  for t, g in enumerate(grads, 1):
    m = b1 * m + (1 - b1) * g
    u = np.maximum(b2 * u, np.abs(g) + eps)
    w = w - lr / (1 - b1**t) * m / u
    yield w


@pytest.mark.parametrize(
  ("config", "reference"),
  [
    ({"name": "sgd"}, numpy_sgd),
    ({"name": "sgd", "momentum": 0.9}, numpy_momentum),
    ({"name": "momentum"}, numpy_momentum),
    ({"name": "rmsprop"}, numpy_rmsprop),
    (
      {"name": "rmsprop", "eps_in_sqrt": False, "eps": 1e-2},
      lambda w, g: numpy_rmsprop(w, g, eps=1e-2, inside=False),
    ),
    ({"name": "adam"}, numpy_adam),
    (
      {"name": "adam", "b1": 0.8, "b2": 0.9, "eps": 1e-2},
      lambda w, g: numpy_adam(w, g, b1=0.8, b2=0.9, eps=1e-2),
    ),
    (
      {"name": "adamw", "weight_decay": 0.1, "b2": 0.9},
      lambda w, g: numpy_adam(w, g, b2=0.9, decay=0.1),
    ),
    (  # decoupled decay of an optimizer that has none of its own
      {"name": "adam", "weight_decay": 0.1, "b2": 0.9},
      lambda w, g: numpy_adam(w, g, b2=0.9, decay=0.1),
    ),
    ({"name": "adamax"}, numpy_adamax),
  ],
)
def test_update_follows_the_paper(config, reference):
  start, grads = vector(), gradients()
  found = run(make(lr=0.1, **config), start, grads)
  wanted = list(reference(start.astype(float), grads.astype(float)))
  # 1e-6 of the parameters' size, 1: those that pass near 0 round the same. But
  # optax takes 1 - b2^t in float32, where b2 = 0.999 leaves 6e-8 / (1 - b2) =
  # 6e-5 of error, half of it after the root; times lr, for each of 10 steps.
  tolerance = 3e-5 if config == {"name": "adam"} else 1e-6
  np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=tolerance)


@pytest.mark.parametrize("name", ["nesterov", "sgd"])
def test_nesterov_is_sutskevers_at_the_lookahead(name):
  # v <- mu v - lr grad f(w + mu v); w <- w + v (Sutskever et al. 2013, eqs. 3,
  # 4). optax's iterate is w + mu v.
  start, mu, lr = vector().astype(float), 0.9, 0.1
  curvature = np.arange(1, 6) / 5
  w, v, wanted = start, 0, []
  for _ in range(STEPS):
    v = mu * v - lr * curvature * (w + mu * v)
    w = w + v
    wanted.append(w + mu * v)
  config = {"momentum": mu, "nesterov": True} if name == "sgd" else {}
  optimizer = make(name=name, lr=lr, **config)
  params = {"kernel": jnp.asarray(start, jnp.float32)}
  state = optimizer.init(params)
  for target in wanted:
    grads = {"kernel": params["kernel"] * jnp.asarray(curvature, jnp.float32)}
    updates, state = optimizer.update(grads, state, params)
    params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["kernel"], target, rtol=1e-6, atol=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize(
  ("config", "torch_name", "torch_config"),
  [
    ({"name": "nesterov"}, "SGD", {"momentum": 0.9, "nesterov": True}),
    (
      {"name": "adamw", "weight_decay": 0.1},
      "AdamW",
      {"weight_decay": 0.1},
    ),
    ({"name": "sgd", "l2": 0.1}, "SGD", {"weight_decay": 0.1}),
    ({"name": "adam", "l2": 0.1}, "Adam", {"weight_decay": 0.1}),
    ({"name": "rmsprop", "eps_in_sqrt": False, "decay": 0.99}, "RMSprop", {}),
    ({"name": "radam"}, "RAdam", {}),
  ],
)
def test_update_is_pytorchs(config, torch_name, torch_config):
  torch = pytest.importorskip("torch")
  start, grads = vector(), gradients()
  found = run(make(lr=0.1, **config), start, grads)
  w = torch.nn.Parameter(torch.tensor(start))
  theirs = getattr(torch.optim, torch_name)([w], lr=0.1, **torch_config)
  for ours, g in zip(found, grads, strict=True):
    w.grad = torch.tensor(g)
    theirs.step()
    # As above: 1 - b2^t, which PyTorch takes in float64.
    np.testing.assert_allclose(ours, w.detach(), rtol=1e-6, atol=3e-5)


def test_gradient_descent_on_a_linear_model_is_numpys():
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(20, 3)), rng.normal(size=20)
  weights, wanted = np.zeros(3), []
  for _ in range(STEPS):
    weights = weights - 0.1 * 2 / 20 * x.T @ (x @ weights - y)
    wanted.append(weights)
  optimizer = make(name="sgd", lr=0.1)
  params = {"kernel": jnp.zeros(3)}
  state = optimizer.init(params)
  x32, y32 = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)
  for target in wanted:
    grads = jax.grad(lambda p: jnp.mean((x32 @ p["kernel"] - y32) ** 2))(params)
    updates, state = optimizer.update(grads, state, params)
    params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params["kernel"], target, rtol=1e-6, atol=1e-7)


# Rates


def test_an_update_takes_the_rate_of_its_own_step():
  config = {"schedule": "linear", "warmup_steps": 3, "end_lr": 0.1}
  optimizer = make(name="sgd", lr=0.7, **config)
  params = {"kernel": jnp.ones(())}
  state = optimizer.init(params)
  for k in range(STEPS):
    wanted = 0.7 * k / 3 if k < 3 else 0.7 - 0.6 * (k - 3) / 7
    np.testing.assert_allclose(optimizer.learning_rate(state), wanted, 1e-6)
    updates, state = optimizer.update({"kernel": jnp.ones(())}, state, params)
    np.testing.assert_allclose(updates["kernel"], -wanted, 1e-6)


def test_plateau_halves_the_rate_after_patience():
  optimizer = make(
    name="sgd", lr=1.0, schedule="plateau", factor=0.5, patience=2, rtol=0.01
  )
  params = {"kernel": jnp.ones(())}
  state = optimizer.init(params)
  values = [1.0, 0.5, 0.5, 0.499, 0.6, 0.4, 0.4, 0.4, 0.3]
  rates = [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25]
  for value, rate in zip(values, rates, strict=True):
    assert optimizer.learning_rate(state) == rate
    updates, state = optimizer.update(
      {"kernel": jnp.ones(())}, state, params, jnp.float32(value)
    )
    assert updates["kernel"] == -rate


# Penalties, clipping, patterns


def one_update(config, grads, params):
  optimizer = make(**config)
  updates, _ = optimizer.update(grads, optimizer.init(params), params)
  return jax.tree.map(np.asarray, updates)


def test_penalties_spare_biases_scales_and_norms_unless_listed():
  params = {
    "kernel": jnp.asarray([-2.0, 0.0, 3.0]),
    "bias": jnp.asarray([5.0]),
    "norm": {"scale": jnp.asarray([5.0])},
  }
  grads = jax.tree.map(jnp.zeros_like, params)
  found = one_update({"name": "sgd", "lr": 1, "l1": 0.1}, grads, params)
  np.testing.assert_allclose(found["kernel"], [0.1, 0, -0.1], 1e-6)
  assert found["bias"] == found["norm"]["scale"] == 0
  found = one_update({"name": "sgd", "lr": 1, "l2": 0.1}, grads, params)
  np.testing.assert_allclose(found["kernel"], [0.2, 0, -0.3], 1e-6)
  assert found["bias"] == found["norm"]["scale"] == 0
  listed = {"name": "sgd", "lr": 1, "l2": [("bias", 0.1), ("kernel", 0.01)]}
  found = one_update(listed, grads, params)
  np.testing.assert_allclose(found["kernel"], [0.02, 0, -0.03], 1e-6)
  np.testing.assert_allclose(found["bias"], [-0.5], 1e-6)
  assert found["norm"]["scale"] == 0


@pytest.mark.parametrize("name", ["sgd", "adamw", "lion", "adafactor"])
def test_decay_is_rate_times_decay_times_parameter(name):
  params = tree()
  grads = jax.tree.map(lambda p: 0.1 * p, params)
  with_decay, without = (
    one_update({"name": name, "lr": 0.5, "weight_decay": w}, grads, params)
    for w in (0.1, 0.0)
  )
  decay = jax.tree.map(lambda a, b: a - b, with_decay, without)
  np.testing.assert_allclose(
    decay["blocks"]["kernel"], -0.05 * params["blocks"]["kernel"], 1e-4, 1e-6
  )
  np.testing.assert_allclose(
    decay["token"]["embedding"],
    -0.05 * params["token"]["embedding"],
    1e-4,
    1e-6,
  )
  # Two compiled programs may differ in the last bit.
  np.testing.assert_allclose(decay["blocks"]["bias"], 0, atol=1e-7)


def test_clipping_is_by_value_then_norm_and_before_penalties():
  params = {"a": jnp.asarray([10.0, 10.0]), "b": jnp.asarray([10.0])}
  grads = {"a": jnp.asarray([8.0, 2.0]), "b": jnp.asarray([-9.0])}
  base = {"name": "sgd", "lr": 1.0}
  found = one_update(base | {"clip_value": 4}, grads, params)
  np.testing.assert_array_equal(found["a"], [-4, -2])
  np.testing.assert_array_equal(found["b"], [4])
  both = base | {"clip_value": 4, "clip_norm": 3, "l2": 1}
  found = one_update(both, grads, params)  # the norm of (4, 2, -4) is 6
  np.testing.assert_allclose(found["a"], [-2 - 10, -1 - 10], 1e-6)
  np.testing.assert_allclose(found["b"], [2 - 10], 1e-6)
  frozen = base | {"clip_norm": 4.5, "freeze": ["a"]}
  found = one_update(frozen, grads, params)  # the norm is that of b alone
  np.testing.assert_array_equal(found["a"], [0, 0])
  np.testing.assert_allclose(found["b"], [4.5], 1e-6)
  below = one_update(base | {"clip_norm": 100}, grads, params)
  np.testing.assert_array_equal(below["a"], [-8, -2])


def test_first_regex_wins_for_rates_and_decays():
  params = tree()
  grads = jax.tree.map(jnp.ones_like, params)
  config = {
    "name": "sgd",
    "lr": [("blocks/(bias|norm)", 0.2), ("blocks", 0.4), (".*", 0.1)],
    "weight_decay": [("kernel", 0.5)],
    "schedule": "linear",
  }
  optimizer = make(**config)
  state = optimizer.init(params)
  for k in range(3):
    share = 1 - k / STEPS
    assert optimizer.learning_rate(state) == np.float32(0.4 * share)
    updates, state = optimizer.update(grads, state, params)
    for path, lr in (("bias", 0.2), ("norm", 0.2)):
      np.testing.assert_allclose(updates["blocks"][path], -lr * share, 1e-6)
    np.testing.assert_allclose(
      updates["blocks"]["kernel"],
      -0.4 * share * (1 + 0.5 * params["blocks"]["kernel"]),
      1e-5,
    )
    np.testing.assert_allclose(
      updates["token"]["embedding"], -0.1 * share, 1e-6
    )


def test_frozen_parameters_keep_still_and_have_no_moments():
  params = tree()
  optimizer = make(name="adam", lr=0.1, weight_decay=0.1, freeze=["^blocks/"])
  state = optimizer.init(params)
  sizes = [leaf.size for leaf in jax.tree.leaves(state) if leaf.ndim]
  assert sorted(sizes) == [15, 15]  # mu and nu of the embedding
  updates, _ = optimizer.update(params, state, params)
  assert not any(u.any() for u in jax.tree.leaves(updates["blocks"]))
  assert updates["token"]["embedding"].all()


def test_a_part_of_the_parameters_may_be_optimised_alone():
  config = {"lr": [("^generator/", 0.1), ("^discriminator/", 0.3)]}
  players = {"generator": tree(0), "discriminator": tree(1)}
  optimizers.check_patterns(config, players)
  optimizer = optimizers.make({"name": "sgd"} | config, STEPS)
  for player, lr in (("generator", 0.1), ("discriminator", 0.3)):
    own = {player: players[player]}
    updates, _ = optimizer.update(own, optimizer.init(own), own)
    for u, p in zip(*map(jax.tree.leaves, (updates, own)), strict=True):
      np.testing.assert_allclose(u, -lr * p, 1e-6)


# Every optimizer


def avals(state):
  return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), state)


@pytest.mark.parametrize("name", optax_names.names())
def test_every_optimizer_descends_with_a_state_of_arrays(name):
  params = tree()
  optimizer = make(name=name, lr=0.05, weight_decay=1e-3, freeze=["token"])

  def update(params, state):
    value, grads = jax.value_and_grad(quadratic)(params)
    updates, state = optimizer.update(grads, state, params, value)
    return optax.apply_updates(params, updates), state

  step = jax.jit(update)
  state = optimizer.init(params)
  assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(state))
  # Checkpoints cannot hold empty arrays.
  assert all(x.size for x in jax.tree.leaves(state))
  assert avals(jax.eval_shape(optimizer.init, params)) == avals(state)
  moved = params
  for _ in range(3):
    moved, new = step(moved, state)
    # The same types, or a compiled step would not take its own result.
    assert avals(new) == avals(state)
    state = new
  evaluated = optimizer.eval_params(state, moved)
  # In float64: methods that estimate their own rate start with tiny steps.
  before, after = (
    sum(np.sum((np.float64(p) - 0.3) ** 2) for p in jax.tree.leaves(found))
    for found in (params, evaluated)
  )
  assert after < before
  np.testing.assert_array_equal(
    moved["token"]["embedding"], params["token"]["embedding"]
  )


@pytest.mark.parametrize("name", optax_names.names())
def test_a_bfloat16_state_stays_one(name):
  params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), tree())
  optimizer = make(name=name, lr=[("kernel", 0.1), (".*", 0.2)])
  state = jax.eval_shape(optimizer.init, params)
  _, new = jax.eval_shape(
    optimizer.update, params, state, params, jnp.float32(1)
  )
  types = jax.tree.map(lambda x: (x.shape, x.dtype), (state, new))
  assert types[0] == types[1]


@pytest.mark.parametrize("name", optax_names.names())
def test_every_state_can_be_kept_in_bfloat16(name):
  params = tree()
  plain = jax.eval_shape(make(name=name, lr=0.1).init, params)
  optimizer = make(name=name, lr=0.1, state_dtype="bfloat16")
  state = jax.eval_shape(optimizer.init, params)
  _, new = jax.eval_shape(
    optimizer.update, params, state, params, jnp.float32(1)
  )

  def kept(x):
    narrow = jnp.issubdtype(x.dtype, jnp.floating) and x.ndim > 0
    return x.shape, jnp.dtype("bfloat16") if narrow else x.dtype

  wanted = jax.tree.map(kept, plain)
  for found in (state, new):
    assert jax.tree.map(lambda x: (x.shape, x.dtype), found) == wanted


@pytest.mark.parametrize(
  "config",
  [
    {"name": "adamw", "b2": 0.95, "weight_decay": 0.1},
    {"name": "momentum"},
    {"name": "lion"},
  ],
  ids=lambda config: config["name"],
)
def test_bfloat16_moments_are_computed_with_in_float32(config):
  """The update is that of the rounded moments, its own moments then rounded."""

  def rounded(tree):
    def one(x):
      if not jnp.issubdtype(x.dtype, jnp.floating):
        return x
      return x.astype(jnp.bfloat16).astype(jnp.float32)

    return jax.tree.map(one, tree)

  narrow = make(lr=0.1, state_dtype="bfloat16", **config)
  wide = make(lr=0.1, **config)
  start = {"kernel": jnp.asarray(vector())}
  states = narrow.init(start), wide.init(start)
  update = [jax.jit(optimizer.update) for optimizer in (narrow, wide)]
  for g in gradients():
    g = {"kernel": jnp.asarray(g)}
    found, new = update[0](g, states[0], start)
    wanted, new_wide = update[1](g, states[1], start)
    np.testing.assert_array_equal(found["kernel"], wanted["kernel"])
    states = new, rounded(new_wide)
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
      np.testing.assert_array_equal(np.asarray(a, b.dtype), b)


def test_bfloat16_moments_learn_as_well():
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(64, 8)), jnp.float32)
  y = jnp.tanh(x @ jnp.asarray(rng.normal(size=(8, 1)), jnp.float32))

  def loss(params):
    return jnp.mean((jnp.tanh(x @ params["up"]) @ params["down"] - y) ** 2)

  found = {}
  for dtype in (None, "bfloat16"):
    optimizer = make(200, name="adamw", lr=0.01, b2=0.95, state_dtype=dtype)

    def step(carry, _, optimizer=optimizer):
      params, state = carry
      updates, state = optimizer.update(jax.grad(loss)(params), state, params)
      return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(jax.random.key(0))
    params = {
      "up": 0.3 * jax.random.normal(keys[0], (8, 16)),
      "down": 0.3 * jax.random.normal(keys[1], (16, 1)),
    }
    start = loss(params)
    carry = (params, optimizer.init(params))
    (params, _), _ = jax.lax.scan(step, carry, length=200)
    found[dtype] = loss(params)
  assert found[None] < start / 50
  assert found["bfloat16"] == pytest.approx(found[None], rel=0.25)


def test_a_state_survives_a_checkpoint(tmp_path):
  ocp = pytest.importorskip("orbax.checkpoint")
  params = tree()
  optimizer = make(
    name="adamw",
    lr=[("kernel", 0.1), (".*", 0.2)],
    freeze=["token"],
    schedule="plateau",
  )
  state = optimizer.init(params)
  _, state = optimizer.update(params, state, params, jnp.float32(3))
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(tmp_path / "state", state)
    checkpointer.wait_until_finished()
    like = jax.eval_shape(optimizer.init, params)
    restored = checkpointer.restore(tmp_path / "state", like)
  assert jax.tree.structure(restored) == jax.tree.structure(state)
  for a, b in zip(*map(jax.tree.leaves, (state, restored)), strict=True):
    np.testing.assert_array_equal(a, b)


# Muon and schedule-free


def newton_schulz(g):
  """Jordan 2024: five steps of x <- a x + b x x'x + c x (x'x)^2."""
  rows, columns = g.shape
  x = (g if rows <= columns else g.T).astype(float)
  x = x / (np.linalg.norm(x) + 1e-8)
  for _ in range(5):
    a = x @ x.T
    x = 3.4445 * x + (-4.775 * a + 2.0315 * a @ a) @ x
  x = x if rows <= columns else x.T
  return x * math.sqrt(max(1, columns / rows))


@pytest.mark.parametrize("shape", [(3, 4, 6), (3, 6, 4), (2, 2, 5, 5), (4, 6)])
def test_muon_orthogonalises_each_stacked_matrix(shape):
  g = np.random.default_rng(0).normal(size=shape).astype(np.float32)
  tree = {"up": {"kernel": jnp.asarray(g)}}
  found = one_update({"name": "muon", "lr": 0.1}, tree, tree)
  wanted = [newton_schulz(m) for m in g.reshape(-1, *shape[-2:])]
  # The quintic multiplies rounding by about 3.4 a step, 3.4^5 = 480 eps.
  np.testing.assert_allclose(
    found["up"]["kernel"].reshape(-1, *shape[-2:]),
    -0.1 * np.stack(wanted),
    atol=0.1 * 480 * 6e-8,
  )


def test_muon_flattens_convolutions_and_leaves_the_rest_to_adam():
  rng = np.random.default_rng(0)
  shapes = {"conv1": (3, 3, 2, 5), "dense": (4, 6), "norm": (2, 4)}
  tree = {
    name: {"kernel" if name != "norm" else "scale": rng.normal(size=shape)}
    for name, shape in shapes.items()
  } | {"token": {"embedding": rng.normal(size=(5, 3))}}
  tree = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)
  found = one_update({"name": "muon", "lr": 0.1}, tree, tree)
  kernel = np.asarray(tree["conv1"]["kernel"])
  np.testing.assert_allclose(
    found["conv1"]["kernel"].reshape(18, 5),
    -0.1 * newton_schulz(kernel.reshape(18, 5)),
    atol=0.1 * 480 * 6e-8,
  )
  adam = one_update({"name": "nadam", "lr": 0.1}, tree, tree)
  for path in ("norm", "token"):
    for a, b in zip(*map(jax.tree.leaves, (found[path], adam[path]))):  # noqa: B905
      np.testing.assert_allclose(a, b, 1e-6)


@pytest.mark.parametrize("warmup", [0, 3])
def test_schedule_free_evaluates_the_average(warmup):
  # Defazio et al., arXiv:2405.15682, equations 3 to 5 and its weights:
  # y = (1 - b) z + b x; z <- z - r grad f(y); x <- (1 - c) x + c z, with
  # c = r^2 / sum of r^2 so far.
  b, lr = 0.9, 0.3
  params = {"kernel": jnp.asarray(vector()), "bias": jnp.asarray(vector(1))}
  optimizer = make(
    name="schedule_free_sgd",
    lr=[("kernel", lr), ("bias", lr / 3)],
    warmup_steps=warmup,
  )
  state = optimizer.init(params)
  for key, peak in (("kernel", lr), ("bias", lr / 3)):
    x = z = np.asarray(params[key], float)
    total = 0
    own, own_state = params, state
    for k in range(STEPS):
      y = (1 - b) * z + b * x
      np.testing.assert_allclose(own[key], y, rtol=1e-5, atol=1e-6)
      rate = peak * min(1, k / warmup) if warmup else peak
      total += rate**2
      c = rate**2 / total if total else 0
      z = z - rate * 2 * (y - 0.3)
      x = (1 - c) * x + c * z
      grads = jax.grad(quadratic)(own)
      updates, own_state = optimizer.update(grads, own_state, own)
      own = optax.apply_updates(own, updates)
      # x is recovered by dividing by b, each step: a few more roundings.
      average = optimizer.eval_params(own_state, own)[key]
      np.testing.assert_allclose(average, x, rtol=1e-5, atol=1e-6)


# Where the state lives


@pytest.mark.slow
@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")
def test_a_state_on_the_host_is_the_same_run(tmp_path):
  """Also through a checkpoint in the middle."""
  found = {}
  for memory in ("device", "host"):
    config = linear_regression.get_config("smoke")
    config.total_steps = 6
    config.evals = {}
    config.model.hidden = (8,)
    config.optimizer = dict(name="adam", lr=0.1, state_memory=memory)
    config.checkpoint = dict(every_steps=3)
    config.mesh = {"data": 2, "fsdp": 4}
    config.sharding = [(".*", "fsdp")]
    workdir = str(tmp_path / memory)
    for report in loop.fit(build.run(config, workdir)):
      if memory == "host" and report.step == 4:
        break
    run = build.run(config, workdir)
    list(loop.fit(run))
    run = build.run(config, workdir)
    state = checkpoint.restore(run.checkpoints, run.abstract_state, 6).state
    kinds = {
      x.sharding.memory_kind for x in jax.tree.leaves(state.opt_state) if x.ndim
    }
    assert kinds == {"pinned_host" if memory == "host" else "device"}
    assert {x.sharding.memory_kind for x in jax.tree.leaves(state[:2])} == {
      "device"
    }
    found[memory] = jax.tree.leaves(jax.device_get(state))
  for a, b in zip(*found.values(), strict=True):
    np.testing.assert_array_equal(a, b)


# Mistakes


@pytest.mark.parametrize(
  ("config", "message"),
  [
    ({"name": "adamm"}, 'no optimizer "adamm"; did you mean "adam'),
    ({"name": "gradient_descent"}, "no optimizer"),
    ({"name": "lbfgs"}, "line search"),
    ({"name": "dpsgd"}, "learner"),
    ({"name": "adamw", "weight_decy": 0.1}, 'did you mean "weight_decay"'),
    ({"name": "adam", "momentum": 0.9}, 'has no key "momentum"'),
    ({"name": "adam", "learning_rate": 0.9}, 'has no key "learning_rate"'),
    ({"schedule": "cosin"}, 'no schedule "cosin"; did you mean "cosine"'),
    ({"schedule": "cosine", "end_lrr": 1}, 'did you mean "end_lr"'),
    ({"schedule": "step"}, "boundaries"),
    ({"schedule": "wsd", "cooldown": "cubic"}, "cubic"),
    ({"schedule": "wsd", "cooldown_steps": 11}, "cooldown_steps=11"),
    ({"schedule": "polynomial_schedule"}, "needs the setting end_value="),
    ({"warmup_steps": -1}, "warmup_steps=-1"),
    ({"clip_norm": 0}, "clip_norm=0"),
    ({"lr": -1.0}, "negative number"),
    ({"lr": "fast"}, "lr='fast'"),
    ({"lr": [("(", 1.0)]}, "not a valid regex"),
    ({"lr": [["a", "b"]]}, "neither a number nor"),
    ({"freeze": "bias"}, "not a list"),
    ({"state_dtype": "bfloat"}, "state_dtype='bfloat' is none of"),
    ({"state_memory": "hsot"}, "state_memory='hsot' is none of"),
    ({"name": "rprop", "schedule": "cosine"}, "rprop"),
  ],
)
def test_a_mistake_is_named(config, message):
  with pytest.raises(ValueError) as error:
    make(**config)
  assert message in str(error.value)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  "config",
  [
    {"lr": [("blocks", 0.1), ("blocs", 0.1), (".*", 1)]},
    {"weight_decay": [("blocs", 0.1)]},
    {"l1": [("blocs", 0.1)]},
    {"l2": [("blocs", 0.1)]},
    {"freeze": ["blocs"]},
  ],
)
def test_a_regex_without_a_parameter_is_named(config):
  with pytest.raises(ValueError, match='"blocs" matches no parameter'):
    optimizers.make(config, STEPS, jax.eval_shape(tree))


def test_a_parameter_without_a_rate_is_named():
  optimizer = make(lr=[("blocks", 0.1)])
  with pytest.raises(ValueError, match='no regex matches "token/embedding"'):
    optimizer.init(tree())


def test_plateau_without_a_loss_is_named():
  optimizer = make(schedule="plateau")
  params = tree()
  with pytest.raises(ValueError, match="needs the loss"):
    optimizer.update(params, optimizer.init(params), params)


def test_a_key_of_both_goes_to_the_schedule_by_its_prefix():
  config = {"name": "adafactor", "schedule": "exponential", "lr": 1.0}
  optimizer = make(**config, decay_rate=0.7, schedule_decay_rate=0.25)
  state = optimizer.init(tree())._replace(count=jnp.int32(5))
  np.testing.assert_allclose(optimizer.learning_rate(state), 0.5, 1e-6)
