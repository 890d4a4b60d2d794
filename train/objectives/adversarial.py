"""Regularization of style-based generators, and the strength of augmentation.

Shapes: B batch; H, W height and width; L styles of an image.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

_PATH_RATE = 0.01  # of the moving average of path lengths
_SIGN_RATE = 0.1  # of the moving average of the discriminator's signs


def path_lengths(
  synthesize: Callable[[jax.Array], jax.Array],
  w_BLW: jax.Array,
  rng: jax.Array,
) -> jax.Array:
  """|J_w^T y| of each image, float32 [B] (Karras et al. 2020, section 3.2).

  y is a normal image divided by sqrt(H W); the squared norm is averaged over
  the styles of an image.

  Args:
    synthesize: w_BLW -> image_BHWC.
    w_BLW: the styles.
    rng: the key of y.
  """

  def projected(w_BLW):
    image_BHWC = synthesize(w_BLW)
    y = jax.random.normal(rng, image_BHWC.shape)
    size = image_BHWC.shape[1] * image_BHWC.shape[2]
    return jnp.sum(image_BHWC * y) / size**0.5

  slope_BLW = jax.grad(projected)(w_BLW)
  return jnp.sqrt(jnp.mean(jnp.sum(slope_BLW**2, axis=2), axis=1) + 1e-12)


def path_penalty(
  length_B: jax.Array, mean: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """((length - a)^2 averaged over the images, a), a the new moving average.

  Args:
    length_B: of `path_lengths`.
    mean: the moving average, a float32 scalar, 0 in the beginning.
  """
  now = jax.lax.stop_gradient(jnp.mean(length_B))
  mean = mean + _PATH_RATE * (now - mean)
  return jnp.mean(jnp.square(length_B - mean)), mean


def adapted(
  state: dict[str, jax.Array],
  real_logits: jax.Array,
  target: float,
  images: int,
) -> dict[str, jax.Array]:
  """The next probability p of augmentations (Karras et al. 2020b).

  arXiv:2006.06676, section 3.1: r = E[sign(D(real))], here a moving average
  over about ten steps. p rises if it exceeds the target and falls otherwise, by
  B / images, so that it can go from 0 to 1 in so many images.

  Args:
    state: {"p", "sign"}, float32 scalars.
    real_logits: [B], of augmented real images.
    target: of r; 0.6 in the paper.
    images: 500,000 in the paper.
  """
  sign = jnp.mean(jnp.sign(real_logits))
  sign = state["sign"] + _SIGN_RATE * (sign - state["sign"])
  step = jnp.sign(sign - target) * (len(real_logits) / images)
  found = {"p": jnp.clip(state["p"] + step, 0.0, 1.0), "sign": sign}
  return jax.lax.stop_gradient(found)
