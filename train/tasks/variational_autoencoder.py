"""Variational autoencoders: a bound on the likelihood of images."""

import jax
import jax.numpy as jnp

from models import Model
from train import types
from train.objectives import autoencoding as objective

# What the axes of the fields mean; see common/leaf.py.
AXES = {"image": ("height", "width", "channel")}


def variational_autoencoder(
  model: Model,
  *,
  likelihood: str = "bernoulli",
  stddev: float = 0.1,
  beta: float = 1.0,
  steps: int = 8,
) -> types.Task:
  """The negative evidence lower bound (ELBO) of each image, in nats.

  nats = -log p(image | z) + KL(q(z | image) || N(0, 1)), with one sample of z
  (Kingma and Welling 2014). Metrics: nats, and its two parts, reconstruction
  and kl.

  Batch: image [B, H, W, C] in [-1, 1]; mask [B].

  Predictions, all of them images [B, H, W, C] in [-1, 1]: "samples", decoded
  from N(0, 1); "reconstructions", from the mean of q; "interpolations", rows of
  `steps` images, from the latent mean of one image of the batch to that of the
  next.

  Args:
    model: has the methods "encode", image_BHWC -> (mean, log of the variance)
      of z, and "decode", z -> the parameters of p(image | z).
    likelihood: "bernoulli" of the grey values between 0 and 1, or "gaussian".
    stddev: the standard deviation of the Gaussian.
    beta: the weight of the KL in the loss (Higgins et al. 2017); nats has 1.
    steps: images from one to the next in "interpolations".

  Raises:
    ValueError: `likelihood` is unknown, or a number is not positive.
  """
  objective.check(likelihood)
  if stddev <= 0 or beta < 0 or steps < 2:
    raise ValueError(f"stddev={stddev}, beta={beta}, steps={steps}: too small")

  def call(variables, method, x, **how):
    params, model_state = variables.params, variables.model_state
    return model.apply(params, model_state, x, method=method, **how)

  def loss(variables, batch, context):
    draw_rng, *rngs = jax.random.split(context.rng, 3)
    image_BHWC = batch["image"].astype(jnp.float32)
    (mean, log_variance), model_state = call(
      variables, "encode", image_BHWC, rng=rngs[0], train=context.train
    )
    z = objective.drawn(mean, log_variance, draw_rng)
    outputs_BHWC, model_state = call(
      variables._replace(model_state=model_state),
      "decode",
      z,
      rng=rngs[1],
      train=context.train,
    )
    image_B = objective.nats_of_image(
      outputs_BHWC, image_BHWC, likelihood, stddev
    )
    kl_B = objective.kl_of_normal(mean, log_variance)
    parts = {"nats": image_B + kl_B, "reconstruction": image_B, "kl": kl_B}
    metrics = {k: types.mean_of(v, batch["mask"]) for k, v in parts.items()}
    mean = types.mean_of(image_B + beta * kl_B, batch["mask"])
    return mean, types.Aux(model_state, metrics)

  def shown(variables, z):
    return objective.shown(call(variables, "decode", z)[0], likelihood)

  def encoded(variables, batch):
    return call(variables, "encode", batch["image"])[0][0]

  def samples(variables, batch, rng):
    like = jax.eval_shape(encoded, variables, batch)
    return shown(variables, jax.random.normal(rng, like.shape))

  def reconstructions(variables, batch, rng):
    del rng
    return shown(variables, encoded(variables, batch))

  def interpolations(variables, batch, rng):
    del rng
    z = encoded(variables, batch)
    number_B = jnp.arange(z.shape[0])
    first_B, share_B = number_B // steps, (number_B % steps) / (steps - 1)
    share = share_B.reshape(-1, *(1,) * (z.ndim - 1))
    next_B = (first_B + 1) % z.shape[0]
    return shown(variables, (1 - share) * z[first_B] + share * z[next_B])

  predict = {
    "samples": samples,
    "reconstructions": reconstructions,
    "interpolations": interpolations,
  }
  return types.Task(types.init_of(model), {"loss": loss}, predict)
