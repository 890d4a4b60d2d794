"""Time-delay neural network: a classifier of sequences of frames.

Convolutions over time with gaps between their taps, then statistics over all
frames (Peddinti et al. 2015; Snyder et al. 2018, "X-vectors"). The shape legend
is in models/layers/basic.py; T counts frames, F the features of one.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.layers.basic import Dense, Norm, dropout_layer, float_dtype


class TDNN(nnx.Module):
  """Layers over time, the mean and deviation over frames, a dense layer."""

  def __init__(
    self,
    *,
    in_features,
    num_classes,
    widths,
    taps,
    dilations,
    dropout,
    rngs,
    **common,
  ):
    init = nnx.initializers.he_normal()
    self.shape = tuple(zip(taps, dilations, strict=True))
    inputs = (in_features, *widths[:-1])
    self.layers = nnx.List(
      Dense(n * k, width, kernel_init=init, **common, rngs=rngs)
      for n, width, k in zip(inputs, widths, taps, strict=True)
    )
    self.norms = nnx.List(
      Norm(width, param_dtype=common["param_dtype"]) for width in widths
    )
    self.dropout = nnx.data(dropout_layer(dropout, rngs))
    self.head = Dense(2 * widths[-1], num_classes, **common, rngs=rngs)

  def __call__(self, x_BTF, mask_BT):
    """logits_BC, float32."""
    return self.head(self.features(x_BTF, mask_BT)).astype("float32")

  def features(self, x_BTF, mask_BT):
    """x_BD, the mean and the deviation of the last layer over the frames."""
    mask_BT1 = mask_BT[..., None]
    mean_B1F, std_B1F = statistics(x_BTF, mask_BT1)
    x = (x_BTF - mean_B1F) / std_B1F * mask_BT1
    for dense, norm, shape in zip(
      self.layers, self.norms, self.shape, strict=True
    ):
      x = jax.nn.relu(norm(dense(spliced(x, *shape))))
      if self.dropout is not None:
        x = self.dropout(x)
      # As zeros, padding is like what lies beyond the ends.
      x *= mask_BT1.astype(x.dtype)
    pooled = jnp.concatenate(statistics(x, mask_BT1), axis=-1)
    pooled_BD = pooled[:, 0]
    return pooled_BD if self.dropout is None else self.dropout(pooled_BD)


def statistics(
  x_BTF: jax.Array, mask_BT1: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """The mean and standard deviation over real frames, [B, 1, F], float32.

  Without a real frame they are 0 and nearly 0.
  """
  x_BTF = x_BTF.astype(jnp.float32)
  count_B11 = jnp.maximum(mask_BT1.sum(1, keepdims=True), 1.0)
  mean_B1F = (x_BTF * mask_BT1).sum(1, keepdims=True) / count_B11
  square_BTF = jnp.square(x_BTF - mean_B1F) * mask_BT1
  variance_B1F = square_BTF.sum(1, keepdims=True) / count_B11
  return mean_B1F, jnp.sqrt(variance_B1F + 1e-5)


def spliced(x_BTF: jax.Array, taps: int, dilation: int) -> jax.Array:
  """Each frame with its neighbors, [B, T, taps * F]; zeros beyond the ends.

  The neighbors are `dilation` frames apart; half of them are before the frame.
  """
  T = x_BTF.shape[1]
  reach = taps // 2 * dilation
  padded = jnp.pad(x_BTF, ((0, 0), (reach, reach), (0, 0)))
  shifted = [padded[:, k * dilation :][:, :T] for k in range(taps)]
  return jnp.concatenate(shifted, axis=-1)


def tdnn(
  *,
  in_features: int,
  num_classes: int,
  widths: Sequence[int] = (64, 64, 64),
  taps: Sequence[int] = (5, 3, 3),
  dilations: Sequence[int] = (1, 2, 3),
  dropout: float = 0.0,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """A classifier of frames, (x_BTF, mask_BT) -> logits_BC in float32.

  The features of a sequence are normalized to mean 0 and deviation 1 over its
  real frames. Layers of convolution over time, layer norm and relu follow; the
  logits are read from the mean and the deviation of the last layer over the
  real frames. Padding changes nothing, whatever its amount: frames whose mask
  is 0 are zeros for every layer and are left out of the statistics. The method
  "features" returns these statistics.

  Args:
    in_features: F, the number of features of a frame.
    num_classes: C of the logits.
    widths: the number of units of each layer.
    taps: the number of frames that each layer combines, odd.
    dilations: the number of frames between them, of each layer.
    dropout: rate, after each layer and after the statistics.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: the lengths of widths, taps and dilations differ, or a number is
      not positive, or the number of taps is even.
  """
  widths, taps, dilations = tuple(widths), tuple(taps), tuple(dilations)
  if not widths or not len(widths) == len(taps) == len(dilations):
    raise ValueError(
      f"widths = {widths}, taps = {taps} and dilations = {dilations} are not"
      " one number a layer each"
    )
  if min(*widths, *taps, *dilations) < 1 or any(k % 2 == 0 for k in taps):
    raise ValueError(
      f"taps = {taps} are not odd, or a number of widths = {widths} or"
      f" dilations = {dilations} is not positive"
    )
  config = {
    "in_features": in_features,
    "num_classes": num_classes,
    "widths": widths,
    "taps": taps,
    "dilations": dilations,
    "dropout": dropout,
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }
  return pure(lambda rngs: TDNN(rngs=rngs, **config))


SHARDING = [(r"layers/\d+/kernel", P(None, "tensor"))]
