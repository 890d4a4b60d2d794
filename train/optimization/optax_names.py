"""Finds the optimizers of Optax by name."""

import functools
import inspect
import re
from collections.abc import Callable
from types import FunctionType

import jax
import optax

from common.names import nearest
from train.optimization import parameter_rules

# Parameters that Muon orthogonalizes if their rank is 2 or more. The last two
# axes are the rows and columns of a matrix; earlier axes are layers or experts.
# The last four axes of a convolution are height, width, input channels and
# output channels, of which the first three form the rows.
MATRIX = r"(^|/)kernel$"
CONVOLUTION = r"conv[^/]*/kernel$"

ALIASES = {
  "momentum": ("sgd", {"momentum": 0.9}),
  "nesterov": ("sgd", {"momentum": 0.9, "nesterov": True}),
}
REFUSED = {
  "dpsgd": "it needs the gradient of each example, which no learner computes",
  "galore": "it does not support stacked layers, and keeps empty arrays",
  "lbfgs": "its line search must evaluate the loss",
  "noisy_sgd": "its state contains a random key, which is not a plain array",
  "optimistic_adam": "use optimistic_adam_v2",
  "schedule_free": "use schedule_free_sgd or schedule_free_adamw",
  "sophia": "it must differentiate the loss",
}


def names() -> list[str]:
  """Returns all names that `find` accepts, sorted."""
  found = {
    name
    for module in (optax, optax.contrib)
    for name, function in vars(module).items()
    if isinstance(function, FunctionType | functools.partial)
    and not name.startswith(("_", "scale_by_"))
    and "learning_rate" in inspect.signature(function).parameters
  }
  return sorted((found | set(ALIASES)) - set(REFUSED))


def find(name: str) -> tuple[Callable, dict]:
  """Returns (function of Optax, keyword arguments implied by the name).

  Raises:
    ValueError: the function does not exist or is not supported.
  """
  name, implied = ALIASES.get(name, (name, {}))
  if name in REFUSED:
    raise ValueError(f'optimizer "{name}" is not supported: {REFUSED[name]}')
  known = names()
  if name not in known:
    raise ValueError(
      f'no optimizer "{name}"{nearest(name, known)} (valid are the'
      " functions of optax and optax.contrib that take a learning_rate)"
    )
  return getattr(optax, name, None) or getattr(optax.contrib, name), implied


def transformation(name, factory, hyperparameters, rate, decay):
  """Returns Optax's transformation for parameters that share rate and decay.

  Args:
    name: the name of the optimizer, with ALIASES resolved.
    factory: the function returned by `find`.
    hyperparameters: further keyword arguments of `factory`.
    rate: the learning rate, a float32 scalar array.
    decay: the decoupled weight decay, a number.
  """
  keywords = dict(hyperparameters, learning_rate=rate)
  taken = inspect.signature(factory).parameters
  if "weight_decay" in taken:
    keywords["weight_decay"] = decay
  if name == "muon":
    keywords["adam_weight_decay"] = decay
    keywords["muon_weight_dimension_numbers"] = _matrix_axes
  transform = factory(**keywords)
  if decay and "weight_decay" not in taken:
    transform = optax.chain(
      transform,
      optax.stateless_with_tree_map(lambda u, p: u - rate * decay * p),
    )
  return optax.with_extra_args_support(transform)


def _matrix_axes(params):
  """Returns Muon's axes of each parameter; None for parameters of Adam."""

  def axes(path, p):
    if p.ndim < 2 or not re.search(MATRIX, path):
      return None
    convolution = p.ndim >= 4 and re.search(CONVOLUTION, path)
    rows = (-4, -3, -2) if convolution else (-2,)
    return optax.contrib.MuonDimensionNumbers(rows, (-1,))

  return jax.tree.map(axes, parameter_rules.paths(params), params)
