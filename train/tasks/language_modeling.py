"""Autoregressive language modelling: predict the next token."""

import math

import jax.numpy as jnp

from models import Model
from train import decode, losses, types


def language_modeling(
  model: Model, *, label_smoothing: float = 0.0, z_loss: float = 0.0
) -> types.Task:
  """Cross-entropy of the next token, averaged over tokens that are real.

  Batch: inputs, targets [B, T] int32, mask [B, T]; bytes [B], the UTF-8 bytes
  that the real targets stand for, gives bits per byte.

  Args:
    model: tokens_BT -> logits_BTV; with a KV cache if it is to generate.
    label_smoothing: share of the target spread over the vocabulary, in
      training only (Szegedy et al. 2016).
    z_loss: weight of log(Z)^2, in training only (PaLM, Chowdhery et al. 2022).
  """

  def init(rng, batch):
    del batch
    return types.Variables(*model.init(rng))

  def loss(variables, batch, rng, train):
    logits_BTV, model_state = model.apply(
      variables.params,
      variables.model_state,
      batch["inputs"],
      rng=rng,
      train=train,
    )
    nats_BT = losses.cross_entropy(
      logits_BTV,
      batch["targets"],
      label_smoothing=label_smoothing if train else 0.0,
      z_loss=z_loss if train else 0.0,
    )
    mean = types.mean_of(nats_BT, batch["mask"])
    metrics = {}
    if not train and "bytes" in batch:
      bits = mean.total / math.log(2)
      metrics["bits_per_byte"] = types.Mean(bits, jnp.sum(batch["bytes"]))
    return mean, types.Aux(model_state, metrics)

  def logits(variables, batch, rng):
    return model.apply(
      variables.params, variables.model_state, batch["inputs"], rng=rng
    )[0]

  def samples(variables, batch, rng):
    """Continues prompts: tokens [B, L], where mask [B, L] is 0, are written.

    temperature, a scalar leaf of the batch, is 1 where it is absent.
    """
    step, cache = stepper(model, variables, *batch["tokens"].shape)
    return decode.generate(
      step,
      cache,
      batch["tokens"],
      batch["mask"],
      rng,
      temperature=batch.get("temperature", 1.0),
    )

  predict = {"logits": logits}
  if model.init_cache is not None:
    predict["samples"] = samples
  return types.Task(init, {"loss": loss}, predict)


def stepper(
  model: Model, variables: types.Variables, batch_size: int, length: int
) -> tuple[decode.Step, types.PyTree]:
  """(step, cache) for decode.generate to write texts of `length` tokens.

  With the model's KV cache while `length` is within its max_len; beyond, each
  token is drawn from the window of the last max_len.
  """

  def apply(tokens_BT, **kwargs):
    return model.apply(
      variables.params, variables.model_state, tokens_BT, **kwargs
    )[0]

  if model.max_len is not None and length > model.max_len:
    return decode.window_step(apply, batch_size, model.max_len)

  def step(cache, token_B1):
    logits_B1V, cache = apply(token_B1, cache=cache)
    return logits_B1V[:, -1], cache

  return step, model.init_cache(batch_size, length)
