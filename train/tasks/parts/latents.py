"""Images as latents of a frozen autoencoder, or as they are."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from models import Model
from train import types
from train.objectives import autoencoding

KEY = "autoencoder"  # of Variables.frozen


class Latents(NamedTuple):
  """Two functions, and what they read.

  init: (rng) -> entries of Variables.frozen.
  encode: (variables, image_BHWC, rng) -> x, a sample; the mean if rng is None.
  decode: (variables, x) -> image_BHWC in [-1, 1].
  """

  init: Callable[[jax.Array], Any]
  encode: Callable[..., jax.Array]
  decode: Callable[..., jax.Array]


def of(coder: Model | None, scale: float, likelihood: str) -> Latents:
  """The Latents of an autoencoder; None leaves images as they are.

  Args:
    coder: has the methods "encode" and "decode"; see models/vision/vae.py.
    scale: latents are multiplied by it.
    likelihood: what the decoder's outputs mean; see autoencoding.shown.

  Raises:
    ValueError: `likelihood` is unknown, or the scale is not positive.
  """
  autoencoding.check(likelihood)
  if scale <= 0:
    raise ValueError(f"latent_scale={scale} is not above 0")
  if coder is None:
    return Latents(
      lambda rng: (),
      lambda variables, image_BHWC, rng: image_BHWC.astype(jnp.float32),
      lambda variables, x: jnp.clip(x, -1, 1),
    )

  def init(rng):
    params, model_state = coder.init(rng)
    return {KEY: {"params": params, "model_state": model_state}}

  def call(variables: types.Variables, method, x):
    given = variables.frozen[KEY]
    params, model_state = given["params"], given["model_state"]
    return coder.apply(params, model_state, x, method=method)[0]

  def encode(variables, image_BHWC, rng):
    mean, log_variance = call(variables, "encode", image_BHWC)
    if rng is None:
      return scale * mean
    return scale * autoencoding.drawn(mean, log_variance, rng)

  def decode(variables, x):
    outputs_BHWC = call(variables, "decode", x / scale)
    return autoencoding.shown(outputs_BHWC, likelihood)

  return Latents(init, encode, decode)
