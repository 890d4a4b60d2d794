"""Predictions of images that are seen mirrored, too."""

import jax
import jax.numpy as jnp

from train import types


def mirrored(predict: types.Predict, picture: str = "image") -> types.Predict:
  """Logits [B, C] of the mean probabilities of an image and its mirror image.

  Args:
    predict: of the logits, [B, C].
    picture: the field of the batch, [B, H, W, channels], that is mirrored from
      left to right.
  """

  def logits(variables, batch, rng):
    other = {**batch, picture: batch[picture][:, :, ::-1]}
    seen = [
      jax.nn.log_softmax(predict(variables, view, rng).astype(jnp.float32))
      for view in (batch, other)
    ]
    return jnp.logaddexp(*seen) - jnp.log(2.0)

  return logits
