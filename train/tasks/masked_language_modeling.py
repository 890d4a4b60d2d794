"""Masked language modelling and next-sentence prediction, as in BERT."""

import jax
import jax.numpy as jnp

from models import Model
from train import types
from train.objectives import losses, metrics


def masked_language_modeling(
  model: Model, *, next_sentence: bool = False, places: int = 0
) -> types.Task:
  """Cross-entropy of the tokens that mask_tokens selected (arXiv:1810.04805).

  Batch: inputs, targets [B, T] int32; mask [B, T], 1 on the tokens to predict;
  optionally segments, positions and types [B, T]. With next_sentence also label
  [B], 0 where the second text follows the first; its mean cross-entropy, over
  all rows but padding, is added to that of the tokens.

  Args:
    model: tokens_BT -> logits_BTV; with next_sentence it has the method
      "pretrain".
    next_sentence: whether the label is learned.
    places: number of tokens of each row whose logits are computed, for speed;
      somewhat more than are predicted on average. In a row with more, only the
      first are learned. 0 computes all logits.
  """

  def init(rng, batch):
    del batch
    return types.Variables(*model.init(rng))

  def apply(variables, batch, **how):
    found = [k for k in ("segments", "positions", "types") if k in batch]
    return model.apply(
      variables.params,
      variables.model_state,
      batch["inputs"],
      **{f"{k}_BT": batch[k] for k in found},
      **how,
    )

  def loss(variables, batch, context):
    rng, train = context.rng, context.train
    targets, mask, where = batch["targets"], batch["mask"], {}
    if places:
      # top_k orders equal values by their index.
      count = min(places, mask.shape[1])
      mask, places_BP = jax.lax.top_k(mask, count)
      targets = jnp.take_along_axis(targets, places_BP, axis=1)
      where = {"places_BP": places_BP}
    method = "pretrain" if next_sentence else None
    out, state = apply(
      variables, batch, rng=rng, train=train, method=method, **where
    )
    logits_BPV = out[0] if next_sentence else out
    mean = types.mean_of(losses.cross_entropy(logits_BPV, targets), mask)
    correct = metrics.accuracy(logits_BPV, targets)
    found = {"accuracy": types.mean_of(correct, mask)}
    if next_sentence:
      label_B, real_B = batch["label"], batch["segments"].max(axis=1) > 0
      nats_B = losses.cross_entropy(out[1], label_B)
      follows = types.mean_of(nats_B, real_B)
      correct_B = metrics.accuracy(out[1], label_B)
      found["next_sentence_loss"] = follows
      found["next_sentence_accuracy"] = types.mean_of(correct_B, real_B)
      total = mean.total + follows.value() * mean.weight
      mean = mean._replace(total=total)
    return mean, types.Aux(state, found)

  def logits(variables, batch, rng):
    del rng
    return apply(variables, batch)[0]

  def features(variables, batch, rng):
    del rng
    return apply(variables, batch, method="features")[0]

  predict = {"logits": logits, "features": features}
  return types.Task(init, {"loss": loss}, predict)
