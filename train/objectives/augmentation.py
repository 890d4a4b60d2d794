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


class _Draws:
  """Draws for B examples, all of them at once, taken one after another."""

  def __init__(self, rng: Rng, p, B: int, uniforms: int, normals: int):
    uniform_rng, normal_rng = jax.random.split(rng)
    self.p = p
    self.uniforms = list(jax.random.uniform(uniform_rng, (uniforms, B)))
    self.normals = list(jax.random.normal(normal_rng, (normals, B)))

  def uniform(self, low: float, high: float):
    return low + (high - low) * self.uniforms.pop()

  def normal(self, deviation: float):
    return deviation * self.normals.pop()

  def on(self, value_B, otherwise: float = 0.0, p=None):
    """value_B with probability p, and `otherwise` elsewhere."""
    p = self.p if p is None else p
    return jnp.where(self.uniforms.pop() < p, value_B, otherwise)


def drawn_maps(rng: Rng, shape: tuple[int, ...], p) -> jax.Array:
  """Affine maps [B, 2, 3] from places of the result to places of the image.

  Places are (x, y) in pixels from the centre. In turn: mirroring, quarter
  turns, one scale, a rotation, unequal scales, shifts by whole pixels up to an
  eighth, and shifts by fractions of pixels.
  """
  B, H, W = shape[:3]
  draw = _Draws(rng, p, B, uniforms=12, normals=4)
  mirror = draw.on(jnp.sign(draw.uniform(-1.0, 1.0)), 1.0)
  turn = draw.on(jnp.floor(draw.uniform(0.0, 4.0))) * (math.pi / 2)
  scale = draw.on(jnp.exp2(draw.normal(0.2)), 1.0)
  angle = draw.on(draw.uniform(-math.pi, math.pi))
  stretch = draw.on(jnp.exp2(draw.normal(0.2)), 1.0)
  x = jnp.round(draw.uniform(-0.125, 0.125) * W)
  y = jnp.round(draw.uniform(-0.125, 0.125) * H)
  whole, fraction = draw.on(1.0), draw.on(1.0)
  x = x * whole + draw.normal(0.125) * W * fraction
  y = y * whole + draw.normal(0.125) * H * fraction
  m = _rotation(turn) @ _diagonal(mirror, jnp.ones(B))
  m = _rotation(angle) @ _diagonal(scale, scale) @ m
  m = _diagonal(stretch, 1 / stretch) @ m
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
  draw = _Draws(rng, p, B, uniforms=7, normals=3)
  bright_B = draw.on(draw.normal(0.2))
  contrast_B = draw.on(jnp.exp2(draw.normal(0.5)), 1.0)
  image = image_BHWC + bright_B[:, None, None, None]
  image *= contrast_B[:, None, None, None]
  if C == 1:
    return image
  flip = draw.on(jnp.round(draw.uniform(0.0, 1.0)))[:, None, None]
  angle = draw.on(draw.uniform(-math.pi, math.pi))[:, None, None]
  saturation = draw.on(jnp.exp2(draw.normal(1.0)), 1.0)[:, None, None]
  axis = jnp.ones(3) / math.sqrt(3)
  along_33 = jnp.outer(axis, axis)
  cross_33 = jnp.cross(axis[None], jnp.eye(3))
  rest_33 = jnp.eye(3) - along_33
  # A turn around the grey axis, and a factor of what is orthogonal to it.
  hue = jnp.cos(angle) * rest_33[None] + jnp.sin(angle) * cross_33[None]
  matrix_B33 = (1 - 2 * flip) * along_33[None] + saturation * hue
  return jnp.einsum("BHWC,BCD->BHWD", image, matrix_B33)
