"""Diffusion and flow matching: images are learned by removing noise."""

import jax
import jax.numpy as jnp

from models import Model
from models.vision.latent_diffusion import LatentDiffusion
from train import types
from train.objectives import diffusion as objective
from train.objectives import losses
from train.tasks.parts import latents

# What the axes of the fields mean; see common/leaf.py.
AXES = {"image": ("height", "width", "channel"), "caption": ("token",)}


def diffusion(
  model: Model | LatentDiffusion,
  *,
  kind: str = "diffusion",
  schedule: str = "cosine",
  prediction: str = "eps",
  timesteps: int = 1000,
  num_classes: int | None = None,
  conditional: bool = True,
  text: bool = False,
  drop_label: float = 0.1,
  sampler: str | None = None,
  steps: int = 50,
  guidance: float = 1.0,
  eta: float = 0.0,
  clip: float | None = None,
  latent_scale: float = 1.0,
  likelihood: str = "bernoulli",
) -> types.Task:
  """Mean squared error of what the network predicts of an image with noise.

  Batch: image [B, H, W, C] in [-1, 1]; label [B] int32, if it is conditional,
  or caption [B, S] int32; index [B]; mask [B]. The prediction "samples" draws
  an image in [-1, 1] for each row of the batch.

  Args:
    model: image_BHWC, time_B, label_B -> image_BHWC; or a LatentDiffusion, of
      which config.init_from.autoencoder gives the frozen autoencoder.
    kind: "diffusion" in discrete steps, or "flow" (flow matching along straight
      lines), which needs no schedule, prediction and timesteps.
    schedule: "linear" or "cosine".
    prediction: "eps", the noise; "x0", the image; or "v".
    timesteps: T, the number of steps that are learned.
    num_classes: of the data; this number is the label of no class. None is 0.
    conditional: whether the network is given the labels.
    text: whether it is given the captions instead; zeros are no text.
    drop_label: share of the labels that training leaves out, for guidance.
    sampler: "ddim" or "ddpm"; of a flow "euler" or "heun". Default: the first.
    steps: steps of the sampler.
    guidance: weight of classifier-free guidance; 1 does without.
    eta: the noise of "ddim", from 0 to 1.
    clip: the samplers keep x_0 within this bound; 0 for none. Default: 1 for
      images, 0 for latents.
    latent_scale: latents are multiplied by it, to a variance of about 1.
    likelihood: of the autoencoder; see variational_autoencoder.

  Raises:
    ValueError: a choice is unknown, or a number out of range.
  """
  num_classes = 0 if text else num_classes or 0
  latent = isinstance(model, LatentDiffusion)
  denoiser: Model = model.denoiser if latent else model
  coder = model.autoencoder if latent else None
  space = latents.of(coder, latent_scale, likelihood)
  clip = float(coder is None) if clip is None else clip
  how = objective.noising(kind, schedule, prediction, timesteps)
  sample = objective.sampler_of(how, sampler, steps, eta, clip)

  def init(rng, batch):
    del batch
    rng, coder_rng = jax.random.split(rng)
    return types.Variables(*denoiser.init(rng), frozen=space.init(coder_rng))

  def labels(batch):
    if text:
      return batch["caption"]
    if conditional and num_classes:
      return batch["label"].astype(jnp.int32)
    return jnp.full(batch["mask"].shape, num_classes, jnp.int32)

  def apply(variables, *inputs, **how):
    params, model_state = variables.params, variables.model_state
    return denoiser.apply(params, model_state, *inputs, **how)

  def loss(variables, batch, context):
    # In evaluation, what is drawn depends on the index of an image alone.
    train = context.train
    index_B = None if train else batch["index"]
    code_rng, noise_rng, label_rng, rng = jax.random.split(context.rng, 4)
    x0 = space.encode(variables, batch["image"], code_rng if train else None)
    time_B, noise = objective.drawn(how, noise_rng, x0.shape, index_B)
    label_B = labels(batch)
    if train and drop_label:
      label_B = objective.without(label_rng, label_B, drop_label, num_classes)
    x, wanted, seen_B = objective.noised(how, x0, noise, time_B)
    found, model_state = apply(
      variables, x, seen_B, label_B, rng=rng, train=train
    )
    mean = types.mean_of(losses.squared_error(found, wanted), batch["mask"])
    return mean, types.Aux(model_state, {})

  def samples(variables, batch, rng):
    like = jax.eval_shape(space.encode, variables, batch["image"], None)
    start_rng, rng = jax.random.split(rng)
    guided = objective.guided(
      lambda *inputs: apply(variables, *inputs)[0],
      labels(batch),
      num_classes,
      guidance,
    )
    x = sample(guided, jax.random.normal(start_rng, like.shape), rng)
    return space.decode(variables, x)

  return types.Task(init, {"loss": loss}, {"samples": samples})
