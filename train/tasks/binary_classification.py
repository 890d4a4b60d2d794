"""Binary classification: one or several yes-or-no labels."""

import jax.numpy as jnp

from models import Model
from train import types
from train.objectives import losses, metrics

LOSSES = {
  "cross_entropy": losses.binary_cross_entropy,
  "perceptron": losses.perceptron,
}


def binary_classification(
  model: Model, *, loss: str = "cross_entropy", inkey: str = "x"
) -> types.Task:
  """Binary cross-entropy or perceptron criterion of 0/1 labels.

  Batch: the field `inkey`, numbers [B, ...] (shape [B] is read as [B, 1]); mask
  [B]; and either label [B], 0 or 1, for a model with one output, or y [B, O], 0
  or 1, for several independent labels. The loss and "accuracy" are means over
  examples and labels.

  The model returns logits, because the loss computes their sigmoid without
  overflow. A sigmoid or softmax as the last layer of the model would be applied
  twice, and its gradients would vanish.

  For a model with one output, the prediction "logits" is [B, 2], (0, logit).
  Its softmax gives the second class the probability sigmoid(logit), so
  evaluators of classes can read it. For several outputs it is [B, O].

  Args:
    model: x -> logits_BO.
    loss: "cross_entropy"; or "perceptron", max(0, -t * logit), t = 2 * y - 1.
      Gradient descent on the latter is Rosenblatt's rule, which updates by each
      example that lies on the boundary or on its wrong side.
    inkey: the field that the model reads.

  Raises:
    ValueError: `loss` is unknown; or while a loss is traced, the labels do not
      have the shape of the model's outputs.
  """
  if loss not in LOSSES:
    raise ValueError(f"loss={loss!r}; valid: {', '.join(LOSSES)}")

  def init(rng, batch):
    del batch
    return types.Variables(*model.init(rng))

  def apply(variables, batch, **how):
    inputs = losses.vectors(batch[inkey])
    return model.apply(variables.params, variables.model_state, inputs, **how)

  def objective(variables, batch, context):
    logits_BO, model_state = apply(
      variables, batch, rng=context.rng, train=context.train
    )
    labels_BO = losses.vectors(batch["label" if "label" in batch else "y"])
    error_BO = LOSSES[loss](logits_BO, labels_BO)
    correct_BO = metrics.binary_accuracy(logits_BO, labels_BO)
    accuracy = types.mean_of(correct_BO, batch["mask"])
    mean = types.mean_of(error_BO, batch["mask"])
    return mean, types.Aux(model_state, {"accuracy": accuracy})

  def logits(variables, batch, rng):
    del rng
    logits_BO = apply(variables, batch)[0]
    if logits_BO.shape[-1] > 1:
      return logits_BO
    return jnp.concatenate([jnp.zeros_like(logits_BO), logits_BO], axis=-1)

  return types.Task(init, {"loss": objective}, {"logits": logits})
