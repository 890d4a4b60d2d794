"""The optimizers of optax, by name."""

import functools
import inspect
import re
from collections.abc import Callable
from types import FunctionType

import jax
import optax

from common.names import nearest
from train.optimization import parameter_rules

# What Muon orthogonalises, where the rank is 2 or more. A matrix is the last
# two axes, those before it are layers or experts; of a convolution, whose last
# four are height, width, in and out, the rows are the first three of these.
MATRIX = r"(^|/)kernel$"
CONVOLUTION = r"conv[^/]*/kernel$"

ALIASES = {
  "momentum": ("sgd", {"momentum": 0.9}),
  "nesterov": ("sgd", {"momentum": 0.9, "nesterov": True}),
}
REFUSED = {
  "dpsgd": "it needs the gradient of each example: a learner's work",
  "galore": "it knows no stacked layers, and keeps empty arrays",
  "lbfgs": "its line search evaluates the loss itself",
  "noisy_sgd": "its random key is no plain array",
  "optimistic_adam": "use optimistic_adam_v2",
  "schedule_free": "use schedule_free_sgd or schedule_free_adamw",
  "sophia": "it differentiates the loss itself",
}


def names() -> list[str]:
  """Every name that `find` takes, in order."""
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
  """(function of optax, keywords that the name implies).

  Raises:
    ValueError: there is no such function, or it cannot be used.
  """
  name, implied = ALIASES.get(name, (name, {}))
  if name in REFUSED:
    raise ValueError(f'optimizer "{name}" cannot be used: {REFUSED[name]}')
  known = names()
  if name not in known:
    raise ValueError(
      f'no optimizer "{name}"{nearest(name, known)} (any'
      " function of optax or optax.contrib that takes a learning_rate)"
    )
  return getattr(optax, name, None) or getattr(optax.contrib, name), implied


def transformation(name, factory, hyperparameters, rate, decay):
  """Optax's transformation of parameters that share a rate and a decay.

  Args:
    name: of the optimizer, ALIASES resolved.
    factory: what `find` found.
    hyperparameters: further keywords of it.
    rate: float32 scalar array.
    decay: of the weights, decoupled; a number.
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
  """Muon's rows and columns of each parameter; None where Adam takes over."""

  def axes(path, p):
    if p.ndim < 2 or not re.search(MATRIX, path):
      return None
    convolution = p.ndim >= 4 and re.search(CONVOLUTION, path)
    rows = (-4, -3, -2) if convolution else (-2,)
    return optax.contrib.MuonDimensionNumbers(rows, (-1,))

  return jax.tree.map(axes, parameter_rules.paths(params), params)
