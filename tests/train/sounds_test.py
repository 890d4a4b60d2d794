"""A classifier of sounds with noise: stopped and resumed, on any devices."""

import jax
import numpy as np
import pytest

from configs.speech import digits_fsdd
from train import build, loop, trained

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.slow


def config_of(**mesh):
  config = digits_fsdd.get_config("smoke")
  config.total_steps = 6
  config.evals = {}
  config.data.second = dict(
    source="fake:audio?n=5&seed=3", split="all", ops="mono"
  )
  config.data.ops = config.data.ops.replace("mono|", "mono|add_noise(5, 20)|")
  config.mesh = mesh
  return config


def test_stopped_and_resumed_is_the_straight_run(tmp_path):
  straight, stopped = str(tmp_path / "straight"), str(tmp_path / "stopped")
  whole = list(loop.fit(build.run(config_of(data=-1), straight)))
  reports = loop.fit(build.run(config_of(data=-1), stopped))
  for report in reports:
    if report.step == 3:
      reports.close()
      break
  rest = list(loop.fit(build.run(config_of(data=-1), stopped)))
  assert rest[0].step == 3 and rest[-1].step == 6  # It was saved at 2.
  assert rest[-1].scalars["train/loss"] == whole[-1].scalars["train/loss"]
  a, b = (trained.load_state(path) for path in (straight, stopped))
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")
def test_eight_devices_are_one(monkeypatch):
  def losses(**mesh):
    run = build.run(config_of(**mesh), None)
    return [report.scalars["train/loss"] for report in loop.fit(run)]

  with monkeypatch.context() as patch:
    first = jax.devices()[:1]
    patch.setattr(jax, "devices", lambda *a: first)
    one = losses(data=1)
  for mesh in ({"data": 8}, {"fsdp": 2, "tensor": 4}):
    np.testing.assert_allclose(losses(**mesh), one, rtol=0, atol=1e-5)
