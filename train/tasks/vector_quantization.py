"""Vector quantization: images as grids of entries of a codebook."""

import jax
import jax.numpy as jnp

from models import Model
from train import types
from train.objectives import autoencoding as objective
from train.objectives import losses

# What the axes of the fields mean; see common/leaf.py.
AXES = {"image": ("height", "width", "channel")}


def vector_quantization(
  model: Model, *, entries: int, commitment: float = 0.25
) -> types.Task:
  """Reconstruction error, and the distance of latents and their codes.

  Van den Oord et al., 2017, arXiv:1711.00937, equation 3: the squared error of
  the image, `commitment` times that of the latents to their entries, and, if
  the entries are parameters, the squared error of these to the latents; each a
  mean over the elements. Entries that are moving averages have no gradient.

  Batch: image [B, H, W, C] in [-1, 1]; mask [B].

  Metrics: mse; commitment; perplexity, exp of the entropy of the codes of a
  batch, at most the number of entries.

  Predictions: "reconstructions", images in [-1, 1]; "codes", int32 [B, h, w].

  Args:
    model: its method "reconstruct" gives {"image", "latent", "vector", "code"}.
    entries: the number of entries of the codebook.
    commitment: the weight beta of the paper.
  """

  def reconstruct(variables, batch, **how):
    return model.apply(
      variables.params,
      variables.model_state,
      batch["image"],
      method="reconstruct",
      **how,
    )

  def loss(variables, batch, context):
    found, model_state = reconstruct(
      variables, batch, rng=context.rng, train=context.train
    )
    latent, vector = found["latent"], found["vector"]
    image_BHWC = batch["image"].astype(jnp.float32)
    error_B = _mean(losses.squared_error(found["image"], image_BHWC))
    held_B = _mean(jnp.square(latent - jax.lax.stop_gradient(vector)))
    moved_B = _mean(jnp.square(jax.lax.stop_gradient(latent) - vector))
    mask_B = batch["mask"]
    spread = objective.perplexity(found["code"], mask_B, entries)
    metrics = {
      "mse": types.mean_of(error_B, mask_B),
      "commitment": types.mean_of(held_B, mask_B),
      "perplexity": types.Mean(spread * mask_B.sum(), mask_B.sum()),
    }
    total_B = error_B + commitment * held_B
    total_B += moved_B
    return types.mean_of(total_B, mask_B), types.Aux(model_state, metrics)

  def reconstructions(variables, batch, rng):
    del rng
    return jnp.clip(reconstruct(variables, batch)[0]["image"], -1, 1)

  def codes(variables, batch, rng):
    del rng
    return reconstruct(variables, batch)[0]["code"]

  predict = {"reconstructions": reconstructions, "codes": codes}
  return types.Task(types.init_of(model), {"loss": loss}, predict)


def _mean(values: jax.Array) -> jax.Array:
  """The mean over all axes but the first."""
  return values.mean(axis=tuple(range(1, values.ndim)))
