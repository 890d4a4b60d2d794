"""Layers that every architecture shares, and the shape legend.

A tensor's name ends in its shape:

  B batch      T time, or query position   S source time, or key position
  D model      N heads                     K key-value heads
  G query heads per key-value head         H head
  F hidden     V vocabulary                L layers
  I inputs     O outputs                   C channels or classes
  E experts    Z latent

Only `x` may have any rank, [..., D].
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from models.layers import few_pixels, partition, quantization

FLOATS = ("float32", "bfloat16", "float16")
NORMS = ("layernorm", "rmsnorm")
ACTIVATIONS = {
  "gelu": functools.partial(jax.nn.gelu, approximate=True),
  "gelu_exact": functools.partial(jax.nn.gelu, approximate=False),
  "swiglu": jax.nn.silu,
  "geglu": functools.partial(jax.nn.gelu, approximate=True),
  "relu": jax.nn.relu,
}
# Activations of networks other than transformers, by their usual names.
ELEMENTWISE = {
  "relu": jax.nn.relu,
  "gelu": jax.nn.gelu,
  "silu": jax.nn.silu,
  "tanh": jnp.tanh,
  "sigmoid": jax.nn.sigmoid,
  "identity": lambda x: x,
}
# Activations that multiply a second projection (arXiv:2002.05202).
GATED = ("swiglu", "geglu")


def choose(what: str, value, choices: Sequence):
  """Returns `value` if it is one of `choices`.

  Raises:
    ValueError: it is not; the error names `what` and the choices.
  """
  if value not in choices:
    listed = ", ".join(str(choice) for choice in choices)
    raise ValueError(f"{what} = {value!r} is none of: {listed}")
  return value


def float_dtype(what: str, name: str) -> jnp.dtype:
  """Returns the dtype of that name; ValueError if it is not one of FLOATS."""
  return jnp.dtype(choose(what, name, FLOATS))


class Dense(nnx.Module):
  """y = x W + b, in `dtype`; x [..., I] -> [..., O].

  `axes` names the kernel's axes by the letters of the legend: "DF". `matmul` is
  "int8" or "fp8" for a product in 8 bits; see models/layers/quantization.py.

  Attributes:
    kernel: [I, O] in param_dtype, initialized by `kernel_init`.
    bias: [O], zeros; None without one.
  """

  def __init__(
    self,
    inputs: int,
    outputs: int,
    *,
    bias: bool = True,
    kernel_init: Callable = nnx.initializers.normal(0.02),
    axes: str = "IO",
    matmul: str | None = None,
    dtype: jnp.dtype = jnp.float32,
    param_dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    self.axes, self.matmul, self.dtype = axes, matmul, dtype
    self.kernel = nnx.Param(
      kernel_init(rngs.params(), (inputs, outputs), param_dtype)
    )
    self.bias = nnx.data(
      nnx.Param(jnp.zeros((outputs,), param_dtype)) if bias else None
    )

  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns x times the kernel plus the bias."""
    kernel_IO = partition.gather(self.kernel[...].astype(self.dtype), self.axes)
    # In two dimensions: on CPU, XLA's gradient of a product over three is slow.
    # If a mesh shards time separately from the batch, they must not be merged.
    flat = x.astype(self.dtype)
    if partition.axis_size("context") == partition.axis_size("tensor") == 1:
      flat = flat.reshape(-1, x.shape[-1])
    y = quantization.matmul(flat, kernel_IO, self.matmul)
    if self.bias is not None:
      y += along_last(self.bias[...].astype(self.dtype), y.ndim)
    return y.reshape(*x.shape[:-1], y.shape[-1])


