"""A detector that predicts a set of objects with a transformer.

The shape legend is in models/layers/basic.py; images are B, height, width, C.
Q is a query, S a cell of the features, L a layer of the decoder.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.layers.basic import Conv, Dense, Norm, choose, float_dtype
from models.layers.encoder_decoder_blocks import Attention
from models.layers.positions import sinusoids
from models.layers.transformer import FeedForward
from models.vision.yolo import NORMS, Backbone

_XAVIER = nnx.initializers.xavier_uniform()


class Layer(nnx.Module):
  """A layer of the encoder, or with `cross` of the decoder; norms come last.

  Positions are added to queries and keys in every layer, never to values.
  """

  def __init__(self, dim, heads, hidden, cross, **common):
    def attention():
      return Attention(
        dim,
        heads=heads,
        head_dim=dim // heads,
        scale_scores=True,
        kernel_init=_XAVIER,
        query_init=_XAVIER,
        **common,
      )

    def norm():
      return Norm(dim, param_dtype=common["param_dtype"])

    self.attention, self.attention_norm = attention(), norm()
    self.cross = nnx.data(attention() if cross else None)
    self.cross_norm = nnx.data(norm() if cross else None)
    self.feed_forward = FeedForward(
      dim,
      hidden,
      activation="relu",
      kernel_init=_XAVIER,
      out_init=_XAVIER,
      **common,
    )
    self.feed_forward_norm = norm()

  def __call__(self, x_BTD, at_BTD, memory_BSD=None, cells_BSD=None):
    """Returns x_BTD.

    Args:
      x_BTD: inputs.
      at_BTD: their positions.
      memory_BSD: what a decoder's layer attends to.
      cells_BSD: the positions of the memory.
    """
    kept = self.attention.remember(x_BTD, at_BTD)
    x_BTD = x_BTD + self.attention.look(x_BTD + at_BTD, *kept)
    x_BTD = self.attention_norm(x_BTD)
    if self.cross is not None:
      kept = self.cross.remember(memory_BSD, cells_BSD)
      x_BTD = x_BTD + self.cross.look(x_BTD + at_BTD, *kept)
      x_BTD = self.cross_norm(x_BTD)
    return self.feed_forward_norm(x_BTD + self.feed_forward(x_BTD))


class Detr(nnx.Module):
  """See `detr`."""

  def __init__(
    self,
    *,
    num_classes,
    channels,
    width,
    depth,
    queries,
    layers,
    dim,
    heads,
    hidden,
    norm,
    **common,
  ):
    self.dim, self.dtype = dim, common["dtype"]
    self.backbone = Backbone(channels, width, depth, norm=norm, **common)
    self.enter = Conv(16 * width, dim, 1, kernel_init=_XAVIER, **common)
    self.encoder, self.decoder = (
      nnx.List(
        Layer(dim, heads, hidden, cross, **common) for _ in range(layers)
      )
      for cross in (False, True)
    )
    self.norm = Norm(dim, param_dtype=common["param_dtype"])
    start = nnx.initializers.normal(1.0)(
      common["rngs"].params(), (queries, dim), common["param_dtype"]
    )
    self.queries = nnx.Param(start)
    self.classes = Dense(dim, num_classes + 1, **common)
    self.boxes = nnx.List(
      Dense(dim, outputs, kernel_init=_XAVIER, **common)
      for outputs in (dim, dim, 4)
    )

  def __call__(self, image_BHWC):
    """See `detr`."""
    _, H, W, _ = image_BHWC.shape
    room = ((0, 0), (0, -H % 32), (0, -W % 32), (0, 0))
    x_BHWC = jnp.pad(image_BHWC.astype(self.dtype), room)
    x_BHWC = self.enter(self.backbone(x_BHWC)[-1])
    found = self.decoded(x_BHWC)
    boxes = [jax.nn.sigmoid(self.box(x).astype("float32")) for x in found]
    logits = [self.classes(x).astype("float32") for x in found]
    return {"logits": jnp.stack(logits, 1), "boxes": jnp.stack(boxes, 1)}

  def decoded(self, x_BHWD):
    """x_BQD after each layer of the decoder, normalized."""
    B, h, w, _ = x_BHWD.shape
    x_BSD = x_BHWD.reshape(B, h * w, self.dim)
    shape = (B, h * w, self.dim)
    at_BSD = jnp.broadcast_to(places(h, w, self.dim)[None], shape)
    at_BSD = at_BSD.astype(self.dtype)
    for layer in self.encoder:
      x_BSD = layer(x_BSD, at_BSD)
    at_QD = self.queries[...].astype(self.dtype)
    at_BQD = jnp.broadcast_to(at_QD[None], (B, *at_QD.shape))
    x_BQD, found = jnp.zeros_like(at_BQD), []
    for layer in self.decoder:
      x_BQD = layer(x_BQD, at_BQD, x_BSD, at_BSD)
      found.append(self.norm(x_BQD))
    return found

  def box(self, x_BQD):
    """Logits of (x, y, width, height), [B, Q, 4]."""
    first, second, last = self.boxes
    return last(jax.nn.relu(second(jax.nn.relu(first(x_BQD)))))


def places(height: int, width: int, dim: int) -> jax.Array:
  """Sines and cosines of rows, then of columns, float32 [h * w, D].

  A row counts from 1 and is scaled so that the last one is 2 pi.
  """

  def along(count):
    place = jnp.arange(1, count + 1, dtype=jnp.float32)
    turns = place / (count + 1e-6) * (2 * math.pi)
    return sinusoids(turns[None], dim // 2)[0]

  shape = (height, width, dim // 2)
  rows = jnp.broadcast_to(along(height)[:, None], shape)
  columns = jnp.broadcast_to(along(width)[None], shape)
  return jnp.concatenate([rows, columns], -1).reshape(height * width, dim)


def detr(
  *,
  num_classes: int,
  channels: int,
  width: int = 16,
  depth: int = 1,
  queries: int = 100,
  layers: int = 6,
  dim: int = 256,
  heads: int = 8,
  hidden: int = 2048,
  norm: str = "group",
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """DETR (Carion et al., 2020, arXiv:2005.12872) on a small backbone.

  image_BHWC -> {"logits": [B, L, Q, C + 1], of which the last is that of no
  object, "boxes": [B, L, Q, 4]}, both float32, after each layer of the decoder.
  A box is (x, y of the centre, width, height) in shares of the image, padded
  with zeros at its right and lower side to a multiple of 32. The backbone is
  that of models/vision/yolo.py; there is no dropout.

  Args:
    num_classes: C.
    channels: C of the images.
    width: channels of the backbone at half the size.
    depth: factor of the numbers of the backbone's blocks.
    queries: Q, the largest number of objects.
    layers: of the encoder, and L of the decoder.
    dim: D of the transformer, a multiple of 4 and of `heads`.
    heads: of each attention.
    hidden: units of a feed-forward network.
    norm: of the backbone, "group" or "batch".
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: an argument is wrong.
  """
  if dim % 4 or dim % heads:
    raise ValueError(f"dim={dim} is no multiple of 4 and of heads={heads}")
  config = {
    "num_classes": num_classes,
    "channels": channels,
    "width": width,
    "depth": depth,
    "queries": queries,
    "layers": layers,
    "dim": dim,
    "heads": heads,
    "hidden": hidden,
    "norm": choose("norm", norm, NORMS),
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }
  return pure(lambda rngs: Detr(rngs=rngs, **config))


SHARDING = [
  (r"conv/kernel", P(None, None, None, "tensor")),
  (r"(query|key|value|up)/kernel", P(None, "tensor")),
  (r"(out|down)/kernel", P("tensor", None)),
]
