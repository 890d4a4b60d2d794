"""Every config's :smoke trains, saves, evaluates; every full size fits."""

import importlib
import json
import math
import pathlib

import jax
import pytest

from train import build, loop, sharding

ROOT = pathlib.Path(__file__).parent.parent
CONFIGS = sorted(
  path.stem
  for path in (ROOT / "configs").glob("*.py")
  if path.stem not in ("__init__", "common")
)
# Published counts: Radford et al. 2019 with nanoGPT's padded vocabulary and no
# biases; He et al. 2016; Steiner et al. 2022 (S/16, global average pooling).
FULL_SIZE = {
  "gpt2_124m": 124_373_760,
  "resnet50_imagenet": 25_557_032,
  "vit_imagenet": 22_050_664 - 2 * 384,
}


def config_of(name: str, arg: str = ""):
  return importlib.import_module(f"configs.{name}").get_config(arg)


@pytest.mark.parametrize("name", CONFIGS)
def test_smoke(name, tmp_path):
  config = config_of(name, "smoke")
  workdir = str(tmp_path / "run")
  said = []
  run = build.run(config, workdir, say=said.append)
  reports = list(loop.fit(run))

  scalars = {k: v for report in reports for k, v in report.scalars.items()}
  assert all(math.isfinite(v) for v in scalars.values())
  assert reports[-1].step == config.total_steps
  assert any(key.startswith("train/") for key in scalars)

  # What is on disk is what was reported.
  rows = [
    json.loads(line)
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
  ]
  assert rows == [{"step": r.step, **r.scalars} for r in reports]

  # A workdir alone gives the same figures again.
  found = build.trained(workdir)
  again = build.evaluators(found, workdir, say=said.append)
  for key, evaluator in again.items():
    for metric, value in evaluator(found.variables, found.step).items():
      assert value == scalars[f"{key}/{metric}"], f"{key}/{metric}"


@pytest.mark.parametrize("name", sorted(FULL_SIZE))
def test_full_size_by_shapes_alone(name):
  """The learner's step at full size, traced; nothing is allocated."""
  config = config_of(name)
  smoke = config_of(name, "smoke")
  # The data of the smoke run, in the shapes of the full one.
  config.data = smoke.data
  if "seq_len" in config.data:
    config.data.seq_len = config_of(name).data.seq_len
    config.data.source = "fake:text?documents=20&length=20000"
  else:
    config.data.source = "fake:image?n=8&size=224&channels=3&classes=1000"
    config.data.split = "all"
  config.batch_size = 8
  config.learner.microbatches = 1
  config.evals = {}
  run = build.run(config, None)
  state = run.abstract_state
  assert sharding.count(state.variables.params) == FULL_SIZE[name]
  batch = next(run.batches(0))
  after, metrics = jax.eval_shape(run.learner.step, state, batch, run.rng)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
    lambda x: (x.shape, x.dtype), state
  )
  assert "loss" in metrics
