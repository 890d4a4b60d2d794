"""Distributions of actions, given the outputs of a network."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# The natural logarithms of the least and the largest standard deviation of a
# Gaussian, in units of half the range of an action.
_LEAST, _LARGEST = -5.0, 2.0


class Policy(NamedTuple):
  """A distribution of actions for each row of outputs, float32 [N, O].

  log_prob: (outputs, actions [N, ...]) -> [N], ln of the probability, or of the
    density in units of half the range of an action.
  entropy: (outputs) -> [N], in nats; for densities, the differential one.
  sample: (rng, outputs) -> actions.
  mode: (outputs) -> the most likely actions.
  """

  log_prob: Callable[[jax.Array, jax.Array], jax.Array]
  entropy: Callable[[jax.Array], jax.Array]
  sample: Callable[[jax.Array, jax.Array], jax.Array]
  mode: Callable[[jax.Array], jax.Array]


def categorical() -> Policy:
  """Discrete actions, int32 from 0 to O - 1; the outputs are their logits."""

  def log_prob(logits_NA, action_N):
    logp_NA = jax.nn.log_softmax(logits_NA)
    return jnp.take_along_axis(logp_NA, action_N[:, None], 1)[:, 0]

  def entropy(logits_NA):
    logp_NA = jax.nn.log_softmax(logits_NA)
    return -jnp.sum(jnp.exp(logp_NA) * logp_NA, axis=-1)

  def sample(rng, logits_NA):
    return jax.random.categorical(rng, logits_NA).astype(jnp.int32)

  def mode(logits_NA):
    return jnp.argmax(logits_NA, axis=-1).astype(jnp.int32)

  return Policy(log_prob, entropy, sample, mode)


def gaussian(lowest: Any, highest: Any) -> Policy:
  """Actions that are vectors of numbers, each independently normal.

  The outputs are the means and the logarithms of the standard deviations, 2 A
  numbers, in units of half the range from the middle of the bounds; where a
  bound is not finite, in the action's own unit from 0. The logarithms are
  clipped to -5 to 2. Samples may exceed the bounds, to which environments clip
  the actions.

  Args:
    lowest: float [A].
    highest: float [A].
  """
  lowest, highest = np.asarray(lowest), np.asarray(highest)
  finite = np.isfinite(lowest) & np.isfinite(highest)
  with np.errstate(invalid="ignore"):
    middle = np.where(finite, (lowest + highest) / 2, 0).astype(np.float32)
    half = np.where(finite, (highest - lowest) / 2, 1).astype(np.float32)

  def parts(outputs_NO):
    mean_NA, log_NA = jnp.split(outputs_NO, 2, axis=-1)
    return mean_NA, jnp.clip(log_NA, _LEAST, _LARGEST)

  def log_prob(outputs_NO, action_NA):
    mean_NA, log_NA = parts(outputs_NO)
    off_NA = ((action_NA - middle[None]) / half[None] - mean_NA) / jnp.exp(
      log_NA
    )
    return -jnp.sum(off_NA**2 / 2 + log_NA + math.log(2 * math.pi) / 2, axis=-1)

  def entropy(outputs_NO):
    _, log_NA = parts(outputs_NO)
    return jnp.sum(log_NA + math.log(2 * math.pi * math.e) / 2, axis=-1)

  def sample(rng, outputs_NO):
    mean_NA, log_NA = parts(outputs_NO)
    noise_NA = jax.random.normal(rng, mean_NA.shape)
    return (mean_NA + jnp.exp(log_NA) * noise_NA) * half[None] + middle[None]

  def mode(outputs_NO):
    return parts(outputs_NO)[0] * half[None] + middle[None]

  return Policy(log_prob, entropy, sample, mode)
