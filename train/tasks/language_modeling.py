"""Autoregressive language modelling: predict the next token."""

import functools
import math

import jax.numpy as jnp

from models import Model
from train import types
from train.generation import sampling
from train.objectives import losses
from train.objectives.linear_cross_entropy import linear_cross_entropy


def language_modeling(
  model: Model,
  *,
  label_smoothing: float = 0.0,
  z_loss: float = 0.0,
  loss_chunk: int = 0,
  load_balance: float = 0.01,
  router_z: float = 0.001,
) -> types.Task:
  """Cross-entropy of the next token, averaged over real tokens.

  Batch: inputs, targets [B, T] int32, mask [B, T]; optionally bytes [B], the
  number of UTF-8 bytes of the real targets, for bits per byte. In packed rows,
  segments [B, T] numbers the documents from 1 (0 is padding), and positions
  [B, T] counts from the start of each document. Blank infilling adds
  block_positions [B, T] and prefix [B]; see input_pipeline/ops/infilling.py.

  Args:
    model: tokens_BT -> logits_BTV, logits and not probabilities; generation
      also needs its cache.
    label_smoothing: see losses.cross_entropy; in training only.
    z_loss: see losses.cross_entropy; in training only.
    loss_chunk: positions whose logits are in memory at a time, on each device;
      0 computes all at once. It needs a model with the method "represent".
    load_balance: weight of a mixture's load-balancing loss, in training only.
    router_z: weight of a mixture's router z-loss, in training only.

  Raises:
    ValueError: loss_chunk is set, and the model has no method "represent".
  """
  if loss_chunk and not model.represents:
    raise ValueError(f"loss_chunk={loss_chunk}: the model has no represent()")
  routing_weights = {"load_balance": load_balance, "router_z": router_z}

  def init(rng, batch):
    del batch
    return types.Variables(*model.init(rng))

  def within_rows(batch):
    """The model's arguments for packed rows and for blank infilling."""
    names = ("positions", "segments", "block_positions")
    where = {f"{name}_BT": batch[name] for name in names if name in batch}
    return where | ({"prefix_B": batch["prefix"]} if "prefix" in batch else {})

  def scored(variables, batch, rng, train):
    """((settings of the loss) -> nats_BT, auxiliary losses, model_state)."""
    noise, where = {"rng": rng, "train": train}, within_rows(batch)
    tokens = (variables.params, variables.model_state, batch["inputs"])
    targets_BT = batch["targets"]
    if model.counts:  # It has no need of logits, which may be too many.
      where |= {"targets_BT": targets_BT, "mask_BT": batch["mask"]}
      nats_BT, state = model.apply(*tokens, method="nats", **where, **noise)
      return lambda **_: nats_BT, {}, state
    if not model.represents:
      logits_BTV, state = model.apply(*tokens, **where, **noise)
      nats = functools.partial(losses.cross_entropy, logits_BTV, targets_BT)
      return nats, {}, state
    found, state = model.apply(*tokens, method="represent", **where, **noise)
    given = (found.x_BTD, found.unembedding_VD, targets_BT)
    nats = functools.partial(linear_cross_entropy, *given, chunk=loss_chunk)
    return nats, found.losses, state

  def loss(variables, batch, context):
    rng, train = context.rng, context.train
    nats, routing, model_state = scored(variables, batch, rng, train)
    extra = {"label_smoothing": label_smoothing, "z_loss": z_loss}
    mean = types.mean_of(nats(**(extra if train else {})), batch["mask"])
    metrics = {}
    if train and label_smoothing and not (loss_chunk or model.counts):
      # The same logits; in chunks they would be computed a second time.
      metrics["loss_unsmoothed"] = types.mean_of(nats(), batch["mask"])
    for name, value in routing.items():
      metrics[name] = types.Mean(value * mean.weight, mean.weight)
      if train:
        total = mean.total + routing_weights[name] * metrics[name].total
        mean = mean._replace(total=total)
    if not train and "bytes" in batch:
      bits = mean.total / math.log(2)
      metrics["bits_per_byte"] = types.Mean(bits, jnp.sum(batch["bytes"]))
    return mean, types.Aux(model_state, metrics)

  def logits(variables, batch, rng):
    params, state = variables.params, variables.model_state
    where = within_rows(batch)
    return model.apply(params, state, batch["inputs"], rng=rng, **where)[0]

  def samples(variables, batch, rng):
    """Continues prompts: writes tokens [B, L] where mask [B, L] is 0.

    The batch may have a scalar leaf temperature; the default is 1.
    """
    step, cache = sampling.stepper(model, variables, *batch["tokens"].shape)
    return sampling.generate(
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
