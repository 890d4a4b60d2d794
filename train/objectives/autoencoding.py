"""Losses of autoencoders: pure functions of float32 arrays.

Images are B, height, width, C in [-1, 1]; latents are [B, ...].
"""

import math

import jax
import jax.numpy as jnp

from train.objectives import losses

LIKELIHOODS = ("bernoulli", "gaussian")


def check(likelihood: str) -> None:
  """Raises ValueError unless the name is one of LIKELIHOODS."""
  if likelihood not in LIKELIHOODS:
    there = ", ".join(LIKELIHOODS)
    raise ValueError(f"likelihood={likelihood!r} is none of: {there}")


def nats_of_image(
  outputs_BHWC: jax.Array,
  image_BHWC: jax.Array,
  likelihood: str,
  stddev: float,
) -> jax.Array:
  """-log p(image | outputs) of each image, in nats; float32 [B].

  Args:
    outputs_BHWC: of the decoder.
    image_BHWC: in [-1, 1].
    likelihood: "bernoulli", the cross-entropy of greys between 0 and 1 with the
      outputs as logits (Kingma and Welling 2014, appendix C.1), or "gaussian",
      with the outputs as means.
    stddev: the standard deviation of the Gaussian.
  """
  if likelihood == "bernoulli":
    grey_BHWC = jnp.clip((image_BHWC + 1) / 2, 0, 1)
    nats = losses.binary_cross_entropy(outputs_BHWC, grey_BHWC)
  else:
    nats = losses.squared_error(outputs_BHWC, image_BHWC) / (2 * stddev**2)
    nats += math.log(stddev) + 0.5 * math.log(2 * math.pi)
  return nats.sum(tuple(range(1, nats.ndim)))


def shown(outputs_BHWC: jax.Array, likelihood: str) -> jax.Array:
  """The mean image of the decoder's outputs, in [-1, 1]."""
  if likelihood == "bernoulli":
    return 2 * jax.nn.sigmoid(outputs_BHWC) - 1
  return jnp.clip(outputs_BHWC, -1, 1)


def kl_of_normal(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
  """KL(N(mean, variance) || N(0, 1)) summed over each example's axes, [B].

  Kingma and Welling, 2014, arXiv:1312.6114, appendix B; in nats.
  """
  nats = 0.5 * (mean**2 + jnp.exp(log_variance) - 1 - log_variance)
  return nats.sum(tuple(range(1, nats.ndim)))


def drawn(mean: jax.Array, log_variance: jax.Array, rng: jax.Array):
  """A sample of N(mean, variance), differentiable in both."""
  noise = jax.random.normal(rng, mean.shape)
  return mean + jnp.exp(0.5 * log_variance) * noise


def perplexity(code: jax.Array, mask_B: jax.Array, entries: int) -> jax.Array:
  """exp of the entropy of the codes of the real examples; from 1 to `entries`.

  Args:
    code: int32 [B, ...].
    mask_B: 1 on real examples.
    entries: the number of codes.
  """
  code_BT = code.reshape(code.shape[0], -1)
  weight_BT = jnp.broadcast_to(mask_B[:, None], code_BT.shape)
  counts_K = (
    jnp.zeros((entries,))
    .at[code_BT.reshape(-1)]
    .add(weight_BT.reshape(-1).astype(jnp.float32))
  )
  share_K = counts_K / jnp.maximum(counts_K.sum(), 1)
  return jnp.exp(jnp.sum(jax.scipy.special.entr(share_K)))
