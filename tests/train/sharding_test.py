"""One device and eight agree; checkpoints move between meshes."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from tiers import slow_but

from common.errors import UserError
from configs.language import lm_stdlib
from train import build, loop, sharding
from train.checkpointing import checkpoint

pytestmark = pytest.mark.skipif(
  jax.device_count() < 8, reason="needs 8 (simulated) devices"
)
MESHES = {
  "data": ({"data": 8}, []),
  "fsdp": ({"data": 2, "fsdp": 4}, [(".*", "fsdp")]),
  "zero over data": ({"data": 8}, [(".*", "fsdp")]),
  "tensor": ({"data": 4, "tensor": 2}, [(".*", "model")]),
}


def config_on(mesh, rules, steps=10):
  config = lm_stdlib.get_config("smoke")
  config.total_steps = steps
  config.mesh = mesh
  config.sharding = rules
  config.evals = {}
  return config


def losses(config, devices, monkeypatch):
  with monkeypatch.context() as patch:
    patch.setattr(jax, "devices", lambda *a: devices)
    run = build.run(config, None)
    return np.array([r.scalars["train/loss"] for r in loop.fit(run)]), run


@pytest.mark.slow
@pytest.mark.parametrize("name", slow_but(["tensor"], MESHES))
def test_eight_devices_are_one(name, monkeypatch):
  mesh, rules = MESHES[name]
  every = jax.devices()
  one, _ = losses(config_on({"data": 1}, []), every[:1], monkeypatch)
  eight, run = losses(config_on(mesh, rules), every, monkeypatch)
  assert len(one) == 10
  np.testing.assert_allclose(eight, one, rtol=0, atol=1e-5)
  kernel = run.abstract_state.variables.params["blocks"]["feed_forward"]["up"][
    "kernel"
  ]
  parts = np.prod(kernel.shape) // np.prod(
    kernel.sharding.shard_shape(kernel.shape)
  )
  expected = {"data": 1, "fsdp": 4, "zero over data": 8, "tensor": 2}
  assert parts == expected[name]
  moments = jax.tree.leaves(run.abstract_state.opt_state)
  twin = [m for m in moments if m.shape == kernel.shape]
  assert twin and all(m.sharding == kernel.sharding for m in twin)


def test_a_checkpoint_of_8_devices_opens_on_4_and_1(tmp_path, monkeypatch):
  every = jax.devices()
  config = config_on({"data": 2, "fsdp": 4}, [(".*", "fsdp")], steps=3)
  run = build.run(config, str(tmp_path))
  list(loop.fit(run))

  manager = checkpoint.open_manager(str(tmp_path / "checkpoints"))
  saved = checkpoint.restore(manager, run.abstract_state, 3).state
  for n in (4, 1):
    config.mesh = {"fsdp": n}
    with monkeypatch.context() as patch:
      patch.setattr(jax, "devices", lambda *a, n=n: every[:n])
      fewer = build.run(config, str(tmp_path))
    found, damaged = checkpoint.restore_last(
      fewer.checkpoints, fewer.abstract_state
    )
    state = found.state

    assert found.record["position"] == 3 * config.batch_size
    # Digests of arrays on eight devices are those of the same on fewer.
    assert not damaged
    for a, b in zip(
      jax.tree.leaves(saved), jax.tree.leaves(state), strict=True
    ):
      assert len(b.sharding.device_set) == n
      assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_rules_by_hand():
  mesh = sharding.make_mesh({"data": 2, "fsdp": -1})
  assert dict(mesh.shape) == {"data": 2, "fsdp": 4}
  assert sharding.batch_parts(mesh) == 8
  tree = {
    "a": {"kernel": np.zeros((6, 16)), "bias": np.zeros((6,))},
    "b": np.zeros((8, 8)),
    "c": np.zeros((8, 12)),
  }
  rules = [
    ("bias", "replicate"),
    ("^b$", [None, "fsdp"]),
    ("^c$", ["tensor", "data"]),
    (".*", "fsdp"),
  ]
  specs = jax.tree.map(
    lambda s: s.spec, sharding.tree_shardings(tree, mesh, rules)
  )
  assert specs["a"]["kernel"] == P(None, "fsdp")  # 16 divides, 6 does not
  assert specs["a"]["bias"] == P()
  assert specs["b"] == P(None, "fsdp")
  assert specs["c"] == P(None, "data")  # the mesh has no axis "tensor"


def test_rows_of_a_learner_are_sharded_like_a_batch_or_over_their_axis():
  mesh = sharding.make_mesh({"slice": 2, "data": 2, "fsdp": 2})
  tree = {
    "environments": {"x": np.zeros((16, 4)), "steps": np.zeros(16)},
    "environments_seen": np.zeros((16, 4)),
    "few": np.zeros((3, 4)),
    "scalar": np.zeros(()),
    "workers": np.zeros((2, 6, 16)),
  }
  rows = dict.fromkeys(("environments", "few", "scalar"), "batch")
  rules = [(".*", "fsdp")]
  specs = jax.tree.map(
    lambda s: s.spec,
    sharding.tree_shardings(tree, mesh, rules, (), rows | {"workers": "slice"}),
  )
  every = ("slice", "data", "fsdp")
  # Its second dimension would take "fsdp", which the rows have.
  assert specs["environments"]["x"] == P(every, None)
  assert specs["environments"]["steps"] == P(every)
  assert specs["environments_seen"] == P("fsdp", None)
  assert specs["few"] == P(None, "fsdp")  # 8 does not divide 3
  assert specs["scalar"] == P()
  assert specs["workers"] == P("slice", None, "fsdp")
  alone = sharding.make_mesh({"data": 8})
  found = sharding.tree_shardings(tree, alone, [], (), rows)
  assert found["environments"]["x"].spec == P("data")
  assert found["workers"].spec == P()


@pytest.mark.parametrize(
  "axes", [{"data": 3}, {"data": 4}, {"data": -1, "fsdp": -1}, {"data": 0}]
)
def test_a_mesh_that_does_not_fit_is_named(axes):
  with pytest.raises(UserError, match="config.mesh: "):
    sharding.make_mesh(axes)


def test_unknown_strategy_is_named():
  mesh = sharding.make_mesh({"data": -1})
  with pytest.raises(UserError, match="'fsdpp' is none of"):
    sharding.tree_shardings({"a": np.zeros(2)}, mesh, [(".*", "fsdpp")])


def test_the_bubble_is_told():
  """(S - 1) / (M + S - 1) of 4 stages: by 4 microbatches 3/7, by 12 3/15."""
  mesh = sharding.make_mesh({"stage": 4, "data": 2})
  assert sharding.bubble({"model": {}}, mesh) == 3 / 7
  config = {"model": {"stage_microbatches": 12}}
  assert sharding.bubble(config, mesh) == 3 / 15
  assert "4 stages" in (note := sharding.pipeline_note(config, mesh))
  assert "20.0 %" in note
  whole = sharding.make_mesh({"data": 8})
  assert sharding.pipeline_note({"model": {}}, whole) == ""
