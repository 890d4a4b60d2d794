"""A policy and the values of states, as two multilayer perceptrons.

The shape legend is in models/layers/basic.py.
"""

from collections.abc import Sequence

from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.layers.basic import ELEMENTWISE, Dense, choose, float_dtype

_GAIN = 2**0.5
# Of the last layer of the policy, which begins nearly uniform.
_POLICY_GAIN = 0.01


class Perceptron(nnx.Module):
  """Dense layers with an activation between them."""

  def __init__(self, sizes, activation, gain, **common):
    self.activation = activation
    gains = [_GAIN] * (len(sizes) - 2) + [gain]
    self.layers = nnx.List(
      Dense(
        inputs,
        outputs,
        kernel_init=nnx.initializers.orthogonal(scale),
        **common,
      )
      for inputs, outputs, scale in zip(
        sizes[:-1], sizes[1:], gains, strict=True
      )
    )

  def __call__(self, x_BI):
    """y_BO, float32."""
    x = x_BI
    for layer in self.layers[:-1]:
      x = ELEMENTWISE[self.activation](layer(x))
    return self.layers[-1](x).astype("float32")


class PolicyValue(nnx.Module):
  """Two networks that share no layer."""

  def __init__(self, in_features, hidden, out_features, **common):
    sizes = in_features, *hidden
    self.policy = Perceptron(
      (*sizes, out_features), gain=_POLICY_GAIN, **common
    )
    self.value = Perceptron((*sizes, 1), gain=1.0, **common)

  def __call__(self, x_BI):
    """(logits_BO, value_B), float32."""
    return self.policy(x_BI), self.value(x_BI)[:, 0]


def policy_value(
  *,
  in_features: int,
  out_features: int,
  hidden: Sequence[int] = (64, 64),
  activation: str = "tanh",
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """Two perceptrons, x_BI -> (logits_BO of actions, value_B), in float32.

  Kernels begin orthogonal, with a gain of sqrt(2) in the hidden layers, 1 for
  the value and 0.01 for the logits, so that the first policy is nearly uniform
  (Andrychowicz et al., arXiv:2006.05990, section 3.2).

  Args:
    in_features: I, the size of an observation.
    out_features: O, the number of discrete actions, or twice the numbers of an
      action, for a mean and a deviation of each.
    hidden: sizes of the hidden layers of each network, from the input on.
    activation: "relu", "gelu", "silu", "tanh", "sigmoid" or "identity".
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: the activation or a dtype is unknown.
  """
  choose("activation", activation, ELEMENTWISE)
  common = {
    "activation": activation,
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }
  return pure(
    lambda rngs: PolicyValue(
      in_features, hidden, out_features, rngs=rngs, **common
    )
  )


SHARDING = [(r"layers/\d+/kernel", P(None, "tensor"))]
