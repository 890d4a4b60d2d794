"""Runs on batches of several lengths: devices, meshes and plans."""

import json

import jax
import numpy as np
import pytest

from common.errors import UserError
from configs.text import translate_multi30k
from train import assembly, build, loop
from train.planning import batch_spec, compile_ahead


@pytest.fixture
def pairs(tmp_path):
  """80 pairs of texts of 1 to 29 bytes."""
  sizes = np.random.default_rng(0).integers(1, 30, (80, 2)).tolist()
  lines = [json.dumps({"de": "a" * s, "en": "b" * t}) for s, t in sizes]
  (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
  return f"jsonl:{tmp_path}/pairs.jsonl"


def config_of(source, buckets=(16, 24, 32), **mesh):
  config = translate_multi30k.get_config("smoke")
  config.data.update(source=source, split="all")
  config.total_steps, config.evals, config.checkpoint = 6, {}, {}
  config.batch_size = 8
  config.data.update(seq_len=32, buckets=list(buckets))
  config.data.rows.packing = False
  config.mesh = mesh or {"data": 8}
  return config


@pytest.mark.slow
def test_eight_devices_are_one(pairs):
  """Over "tensor", every device computes the whole batch as one would."""
  found, lengths = [], set()
  for mesh in ({"data": 8}, {"tensor": 8}):
    config = config_of(pairs, **mesh)
    config.sharding = [(".*", "replicate")]
    run = build.run(config, None, say=lambda line: None)

    def observe(step, state, batch, rng):
      del step, state, rng
      lengths.add(batch["inputs"].shape[1])

    reports = loop.fit(run._replace(observe=observe))
    found.append([report.scalars["train/loss"] for report in reports])
  assert len(lengths) > 1
  np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


@pytest.mark.parametrize("planned", [False, True])
def test_a_bucket_that_the_mesh_cannot_divide_is_named(pairs, planned):
  config = config_of(pairs, (16, 20, 32), context=4, data=2)
  line = "data.buckets: the bucket of length 20 does .*multiples of 8"
  with pytest.raises(UserError, match=line) as error:
    if planned:
      compile_ahead.experiment(assembly.complete(config), jax.devices())
    else:
      assembly.experiment(config)
  assert "\n" not in str(error.value)


def test_the_longest_bucket_is_planned():
  complete = assembly.complete(config_of("jsonl:data/absent.jsonl", (8, 24)))
  parts = compile_ahead.experiment(complete, jax.devices())
  assert parts.data.spec["inputs"].shape == (24,)
  assert parts.data.lengths == (8, 24)
  assert batch_spec.programs(complete) == 2
  complete["data"]["buckets"] = 5
  assert batch_spec.of_config(complete).spec["inputs"].shape == (32,)
  assert batch_spec.programs(complete) == 5
