"""Generative adversarial networks: a generator against a discriminator."""

import jax
import jax.numpy as jnp

from models.vision.gan import Gan
from train import types
from train.objectives import losses


def generative_adversarial(
  model: Gan, *, loss: str = "nonsaturating", r1: float = 0.0, gp: float = 0.0
) -> types.Task:
  """Two losses: the generator's and the discriminator's.

  Batch: image [B, H, W, C] in [-1, 1], mask [B].

  Args:
    model: the generator, z_BZ -> image_BHWC, and the discriminator,
      image_BHWC -> logits_B.
    loss: "nonsaturating" (Goodfellow et al. 2014, section 3) or "wasserstein"
      (Arjovsky et al. 2017).
    r1: gamma of the zero-centred gradient penalty on real images,
      gamma/2 * |grad D(x)|^2 (Mescheder et al. 2018).
    gp: lambda of the gradient penalty of WGAN-GP on mixed images,
      lambda * (|grad D(x)| - 1)^2 (Gulrajani et al. 2017).

  Raises:
    ValueError: `loss` is unknown.
  """
  if loss not in ("nonsaturating", "wasserstein"):
    raise ValueError(f"loss={loss!r} is neither nonsaturating nor wasserstein")
  players = {"generator": model.generator, "discriminator": model.discriminator}

  def init(rng, batch):
    del batch
    made = {
      player: network.init(jax.random.fold_in(rng, i))
      for i, (player, network) in enumerate(players.items())
    }
    return types.Variables(
      params={player: params for player, (params, _) in made.items()},
      model_state={player: state for player, (_, state) in made.items()},
    )

  def apply(variables, player, x, rng=None, train=False):
    """(outputs, the new model_state of both players)."""
    outputs, new = players[player].apply(
      variables.params[player],
      variables.model_state[player],
      x,
      rng=rng,
      train=train,
    )
    return outputs, {**variables.model_state, player: new}

  def generate(variables, batch, rng, train=False):
    batch_size = batch["image"].shape[0]
    z_BZ = jax.random.normal(rng, (batch_size, model.latent))
    return apply(variables, "generator", z_BZ, train=train)

  def generator_loss(variables, batch, context):
    rng, train = context.rng, context.train
    fake_BHWC, model_state = generate(variables, batch, rng, train)
    logits_B, _ = apply(variables, "discriminator", fake_BHWC, train=train)
    mean = types.mean_of(losses.generator(logits_B, loss), batch["mask"])
    return mean, types.Aux(model_state, {})

  def discriminator_loss(variables, batch, context):
    rng, train = context.rng, context.train
    real_BHWC, mask_B = batch["image"], batch["mask"]
    z_rng, mix_rng = jax.random.split(rng)
    fake_BHWC, _ = generate(variables, batch, z_rng, train)

    def score(image_BHWC):
      return apply(variables, "discriminator", image_BHWC, train=train)[0]

    real_B = score(real_BHWC)
    fake_B, model_state = apply(
      variables, "discriminator", fake_BHWC, train=train
    )
    loss_B = losses.discriminator(real_B, fake_B, loss)
    metrics = {
      "real_logit": types.mean_of(real_B, mask_B),
      "fake_logit": types.mean_of(fake_B, mask_B),
    }
    if r1:
      loss_B = loss_B + losses.r1_penalty(score, real_BHWC, r1)
    if gp:
      mix_B111 = jax.random.uniform(mix_rng, (real_B.shape[0], 1, 1, 1))
      mixed_BHWC = mix_B111 * real_BHWC + (1 - mix_B111) * fake_BHWC
      loss_B = loss_B + losses.gradient_penalty(score, mixed_BHWC, gp)
    mean = types.mean_of(loss_B, mask_B)
    return mean, types.Aux(model_state, metrics)

  def samples(variables, batch, rng):
    return jnp.clip(generate(variables, batch, rng)[0], -1, 1)

  return types.Task(
    init,
    {"generator": generator_loss, "discriminator": discriminator_loss},
    {"samples": samples},
  )
