"""Chunked cross-entropy: the numbers of whole logits, without the memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train import sharding
from train.objectives.linear_cross_entropy import linear_cross_entropy

B, T, D, V = 4, 10, 6, 24
OPTIONS = {
  "plain": {},
  "smoothed": {"label_smoothing": 0.2},
  "z": {"z_loss": 0.05},
  "both": {"label_smoothing": 0.1, "z_loss": 0.02},
}


def inputs(seed=0):
  rng = np.random.default_rng(seed)
  x_BTD = rng.normal(size=(B, T, D)).astype(np.float32)
  unembedding_VD = rng.normal(size=(V, D)).astype(np.float32)
  targets_BT = rng.integers(0, V, (B, T)).astype(np.int32)
  weights_BT = rng.uniform(size=(B, T)).astype(np.float32)
  return x_BTD, unembedding_VD, targets_BT, weights_BT


def by_hand(
  x_BTD, unembedding_VD, targets_BT, weights_BT, label_smoothing=0.0, z_loss=0.0
):
  """(nats_BT, slopes of sum(weights * nats)) by NumPy, in float64."""
  x_BTD, unembedding_VD = (
    a.astype(np.float64) for a in (x_BTD, unembedding_VD)
  )
  logits_BTV = x_BTD @ unembedding_VD.T
  z_BT1 = np.log(np.exp(logits_BTV).sum(-1, keepdims=True))
  q_BTV = (1 - label_smoothing) * np.eye(V)[targets_BT] + label_smoothing / V
  nats_BT = (q_BTV * (z_BT1 - logits_BTV)).sum(-1) + z_loss * z_BT1[..., 0] ** 2
  p_BTV = np.exp(logits_BTV - z_BT1)
  slope_BTV = p_BTV * (1 + 2 * z_loss * z_BT1) - q_BTV
  slope_BTV *= weights_BT[..., None]
  return (
    nats_BT,
    slope_BTV @ unembedding_VD,
    np.einsum("btv,btd->vd", slope_BTV, x_BTD),
  )


def measured(chunk, options, arguments):
  x_BTD, unembedding_VD, targets_BT, weights_BT = arguments

  def total(x_BTD, unembedding_VD):
    nats_BT = linear_cross_entropy(
      x_BTD, unembedding_VD, targets_BT, chunk=chunk, **options
    )
    return jnp.sum(nats_BT * weights_BT), nats_BT

  grad = jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))
  (x_slope, unembedding_slope), nats_BT = grad(x_BTD, unembedding_VD)
  return nats_BT, x_slope, unembedding_slope


@pytest.mark.parametrize("chunk", [0, 1, 4, 10, 16])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_values_and_slopes_by_hand(chunk, options):
  arguments = inputs()
  expected = by_hand(*arguments, **options)
  for found, wanted in zip(
    measured(chunk, options, arguments), expected, strict=True
  ):
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
  "axes",
  [
    {"tensor": 8},
    {"data": 4, "tensor": 2},
    {"fsdp": 4, "context": 2},
    {"fsdp": 2, "context": 2, "tensor": 2},
    {"data": 8},  # more devices than rows
    {"fsdp": 8},
  ],
  ids=str,
)
def test_cut_over_a_mesh(axes):
  arguments, options = inputs(), OPTIONS["both"]
  mesh = sharding.make_mesh(axes)
  with jax.set_mesh(mesh):
    found = measured(3, options, arguments)
  for one, wanted in zip(found, by_hand(*arguments, **options), strict=True):
    np.testing.assert_allclose(one, wanted, rtol=2e-5, atol=2e-5)


def temporaries(T, chunk, axes, V=131_072, D=16):
  """Bytes that forward and backward take beside arguments and results."""
  mesh = sharding.make_mesh(axes, jax.devices()[: np.prod([*axes.values()])])
  vocabulary = jax.sharding.PartitionSpec("tensor")

  def total(x_BTD, unembedding_VD, targets_BT):
    return jnp.sum(
      linear_cross_entropy(x_BTD, unembedding_VD, targets_BT, chunk=chunk)
    )

  with jax.set_mesh(mesh):
    shapes = (
      jax.ShapeDtypeStruct((1, T, D), jnp.float32),
      jax.ShapeDtypeStruct(
        (V, D),
        jnp.float32,
        sharding=jax.sharding.NamedSharding(mesh, vocabulary),
      ),
      jax.ShapeDtypeStruct((1, T), jnp.int32),
    )
    step = jax.jit(jax.grad(total, argnums=(0, 1)))
    compiled = step.lower(*shapes).compile()
  return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("shards", [1, 8])
def test_memory_does_not_grow_with_time_by_vocabulary(shards):
  """At V = 128k the compiler reserves the same for 4 times the positions."""
  axes = {"tensor": shards}
  logits = 4 * 131_072 // shards  # bytes of one position's
  short, long = (temporaries(T, 32, axes) for T in (256, 1024))
  assert long - short < 0.02 * (1024 - 256) * logits
  assert long < 0.3 * 1024 * logits
  # Without chunks the logits alone take all of that.
  assert temporaries(1024, 0, axes) > 1024 * logits
