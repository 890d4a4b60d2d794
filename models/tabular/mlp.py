"""The multilayer perceptron, and linear regression as its special case.

The shape legend is in models/layers/basic.py.
"""

from collections.abc import Sequence

from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.layers.basic import ELEMENTWISE, Dense, choose, float_dtype

# Their inputs are of variance 1 with kernels of variance 1 / inputs; half of
# a relu's are cut off, which 2 / inputs makes up for.
_UNIT_GAIN = ("sigmoid", "identity")


class MLP(nnx.Module):
  """Dense layers with an activation between them, and none after the last."""

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
    """The input of the last layer."""
    x = x_BI
    for layer in self.layers[:-1]:
      x = ELEMENTWISE[self.activation](layer(x))
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

  The last layer has no activation: it gives numbers to regress, or logits. A
  softmax or a sigmoid belongs to the loss, which takes logits; after a layer of
  the network it would be applied twice.

  Kernels are drawn from a truncated normal of variance 2 / inputs, as He et al.
  do for relu (arXiv:1502.01852), or 1 / inputs for "sigmoid" and "identity"
  (LeCun et al. 1998). `hidden=()` is linear regression, which starts at zero.

  Args:
    in_features: I.
    out_features: O.
    hidden: sizes of the hidden layers, from the input on.
    activation: "relu", "gelu", "silu", "tanh", "sigmoid" or "identity".
    bias: whether every layer has one.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: the activation or a dtype is unknown.
  """
  choose("activation", activation, ELEMENTWISE)
  sizes = (in_features, *hidden, out_features)
  kernel_init = nnx.initializers.zeros
  if hidden:
    unit = activation in _UNIT_GAIN
    init = nnx.initializers.lecun_normal if unit else nnx.initializers.he_normal
    kernel_init = init()
  common = {
    "bias": bias,
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }
  return pure(
    lambda rngs: MLP(sizes, activation, kernel_init, rngs=rngs, **common)
  )


SHARDING = [(r"layers/\d+/kernel", P(None, "tensor"))]
