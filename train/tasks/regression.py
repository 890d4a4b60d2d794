"""Regression: real numbers from real numbers."""

from models import Model
from train import types
from train.objectives import losses


def regression(model: Model) -> types.Task:
  """Mean squared error, averaged over examples and outputs.

  Batch: x [B, I] float, y [B, O] float, mask [B].

  Args:
    model: x_BI -> y_BO.
  """

  def init(rng, batch):
    del batch
    return types.Variables(*model.init(rng))

  def loss(variables, batch, rng, train):
    y_BO, model_state = model.apply(
      variables.params,
      variables.model_state,
      batch["x"],
      rng=rng,
      train=train,
    )
    error_BO = losses.squared_error(y_BO, batch["y"])
    mean = types.mean_of(error_BO, batch["mask"])
    return mean, types.Aux(model_state, {})

  def outputs(variables, batch, rng):
    del rng
    return model.apply(variables.params, variables.model_state, batch["x"])[0]

  return types.Task(init, {"loss": loss}, {"outputs": outputs})
