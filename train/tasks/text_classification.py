"""Text classification: one label out of C for a text or a pair of texts."""

from models import Model
from train import types
from train.tasks.parts.classifier import classifier


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

  def apply(variables, batch, **how):
    return model.apply(
      variables.params,
      variables.model_state,
      batch["tokens"],
      types_BT=batch["types"],
      segments_BT=batch["segments"],
      **how,
    )

  return classifier(
    types.init_of(model), apply, label_smoothing=label_smoothing
  )
