"""Pooling by attention: one vector of all tokens.

The shape legend is in models/layers/basic.py.
"""

import jax.numpy as jnp
from flax import nnx

from models.layers import transformer
from models.layers.attention import attention
from models.layers.basic import Dense, Norm


class AttentionPool(nnx.Module):
  """One learned query attends to all tokens; then a perceptron.

  Multihead attention pooling: y = attention(probe, x), then y +
  feed_forward(norm(y)) (arXiv:2106.04560, section 3.3; arXiv:1810.00825).

  Attributes:
    probe: [1, 1, D], the query before its projection.
  """

  def __init__(self, dim, *, attention, feed_forward, norm, **common):
    self.heads = attention["heads"]
    init, param_dtype = common["kernel_init"], common["param_dtype"]
    self.probe = nnx.Param(
      init(common["rngs"].params(), (1, dim), param_dtype)[None]
    )
    self.query = Dense(dim, dim, **common)
    self.key = Dense(dim, dim, **common)
    self.value = Dense(dim, dim, **common)
    self.out = Dense(dim, dim, **common)
    self.norm = Norm(dim, param_dtype=param_dtype, **norm)
    self.feed_forward = transformer.FeedForward(dim, **feed_forward, **common)

  def __call__(self, x_BTD):
    """x_BD, one vector for each example."""
    B, _, D = x_BTD.shape
    probe = jnp.broadcast_to(self.probe[...].astype(x_BTD.dtype), (B, 1, D))
    q, k, v = (
      y.reshape(B, -1, self.heads, D // self.heads)
      for y in (self.query(probe), self.key(x_BTD), self.value(x_BTD))
    )
    y_B1D = self.out(attention(q, k, v).reshape(B, 1, D))
    return (y_B1D + self.feed_forward(self.norm(y_B1D)))[:, 0]
