"""Every way to split a model: the losses of one device, and no more traffic."""

import jax
import numpy as np
import pytest
from tiers import slow_but

from configs.language import lm_stdlib
from train import build, loop, sharding
from train.planning import collectives

pytestmark = pytest.mark.skipif(
  jax.device_count() < 8, reason="needs 8 (simulated) devices"
)
FSDP = [(".*", "fsdp")]
MIXTURE = {"experts": 8, "experts_per_token": 2, "activation": "swiglu"}
# name -> (mesh, rules, arguments of the model)
MESHES = {
  "data": ({"data": 8}, [], {}),
  "fsdp": ({"fsdp": 8}, FSDP, {}),
  "data x fsdp": ({"data": 2, "fsdp": 4}, FSDP, {}),
  "zero over data": ({"data": 8}, FSDP, {}),
  "slices": ({"slice": 2, "fsdp": 4}, FSDP, {}),
  "tensor": ({"tensor": 8}, None, {}),
  "data x tensor": ({"data": 4, "tensor": 2}, None, {}),
  "data x fsdp x tensor": ({"data": 2, "fsdp": 2, "tensor": 2}, FSDP, {}),
  "context": ({"context": 8}, None, {}),
  "fsdp x context": ({"fsdp": 4, "context": 2}, FSDP, {}),
  "context x tensor": ({"data": 2, "context": 2, "tensor": 2}, None, {}),
  "expert": ({"expert": 8}, None, MIXTURE),
  "expert x data": ({"data": 2, "expert": 4}, None, MIXTURE),
  "expert x fsdp x tensor": (
    {"fsdp": 2, "expert": 2, "tensor": 2},
    FSDP,
    MIXTURE,
  ),
  "stage": ({"stage": 8}, None, {"layers": 8}),
  "stage x data": ({"data": 2, "stage": 4}, None, {"stage_microbatches": 8}),
  "stage x fsdp x tensor": (
    {"fsdp": 2, "stage": 2, "tensor": 2},
    FSDP,
    {"stage_microbatches": 4},
  ),
}


def config_on(mesh, rules, model, steps=10):
  """A decoder that every mesh divides: 8 heads, 4 layers, 32 positions."""
  config = lm_stdlib.get_config("smoke")
  config.total_steps = steps
  config.batch_size = 16
  config.data.seq_len = 32
  config.model.update(
    {
      "layers": 4,
      "dim": 32,
      "heads": 8,
      "scan": True,
      "tie_embeddings": False,
      **model,
    }
  )
  config.task.loss_chunk = 4
  config.mesh = mesh
  if rules is not None:
    config.sharding = rules
  config.evals = {}
  return config


def losses(config):
  run = build.run(config, None)
  return np.array([r.scalars["train/loss"] for r in loop.fit(run)])


ONE_DEVICE = {}  # losses by the model's arguments


def of_one_device(monkeypatch, model):
  # The schedule of a pipeline means nothing to one device.
  model = {k: v for k, v in model.items() if k != "stage_microbatches"}
  key = str(model)
  if key not in ONE_DEVICE:
    config = config_on({"data": 1}, [], model)
    with monkeypatch.context() as patch:
      first = jax.devices()[:1]
      patch.setattr(jax, "devices", lambda *a: first)
      ONE_DEVICE[key] = losses(config)
  return ONE_DEVICE[key]


QUICK = ("data x fsdp x tensor",)


@pytest.mark.parametrize("name", slow_but(QUICK, MESHES))
def test_ten_steps_are_those_of_one_device(name, monkeypatch):
  mesh, rules, model = MESHES[name]
  one = of_one_device(monkeypatch, model)
  eight = losses(config_on(mesh, rules, model))
  assert len(one) == 10
  assert one[0] - one[-1] > 0.1  # it learns, so the gradients are compared
  np.testing.assert_allclose(eight, one, rtol=0, atol=1e-5)


def collectives_of(name):
  """The step's collectives, {(axes, kind): [(payload, times), …]}; params."""
  mesh, rules, model = MESHES[name]
  run = build.run(config_on(mesh, rules, model), None)
  batch = next(run.batches(0))
  step = loop.jit_step(run).lower(run.abstract_state, batch, run.rng)
  shape = dict(sharding.make_mesh(mesh).shape)
  found = {}
  for one in collectives.of_program(step.compile().as_text(), shape):
    row = found.setdefault((one.axes, one.kind), [])
    row.append((one.payload, one.times))
  params = jax.tree.leaves(run.abstract_state.variables.params)
  return found, sorted(4 * leaf.size for leaf in params)


def volume(rows):
  return sum(payload * times for payload, times in rows)


def above(found, limit):
  """What is larger than scalars and statistics: {(axes, kind): …}."""
  large = {
    key: [(payload, times) for payload, times in rows if payload > limit]
    for key, rows in found.items()
  }
  return {key: rows for key, rows in large.items() if rows}


# 16 rows, 32 positions, 32 features, float32; of one layer's input.
ACTIVATION = 16 * 32 * 32 * 4
SCALARS = 64  # metrics: the loss, its weight, norms
L = 4


