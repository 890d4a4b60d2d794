"""What the players of an adversarial task compute."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from models.vision.gan import Gan
from train import types
from train.objectives import adversarial, augmentation, projection

PATH = "path_length"  # of model_state
AUGMENT = "augmentation"
_PLAYERS = ("generator", "discriminator")


class Styles(NamedTuple):
  """How a generator of styles is used.

  mixing: share of the examples in training with the styles of two z.
  truncation: psi of samples.
  path: weight of the path lengths; 0 for none.
  path_every: steps between two of its computations.
  """

  mixing: float = 0.9
  truncation: float = 1.0
  path: float = 0.0
  path_every: int = 8


class Augment(NamedTuple):
  """Adaptive augmentation; see train/objectives/adversarial.py.

  target: of E[sign(D(real))]; 0 for no augmentation.
  images: in which its probability can go from 0 to 1.
  """

  target: float = 0.0
  images: int = 500_000


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
    inputs, how = (z_BZ, *self.label(batch)), {}
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
        image_BHWC = augmentation.augmented(image_BHWC, p, rng)
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

  def path_penalty(self, variables, model_state, batch, context):
    """(weighted penalty, model_state), in every path_every-th step.

    Of half the batch, as in the paper, and multiplied by path_every.
    """
    every, half = self.styles.path_every, (len(batch["image"]) + 1) // 2
    batch = {k: v[:half] for k, v in batch.items()}
    keys = jax.random.split(jax.random.fold_in(context.rng, 2), 4)

    def call(method, *inputs, **how):
      return self.apply(variables, "generator", *inputs, method=method, **how)[
        0
      ]

    def penalized(mean):
      z_BZ = jax.random.normal(keys[0], (half, self.model.latent))
      how = {"key": keys[1], "mixing": self.styles.mixing}
      w_BLW = call("styles", z_BZ, *self.label(batch), **how)
      length_B = adversarial.path_lengths(
        lambda w_BLW: call("synthesis", w_BLW, keys[2]), w_BLW, keys[3]
      )
      penalty, mean = adversarial.path_penalty(length_B, mean)
      return self.styles.path * every * penalty, mean

    mean = model_state[PATH]
    rests = jnp.zeros((), jnp.float32), mean
    penalty, mean = lazily(context.step, every, lambda: penalized(mean), rests)
    return penalty, {**model_state, PATH: mean}

  def projections(self, variables, batch, rng):
    """Each image of the batch as the generator can make it, in [-1, 1]."""
    count = len(batch["image"])

    def call(method, *inputs):
      return self.apply(variables, "generator", *inputs, method=method)[0]

    layers = jax.eval_shape(
      lambda: call(
        "styles", jnp.zeros((count, self.model.latent)), *self.label(batch)
      )
    ).shape[1]

    def synthesize(w_BW):
      shape = (count, layers, w_BW.shape[1])
      w_BLW = jnp.broadcast_to(w_BW[:, None], shape)
      return call("synthesis", w_BLW, rng)

    start_BW = call("average", count)
    w_BW = projection.project(synthesize, start_BW, batch["image"])
    return jnp.clip(synthesize(w_BW), -1, 1)


def lazily(step, every: int, compute, otherwise=None):
  """compute() in every `every`-th step, the first included, else `otherwise`.

  By default this is zeros of the shape that `compute` returns.
  """
  if every == 1:
    return compute()
  if otherwise is None:
    otherwise = jax.tree.map(jnp.zeros_like, jax.eval_shape(compute))
  return jax.lax.cond(step % every == 0, compute, lambda: otherwise)


def players_of(model: Gan, styles: Styles, augment: Augment) -> Players:
  """The Players.

  Raises:
    ValueError: a number is out of range, or the generator has no styles.
  """
  if styles.path and not model.styles:
    raise ValueError("path_length needs a generator of styles (stylegan2)")
  if styles.path_every < 1 or styles.path < 0:
    raise ValueError(
      f"path_length={styles.path} < 0 or path_every={styles.path_every} < 1"
    )
  if not 0 <= styles.mixing <= 1 or not 0 <= styles.truncation <= 1:
    raise ValueError(
      f"mixing={styles.mixing} or truncation={styles.truncation} not in 0…1"
    )
  if not 0 <= augment.target < 1 or augment.images < 1:
    raise ValueError(
      f"augment={augment.target} not in 0…1 or augment_images="
      f"{augment.images} < 1"
    )
  return Players(model, styles, augment)
