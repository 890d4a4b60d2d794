"""Autoencoders: bounds and codebooks, against NumPy and SciPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import models
from models import Model
from models.layers import basic
from models.vision import vqvae
from train import types
from train.objectives import autoencoding as objective
from train.tasks.variational_autoencoder import variational_autoencoder
from train.tasks.vector_quantization import vector_quantization

AT = types.Context(jax.random.key(0), jnp.int32(0), train=True)


def test_nats_are_scipys():
  rng = np.random.default_rng(0)
  outputs = rng.normal(size=(2, 3, 3, 1)).astype(np.float32)
  image = rng.uniform(-1, 1, (2, 3, 3, 1)).astype(np.float32)
  found = objective.nats_of_image(outputs, image, "gaussian", 0.3)
  wanted = -stats.norm.logpdf(image, outputs, 0.3).sum((1, 2, 3))
  np.testing.assert_allclose(found, wanted, rtol=1e-5)
  black = np.sign(image)
  found = objective.nats_of_image(outputs, black, "bernoulli", 1.0)
  p = 1 / (1 + np.exp(-outputs))
  wanted = -stats.bernoulli.logpmf(black > 0, p).sum((1, 2, 3))
  np.testing.assert_allclose(found, wanted, rtol=1e-5)
  shown = objective.shown(jnp.asarray(outputs), "bernoulli")
  np.testing.assert_allclose(shown, 2 * p - 1, atol=1e-6)


def test_kl_is_that_of_samples():
  mean, log_variance = np.array([[0.7, -0.3]]), np.array([[0.4, -1.0]])
  deviation = np.exp(log_variance / 2)
  z = mean + deviation * np.random.default_rng(0).normal(size=(200_000, 2))
  log_q = stats.norm.logpdf(z, mean, deviation)
  wanted = (log_q - stats.norm.logpdf(z)).sum(1).mean()
  found = objective.kl_of_normal(jnp.asarray(mean), jnp.asarray(log_variance))
  assert float(found[0]) == pytest.approx(wanted, rel=0.02)


def test_perplexity_counts_the_real_codes():
  code = jnp.asarray([[[0, 1]], [[2, 3]], [[5, 5]]])
  mask = jnp.asarray([1.0, 1.0, 0.0])
  assert float(objective.perplexity(code, mask, 8)) == pytest.approx(4)


def test_the_bound_and_its_pictures():
  """With a decoder that returns z, and an encoder of fixed distributions."""

  def apply(params, state, x, method=None, **how):
    if method == "encode":
      return (x, jnp.full_like(x, -30.0)), state
    return x, state

  task = variational_autoencoder(
    Model(None, apply), likelihood="gaussian", stddev=0.5, steps=2
  )
  image = np.random.default_rng(0).uniform(-0.9, 0.9, (3, 2, 2, 1))
  batch = {
    "image": jnp.asarray(image, jnp.float32),
    "mask": jnp.asarray([1.0, 0.0, 1.0]),
  }
  nothing = types.Variables({}, {})
  mean, aux = task.losses["loss"](nothing, batch, AT)
  # z is the image, so that its error is 0.
  image_nats = 4 * (np.log(0.5) + 0.5 * np.log(2 * np.pi))
  kl = 0.5 * ((image**2).sum((1, 2, 3)) + 4 * (30 - 1))[[0, 2]]
  assert float(mean.value()) == pytest.approx(image_nats + kl.mean(), rel=1e-5)
  assert float(aux.metrics["kl"].value()) == pytest.approx(kl.mean(), rel=1e-5)
  assert float(aux.metrics["nats"].value()) == float(mean.value())
  found = task.predict["interpolations"](nothing, batch, AT.rng)
  np.testing.assert_allclose(found, image[[0, 1, 1]], atol=1e-6)
  samples = task.predict["samples"](nothing, batch, AT.rng)
  assert samples.shape == image.shape
  assert not np.allclose(samples, image)


class Small(vqvae.VectorQuantized):
  """With an encoder and a decoder of one product each."""

  def __init__(self, averages, rngs):
    more = {"averages": averages, "decay": 0.5, "param_dtype": jnp.float32}
    self.encoder = basic.Dense(1, 2, rngs=rngs)
    self.codebook = vqvae.Codebook(4, 2, rngs=rngs, **more)
    self.decoder = basic.Dense(2, 1, rngs=rngs)


def quantized(averages):
  model = models.pure(lambda rngs: Small(averages, rngs))

  @functools.partial(jax.jit, static_argnames="train")
  def reconstruct(params, state, x, train=False):
    return model.apply(params, state, x, method="reconstruct", train=train)

  return model, reconstruct, *model.init(jax.random.key(0))


def test_a_codebook_follows_the_latents():
  _, reconstruct, params, state = quantized(True)
  x = np.random.default_rng(1).normal(size=(2, 4, 4, 1)).astype(np.float32)
  # Vectors that are all in use, so that none is replaced.
  vectors = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
  state = {"codebook": {"sums": 40 * vectors, "counts": np.full(4, 40.0)}}
  state = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), state)
  found, new = reconstruct(params, state, x, train=True)
  flat = np.asarray(found["latent"]).reshape(-1, 2)
  distance = ((flat[:, None] - vectors[None]) ** 2).sum(-1)
  code = distance.argmin(1)
  assert np.asarray(found["code"]).reshape(-1).tolist() == code.tolist()
  chosen = np.eye(4)[code]
  np.testing.assert_allclose(
    new["codebook"]["counts"], 20 + 0.5 * chosen.sum(0), rtol=1e-5
  )
  np.testing.assert_allclose(
    new["codebook"]["sums"], 20 * vectors + 0.5 * chosen.T @ flat, rtol=1e-4
  )
  # In evaluation nothing moves.
  _, same = reconstruct(params, state, x)
  assert jax.tree.all(jax.tree.map(np.array_equal, same, state))
  # A vector that nothing chooses becomes a latent.
  state["codebook"]["counts"] = state["codebook"]["counts"].at[2].set(0.01)
  state["codebook"]["sums"] = state["codebook"]["sums"].at[2].set(9.0)
  _, new = reconstruct(params, state, x, train=True)
  np.testing.assert_allclose(new["codebook"]["sums"][2], flat[2 * 32 // 4])


@pytest.mark.parametrize("averages", [True, False])
def test_gradients_pass_straight_through(averages):
  model, reconstruct, params, state = quantized(averages)
  task = vector_quantization(model, entries=4, commitment=0.25)
  x = np.random.default_rng(0).normal(size=(2, 4, 4, 1)).astype(np.float32)
  batch = {"image": jnp.asarray(x), "mask": jnp.ones(2)}

  @jax.jit
  @jax.grad
  def grads(params):
    mean, _ = task.losses["loss"](types.Variables(params, state), batch, AT)
    return mean.value()

  found, (seen, _) = grads(params), reconstruct(params, state, x)
  gap = np.asarray(seen["vector"] - seen["latent"]).reshape(-1, 2)
  # The image's error reaches the latents as if they were the vectors.
  error = 2 * (np.asarray(seen["image"]) - x).reshape(-1, 1) / x.size
  slope = error @ np.asarray(params["decoder"]["kernel"]).T
  slope -= 0.25 * 2 * gap / gap.size
  wanted = x.reshape(-1, 1).T @ slope
  np.testing.assert_allclose(found["encoder"]["kernel"], wanted, rtol=1e-4)
  assert ("codebook" in params) != averages
  if not averages:
    code = np.asarray(seen["code"]).reshape(-1)
    wanted = np.eye(4)[code].T @ (2 * gap / gap.size)
    np.testing.assert_allclose(found["codebook"]["vectors"], wanted, atol=1e-6)
