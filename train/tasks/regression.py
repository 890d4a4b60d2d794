"""Regression: predicts real numbers from real numbers."""

from models import Model
from train import types
from train.objectives import losses


def regression(model: Model) -> types.Task:
  """Mean squared error, averaged over examples and outputs.

  Batch: x [B, I] and y [B, O], numbers; mask [B]. Shape [B] is read as
  [B, 1].

  Args:
    model: x_BI -> y_BO.

  Raises:
    ValueError: while a loss is traced, y does not have the shape of the
      model's outputs.
  """

  def init(rng, batch):
    del batch
    return types.Variables(*model.init(rng))

  def apply(variables, batch, **how):
    x_BI = losses.vectors(batch["x"])
    return model.apply(variables.params, variables.model_state, x_BI, **how)

  def loss(variables, batch, context):
    y_BO, model_state = apply(
      variables, batch, rng=context.rng, train=context.train
    )
    error_BO = losses.squared_error(y_BO, losses.vectors(batch["y"]))
    mean = types.mean_of(error_BO, batch["mask"])
    return mean, types.Aux(model_state, {})

  def outputs(variables, batch, rng):
    del rng
    return apply(variables, batch)[0]

  return types.Task(init, {"loss": loss}, {"outputs": outputs})
