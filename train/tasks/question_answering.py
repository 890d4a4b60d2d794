"""Extractive question answering: the first and last token of the answer."""

import jax.numpy as jnp

from models import Model
from train import types
from train.objectives import losses


def question_answering(model: Model) -> types.Task:
  """The mean of the cross-entropies of the answer's first and last token.

  Batch: tokens, segments, types int32 [B, T], start, end int32 [B], mask [B],
  and optionally features [B, T, F]; see
  input_pipeline/rows/questions.py. An answer begins and ends in the text, whose
  type is 1, or at token 0, which means "no answer" (Devlin et al.,
  arXiv:1810.04805, section 4.3); at other tokens the logits are set to -1e4.

  Args:
    model: (tokens_BT, types_BT=…, segments_BT=…) -> (start_BT, end_BT); it
      takes features_BTF if the rows have features.
  """

  def init(rng, batch):
    del batch
    return types.Variables(*model.init(rng))

  def apply(variables, batch, rng=None, train=False):
    """((start_BT, end_BT), model_state)."""
    features = (
      {"features_BTF": batch["features"]} if "features" in batch else {}
    )
    logits, model_state = model.apply(
      variables.params,
      variables.model_state,
      batch["tokens"],
      types_BT=batch["types"],
      segments_BT=batch["segments"],
      rng=rng,
      train=train,
      **features,
    )
    inside_BT = (batch["types"] == 1) & (batch["segments"] > 0)
    inside_BT = inside_BT.at[:, 0].set(True)
    # Finite, so that averages are finite.
    logits = tuple(
      jnp.where(inside_BT, each_BT.astype(jnp.float32), -1e4)
      for each_BT in logits
    )
    return logits, model_state

  def loss(variables, batch, context):
    (start_BT, end_BT), model_state = apply(
      variables, batch, context.rng, context.train
    )
    start_B = losses.cross_entropy(start_BT, batch["start"])
    end_B = losses.cross_entropy(end_BT, batch["end"])
    correct_B = jnp.argmax(start_BT, axis=-1) == batch["start"]
    correct_B &= jnp.argmax(end_BT, axis=-1) == batch["end"]
    mean = types.mean_of((start_B + end_B) / 2, batch["mask"])
    accuracy = types.mean_of(correct_B, batch["mask"])
    return mean, types.Aux(model_state, {"accuracy": accuracy})

  def span(variables, batch, rng):
    """(start_BT, end_BT), float32."""
    del rng
    return apply(variables, batch)[0]

  return types.Task(init, {"loss": loss}, {"span": span})
