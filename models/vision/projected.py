"""A classifier's body with a projection head, for learned representations.

The shape legend is in models/layers/basic.py; F is the body's features, D the
projection or the number of prototypes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from common import names
from models import Model, pure
from models.layers.basic import (
  ACTIVATIONS,
  BatchNorm,
  Dense,
  choose,
  float_dtype,
)
from models.vision import resnet, vit

_EPS = 1e-12  # of squared lengths


class Projected(NamedTuple):
  """Two networks.

  backbone: a classifier, whose method "features" gives x_BF.
  head: x_BF -> z_BD, float32.
  out: D, or the number of prototypes.
  """

  backbone: Model
  head: Model
  out: int


class Head(nnx.Module):
  """Features to projections. `projected` documents the arguments."""

  def __init__(
    self,
    inputs,
    *,
    hidden,
    out,
    activation,
    batchnorm,
    prototypes,
    rngs,
    **common,
  ):
    init = {"kernel_init": nnx.initializers.lecun_normal()}
    self.activation = ACTIVATIONS[activation]
    sizes = [inputs, *hidden]
    self.dense = nnx.List(
      Dense(*pair, bias=not batchnorm, **init, **common, rngs=rngs)
      for pair in zip(sizes[:-1], sizes[1:], strict=True)
    )
    self.norms = nnx.data(
      nnx.List(
        BatchNorm(size, param_dtype=common["param_dtype"]) for size in hidden
      )
      if batchnorm
      else None
    )
    self.last = Dense(sizes[-1], out, **init, **common, rngs=rngs)
    self.prototypes = nnx.data(
      nnx.Param(
        nnx.initializers.normal(1.0)(
          rngs.params(), (out, prototypes), common["param_dtype"]
        )
      )
      if prototypes
      else None
    )

  def __call__(self, x_BF):
    """z_BD, float32; with prototypes, the cosines to each of them."""
    for i, dense in enumerate(self.dense):
      x_BF = dense(x_BF)
      if self.norms is not None:
        x_BF = self.norms[i](x_BF)
      x_BF = self.activation(x_BF)
    z_BD = self.last(x_BF).astype("float32")
    if self.prototypes is None:
      return z_BD
    kernel_DK = _unit(self.prototypes[...].astype("float32"), 0)
    return _unit(z_BD, 1) @ kernel_DK


def _unit(x: jax.Array, axis: int) -> jax.Array:
  """x divided by its length along an axis."""
  squared = jnp.sum(x * x, axis=axis, keepdims=True)
  return x * jax.lax.rsqrt(jnp.maximum(squared, _EPS))


def projected(
  *,
  backbone: Mapping[str, Any],
  channels: int,
  image_size: int,
  num_classes: int | None = None,
  hidden: Sequence[int] = (),
  out: int = 128,
  activation: str = "relu",
  batchnorm: bool = False,
  prototypes: int | None = None,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Projected:
  """A body and a head, image_BHWC -> x_BF -> z_BD in float32.

  Another run begins with the body alone by init_from = dict(path=WORKDIR,
  network="backbone"). Without hidden layers the head is linear, as for metric
  learning; SimCLR (arXiv:2002.05709) has one with batch norm; DINO
  (arXiv:2104.14294) two with "gelu_exact", and prototypes.

  Args:
    backbone: the name of a classifier with the method "features", such as
      "resnet", "vit" or "conv", and its arguments. Its last layer is not used.
    channels: C of the images.
    image_size: height and width of the images.
    num_classes: of the body's last layer; None is 1.
    hidden: widths of the head's hidden layers.
    out: D of the projection.
    activation: after each hidden layer.
    batchnorm: whether there is batch norm before each activation.
    prototypes: if given, the projection is divided by its length, and a last
      layer without bias, whose columns have the length 1, gives as many
      outputs.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    UserError: an argument of the body is unknown.
    ValueError: a choice is unknown, or the body has no name.
  """
  own = dict(backbone)
  if "name" not in own:
    raise ValueError('backbone has no name, such as "resnet"')
  where = "config.model.backbone"
  function = names.find("models", own.pop("name"), f"{where}.name")
  offered = {
    "channels": channels,
    "image_size": image_size,
    "num_classes": num_classes or 1,
    "dtype": dtype,
    "param_dtype": param_dtype,
  }
  made = names.call(function, where=where, settings=own, offered=offered)
  config = {
    "hidden": tuple(hidden),
    "out": out,
    "activation": choose("activation", activation, ACTIVATIONS),
    "batchnorm": batchnorm,
    "prototypes": prototypes,
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }
  inputs = _width(made, (1, image_size, image_size, channels))
  head = pure(lambda rngs: Head(inputs, rngs=rngs, **config))
  return Projected(made, head, prototypes or out)


def _width(body: Model, shape: tuple[int, ...]) -> int:
  """F of the features of a body, from shapes alone."""

  def features(image_BHWC):
    params, state = body.init(jax.random.key(0))
    return body.apply(params, state, image_BHWC, method="features")[0]

  image = jax.ShapeDtypeStruct(shape, jnp.float32)
  return jax.eval_shape(features, image).shape[-1]


SHARDING = [*vit.SHARDING, *resnet.SHARDING]
