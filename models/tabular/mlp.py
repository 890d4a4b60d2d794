"""The multilayer perceptron, and linear regression as its special case.

The shape legend stands in models/layers/basic.py.
"""

from collections.abc import Sequence

import jax
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.layers.basic import Dense, choose, float_dtype

ACTIVATIONS = {
  "relu": jax.nn.relu,
  "gelu": jax.nn.gelu,
  "silu": jax.nn.silu,
  "tanh": jax.nn.tanh,
}


class MLP(nnx.Module):
  """Dense layers with an activation between them."""

  def __init__(self, sizes, activation, kernel_init, **common):
    self.activation = activation
    self.layers = nnx.List(
      Dense(inputs, outputs, kernel_init=kernel_init, **common)
      for inputs, outputs in zip(sizes[:-1], sizes[1:], strict=True)
    )

  def __call__(self, x_BI):
    """y_BO, float32."""
    return self.layers[-1](self.features(x_BI)).astype("float32")

  def features(self, x_BI):
    """What the last layer reads."""
    x = x_BI
    for layer in self.layers[:-1]:
      x = ACTIVATIONS[self.activation](layer(x))
    return x


def mlp(
  *,
  in_features: int,
  out_features: int,
  hidden: Sequence[int] = (128, 128),
  activation: str = "relu",
  bias: bool = True,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """A multilayer perceptron, x_BI -> y_BO in float32.

  Kernels are drawn as He et al. do for relu (arXiv:1502.01852), truncated
  normal of variance 2 / inputs. `hidden=()` is linear regression, which starts
  at zero.

  Args:
    in_features: I.
    out_features: O.
    hidden: sizes of the hidden layers, from the input on.
    activation: "relu", "gelu", "silu" or "tanh".
    bias: of every layer.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: for an unknown activation or dtype.
  """
  choose("activation", activation, ACTIVATIONS)
  sizes = (in_features, *hidden, out_features)
  kernel_init = (
    nnx.initializers.he_normal() if hidden else nnx.initializers.zeros
  )
  common = {
    "bias": bias,
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }
  return pure(
    lambda rngs: MLP(sizes, activation, kernel_init, rngs=rngs, **common)
  )


SHARDING = [(r"layers/\d+/kernel", P(None, "tensor"))]
