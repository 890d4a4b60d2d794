"""Masked image modeling: hidden patches are reconstructed (MAE)."""

import jax
import jax.numpy as jnp

from models.vision import vit
from models.vision.mae import MaskedAutoencoder
from train import types
from train.objectives import masked_patches as objective
from train.tasks.parts import networks

# What the axes of the fields mean; see common/leaf.py.
AXES = {"image": ("height", "width", "channel")}


def masked_image_modeling(
  model: MaskedAutoencoder,
  *,
  patch: int,
  ratio: float = 0.75,
  standardize: bool = True,
) -> types.Task:
  """The mean squared error of hidden patches (He et al., 2022).

  arXiv:2111.06377. The encoder reads the visible patches alone. Which are
  hidden is drawn for each image at each step; in evaluation it depends on the
  evaluator's seed.

  Batch: image [B, H, W, C] float; mask [B].

  Predictions: "features" [B, F] of the encoder, which sees the whole image;
  "reconstructions" [B, H, W, C], the visible patches and the reconstructed
  ones, in units of the image.

  Args:
    model: an encoder and a decoder.
    patch: height and width of a patch, that of the encoder.
    ratio: the share of the patches that is hidden.
    standardize: whether each patch is to be predicted after subtraction of its
      mean and division by its deviation.

  Raises:
    ValueError: the ratio is not between 0 and 1.
  """
  if not 0 < ratio < 1:
    raise ValueError(f"ratio={ratio} is not between 0 and 1")
  parts = model._asdict()

  def rebuilt(variables, image_BHWC, rng, train=False):
    """(found_BTI, wanted_BTI, hidden_BT, the new model_state)."""
    noise_rng, encoder_rng, decoder_rng = jax.random.split(rng, 3)
    wanted_BTI = vit.patches(image_BHWC.astype(jnp.float32), patch)
    noise_BT = jax.random.uniform(noise_rng, wanted_BTI.shape[:2])
    visible_BK, hidden_BT = objective.visible(noise_BT, ratio)
    params, state = variables.params, dict(variables.model_state)
    x_BTD, state["encoder"] = model.encoder.apply(
      params["encoder"],
      state["encoder"],
      image_BHWC,
      visible_BK,
      rng=encoder_rng,
      train=train,
      method="tokens",
    )
    found_BTI, state["decoder"] = model.decoder.apply(
      params["decoder"],
      state["decoder"],
      x_BTD,
      visible_BK,
      rng=decoder_rng,
      train=train,
    )
    return found_BTI, wanted_BTI, hidden_BT, state

  def loss(variables, batch, context):
    found_BTI, wanted_BTI, hidden_BT, state = rebuilt(
      variables, batch["image"], context.rng, context.train
    )
    if standardize:
      wanted_BTI = objective.standardized(wanted_BTI)[0]
    error_BT = objective.error(found_BTI, wanted_BTI)
    weight_BT = hidden_BT * batch["mask"][:, None]
    return types.mean_of(error_BT, weight_BT), types.Aux(state, {})

  def reconstructions(variables, batch, rng):
    image_BHWC = batch["image"]
    found, wanted, hidden, _ = rebuilt(variables, image_BHWC, rng)
    if standardize:
      _, mean, deviation = objective.standardized(wanted)
      found = found * deviation + mean
    whole_BTI = jnp.where(hidden[..., None] > 0, found, wanted)
    return objective.image_of(whole_BTI, image_BHWC.shape, patch)

  return types.Task(
    networks.init_of(parts),
    {"loss": loss},
    {
      "reconstructions": reconstructions,
      "features": networks.features_of(model.encoder, "encoder"),
    },
  )