class Conv(nnx.Module):
  """A convolution of images, [B, H, W, I] -> [B, H', W', O], in `dtype`.

  With `groups`, I and O are cut into as many parts, and each part of O is
  computed from its part of I; I = O = groups convolves each channel alone. With
  `dilation`, the pixels that a kernel reads are that many pixels apart.

  Attributes:
    kernel: [size, size, I / groups, O] in param_dtype, initialized by
      `kernel_init`.
    bias: [O], zeros; None without one.
  """

  def __init__(
    self,
    inputs: int,
    outputs: int,
    size: int,
    stride: int = 1,
    *,
    padding: int | None = None,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = True,
    kernel_init: Callable = nnx.initializers.normal(0.02),
    dtype: jnp.dtype = jnp.float32,
    param_dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    self.stride, self.groups, self.dtype = stride, groups, dtype
    self.dilation = dilation
    self.padding = dilation * (size // 2) if padding is None else padding
    shape = (size, size, inputs // groups, outputs)
    self.kernel = nnx.Param(kernel_init(rngs.params(), shape, param_dtype))
    self.bias = nnx.data(
      nnx.Param(jnp.zeros((outputs,), param_dtype)) if bias else None
    )

  def __call__(self, x_BHWI: jax.Array) -> jax.Array:
    """Returns the convolution of x_BHWI, with equal padding on all sides."""
    x_BHWI = partition.materialized(x_BHWI.astype(self.dtype))
    kernel_HWIO = self.kernel[...].astype(self.dtype)
    if few_pixels.suits(self, x_BHWI):
      y_BHWO = few_pixels.convolved(x_BHWI, kernel_HWIO)
    else:
      y_BHWO = jax.lax.conv_general_dilated(
        x_BHWI,
        kernel_HWIO,
        (self.stride, self.stride),
        ((self.padding, self.padding),) * 2,
        rhs_dilation=(self.dilation, self.dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=self.groups,
      )
    if self.bias is not None:
      y_BHWO += along_last(self.bias[...].astype(self.dtype), 4)
    return y_BHWO


class BatchNorm(nnx.Module):
  """Batch norm (arXiv:1502.03167) in float32, returned in x's dtype.

  In training it normalizes by the batch's mean and biased variance, and moves
  its running averages by a tenth towards them; otherwise it normalizes by the
  running averages. A frozen one always normalizes by these, and its scale and
  bias are in the model_state, too, where nothing trains them.
  """

  def __init__(
    self,
    features: int,
    *,
    eps: float = 1e-5,
    frozen: bool = False,
    param_dtype=jnp.float32,
  ):
    self.eps, self.frozen, self.use_running_average = eps, frozen, False
    kept = nnx.BatchStat if frozen else nnx.Param
    self.scale = kept(jnp.ones((features,), param_dtype))
    self.bias = kept(jnp.zeros((features,), param_dtype))
    self.mean = nnx.BatchStat(jnp.zeros((features,), jnp.float32))
    self.var = nnx.BatchStat(jnp.ones((features,), jnp.float32))

  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns x normalized over all axes but the last."""
    if self.frozen or self.use_running_average:
      mean, var = self.mean[...], self.var[...]
    else:
      axes = tuple(range(x.ndim - 1))
      mean = jnp.mean(x, axis=axes, dtype=jnp.float32)
      centered = x.astype(jnp.float32) - along_last(mean, x.ndim)
      var = jnp.mean(centered * centered, axis=axes)
      self.mean[...] += 0.1 * (jax.lax.stop_gradient(mean) - self.mean[...])
      self.var[...] += 0.1 * (jax.lax.stop_gradient(var) - self.var[...])
    scale = self.scale[...].astype(jnp.float32) * jax.lax.rsqrt(var + self.eps)
    shift = self.bias[...].astype(jnp.float32) - mean * scale
    y = x.astype(jnp.float32) * along_last(scale, x.ndim)
    return (y + along_last(shift, x.ndim)).astype(x.dtype)


class GroupNorm(nnx.Module):
  """Group norm (arXiv:1803.08494) in float32, returned in x's dtype.

  Each example is normalized by itself, over its pixels and the channels of a
  group, of which there are `groups` or, if that does not divide the channels,
  the greatest common divisor.
  """

  def __init__(
    self,
    features: int,
    *,
    groups: int = 8,
    eps: float = 1e-5,
    param_dtype=jnp.float32,
  ):
    self.groups, self.eps = math.gcd(groups, features), eps
    self.scale = nnx.Param(jnp.ones((features,), param_dtype))
    self.bias = nnx.Param(jnp.zeros((features,), param_dtype))

  def __call__(self, x_BHWC: jax.Array) -> jax.Array:
    """Returns x normalized over pixels and the channels of each group."""
    B, _, _, C = x_BHWC.shape
    x_BPC = x_BHWC.astype(jnp.float32).reshape(B, -1, C)

    def mean(x_BPC):  # of each channel first: a CPU has vectors for that
      mean_BG = x_BPC.mean(axis=1).reshape(B, self.groups, -1).mean(axis=-1)
      return jnp.repeat(mean_BG, C // self.groups, axis=1)[:, None]

    x_BPC -= mean(x_BPC)
    scale = along_last(self.scale[...].astype(jnp.float32), 3)
    x_BPC *= jax.lax.rsqrt(mean(jnp.square(x_BPC)) + self.eps) * scale
    x_BPC += along_last(self.bias[...].astype(jnp.float32), 3)
    return x_BPC.reshape(x_BHWC.shape).astype(x_BHWC.dtype)


class Norm(nnx.Module):
  """Layer norm, or RMS norm; computed in float32, returned in x's dtype.

  Layer norm (arXiv:1607.06450) subtracts the mean and divides by the standard
  deviation; RMS norm (arXiv:1910.07467) divides by the root mean square and
  has no bias.
  """

  def __init__(
    self,
    features: int,
    *,
    kind: str = "layernorm",
    eps: float = 1e-5,
    bias: bool = True,
    param_dtype: jnp.dtype = jnp.float32,
  ):
    self.kind = choose("norm", kind, NORMS)
    self.eps = eps
    self.scale = nnx.Param(jnp.ones((features,), param_dtype))
    self.bias = nnx.data(
      nnx.Param(jnp.zeros((features,), param_dtype))
      if bias and kind == "layernorm"
      else None
    )

  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns x normalized along its last axis."""
    y = x.astype(jnp.float32)
    if self.kind == "layernorm":
      y -= jnp.mean(y, axis=-1, keepdims=True)
    y *= jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.eps)
    y *= along_last(self.scale[...].astype(jnp.float32), y.ndim)
    if self.bias is not None:
      y += along_last(self.bias[...].astype(jnp.float32), y.ndim)
    return y.astype(x.dtype)


class Embedding(nnx.Module):
  """A table of vectors, [V, D], initialized from normal(std)."""

  def __init__(
    self,
    entries: int,
    features: int,
    *,
    std: float = 0.02,
    dtype: jnp.dtype = jnp.float32,
    param_dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
  ):
    self.dtype = dtype
    self.embedding = nnx.Param(
      nnx.initializers.normal(std)(
        rngs.params(), (entries, features), param_dtype
      )
    )

  def __call__(self, indices: jax.Array) -> jax.Array:
    """Returns the vectors at `indices` [B, T] or [T], in `dtype`.

    If the table is sharded over "fsdp", it is gathered for the lookup, and its
    gradient is scattered. If the entries are sharded over "tensor", each device
    looks up its own, and the sum is scattered along time.
    """
    if indices.ndim != 2 or not partition.free_axes():
      return jnp.take(self.table(), indices, axis=0)
    table_VD = self.table()
    mesh = jax.sharding.get_abstract_mesh()
    shape = (*indices.shape, table_VD.shape[1])
    x_spec = partition.spec(shape, "BRD", mesh)
    scatter = x_spec != partition.spec(shape, "BTD", mesh)
    table_spec, gathered = partition.sharded_spec(table_VD.shape, "VD", mesh)
    shards = partition.axis_size("tensor")
    split = shards > 1 and table_VD.shape[0] % shards == 0

    def lookup(table_VD, indices_BT):
      if gathered is not None:
        table_VD = jax.lax.all_gather(
          table_VD, "fsdp", axis=gathered, tiled=True
        )
      if not split:
        return table_VD.at[indices_BT].get(mode="clip")
      here_BT = indices_BT - jax.lax.axis_index("tensor") * table_VD.shape[0]
      own_BT = (here_BT >= 0) & (here_BT < table_VD.shape[0])
      x_BTD = table_VD.at[here_BT].get(mode="clip")
      x_BTD = jnp.where(own_BT[..., None], x_BTD, 0)
      if not scatter:
        return jax.lax.psum(x_BTD, "tensor")
      return jax.lax.psum_scatter(
        x_BTD, "tensor", scatter_dimension=1, tiled=True
      )

    return partition.on_each_device(
      lookup,
      (table_spec, partition.spec(indices.shape, "BT", mesh)),
      x_spec if split else partition.spec(shape, "BTD", mesh),
    )(table_VD, indices)

  def table(self) -> jax.Array:
    """Returns the vectors of all entries, [V, D] in `dtype`."""
    return self.embedding[...].astype(self.dtype)

  def attend(self, x_BTD: jax.Array) -> jax.Array:
    """Returns logits over the entries, float32."""
    logits_BTV = jnp.einsum(
      "BTD,VD->BTV",
      x_BTD,
      partition.gather(self.table(), "VD"),
      preferred_element_type=jnp.float32,
    )
    return partition.place(logits_BTV, "BTV")


def check_rate(rate: float) -> None:
  """Raises ValueError unless the dropout rate is in [0, 1)."""
  if not 0.0 <= rate < 1.0:
    raise ValueError(f"dropout = {rate} is not in [0, 1)")


def dropout_layer(
  rate: float, rngs: nnx.Rngs, broadcast_dims: Sequence[int] = ()
) -> nnx.Dropout | None:
  """Returns dropout at that rate; None at 0, so that it has no random stream.

  Along the axes `broadcast_dims` all entries share one mask.
  """
  check_rate(rate)
  if not rate:
    return None
  return nnx.Dropout(rate, broadcast_dims=broadcast_dims, rngs=rngs)


def along_last(vector: jax.Array, ndim: int) -> jax.Array:
  """Returns a vector that broadcasts along the last of `ndim` axes."""
  return vector.reshape((1,) * (ndim - 1) + (-1,))
