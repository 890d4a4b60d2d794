"""Denoising: PSNR and SSIM on images with noise of one level."""

import jax
import jax.numpy as jnp
import numpy as np

from train import types
from train.evaluators.parts import pictures as drawing
from train.evaluators.samples import grid
from train.objectives import denoising as objective


def denoising(
  context: types.EvalContext,
  *,
  level: float = 25.0,
  tile: int = 0,
  margin: int = 32,
  multiple: int = 8,
  pictures: int = 4,
) -> types.Evaluator:
  """Measures psnr and ssim over the images of a split, and those of the input.

  The noise of an image depends on the run's seed and on the image's index
  alone. PSNR in dB and SSIM (Wang et al. 2004) are computed for each image in
  float64, after clipping to the range of pixels, and averaged over images.
  WORKDIR/samples/<key>_<step>.png has rows of clean, noisy and denoised images.

  Args:
    context: of the run; its task predicts "denoised".
    level: standard deviation of the noise, in 255ths of the range of pixels.
    tile: the height and width of the tiles that an image is denoised in, so
      that large images need little memory; 0 takes images whole.
    margin: the pixels at the edges of tiles that are discarded.
    multiple: tiles begin at multiples of this number of pixels; it must be a
      multiple of the factor by which the network makes images smaller.
    pictures: number of images to draw; 0 draws none.

  Raises:
    ValueError: the task does not predict denoised images, or tiles are smaller
      than their margins.
  """
  if "denoised" not in context.task.predict:
    raise ValueError("denoising needs a task that predicts denoised images")
  if tile and tile - 2 * margin < multiple:
    raise ValueError(
      f"tile={tile} leaves no {multiple} pixels between margins of {margin}"
    )

  @jax.jit
  def corrupted(image_BHWC, index_B):
    level_B = jnp.full(index_B.shape, level, jnp.float32)
    noise_BHWC = objective.noise_of(context.rng, index_B, image_BHWC.shape[1:])
    return objective.noisy(image_BHWC, level_B, noise_BHWC)

  @jax.jit
  def denoise(variables, noisy_BHWC):
    level_B = jnp.full(noisy_BHWC.shape[:1], level, jnp.float32)
    batch = {"image": noisy_BHWC, "level": level_B}
    return context.task.predict["denoised"](variables, batch, context.rng)

  def restored(variables, noisy_BHWC):
    """Denoised images, as a NumPy array."""
    if not tile:
      return context.fetch(denoise(variables, noisy_BHWC))
    # Every process computes the same tiles, from arrays of its own.
    own = context.fetch(noisy_BHWC)

    def part(image_BHWC):
      return np.asarray(context.fetch(denoise(variables, image_BHWC)))

    return np.stack(
      [objective.tiled(part, each, tile, margin, multiple) for each in own]
    )

  def evaluate(variables, step):
    sums, count, rows = np.zeros(4), 0, []
    for batch in context.batches():
      noisy_BHWC = corrupted(batch["image"], batch["index"])
      found_BHWC = restored(variables, noisy_BHWC)
      clean_BHWC, given_BHWC, mask_B = context.fetch(
        (batch["image"], noisy_BHWC, batch["mask"])
      )
      for i in np.flatnonzero(mask_B):
        clean, given, found = (
          np.clip(np.asarray(each[i], np.float64), -1, 1)
          for each in (clean_BHWC, given_BHWC, found_BHWC)
        )
        sums += (
          objective.psnr(clean, found),
          objective.ssim(clean, found),
          objective.psnr(clean, given),
          objective.ssim(clean, given),
        )
        count += 1
        if len(rows) < pictures:
          rows.append((clean, given, found))
    if rows:
      _draw(context, rows, step)
    return dict(zip(_NAMES, (sums / max(count, 1)).tolist(), strict=True))

  return types.Measuring(evaluate, lambda variables: _NAMES)


_NAMES = ("psnr", "ssim", "noisy_psnr", "noisy_ssim")


def _draw(context, rows, step) -> None:
  """Writes a picture with a row for each (clean, noisy, denoised)."""
  image_HWC = np.concatenate(
    [np.concatenate([grid(each[None]) for each in row], 1) for row in rows]
  )
  drawing.write(context, step, "denoised", image_HWC)
