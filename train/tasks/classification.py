"""Classification of any fields: one label out of C."""

from collections.abc import Sequence

from models import Model
from train import types
from train.tasks.parts.classifier import classifier

# What the axes of the fields mean; see common/leaf.py.
AXES = {"audio": ("frame", "feature"), "audio_mask": ("frame",)}


def classification(
  model: Model,
  *,
  inputs: Sequence[str],
  label: str = "label",
  label_smoothing: float = 0.0,
) -> types.Task:
  """Cross-entropy of the label.

  Batch: the fields of `inputs`, [B, ...] each; label [B] int32; mask [B].

  Args:
    model: (the fields of `inputs`, in their order) -> logits_BC. Its method
      "features" computes the prediction of that name.
    inputs: the fields that the model reads, such as ("audio", "audio_mask").
    label: the field of the label.
    label_smoothing: share of the target that is spread over the classes, in
      training only (Szegedy et al. 2016).

  Raises:
    ValueError: the batch lacks a field.
  """
  if isinstance(inputs, str) or not inputs:
    raise ValueError(f'inputs={inputs!r} is not a list of fields: ("x",)')

  def apply(variables, batch, **how):
    missing = [name for name in (*inputs, label) if name not in batch]
    if missing:
      raise ValueError(f"no field {missing[0]!r}; valid: {', '.join(batch)}")
    fields = (batch[name] for name in inputs)
    return model.apply(variables.params, variables.model_state, *fields, **how)

  return classifier(
    types.init_of(model), apply, label=label, label_smoothing=label_smoothing
  )
