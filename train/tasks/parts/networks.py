"""Tasks whose model consists of several networks that one player learns."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from models import Model
from models.vision.projected import Projected
from train import types
from train.objectives import metric_learning


def of(model: Projected) -> dict[str, Model]:
  """The networks of a model by name, without its other fields."""
  return {"backbone": model.backbone, "head": model.head}


def init_of(
  networks: Mapping[str, Model],
  params: Callable[[jax.Array], types.PyTree] = lambda rng: {},
  model_state: types.PyTree = None,
) -> Callable[[jax.Array, types.Batch], types.Variables]:
  """Returns the `init` of a Task; variables have a key for each network.

  Args:
    networks: by name.
    params: (rng) -> further parameters.
    model_state: further entries of the model_state.
  """

  def init(rng, batch):
    del batch
    made = {
      name: network.init(jax.random.fold_in(rng, i))
      for i, (name, network) in enumerate(networks.items())
    }
    further = params(jax.random.fold_in(rng, len(made)))
    return types.Variables(
      {**{name: each[0] for name, each in made.items()}, **further},
      {**{name: each[1] for name, each in made.items()}, **(model_state or {})},
    )

  return init


def through(
  networks: Mapping[str, Model],
  variables: types.Variables,
  x: Any,
  *,
  rng: jax.Array | None = None,
  train: bool = False,
) -> tuple[jax.Array, types.PyTree]:
  """(head(features of the backbone), the new model_state)."""
  state = dict(variables.model_state)
  for i, (name, method) in enumerate(
    (("backbone", "features"), ("head", None))
  ):
    x, state[name] = networks[name].apply(
      variables.params[name],
      state[name],
      x,
      rng=None if rng is None else jax.random.fold_in(rng, i),
      train=train,
      method=method,
    )
  return x, state


def features_of(network: Model, name: str) -> types.Predict:
  """Returns the prediction "features" of an image, x_BF."""

  def features(variables, batch, rng):
    del rng
    return network.apply(
      variables.params[name],
      variables.model_state[name],
      batch["image"],
      method="features",
    )[0]

  return features


def predictions(model: Projected) -> dict[str, types.Predict]:
  """Returns "embeddings" of length 1, and "features" of the backbone."""
  parts = of(model)

  def embeddings(variables, batch, rng):
    del rng
    z_BD, _ = through(parts, variables, batch["image"])
    return metric_learning.normalized(z_BD)

  return {
    "embeddings": embeddings,
    "features": features_of(model.backbone, "backbone"),
  }
