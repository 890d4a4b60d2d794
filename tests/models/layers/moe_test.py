"""The mixture of experts against loops, Mixtral, and itself on one device."""

import collections
import functools
import importlib
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P
from tiers import slow_but

from models.layers import grouped, moe, partition

B, T, D, F, E, J = 8, 8, 16, 32, 8, 2


def mixture(experts=E, choices=J, activation="swiglu", scale=0.3, **kwargs):
  """(graphdef, params), of weights large enough to matter."""
  init = nnx.initializers.normal(scale)
  module = moe.MixtureOfExperts(
    D,
    F,
    experts=experts,
    experts_per_token=choices,
    activation=activation,
    out_init=init,
    kernel_init=init,
    bias=True,
    rngs=nnx.Rngs(0),
    **kwargs,
  )
  return nnx.split(module)


def inputs(seed=1):
  return jax.random.normal(jax.random.key(seed), (B, T, D))


@functools.partial(jax.jit, static_argnums=0)
def apply(graphdef, params, *args):
  return nnx.merge(graphdef, params)(*args)


def arrays(params):
  """Kernels by name, NumPy float64."""
  tree = nnx.to_pure_dict(params)
  named = {"router": tree["router"]["kernel"]}
  named |= {name: leaf["kernel"] for name, leaf in tree["experts"].items()}
  return {name: np.float64(leaf) for name, leaf in named.items()}


def silu(x):
  return x / (1 + np.exp(-x))


def gelu(x):
  return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def by_loop(w, x_BTD, choices, mask_BT=None):
  """(y_BTD, load balance, router z), token by token, in float64."""
  x_MD = np.float64(x_BTD).reshape(-1, D)
  mask_M = np.ones(len(x_MD)) if mask_BT is None else np.ravel(mask_BT)
  experts = w["router"].shape[1]
  y_MD = np.zeros_like(x_MD)
  assigned_E, probability_E, z = np.zeros(experts), np.zeros(experts), 0.0
  for m, x_D in enumerate(x_MD):
    logits_E = x_D @ w["router"]
    best = np.argsort(-logits_E)[:choices]
    weights = np.exp(logits_E[best]) / np.exp(logits_E[best]).sum()
    for expert, weight in zip(best, weights, strict=True):
      h_F = x_D @ w["up"][expert]
      if "gate" in w:
        h_F = silu(x_D @ w["gate"][expert]) * h_F
      else:
        h_F = gelu(h_F)
      y_MD[m] += weight * (h_F @ w["down"][expert])
      assigned_E[expert] += mask_M[m]
    total = np.exp(logits_E).sum()
    probability_E += mask_M[m] * np.exp(logits_E) / total
    z += mask_M[m] * np.log(total) ** 2
  tokens = mask_M.sum()
  balance = experts * np.sum(
    assigned_E / (choices * tokens) * probability_E / tokens
  )
  return y_MD.reshape(x_BTD.shape), balance, z / tokens


def dense(w, x_BTD, choices):
  """The same by multiplying every token with every expert; differentiable."""
  logits_BTE = x_BTD @ w["router"]
  top_BTJ, chosen_BTJ = jax.lax.top_k(logits_BTE, choices)
  hot_BTJE = jax.nn.one_hot(chosen_BTJ, logits_BTE.shape[-1])
  weight_BTE = jnp.einsum(
    "BTJ,BTJE->BTE", jax.nn.softmax(top_BTJ, -1), hot_BTJE
  )
  up_BTEF = jnp.einsum("BTD,EDF->BTEF", x_BTD, w["up"])
  gate_BTEF = jnp.einsum("BTD,EDF->BTEF", x_BTD, w["gate"])
  h_BTEF = jax.nn.silu(gate_BTEF) * up_BTEF
  y_BTD = jnp.einsum("BTEF,EFD,BTE->BTD", h_BTEF, w["down"], weight_BTE)
  share_E = hot_BTJE.mean((0, 1, 2))
  probability_E = jax.nn.softmax(logits_BTE).mean((0, 1))
  z = jnp.square(jax.nn.logsumexp(logits_BTE, -1)).mean()
  return y_BTD, logits_BTE.shape[-1] * share_E @ probability_E, z


