"""Projection: the styles of a generator that come closest to given images."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax


def distance(a_BHWC: jax.Array, b_BHWC: jax.Array) -> jax.Array:
  """Squared error of pixels, averaged over sizes from the full one; [B].

  Each further size is half of the one before, down to 4 pixels or an odd size;
  small sizes compare what is where, as pixels alone do not.
  """
  difference = a_BHWC.astype(jnp.float32) - b_BHWC.astype(jnp.float32)
  found = []
  while True:
    found.append(jnp.mean(jnp.square(difference), axis=(1, 2, 3)))
    B, H, W, C = difference.shape
    if min(H, W) <= 4 or H % 2 or W % 2:
      return sum(found) / len(found)
    difference = difference.reshape(B, H // 2, 2, W // 2, 2, C).mean((2, 4))


def project(
  synthesize: Callable[[jax.Array], jax.Array],
  start_BW: jax.Array,
  image_BHWC: jax.Array,
  steps: int = 200,
  lr: float = 0.1,
) -> jax.Array:
  """w_BW whose images are near image_BHWC (arXiv:1912.04958, section 5).

  Adam from the start on, with the paper's first rate, which falls along half a
  cosine. The paper compares features of VGG; here it is `distance`, which needs
  no other network. Noise is not optimized.

  Args:
    synthesize: w_BW -> image_BHWC.
    start_BW: the styles to begin with, such as the average.
    image_BHWC: the images, of the generator's size.
    steps: number of updates.
    lr: the first rate.
  """
  optimizer = optax.adam(optax.cosine_decay_schedule(lr, max(steps, 1)))

  def loss(w_BW):
    return jnp.sum(distance(synthesize(w_BW), image_BHWC))

  def step(carry, _):
    w_BW, state = carry
    updates, state = optimizer.update(jax.grad(loss)(w_BW), state)
    return (optax.apply_updates(w_BW, updates), state), None

  carry = (start_BW, optimizer.init(start_BW))
  return jax.lax.scan(step, carry, length=steps)[0][0]
