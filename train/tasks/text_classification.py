"""Text classification: one label out of C for a text or a pair of texts."""

from models import Model
from train import types
from train.objectives import losses, metrics


def text_classification(
  model: Model, *, label_smoothing: float = 0.0
) -> types.Task:
  """Cross-entropy of the label.

  Batch: tokens, types, segments [B, T] int32, label [B] int32, mask [B]; see
  input_pipeline/rows/labeled.py.

  Args:
    model: (tokens_BT, types_BT, segments_BT) -> logits_BC; its method
      "features" computes the prediction of that name.
    label_smoothing: share of the target that is spread over the classes, in
      training only (Szegedy et al. 2016).
  """

  def init(rng, batch):
    del batch
    return types.Variables(*model.init(rng))

  def apply(variables, batch, **how):
    return model.apply(
      variables.params,
      variables.model_state,
      batch["tokens"],
      types_BT=batch["types"],
      segments_BT=batch["segments"],
      **how,
    )

  def loss(variables, batch, context):
    logits_BC, state = apply(
      variables, batch, rng=context.rng, train=context.train
    )
    label_B, mask_B = batch["label"], batch["mask"]
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