def test_data_parallelism_sums_each_gradient_once():
  found, params = collectives_of("data")
  assert set(found) == {(("data",), "all-reduce")}
  extra = volume(found[(("data",), "all-reduce")]) - sum(params)
  assert 0 <= extra <= SCALARS


def test_fully_sharded_moves_parameters_alone():
  """Gathered forward and backward, gradients summed: no activation moves.

  XLA for CPU writes a reduce-scatter as an all-reduce and a slice.
  """
  found, params = collectives_of("fsdp")
  assert set(found) <= {
    (("fsdp",), kind) for kind in ("all-gather", "reduce-scatter", "all-reduce")
  }
  gathered = volume(found.pop((("fsdp",), "all-gather")))
  assert sum(params) <= gathered <= 2 * sum(params)
  extra = sum(map(volume, found.values())) - sum(params)
  assert 0 <= extra <= 10 * SCALARS
  for payload, _ in sum(found.values(), []):
    assert payload < ACTIVATION


def test_tensor_parallelism_gathers_its_own_rows_twice_a_layer():
  """Megatron with sequences sharded in between (arXiv:2205.05198, figure 5)."""
  found, params = collectives_of("data x tensor")
  over_data = found.pop((("data",), "all-reduce"))
  assert volume(over_data) <= sum(params) / 2 + 20 * SCALARS * L
  assert {axes for axes, _ in found} == {("tensor",)}
  own_rows = ACTIVATION // 4
  gathers = found.pop((("tensor",), "all-gather"))
  # Before attention and before the feed-forward network, forward; and again
  # backward. Once each more for the embedding and the logits.
  assert {payload for payload, _ in gathers} == {own_rows}
  assert sum(times for _, times in gathers) == 4 * L + 2
  # Sums: as many, and statistics of the vocabulary's parts.
  rest = sum(found.values(), [])
  assert max(payload for payload, _ in rest) <= 3 * own_rows + 128
  sums = [payload * times // own_rows for payload, times in rest]
  assert sum(sums) <= 6 * L + 2


def test_context_parallelism_passes_keys_round():
  found, params = collectives_of("context")
  permutes = found.pop((("context",), "collective-permute"))
  n, keys = 8, ACTIVATION // 8
  assert {payload for payload, _ in permutes} == {keys}
  # k and v: n - 1 hops forward and backward; their gradients: n.
  hops = 2 * (n - 1) + 2 * (n - 1) + 2 * n
  assert sum(times for _, times in permutes) == hops * L
  assert set(found) == {(("context",), "all-reduce")}
  extra = volume(found[(("context",), "all-reduce")]) - sum(params)
  assert 0 <= extra <= SCALARS


def test_expert_parallelism_gathers_and_scatters_once_a_layer():
  found, params = collectives_of("expert x data")
  tokens = ACTIVATION // 2  # those of a group of 4
  for kind in ("all-gather", "reduce-scatter"):
    rows = found.pop((("expert",), kind))
    large = [(payload, times) for payload, times in rows if payload >= tokens]
    assert large and {payload for payload, _ in large} == {tokens}
    # Once forward, and once backward as the transpose of the other.
    assert sum(times for _, times in large) == 2 * L
    routes = [row for row in rows if row not in large]
    assert volume(routes) <= volume(large) / 4
  assert {kind for _, kind in found} == {"all-reduce"}
  # The experts' gradients are summed over data alone.
  experts = 3 * 4 * 8 * 32 * 88  # gate, up, down: 8 experts, D 32, F 88
  over_both = volume(found.pop((("data", "expert"), "all-reduce")))
  assert over_both <= sum(params) - L * experts + 10 * SCALARS * L
  assert volume(found.pop((("data",), "all-reduce"))) == L * experts / 4
  assert not above(found, SCALARS)


def test_a_pipeline_permutes_once_a_tick():
  found, params = collectives_of("stage x data")
  S, M = 4, 8
  rows = found.pop((("stage",), "collective-permute"))
  microbatch = ACTIVATION // 2 // M
  assert {payload for payload, _ in rows} == {microbatch}
  assert sum(times for _, times in rows) == 2 * (M + S - 1)
  # What enters and leaves the pipeline, forward and backward; no weights.
  rest = above(found, 2 * SCALARS)
  assert set(rest) <= {
    (("stage",), "all-gather"),
    (("stage",), "all-reduce"),
    (("data",), "all-reduce"),
    (("stage", "data"), "all-reduce"),
  }
  entering = volume(rest[(("stage",), "all-gather")])
  assert entering <= 2 * ACTIVATION / 2


def test_slices_exchange_what_is_left_of_gradients():
  """Sharded within a slice, summed over slices: the slow network sees 1/4."""
  found, params = collectives_of("slices")
  between = [row for (axes, _), row in found.items() if "slice" in axes]
  assert sum(map(volume, between)) <= sum(params) / 4 + 30 * SCALARS * L
