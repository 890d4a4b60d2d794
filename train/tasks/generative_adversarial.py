"""Generative adversarial networks: a generator against a discriminator."""

import functools

import jax
import jax.numpy as jnp

from models.vision.gan import Gan
from train import types
from train.objectives import losses
from train.tasks.parts import gan_settings, players
from train.tasks.parts import styles as styled

AXES = {"image": ("height", "width", "channel")}


def generative_adversarial(
  model: Gan,
  *,
  loss: str = "nonsaturating",
  r1: float = 0.0,
  r1_every: int = 1,
  gp: float = 0.0,
  path_length: float = 0.0,
  path_every: int = 8,
  mixing: float = 0.9,
  truncation: float = 1.0,
  augment: float = 0.0,
  augment_images: int = 500_000,
) -> types.Task:
  """Two losses: the generator's and the discriminator's.

  Batch: image [B, H, W, C] in [-1, 1], mask [B]; label [B] int32 if the model
  has classes. The prediction "projections" of a model of styles is the image
  that comes closest to each of the batch.

  Args:
    model: the generator, z_BZ -> image_BHWC, and the discriminator,
      image_BHWC -> logits_B.
    loss: "nonsaturating" (Goodfellow et al. 2014, section 3) or "wasserstein"
      (Arjovsky et al. 2017).
    r1: gamma of the zero-centred gradient penalty on real images,
      gamma/2 * |grad D(x)|^2 (Mescheder et al. 2018).
    r1_every: it is computed in every r1_every-th step, times this number.
    gp: lambda of the gradient penalty of WGAN-GP on mixed images,
      lambda * (|grad D(x)| - 1)^2 (Gulrajani et al. 2017).
    path_length: weight of a generator's path lengths; 2 in StyleGAN2.
    path_every: as r1_every, for the path lengths.
    mixing: share of the examples in training that have the styles of two z.
    truncation: psi of the samples; 1 is the whole distribution.
    augment: target of E[sign(D(real))] for adaptive augmentation, 0.6 in
      StyleGAN2-ADA (arXiv:2006.06676); 0 for none.
    augment_images: images in which the probability may go from 0 to 1.

  Raises:
    ValueError: `loss` is unknown, or a number is out of range.
  """
  if loss not in ("nonsaturating", "wasserstein"):
    raise ValueError(f"loss={loss!r} is neither nonsaturating nor wasserstein")
  styles = gan_settings.Styles(mixing, truncation, path_length, path_every)
  adaptive = gan_settings.Augment(augment, augment_images)
  gan_settings.check(model, styles, adaptive, r1_every)
  of = players.Players(model, styles, adaptive)

  def generator_loss(variables, batch, context):
    rng, train = context.rng, context.train
    fake_BHWC, model_state = of.generate(variables, batch, rng, train)
    logits_B, _ = of.score(variables, batch, rng, train)(fake_BHWC)
    mean = types.mean_of(losses.generator(logits_B, loss), batch["mask"])
    metrics = {}
    if path_length and train:
      penalty, model_state = styled.path_penalty(
        of, variables, model_state, batch, context
      )
      mean = mean._replace(total=mean.total + penalty * mean.weight)
      metrics["path_length"] = types.mean_of(model_state[players.PATH])
    return mean, types.Aux(model_state, metrics)

  def discriminator_loss(variables, batch, context):
    rng, train = context.rng, context.train
    real_BHWC, mask_B = batch["image"], batch["mask"]
    z_rng, mix_rng = jax.random.split(rng)
    fake_BHWC, _ = of.generate(variables, batch, z_rng, train)
    score_real = of.score(variables, batch, z_rng, train)

    def score(image_BHWC):
      return score_real(image_BHWC)[0]

    real_B = score(real_BHWC)
    score_fake = of.score(variables, batch, mix_rng, train)
    fake_B, model_state = score_fake(fake_BHWC)
    loss_B = losses.discriminator(real_B, fake_B, loss)
    metrics = {
      "real_logit": types.mean_of(real_B, mask_B),
      "fake_logit": types.mean_of(fake_B, mask_B),
    }
    if r1:
      loss_B = loss_B + styled.lazily(
        context.step,
        r1_every,
        lambda: r1_every * losses.r1_penalty(score, real_BHWC, r1),
      )
    if gp:
      mix_B111 = jax.random.uniform(mix_rng, (real_B.shape[0], 1, 1, 1))
      mixed_BHWC = mix_B111 * real_BHWC + (1 - mix_B111) * fake_BHWC
      loss_B = loss_B + losses.gradient_penalty(score, mixed_BHWC, gp)
    if augment and train:
      model_state, p = of.adapted(model_state, real_B)
      metrics["augmented"] = types.mean_of(p)
    mean = types.mean_of(loss_B, mask_B)
    return mean, types.Aux(model_state, metrics)

  def samples(variables, batch, rng):
    return jnp.clip(of.generate(variables, batch, rng)[0], -1, 1)

  predict = {"samples": samples}
  if model.styles:
    predict["projections"] = functools.partial(styled.projections, of)
  played = {"generator": generator_loss, "discriminator": discriminator_loss}
  return types.Task(of.init, played, predict, coupled=model.styles)
