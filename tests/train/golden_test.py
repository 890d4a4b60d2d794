"""The first 20 losses of four runs are those that are committed.

A change of the numbers that nobody meant shows here first. After one that was
meant, record them anew and say why in the commit:

  GOLDEN=write python -m pytest tests/train/golden_test.py
"""

import json
import os
import pathlib

import experiments
import pytest

from train import build, loop

pytestmark = pytest.mark.optimized

PATH = pathlib.Path(__file__).with_name("golden.json")
NAMES = (
  "conv_fashion_mnist",
  "gan_fashion_mnist",
  "linear_regression",
  "lm_stdlib",
)
STEPS = 20


def losses(name: str) -> dict[str, list[float]]:
  """{"train/…loss": one figure a step}."""
  config = experiments.config_of(name)
  config.total_steps = STEPS
  config.log_every_steps = 1
  config.evals = {}
  reports = list(loop.fit(build.run(config, None)))
  assert [report.step for report in reports] == list(range(1, STEPS + 1))
  keys = [key for key in reports[0].scalars if key.endswith("loss")]
  return {key: [report.scalars[key] for report in reports] for key in keys}


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_the_recorded_ones(name):
  found = losses(name)
  golden = json.loads(PATH.read_text()) if PATH.exists() else {}
  if os.environ.get("GOLDEN") == "write":
    golden[name] = found
    text = json.dumps(golden, indent=1, sort_keys=True)
    PATH.write_text(text + "\n")
    pytest.skip(f"recorded in {PATH.name}")
  # Not to the bit: two versions of JAX and any CPU sum in orders of their own.
  # After 20 steps that comes to a few 1e-6; a mistake, to far more than 1e-4.
  assert found.keys() == golden[name].keys()
  for key, values in found.items():
    assert values == pytest.approx(golden[name][key], rel=1e-4), key
