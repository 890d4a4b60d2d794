"""Stochastic depth: residual blocks that examples skip at random."""

from flax import nnx

from models.layers.basic import dropout_layer


def stochastic_depth(rate: float, ndim: int, rngs: nnx.Rngs):
  """Returns a layer that drops all of an example at a time, or None at 0.

  It is for the branch that a residual block adds to its input: in training each
  example loses the branch with probability `rate`, and what remains is divided
  by 1 - rate (arXiv:1603.09382, scaled as dropout is).

  Args:
    rate: the probability.
    ndim: the number of axes of the branch, the first of which is the batch.
    rngs: the source of the random keys.

  Raises:
    ValueError: the rate is not in [0, 1).
  """
  return dropout_layer(rate, rngs, broadcast_dims=range(1, ndim))


def rates_of_depth(rate: float, count: int) -> list[float]:
  """Rates of `count` blocks that rise linearly from 0 to `rate`."""
  return [rate * index / max(count - 1, 1) for index in range(count)]
