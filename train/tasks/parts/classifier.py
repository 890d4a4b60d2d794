"""The task of a classifier, whatever fields its model reads."""

from collections.abc import Callable
from typing import Any

from train import types
from train.objectives import losses, metrics


def classifier(
  init: Callable[..., types.Variables],
  apply: Callable[..., tuple[Any, types.PyTree]],
  *,
  label: str = "label",
  label_smoothing: float = 0.0,
) -> types.Task:
  """Cross-entropy of one label out of C, and the accuracy.

  Batch: the fields that `apply` reads; `label` [B] int32; mask [B].

  Args:
    init: of the Task.
    apply: (variables, batch, **how) -> (logits_BC, model_state); with
      method="features" the first is the prediction of that name.
    label: the field of the label.
    label_smoothing: share of the target that is spread over the classes, in
      training only (Szegedy et al. 2016).
  """

  def loss(variables, batch, context):
    logits_BC, state = apply(
      variables, batch, rng=context.rng, train=context.train
    )
    label_B, mask_B = batch[label], batch["mask"]
    smoothing = label_smoothing if context.train else 0.0
    nats_B = losses.cross_entropy(logits_BC, label_B, label_smoothing=smoothing)
    found = {"accuracy": metrics.accuracy(logits_BC, label_B)}
    if smoothing:
      found["loss_unsmoothed"] = losses.cross_entropy(logits_BC, label_B)
    found = {name: types.mean_of(x_B, mask_B) for name, x_B in found.items()}
    return types.mean_of(nats_B, mask_B), types.Aux(state, found)

  def logits(variables, batch, rng):
    del rng
    return apply(variables, batch)[0]

  def features(variables, batch, rng):
    del rng
    return apply(variables, batch, method="features")[0]

  predict = {"logits": logits, "features": features}
  return types.Task(init, {"loss": loss}, predict)
