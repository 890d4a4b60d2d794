"""What the players of an adversarial task compute."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from models.vision.gan import Gan
from train import types
from train.objectives import adversarial, augmentation
from train.tasks.parts.gan_settings import Augment, Styles

PATH = "path_length"  # of model_state
AUGMENT = "augmentation"
_PLAYERS = ("generator", "discriminator")


class Players(NamedTuple):
  """The networks of a Gan, their styles and augmentation."""

  model: Gan
  styles: Styles
  augment: Augment

  def init(self, rng, batch) -> types.Variables:
    """The variables of both, and the state of what adapts itself."""
    del batch
    made = {
      player: getattr(self.model, player).init(jax.random.fold_in(rng, i))
      for i, player in enumerate(_PLAYERS)
    }
    state = {player: state for player, (_, state) in made.items()}
    if self.styles.path:
      state[PATH] = jnp.zeros((), jnp.float32)
    if self.augment.target:
      zero = jnp.zeros((), jnp.float32)
      state[AUGMENT] = {"p": zero, "sign": zero}
    params = {player: params for player, (params, _) in made.items()}
    return types.Variables(params, state)

  def apply(self, variables, player, *inputs, **how) -> tuple[Any, Any]:
    """(outputs, the new model_state of both players)."""
    outputs, new = getattr(self.model, player).apply(
      variables.params[player], variables.model_state[player], *inputs, **how
    )
    return outputs, {**variables.model_state, player: new}

  def label(self, batch) -> tuple:
    """(label_B,) if the networks take it, else ()."""
    if not self.model.num_classes:
      return ()
    return (batch["label"].astype(jnp.int32),)

  def generate(self, variables, batch, rng, train=False):
    """(image_BHWC, model_state) of normal noise."""
    z_BZ = jax.random.normal(rng, (len(batch["image"]), self.model.latent))
    inputs: tuple = (z_BZ, *self.label(batch))
    how: dict[str, Any] = {}
    if self.model.styles:
      how = {"key": jax.random.fold_in(rng, 1)}
      if train:
        how["mixing"] = self.styles.mixing
      else:
        how["truncation"] = self.styles.truncation
    return self.apply(variables, "generator", *inputs, train=train, **how)

  def score(self, variables, batch, rng, train):
    """image_BHWC -> (logits_B, model_state), of augmented images."""

    def score(image_BHWC):
      if self.augment.target:
        p = variables.model_state[AUGMENT]["p"]
        image_BHWC = augmentation.augmented(
          image_BHWC, p, jax.random.fold_in(rng, 3)
        )
      inputs = (image_BHWC, *self.label(batch))
      return self.apply(variables, "discriminator", *inputs, train=train)

    return score

  def adapted(self, model_state, real_logits_B):
    """(model_state, the new probability of augmentations)."""
    state = adversarial.adapted(
      model_state[AUGMENT],
      real_logits_B,
      self.augment.target,
      self.augment.images,
    )
    return {**model_state, AUGMENT: state}, state["p"]
