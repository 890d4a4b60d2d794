"""Random changes of images that gradients pass through.

They are the geometric and colour changes of StyleGAN2-ADA (Karras et al. 2020,
arXiv:2006.06676, appendix B) without its filters: each is drawn for an example
with probability p, so that a generator cannot learn to imitate them as long as
p is below about 0.8. Images are [B, H, W, C] in [-1, 1], of 1 or 3 channels.
"""

import math

import jax
import jax.numpy as jnp

Rng = jax.Array


def augmented(image_BHWC: jax.Array, p: jax.Array, rng: Rng) -> jax.Array:
  """Each image after one geometric map and one map of its colours.

  Args:
    image_BHWC: float.
    p: the probability of each change, a float32 scalar from 0 to 1.
    rng: a key.

  Returns:
    The shape of the images; unchanged images keep their values to rounding.
  """
  place_rng, colour_rng = jax.random.split(rng)
  map_B23 = drawn_maps(place_rng, image_BHWC.shape, p)
  return recoloured(moved(image_BHWC, map_B23), p, colour_rng)


def _chosen(rng: Rng, p, count: int, value_B, otherwise: float):
  """value_B with probability p, and `otherwise` elsewhere."""
  return jnp.where(jax.random.bernoulli(rng, p, (count,)), value_B, otherwise)


def drawn_maps(rng: Rng, shape: tuple[int, ...], p) -> jax.Array:
  """Affine maps [B, 2, 3] from places of the result to places of the image.

  Places are (x, y) in pixels from the centre. In turn: mirroring, quarter
  turns, shifts by whole pixels up to an eighth, one scale, a rotation, unequal
  scales, another rotation and shifts by fractions of pixels.
  """
  B, H, W = shape[:3]
  keys = list(jax.random.split(rng, 17))

  def on(value, otherwise=0.0, chance=p):
    return _chosen(keys.pop(), chance, B, value, otherwise)

  def uniform(low, high):
    return jax.random.uniform(keys.pop(), (B,), minval=low, maxval=high)

  def normal(deviation):
    return deviation * jax.random.normal(keys.pop(), (B,))

  mirror = on(jnp.where(uniform(0.0, 1.0) < 0.5, -1.0, 1.0), 1.0)
  turn = on(jnp.floor(uniform(0.0, 4.0))) * (math.pi / 2)
  eighth = (
    jnp.round(uniform(-0.125, 0.125) * W),
    jnp.round(uniform(-0.125, 0.125) * H),
  )
  whole = on(1.0)
  scale = on(jnp.exp2(normal(0.2)), 1.0)
  # Two rotations, of which at least one happens with probability p.
  half = 1 - jnp.sqrt(1 - p)
  first = on(uniform(-math.pi, math.pi), chance=half)
  stretch = on(jnp.exp2(normal(0.2)), 1.0)
  shift_x, shift_y = normal(0.125) * W, normal(0.125) * H
  fraction = on(1.0)

  m = _rotation(turn) @ _diagonal(mirror, jnp.ones(B))
  m = _diagonal(scale, scale) @ m
  m = _rotation(first) @ m
  m = _diagonal(stretch, 1 / stretch) @ m
  x = eighth[0] * whole + shift_x * fraction
  y = eighth[1] * whole + shift_y * fraction
  return jnp.concatenate([m, jnp.stack([x, y], -1)[..., None]], axis=-1)


def _rotation(angle_B):
  c, s = jnp.cos(angle_B), jnp.sin(angle_B)
  return jnp.stack([jnp.stack([c, -s], -1), jnp.stack([s, c], -1)], -2)


def _diagonal(x_B, y_B):
  zero = jnp.zeros_like(x_B)
  return jnp.stack([jnp.stack([x_B, zero], -1), jnp.stack([zero, y_B], -1)], -2)


def moved(image_BHWC: jax.Array, map_B23: jax.Array) -> jax.Array:
  """The images under affine maps, bilinear, mirrored beyond their borders.

  Args:
    image_BHWC: float.
    map_B23: from (x, y, 1) of a pixel of the result to that of the image, in
      pixels from the centre.
  """
  B, H, W, C = image_BHWC.shape
  y_HW, x_HW = jnp.meshgrid(
    jnp.arange(H) - (H - 1) / 2, jnp.arange(W) - (W - 1) / 2, indexing="ij"
  )
  place_3P = jnp.stack([x_HW, y_HW, jnp.ones((H, W))]).reshape(3, -1)
  x_BP, y_BP = jnp.moveaxis(map_B23 @ place_3P[None], 1, 0)
  x_BP, y_BP = x_BP + (W - 1) / 2, y_BP + (H - 1) / 2
  flat_BPC = image_BHWC.reshape(B, H * W, C)
  left, top = jnp.floor(x_BP), jnp.floor(y_BP)
  found = jnp.zeros_like(flat_BPC)
  for across in (0, 1):
    for below in (0, 1):
      x, y = left + across, top + below
      weight = (1 - jnp.abs(x_BP - x)) * (1 - jnp.abs(y_BP - y))
      index = _mirrored(y, H) * W + _mirrored(x, W)
      pixels = jnp.take_along_axis(flat_BPC, index[..., None], axis=1)
      found += weight[..., None].astype(found.dtype) * pixels
  return found.reshape(B, H, W, C)


def _mirrored(place, size: int):
  """Whole places beyond 0…size - 1, reflected at the border pixels; int32."""
  period = max(2 * (size - 1), 1)
  place = jnp.mod(place.astype(jnp.int32), period)
  return jnp.minimum(place, period - place)


def recoloured(image_BHWC: jax.Array, p, rng: Rng) -> jax.Array:
  """The images with changed brightness and contrast; colours also change hue.

  In turn: brightness, contrast, and for three channels a mirrored luma, a
  rotation of the hue and a saturation.

  Raises:
    ValueError: the images have neither 1 nor 3 channels.
  """
  B, C = image_BHWC.shape[0], image_BHWC.shape[-1]
  if C not in (1, 3):
    raise ValueError(f"images of {C} channels are neither grey nor RGB")
  keys = list(jax.random.split(rng, 10))

  def on(value, otherwise=0.0):
    return _chosen(keys.pop(), p, B, value, otherwise)

  bright = on(0.2 * jax.random.normal(keys.pop(), (B,)))[:, None, None, None]
  contrast = on(jnp.exp2(0.5 * jax.random.normal(keys.pop(), (B,))), 1.0)
  image = (image_BHWC + bright) * contrast[:, None, None, None]
  if C == 1:
    return image
  axis = jnp.ones(3) / math.sqrt(3)
  along_33 = jnp.outer(axis, axis)
  coin = jax.random.bernoulli(keys.pop(), 0.5, (B,)).astype(jnp.float32)
  flip = on(coin)[:, None, None]
  angle = jax.random.uniform(keys.pop(), (B,), minval=-math.pi, maxval=math.pi)
  angle = on(angle)[:, None, None]
  saturation = on(jnp.exp2(jax.random.normal(keys.pop(), (B,))), 1.0)
  saturation = saturation[:, None, None]
  cross_33 = jnp.cross(axis[None], jnp.eye(3))
  rest_33 = jnp.eye(3) - along_33
  # A turn around the grey axis, and a factor of what is orthogonal to it.
  hue = jnp.cos(angle) * rest_33[None] + jnp.sin(angle) * cross_33[None]
  matrix_B33 = (1 - 2 * flip) * along_33[None] + saturation * hue
  return jnp.einsum("BHWC,BCD->BHWD", image, matrix_B33)
