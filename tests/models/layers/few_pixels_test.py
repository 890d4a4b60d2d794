"""Convolutions of few pixels beside XLA's, with their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.layers import few_pixels


@pytest.mark.parametrize("size", [(2, 2), (1, 1), (1, 4), (4, 1), (1, 2)])
def test_products_are_convolutions(size):
  rng = np.random.default_rng(0)
  x, kernel, out = (
    jnp.asarray(rng.normal(size=shape), jnp.float32)
    for shape in ((3, *size, 5), (3, 3, 5, 4), (3, *size, 4))
  )

  def convolution(x, kernel):
    return jax.lax.conv_general_dilated(
      x,
      kernel,
      (1, 1),
      "SAME",
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )

  def loss(function):
    return lambda *args: (function(*args) * out).sum()

  for mine, theirs in (
    (few_pixels.convolved(x, kernel), convolution(x, kernel)),
    *zip(
      jax.grad(loss(few_pixels.convolved), (0, 1))(x, kernel),
      jax.grad(loss(convolution), (0, 1))(x, kernel),
      strict=True,
    ),
  ):
    np.testing.assert_allclose(mine, theirs, atol=1e-5)
