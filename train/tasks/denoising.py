"""Denoising: finds the clean image in one with Gaussian noise."""

import jax
import jax.numpy as jnp

from models import Model
from train import types
from train.objectives import denoising as objective
from train.objectives import losses

# What the axes of the fields mean; see common/leaf.py.
AXES = {"image": ("height", "width", "channel"), "level": ()}


def denoising(
  model: Model,
  *,
  sigma: float | tuple[float, float] = (0.0, 55.0),
  level: float = 25.0,
  target: str = "noise",
) -> types.Task:
  """Mean squared error of the denoised image, averaged over its pixels.

  The data are clean images: each step draws a level for each image and adds
  noise. In evaluation, the noise of an image depends on the key and on its
  index alone. The prediction "denoised" takes noisy images.

  Batch: image [B, H, W, C] in [-1, 1]; index [B]; mask [B]. For "denoised",
  level [B], if it is there, is the level of the noise.

  Args:
    model: image_BHWC, level_B -> noise_BHWC or image_BHWC.
    sigma: the least and greatest standard deviation of the noise in training,
      in 255ths of the range of the pixels; or one number.
    level: the standard deviation of the noise in evaluation.
    target: "noise" if the model's output is subtracted from the image
      (residual learning, arXiv:1608.03981), "image" if it is the result.

  Raises:
    ValueError: `target` is unknown, or the levels are not in order.
  """
  low, high = (sigma, sigma) if isinstance(sigma, (int, float)) else sigma
  if not 0 <= low <= high or level < 0:
    raise ValueError(f"sigma={sigma!r}, level={level!r}: not levels in order")
  if target not in ("noise", "image"):
    raise ValueError(f'target={target!r} is neither "noise" nor "image"')

  def apply(variables, image_BHWC, level_B, **how):
    found_BHWC, model_state = model.apply(
      variables.params, variables.model_state, image_BHWC, level_B, **how
    )
    if target == "noise":
      found_BHWC = image_BHWC.astype(jnp.float32) - found_BHWC
    return found_BHWC, model_state

  def loss(variables, batch, context):
    clean_BHWC = batch["image"].astype(jnp.float32)
    level_rng, noise_rng, rng = jax.random.split(context.rng, 3)
    count, shape = clean_BHWC.shape[0], clean_BHWC.shape[1:]
    if context.train:
      level_B = objective.uniform_levels(level_rng, count, low, high)
      noise_BHWC = jax.random.normal(noise_rng, clean_BHWC.shape)
    else:
      level_B = jnp.full((count,), level, jnp.float32)
      noise_BHWC = objective.noise_of(context.rng, batch["index"], shape)
    noisy_BHWC = objective.noisy(clean_BHWC, level_B, noise_BHWC)
    found_BHWC, model_state = apply(
      variables, noisy_BHWC, level_B, rng=rng, train=context.train
    )
    error_BHWC = losses.squared_error(found_BHWC, clean_BHWC)
    mean = types.mean_of(error_BHWC, batch["mask"])
    return mean, types.Aux(model_state, {})

  def denoised(variables, batch, rng):
    del rng
    noisy_BHWC = batch["image"]
    level_B = batch.get("level")
    if level_B is None:
      level_B = jnp.full((noisy_BHWC.shape[0],), level, jnp.float32)
    return apply(variables, noisy_BHWC, level_B)[0]

  return types.Task(
    types.init_of(model), {"loss": loss}, {"denoised": denoised}
  )
