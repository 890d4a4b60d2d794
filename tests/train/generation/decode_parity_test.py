"""Filters of logits, beside the processors of transformers."""

import jax.numpy as jnp
import numpy as np
import pytest

from train.generation import sampling

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
logits_process = transformers.generation.logits_process

LOGITS = (3 * np.random.default_rng(0).normal(size=(6, 60))).astype(np.float32)


def theirs(ids=None, logits=LOGITS, **settings):
  """What transformers' generate does to the logits, in its order."""
  scores, ids = torch.tensor(logits), torch.tensor(ids or [[0]] * len(logits))
  processors = {
    "repetition_penalty": logits_process.RepetitionPenaltyLogitsProcessor,
    "temperature": logits_process.TemperatureLogitsWarper,
    "top_k": logits_process.TopKLogitsWarper,
    "top_p": logits_process.TopPLogitsWarper,
    "min_p": logits_process.MinPLogitsWarper,
  }
  for name, processor in processors.items():
    if name in settings:
      scores = processor(settings[name])(ids, scores)
  return scores.numpy()


SETTINGS = [
  {"top_k": 1},
  {"top_k": 7},
  {"top_p": 0.3},
  {"top_p": 0.95},
  {"min_p": 0.05},
  {"min_p": 0.9},
  {"top_k": 20, "top_p": 0.9},
  {"top_k": 30, "top_p": 0.8, "min_p": 0.1},
  {"temperature": 0.6, "top_k": 30, "top_p": 0.8, "min_p": 0.1},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_filters_keep_what_transformers_keeps(settings):
  wanted = theirs(**settings)
  rest = dict(settings)
  scaled = jnp.asarray(LOGITS) / rest.pop("temperature", 1.0)
  static = sampling.filter_logits(scaled, **rest)
  assert np.isfinite(wanted).sum() < wanted.size
  np.testing.assert_allclose(static, wanted, rtol=1e-6)
  rows = {
    name: jnp.full(len(LOGITS), value, jnp.int32 if name == "top_k" else float)
    for name, value in rest.items()
  }
  np.testing.assert_array_equal(sampling.filter_logits(scaled, **rows), static)


@pytest.mark.parametrize("penalty", [0.7, 1.0, 1.3])
def test_the_repetition_penalty_is_transformers(penalty):
  ids = [[1, 5, 5], [0, 59, 2], [7, 7, 7], [3, 4, 5], [9, 8, 1], [11, 0, 50]]
  seen_BV = np.zeros(LOGITS.shape, bool)
  np.put_along_axis(seen_BV, np.array(ids), True, axis=1)
  wanted = theirs(ids, repetition_penalty=penalty)
  found = sampling.penalize(LOGITS, jnp.asarray(seen_BV), penalty)
  np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_the_distribution_is_the_softmax_of_what_they_keep():
  settings = {"temperature": 0.8, "top_k": 12, "top_p": 0.9, "min_p": 0.02}
  wanted = torch.softmax(torch.tensor(theirs(**settings)), -1).numpy()
  found = sampling.distribution(jnp.asarray(LOGITS), **settings)
  np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-8)
