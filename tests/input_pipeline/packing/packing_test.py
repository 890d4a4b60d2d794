"""Documents packed in one row are learned as if each had a row of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import slow_but

from models.language.decoder import decoder
from train import types
from train.tasks.language_modeling import language_modeling

LENGTHS, T = (5, 3, 6), 16
SMALL = {"vocab_size": 20, "layers": 2, "dim": 16, "heads": 4, "kv_heads": 2}
MODELS = {
  "rotary": {"positions": "rotary"},
  "learned": {"positions": "learned", "max_len": T},
  "window": {"positions": "rotary", "window": 4},
  "soft cap": {"positions": "rotary", "soft_cap": 5.0},
  "swiglu": {"positions": "rotary", "activation": "swiglu", "norm": "rmsnorm"},
}


def documents():
  rng = np.random.default_rng(0)
  return [rng.integers(1, 20, n + 1).astype(np.int32) for n in LENGTHS]


def row(parts):
  """A row of the batch that holds `parts` one after another, then padding."""
  leaves = {k: np.zeros((1, T), np.int32) for k in ("inputs", "targets")}
  leaves |= {k: np.zeros((1, T), np.int32) for k in ("segments", "positions")}
  leaves["mask"] = np.zeros((1, T), np.float32)
  start = 0
  for number, tokens in enumerate(parts, 1):
    stop = start + len(tokens) - 1
    leaves["inputs"][0, start:stop] = tokens[:-1]
    leaves["targets"][0, start:stop] = tokens[1:]
    leaves["segments"][0, start:stop] = number
    leaves["positions"][0, start:stop] = np.arange(stop - start)
    leaves["mask"][0, start:stop] = 1
    start = stop
  return leaves


@pytest.mark.parametrize(
  ("name", "loss_chunk"),
  slow_but([("rotary", 4)], [*((name, 0) for name in MODELS), ("rotary", 4)]),
)
def test_packed_is_unpacked(name, loss_chunk):
  model = decoder(**SMALL, **MODELS[name])
  task = language_modeling(model, loss_chunk=loss_chunk)
  packed = row(documents())
  alone = [row([tokens]) for tokens in documents()]
  unpacked = {k: np.concatenate([r[k] for r in alone]) for k in packed}
  for leaf in ("segments", "positions"):
    del unpacked[leaf]  # rows of one document do without

  @jax.jit
  def gradient(params, batch):
    def total(params):
      found = variables._replace(params=params)
      mean, _ = task.losses["loss"](
        found, batch, types.Context(jax.random.key(1), 0, True)
      )
      return mean.total, mean.weight

    return jax.value_and_grad(total, has_aux=True)(params)

  variables = task.init(jax.random.key(0), unpacked)
  (one, one_weight), one_slopes = gradient(variables.params, packed)
  (many, weight), slopes = gradient(variables.params, unpacked)
  assert one_weight == weight == sum(LENGTHS)
  np.testing.assert_allclose(one, many, rtol=1e-6)
  for a, b in zip(
    jax.tree.leaves(one_slopes), jax.tree.leaves(slopes), strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * sum(LENGTHS))
  # The comparison is of something: one row of one document is not the same.
  merged = dict(packed, segments=np.minimum(packed["segments"], 1))
  (other, _), _ = gradient(variables.params, merged)
  assert jnp.abs(other - many) > 1e-3