@pytest.mark.parametrize("activation", ["swiglu", "gelu"])
@pytest.mark.parametrize("choices", [1, 2, 3, E])
def test_values_are_those_of_a_loop_over_tokens_and_experts(
  activation, choices
):
  graphdef, params = mixture(choices=choices, activation=activation)
  x_BTD = inputs()
  mask_BT = np.arange(B * T).reshape(B, T) % 3 != 0
  y_BTD, losses = apply(graphdef, params, x_BTD, mask_BT)
  wanted, balance, z = by_loop(arrays(params), x_BTD, choices, mask_BT)
  np.testing.assert_allclose(y_BTD, wanted, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(losses["load_balance"], balance, rtol=1e-5)
  np.testing.assert_allclose(losses["router_z"], z, rtol=1e-5)
  assert all(loss.dtype == jnp.float32 for loss in losses.values())


def objective(outputs, weight_BTD):
  """A scalar in which every output counts."""
  y_BTD, losses = outputs
  return (
    jnp.vdot(y_BTD, weight_BTD)
    + 3 * losses["load_balance"]
    + 2 * losses["router_z"]
  )


@functools.partial(jax.jit, static_argnums=0)
def gradients(graphdef, params, x_BTD):
  """(those of the parameters and of x, the outputs), as pure dicts."""

  def loss(tree, x_BTD):
    filled = jax.tree.map(lambda leaf: leaf, params)
    nnx.replace_by_pure_dict(filled, tree)
    outputs = nnx.merge(graphdef, filled)(x_BTD)
    return objective(outputs, inputs(7)), outputs

  take = jax.grad(loss, (0, 1), has_aux=True)
  return take(nnx.to_pure_dict(params), x_BTD)


def test_gradients_are_those_of_dense_products():
  graphdef, params = mixture()

  def loss(w, x_BTD):
    y_BTD, balance, z = dense(w, x_BTD, J)
    return jnp.vdot(y_BTD, inputs(7)) + 3 * balance + 2 * z

  (given, x_given), _ = gradients(graphdef, params, inputs())
  w = {name: jnp.float32(leaf) for name, leaf in arrays(params).items()}
  wanted, x_wanted = jax.jit(jax.grad(loss, (0, 1)))(w, inputs())
  given = {"router": given["router"], **given["experts"]}
  for name, leaf in wanted.items():
    np.testing.assert_allclose(
      given[name]["kernel"], leaf, rtol=1e-4, atol=1e-4, err_msg=name
    )
  np.testing.assert_allclose(x_given, x_wanted, rtol=1e-4, atol=1e-4)


MESHES = [
  {"expert": 2},
  {"expert": 4},
  {"expert": 8},
  {"data": 2, "expert": 4},
  {"expert": 2, "tensor": 2},
  {"slice": 2, "tensor": 2, "context": 2},
  {"fsdp": 2, "expert": 2, "tensor": 2},
]


def mesh_of(**sizes):
  auto = (jax.sharding.AxisType.Auto,) * len(sizes)
  devices = jax.devices()[: math.prod(sizes.values())]
  shape = tuple(sizes.values())
  return jax.make_mesh(shape, tuple(sizes), axis_types=auto, devices=devices)


def placed(params, mesh):
  """The parameters, cut as SHARDING says but for the layers' axis."""

  def place(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    spec = next((s for r, s in moe.SHARDING if re.search(r, name)), P())
    parts = [axis if axis in mesh.shape else None for axis in spec[1:]]
    sharding = jax.sharding.NamedSharding(mesh, P(*parts))
    return jax.device_put(leaf, sharding)

  return jax.tree_util.tree_map_with_path(place, params)


def close(given, wanted):
  """1e-5 of the largest."""

  def check(a, b):
    size = max(1.0, float(np.abs(b).max()))
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * size)

  jax.tree.map(check, given, wanted)


def laid_out(params, mesh):
  """The parameters and inputs, on the mesh."""
  spec = partition.spec((B, T, D), "BRD", mesh)
  x_BTD = jax.device_put(inputs(), jax.sharding.NamedSharding(mesh, spec))
  return placed(params, mesh), x_BTD


@functools.cache
def on_one_device():
  return gradients(*mixture(), inputs())


@pytest.mark.parametrize("sizes", slow_but(MESHES[3:5], MESHES), ids=str)
def test_a_mesh_changes_nothing(sizes):
  graphdef, params = mixture()
  wanted = on_one_device()
  mesh = mesh_of(**sizes)
  with jax.set_mesh(mesh):
    close(gradients(graphdef, *laid_out(params, mesh)), wanted)


def collectives(function, graphdef, arguments):
  """How often the program has (operation, shape of its result)."""
  text = function.lower(graphdef, *arguments).compile().as_text()
  names = "all-gather|reduce-scatter|all-reduce|all-to-all|collective-permute"
  found = re.findall(rf"= (.*?) ({names})(?:-start)?\(", text)
  return collections.Counter(
    (operation, shape)
    for shapes, operation in found
    for shape in re.findall(r"\w+(\[[\d,]*\])", shapes)
  )


@pytest.mark.parametrize(
  "sizes",
  [
    {"expert": 4},
    {"expert": 2, "tensor": 2},
    {"data": 2, "expert": 4},
    {"fsdp": 2, "expert": 2},
  ],
  ids=str,
)
def test_a_group_gathers_and_scatters_activations_once(sizes):
  graphdef, params = mixture()
  group = math.prod(sizes.get(axis, 1) for axis in ("expert", "tensor"))
  replicas = math.prod(sizes.values()) // group
  M = B * T // replicas
  experts, hidden = E // sizes["expert"], F // sizes.get("tensor", 1)
  kernels = [[experts, D, hidden]] * 2 + [[experts, hidden, D]]
  forward = [
    ("all-gather", [M, 2 * J]),  # weights and choices
    ("all-gather", [M, D]),
    ("reduce-scatter", [M // group, D]),
    ("all-reduce", [2 * E + 2]),  # of the losses
  ]
  backward = [
    ("reduce-scatter", [M // group, 2 * J]),
    ("reduce-scatter", [M // group, D]),
    ("all-gather", [M, D]),
    ("all-reduce", [D, E]),  # of the router's gradient
  ]
  if "fsdp" in sizes:
    forward += [("all-gather", kernel) for kernel in kernels]
    halves = [[experts, D, F // 2]] * 2 + [[experts, F // 2, D]]
    backward += [("reduce-scatter", half) for half in halves]
  elif replicas > 1:
    backward += [("all-reduce", kernel) for kernel in kernels]

  def count(expected):
    return collections.Counter(
      (name, str(shape).replace(" ", "")) for name, shape in expected
    )

  mesh = mesh_of(**sizes)
  with jax.set_mesh(mesh):
    arguments = laid_out(params, mesh)
    given = collectives(apply, graphdef, arguments)
    assert given == count(forward)
    given = collectives(gradients, graphdef, arguments)
    assert given == count(forward + backward)


def aimed(params, direction):
  """The parameters with a router that sends every x with x_0 > 0 by it."""
  tree = nnx.to_pure_dict(params)
  router_DE = np.zeros((D, E), np.float32)
  router_DE[0] = direction
  tree["router"]["kernel"] = jnp.asarray(router_DE)
  nnx.replace_by_pure_dict(params, tree)
  return params


@pytest.mark.parametrize("sizes", [{}, {"expert": 8}], ids=str)
def test_nothing_is_dropped_when_all_want_the_same_experts(sizes):
  graphdef, params = mixture()
  params = aimed(params, [0, 1, 0, 0, 0, 2, 0, 0])
  x_BTD = inputs().at[..., 0].set(3.0)
  wanted, _, _ = by_loop(arrays(params), x_BTD, J)
  with jax.set_mesh(mesh_of(**sizes)):
    y_BTD, _ = apply(graphdef, params, x_BTD)
  np.testing.assert_allclose(y_BTD, wanted, rtol=1e-5, atol=1e-5)
  assert np.abs(wanted).min(-1).max() > 0


def test_losses_by_hand():
  graphdef, params = mixture(choices=1)
  # One logit is 300, the others 0: all the probability is one expert's, and
  # log sum exp is the logit.
  collapsed = aimed(params, [0, 0, 0, 100, 0, 0, 0, 0])
  x_BTD = inputs().at[..., 0].set(3.0)
  _, losses = apply(graphdef, collapsed, x_BTD)
  assert float(losses["load_balance"]) == pytest.approx(E)
  assert float(losses["router_z"]) == pytest.approx(300.0**2)
  # All logits 0: each probability is 1 / E, whatever is chosen.
  _, losses = apply(graphdef, aimed(params, np.zeros(E)), x_BTD)
  assert float(losses["load_balance"]) == pytest.approx(1)
  assert float(losses["router_z"]) == pytest.approx(math.log(E) ** 2)
  # Each expert certain of an eighth of the tokens.
  tree = nnx.to_pure_dict(params)
  tree["router"]["kernel"] = 100 * jnp.eye(D, E)
  nnx.replace_by_pure_dict(params, tree)
  x_BTD = jnp.broadcast_to(jnp.eye(T, D)[None], (B, T, D))
  _, losses = apply(graphdef, params, x_BTD)
  assert float(losses["load_balance"]) == pytest.approx(1)


@pytest.mark.parity
def test_transformers_mixtral_gives_the_same():
  torch = pytest.importorskip("torch")
  mixtral = pytest.importorskip("transformers.models.mixtral.modeling_mixtral")
  config = mixtral.MixtralConfig(
    hidden_size=D,
    intermediate_size=F,
    num_local_experts=E,
    num_experts_per_tok=J,
  )
  block = mixtral.MixtralSparseMoeBlock(config).eval()
  graphdef, params = mixture()
  w = {k: torch.tensor(np.float32(v)) for k, v in arrays(params).items()}
  gate_up = torch.cat([w["gate"], w["up"]], dim=2).transpose(1, 2)
  block.load_state_dict(
    {
      "gate.weight": w["router"].T,
      "experts.gate_up_proj": gate_up,
      "experts.down_proj": w["down"].transpose(1, 2),
    }
  )
  x = torch.tensor(np.asarray(inputs()))
  with torch.no_grad():
    wanted = block(x)
    logits = x.reshape(-1, D) @ w["router"]
    balance = mixtral.load_balancing_loss_func((logits,), E, J)
  y_BTD, losses = apply(graphdef, params, inputs())
  np.testing.assert_allclose(y_BTD, wanted.numpy(), rtol=1e-5, atol=1e-5)
  # Theirs counts a token J times.
  assert float(losses["load_balance"]) * J == pytest.approx(float(balance))


def stacked(count):
  """(graphdef, params) of `count` layers, and the loop over them."""

  @nnx.split_rngs(splits=count)
  @nnx.vmap(in_axes=0, out_axes=0)
  def make(rngs):
    init = nnx.initializers.normal(0.3)
    return moe.MixtureOfExperts(
      D,
      F,
      experts=E,
      experts_per_token=J,
      activation="swiglu",
      out_init=init,
      kernel_init=init,
      rngs=rngs,
    )

  return nnx.split(make(nnx.Rngs(0)))


def through(graphdef, params, x_BTD):
  """(x_BTD after the layers, the sum of their losses), with remat."""

  def step(x_BTD, layer):
    y_BTD, losses = nnx.merge(graphdef, layer)(x_BTD)
    return x_BTD + jnp.tanh(y_BTD), losses

  step = jax.checkpoint(
    step,
    policy=jax.checkpoint_policies.nothing_saveable,
    prevent_cse=False,
  )
  x_BTD, losses = jax.lax.scan(step, x_BTD, params)
  return x_BTD, jax.tree.map(jnp.sum, losses)


@pytest.mark.slow
def test_scanned_layers_in_the_stages_of_a_pipeline():
  graphdef, params = stacked(2)

  def total(run, params, x_BTD):
    return objective(run(params, x_BTD), inputs(7))

  def staged(params, x_BTD):
    """Stage 0 hands its activations to stage 1; their losses are added."""

    @functools.partial(
      jax.shard_map,
      in_specs=(P("stage"), P()),
      out_specs=(P(), P()),
      axis_names={"stage"},
      check_vma=False,
    )
    def run(params, x_BTD):
      first = jax.lax.axis_index("stage") == 0
      x_BTD, losses = through(graphdef, params, x_BTD)
      shift = [(0, 1), (1, 0)]
      x_BTD = jax.lax.ppermute(x_BTD, "stage", shift)
      x_BTD, later = through(graphdef, params, x_BTD)
      x_BTD = jax.lax.psum(jnp.where(first, 0.0, x_BTD), "stage")
      keep = functools.partial(jnp.where, first)
      losses = jax.lax.psum(jax.tree.map(keep, losses, later), "stage")
      return x_BTD, losses

    return run(params, x_BTD)

  whole = functools.partial(through, graphdef)
  take = jax.value_and_grad(total, argnums=(1, 2))
  wanted = take(whole, params, inputs())
  with jax.set_mesh(mesh_of(expert=4)):
    close(jax.jit(functools.partial(take, whole))(params, inputs()), wanted)
  with jax.set_mesh(mesh_of(stage=2, expert=2, tensor=2)):
    close(jax.jit(functools.partial(take, staged))(params, inputs()), wanted)


def test_one_token_on_a_mesh_that_cannot_cut_it():
  graphdef, params = mixture()
  x_BTD = inputs()[:1, :1]
  with jax.set_mesh(mesh_of(data=2, expert=2, tensor=2)):
    given = apply(graphdef, params, x_BTD)
  close(given, apply(graphdef, params, x_BTD))


def test_the_kernel_of_tpu_sums_outer_products_by_expert(monkeypatch):
  kernels = importlib.import_module(
    "jax.experimental.pallas.ops.tpu.megablox.gmm"
  )
  monkeypatch.setattr(partition, "platform", lambda: "tpu")
  monkeypatch.setattr(
    kernels, "tgmm", functools.partial(kernels.tgmm, interpret=True)
  )
  monkeypatch.setattr(grouped, "TILE", (16, 128, 128))
  sizes_E = np.array([5, 0, 16, 20])  # 7 rows belong to none
  x_RI, y_RO = inputs(2).reshape(-1, D)[:48], inputs(3).reshape(-1, D)[:48]
  given = grouped.outer(x_RI, y_RO, jnp.asarray(sizes_E))
  ends = np.cumsum(sizes_E)
  for expert, (start, end) in enumerate(zip(ends - sizes_E, ends, strict=True)):
    wanted = np.float64(x_RI)[start:end].T @ np.float64(y_RO)[start:end]
    np.testing.assert_allclose(given[expert], wanted, rtol=1e-5, atol=1e-5)


def test_rows_of_no_expert_may_hold_anything(monkeypatch):
  """What TPU kernels leave in rows beyond the groups never gets out."""
  graphdef, params = mixture()

  exact = jax.lax.ragged_dot

  def dirty(x_RI, kernel_EIO, sizes_E):
    y_RO = exact(x_RI, kernel_EIO, sizes_E)
    real_R = jnp.arange(len(x_RI)) < sizes_E.sum()
    return jnp.where(real_R[:, None], y_RO, jnp.nan)

  monkeypatch.setattr(jax.lax, "ragged_dot", dirty)
  with jax.set_mesh(mesh_of(expert=4)):
    given = jax.jit(lambda *a: gradients.__wrapped__(graphdef, *a))
    close(given(params, inputs()), on_one_device())


def test_bfloat16_computes_in_it_and_routes_in_float32():
  graphdef, params = mixture(dtype=jnp.bfloat16)
  x_BTD = inputs().astype(jnp.bfloat16)
  y_BTD, losses = apply(graphdef, params, x_BTD)
  wanted, balance, z = by_loop(arrays(params), np.float64(x_BTD), J)
  assert y_BTD.dtype == jnp.bfloat16
  size = np.abs(wanted).max()
  np.testing.assert_allclose(np.float64(y_BTD), wanted, atol=0.02 * size)
  np.testing.assert_allclose(losses["load_balance"], balance, rtol=1e-5)
  np.testing.assert_allclose(losses["router_z"], z, rtol=1e-5)


@pytest.mark.parametrize(
  ("sizes", "message"),
  [
    ({"expert": 3}, "experts = 8 is not a multiple of the mesh's expert = 3"),
    ({"tensor": 5}, "hidden = 32 is not a multiple of the mesh's tensor = 5"),
  ],
)
def test_a_mesh_must_divide_experts_and_hidden_units(sizes, message):
  graphdef, params = mixture()
  with jax.set_mesh(mesh_of(**sizes)), pytest.raises(ValueError, match=message):
    apply(graphdef, params, inputs())


def test_choices_must_be_among_the_experts():
  with pytest.raises(ValueError, match="experts_per_token = 9 is not in 1 … 8"):
    mixture(choices=9)
