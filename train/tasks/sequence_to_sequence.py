"""Sequence to sequence: translation, summarization, T5's span corruption."""

import math

import jax.numpy as jnp

from models import Model
from train import types
from train.generation import beam_search
from train.objectives.linear_cross_entropy import linear_cross_entropy


def sequence_to_sequence(
  model: Model,
  *,
  eos: int | list[int] | None = None,
  start: int = 0,
  label_smoothing: float = 0.0,
  z_loss: float = 0.0,
  loss_chunk: int = 0,
  length_ratio: float = 1.5,
  length_extra: int = 10,
) -> types.Task:
  """Cross-entropy of each target token, given the inputs and earlier targets.

  Batch: inputs [B, S], targets [B, T] int32, mask [B, T]; bytes [B], the UTF-8
  bytes of the real targets, gives bits per byte. input_segments [B, S], or
  inputs_mask, is 0 on padding. In packed rows it and segments [B, T] number the
  pairs from 1, and input_positions and positions count from the start of each.

  Args:
    model: an encoder-decoder, see models/language/encoder_decoder.py.
    eos: id of the token that ends a text, or of several; None gives no samples.
    start: id of the token that the decoder reads before the first target.
    label_smoothing: see losses.cross_entropy; in training only.
    z_loss: see losses.cross_entropy; in training only.
    loss_chunk: positions whose logits are in memory at a time, on each device;
      0 computes all at once.
    length_ratio: maximum number of generated tokens per token of the source.
    length_extra: number of generated tokens allowed in addition to these.
  """

  def init(rng, batch):
    del batch
    return types.Variables(*model.init(rng))

  def read(batch):
    """Returns (inputs and tokens, the model's arguments for packed rows)."""
    targets_BT = batch["targets"]
    late_BT = jnp.pad(targets_BT[:, :-1], ((0, 0), (1, 0)))
    first_BT = jnp.expand_dims(jnp.arange(targets_BT.shape[1]) == 0, 0)
    where = {"input_segments_BS": _segments(batch)}
    if "segments" in batch:
      segments_BT = where["segments_BT"] = batch["segments"]
      before_BT = jnp.pad(segments_BT[:, :-1], ((0, 0), (1, 0)))
      first_BT |= segments_BT != before_BT
    for name in ("input_positions_BS", "positions_BT"):
      if name[:-3] in batch:
        where[name] = batch[name[:-3]]
    return (batch["inputs"], jnp.where(first_BT, start, late_BT)), where

  def applied(variables, batch, method, **noise):
    (inputs, tokens), where = read(batch)
    given = (variables.params, variables.model_state, inputs, tokens)
    return model.apply(*given, method=method, **where, **noise)

  def loss(variables, batch, context):
    train = context.train
    noise = {"rng": context.rng, "train": train}
    found, state = applied(variables, batch, "represent", **noise)
    smoothed = {"label_smoothing": label_smoothing, "z_loss": z_loss}
    of = (found.x_BTD, found.unembedding_VD, batch["targets"])
    extra = smoothed if train else {}
    nats_BT = linear_cross_entropy(*of, chunk=loss_chunk, **extra)
    mean, metrics = types.mean_of(nats_BT, batch["mask"]), {}
    if train and label_smoothing and not loss_chunk:
      plain_BT = linear_cross_entropy(*of)  # of the same logits
      metrics["loss_unsmoothed"] = types.mean_of(plain_BT, batch["mask"])
    if not train and "bytes" in batch:
      bits = mean.total / math.log(2)
      metrics["bits_per_byte"] = types.Mean(bits, jnp.sum(batch["bytes"]))
    return mean, types.Aux(state, metrics)

  def predicted(method):
    return lambda variables, batch, rng: applied(variables, batch, method)[0]

  def samples(variables, batch, rng):
    """Generates texts: tokens [B, L], and length [B] without the end token.

    The batch may have the numbers length (L), beams and alpha, or temperature.
    """
    found = beam_search.write(
      model,
      variables,
      batch["inputs"],
      _segments(batch),
      rng,
      length=batch.get("length") or batch["targets"].shape[1],
      ratio=length_ratio,
      extra=length_extra,
      eos=-1 if eos is None else eos,
      start=start,
      **{k: batch[k] for k in ("beams", "alpha", "temperature") if k in batch},
    )
    tokens_BL, length_B = found.tokens_BKL[:, 0], found.lengths_BK[:, 0]
    return {"tokens": tokens_BL, "length": length_B}

  maps = predicted("attention_maps")
  predict = {"logits": predicted(None), "attention": maps}
  if eos is not None:
    predict["samples"] = samples
  return types.Task(init, {"loss": loss}, predict)


def _segments(batch):
  """Returns input_segments of the batch, or inputs_mask as segments."""
  if "input_segments" in batch:
    return batch["input_segments"]
  mask = batch.get("inputs_mask")
  return None if mask is None else mask.astype(jnp.int32)
