"""StyleGAN2: its resampling by SciPy, its layers example by example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from models.layers import resampling
from models.layers.equalized import modulated_convolution
from models.vision.stylegan2 import stylegan2, with_deviation

TINY = dict(image_size=8, base=32, most=4, latent=3, styles=5, mapping_layers=2)


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype("float32")


@pytest.mark.parametrize(
  ("up", "down", "pad"),
  [(1, 1, (0, 0)), (2, 1, (2, 1)), (1, 2, (1, 1)), (3, 2, (4, 0)),
   (2, 1, (-1, 5))],
)  # fmt: skip
def test_upfirdn_is_scipys(up, down, pad):
  x, taps = normal(2, 5, 7, 3), normal(4, seed=1)
  want = np.asarray(x, float)
  for axis in (1, 2):
    # SciPy's result is that of a padding of all taps but one on both sides.
    whole = scipy.signal.upfirdn(taps, want, up, 1, axis)
    size = want.shape[axis] * up + sum(pad) - 3
    before = max(pad[0] - 3, 0)
    width = [(0, 0)] * 4
    width[axis] = (before, 20)
    begin = before + 3 - pad[0]
    index = np.arange(begin, begin + size, down)
    want = np.take(np.pad(whole, width), index, axis)
  got = resampling.upfirdn(jnp.asarray(x), taps, up=up, down=down, pad=pad)
  np.testing.assert_allclose(got, want, atol=1e-5)


def one_by_one(x_BHWI, kernel_KKIO, scale_BI, demodulate, up):
  """Each example convolved with its own kernel, in NumPy and SciPy."""
  found = []
  for x, scale in zip(x_BHWI, scale_BI, strict=True):
    own = kernel_KKIO * scale[None, None, :, None]
    if demodulate:
      own = own / np.sqrt(np.sum(own**2, axis=(0, 1, 2)) + 1e-8)
    if up:
      x = np.stack([x, 0 * x], 1).reshape(-1, *x.shape[1:])
      x = np.stack([x, 0 * x], 2).reshape(len(x), -1, x.shape[2])
    image = 0
    for i in range(x.shape[-1]):
      planes = []
      for o in range(own.shape[-1]):
        flipped = own[::-1, ::-1, i, o]
        if up:
          taps = 2 * np.asarray(resampling.BINOMIAL)
          flipped = scipy.signal.convolve2d(flipped, np.outer(taps, taps))
          plane = scipy.signal.convolve2d(x[..., i], flipped)[2:-3, 2:-3]
        else:
          plane = scipy.signal.convolve2d(x[..., i], flipped, "same")
        planes.append(plane)
      image = image + np.stack(planes, -1)
    found.append(image)
  return np.stack(found)


@pytest.mark.parametrize("products", [False, True])
@pytest.mark.parametrize(
  ("size", "demodulate", "up"),
  [(3, True, False), (3, True, True), (1, False, False)],
)
def test_modulation_is_that_of_each_example(size, demodulate, up, products):
  x, kernel = normal(3, 4, 5, 2), normal(size, size, 2, 3, seed=1)
  scale = normal(3, 2, seed=2)
  got = modulated_convolution(
    jnp.asarray(x),
    jnp.asarray(kernel),
    jnp.asarray(scale),
    demodulate=demodulate,
    up=up,
    products=products,
  )
  want = one_by_one(x, kernel, scale, demodulate, up)
  np.testing.assert_allclose(got, want, atol=1e-4)


def test_the_strided_convolution_of_products_is_xlas():
  x, kernel = jnp.asarray(normal(2, 7, 5, 2)), jnp.asarray(normal(3, 3, 2, 3))
  native, products = (
    resampling.convolution(x, kernel, stride=2, products=products)
    for products in (False, True)
  )
  np.testing.assert_allclose(products, native, atol=1e-5)


def published(size, base, most=512, styles=512, channels=3):
  """(generator, discriminator): numbers of parameters of the official layers.

  Eight dense layers from z to w; a constant of 4 x 4; a 3 x 3 convolution at
  4 x 4, two at each further size, each with its affine map of w, a bias and a
  strength of noise; an image of each size by 1 x 1 with an affine map. The
  discriminator: an image to features by 1 x 1, two 3 x 3 convolutions and a
  skip for each size, a convolution with one more channel and two dense layers.
  """
  sizes = [2**k for k in range(2, size.bit_length())]
  width = {s: min(base // s, most) for s in sizes}

  def layer(i, o):
    return 9 * i * o + o + 1 + (styles + 1) * i

  mapping = 8 * (styles + 1) * styles
  g = mapping + 16 * width[4] + layer(width[4], width[4])
  d = (channels + 1) * width[size]
  for s in sizes:
    g += (width[s] + 1) * channels + (styles + 1) * width[s]
    if s > 4:
      g += layer(width[s // 2], width[s]) + layer(width[s], width[s])
      i, o = width[s], width[s // 2]
      d += (9 * i + 1) * i + (9 * i + 1) * o + i * o
  last = width[4]
  d += (9 * (last + 1) + 1) * last + (16 * last + 1) * last + last + 1
  return g, d


@pytest.mark.parametrize(
  ("size", "base", "total"),
  [(256, 32_768, (30_034_338, 28_864_129)), (256, 16_384, None),
   (1024, 32_768, (30_370_060, 29_012_513))],
)  # fmt: skip
def test_the_parameters_are_as_many_as_published(size, base, total):
  """Configuration F, and half its channels as in StyleGAN2-ADA at 256."""
  model = stylegan2(image_size=size, channels=3, base=base)
  found = tuple(
    sum(x.size for x in jax.tree.leaves(shapes))
    for shapes in (
      jax.eval_shape(player.init, jax.random.key(0))[0]
      for player in (model.generator, model.discriminator)
    )
  )
  assert found == published(size, base)
  assert total in (None, found)


def test_the_deviation_within_groups_is_numpys():
  x = normal(6, 2, 3, 4)
  got = np.asarray(with_deviation(jnp.asarray(x), 4))  # groups of 2
  np.testing.assert_array_equal(got[..., :4], x)
  for b in range(6):
    members = x[[b % 3, b % 3 + 3]]
    want = np.sqrt(members.var(axis=0) + 1e-8).mean()
    np.testing.assert_allclose(got[b, ..., 4], want, rtol=1e-5)


def test_styles_are_truncated_and_mixed():
  model = stylegan2(**TINY, num_classes=3).generator
  params, state = jax.jit(model.init)(jax.random.key(0))
  z_BZ, label_B = jnp.asarray(normal(16, 3)), jnp.arange(16) % 3

  def styles(*inputs, state=state, train=False, **how):
    return model.apply(
      params, state, *inputs, method="styles", train=train, **how
    )

  @jax.jit
  def run():
    _, moved = styles(z_BZ, label_B, train=True)
    return moved["mean"], [
      styles(z_BZ, label_B)[0],
      styles(z_BZ, (label_B + 1) % 3)[0],
      styles(z_BZ, label_B, state=moved, truncation=0.5)[0],
      styles(z_BZ, label_B, jax.random.key(1), mixing=1.0)[0],
    ]

  mean_W, found = jax.device_get(run())
  w_BLW, other, near, mixed = found
  assert w_BLW.shape == (16, 4, 5)  # three convolutions and the last image
  assert not np.allclose(w_BLW, other)
  # In training the average follows the batch's mean.
  mean = w_BLW[:, 0].mean(axis=0)
  np.testing.assert_allclose(mean_W, 0.005 * mean, rtol=1e-4)
  np.testing.assert_allclose(near, (w_BLW + mean_W) / 2, rtol=1e-4)
  same = (mixed == w_BLW).all(axis=2)
  assert same[:, 0].all() and not same[:, -1].any()
  assert (np.diff(same.astype(int)) <= 0).all()
  assert len(set(same.sum(axis=1))) > 1
