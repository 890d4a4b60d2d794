"""The block of an encoder, and of a decoder with cross-attention to a memory.

The shape legend is in models/layers/basic.py; here S counts the memory.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from models.layers import basic
from models.layers.attention import attention
from models.layers.partition import place
from models.layers.transformer import FeedForward

Kept = dict[str, jax.Array]


class Attention(nnx.Module):
  """Multi-head attention with its four projections.

  Args:
    dim: D.
    heads: N.
    head_dim: H.
    scale_scores: divide the scores by sqrt(H); T5 includes it in its weights.
    kernel_init: of all projections except the query's.
    query_init: of the query's.
    rngs: random streams.
    **dense: arguments of every projection; see layers.Dense.
  """

  def __init__(
    self,
    dim: int,
    *,
    heads: int,
    head_dim: int,
    scale_scores: bool,
    kernel_init: Callable,
    query_init: Callable,
    rngs: nnx.Rngs,
    **dense,
  ):
    self.head_dim = head_dim
    # Cancels the division in `attention`.
    self.factor = 1.0 if scale_scores else head_dim**0.5
    width = heads * head_dim
    dense = {"kernel_init": kernel_init, "rngs": rngs} | dense
    first = dense | {"kernel_init": query_init}
    self.query = basic.Dense(dim, width, axes="DN", **first)
    self.key = basic.Dense(dim, width, axes="DN", **dense)
    self.value = basic.Dense(dim, width, axes="DN", **dense)
    self.out = basic.Dense(width, dim, axes="ND", **dense)

  def _heads(self, project: basic.Dense, x_BTD: jax.Array) -> jax.Array:
    x_BTNH = project(x_BTD).reshape(*x_BTD.shape[:2], -1, self.head_dim)
    return place(x_BTNH, "BTNH")

  def remember(
    self, x_BSD: jax.Array, positions_BSD: jax.Array | None = None
  ) -> tuple[jax.Array, jax.Array]:
    """Returns (k_BSNH, v_BSNH) of the inputs attended to.

    The positions are added to what the keys are made of, not to the values.
    """
    y_BSD = x_BSD if positions_BSD is None else x_BSD + positions_BSD
    return self._heads(self.key, y_BSD), self._heads(self.value, x_BSD)

  def look(
    self, x_BTD: jax.Array, k_BSNH: jax.Array, v_BSNH: jax.Array, **options
  ) -> jax.Array:
    """Returns out_BTD; the options are those of attention.attention."""
    q_BTNH = self._heads(self.query, x_BTD) * self.factor
    k_BSNH, v_BSNH = (x.astype(q_BTNH.dtype) for x in (k_BSNH, v_BSNH))
    out_BTNH = place(attention(q_BTNH, k_BSNH, v_BSNH, **options), "BTNH")
    return self.out(out_BTNH.reshape(*x_BTD.shape[:2], -1))

  def weights(
    self, x_BTD: jax.Array, k_BSNH: jax.Array, mask_BNTS: jax.Array
  ) -> jax.Array:
    """Returns the weights of `look`, float32 [B, N, T, S], without a bias."""
    q_BTNH = self._heads(self.query, x_BTD) * self.factor * self.head_dim**-0.5
    scores_BNTS = jnp.einsum(
      "BTNH,BSNH->BNTS", q_BTNH, k_BSNH, preferred_element_type=jnp.float32
    )
    lowest = jnp.finfo(jnp.float32).min
    return jax.nn.softmax(jnp.where(mask_BNTS, scores_BNTS, lowest), axis=-1)


class Block(nnx.Module):
  """Self-attention, cross-attention in a decoder, and feed-forward network.

  Each is x += f(norm(x)) with `norm_first`, else x = norm(x + f(x)).

  Args:
    dim: D.
    attention: arguments of both attentions; see Attention.
    feed_forward: hidden, activation and out_init; see transformer.FeedForward.
    norm: kind, eps and bias; see layers.Norm.
    norm_first: see above.
    cross: whether the block is a decoder's, with a memory and causal
      self-attention.
    dropout: rate for the inputs of the residual stream.
    kernel_init: of the feed-forward network's first layer.
    **common: bias, dtype, param_dtype and rngs.
  """

  def __init__(
    self,
    dim: int,
    *,
    attention: dict,
    feed_forward: dict,
    norm: dict,
    norm_first: bool,
    cross: bool,
    dropout: float,
    kernel_init: Callable,
    **common,
  ):
    def make_norm():
      return basic.Norm(dim, param_dtype=common["param_dtype"], **norm)

    def make_attention():
      return Attention(dim, kernel_init=kernel_init, **attention, **common)

    self.norm_first, self.causal = norm_first, cross
    self.attention_norm, self.attention = make_norm(), make_attention()
    self.cross_norm = nnx.data(make_norm() if cross else None)
    self.cross = nnx.data(make_attention() if cross else None)
    self.feed_forward_norm = make_norm()
    self.feed_forward = FeedForward(
      dim, **feed_forward, kernel_init=kernel_init, **common
    )
    self.dropout = nnx.data(basic.dropout_layer(dropout, common["rngs"]))

  def __call__(
    self,
    x_BTD: jax.Array,
    cache: Kept | None = None,
    length: jax.Array | int = 0,
    **where,
  ) -> tuple[jax.Array, Kept | None, dict]:
    """Returns (x_BTD, the cache extended by T, {}); see transformer.run_blocks.

    Args:
      x_BTD: inputs.
      cache: "key" and "value", both [B, T', N, H], filled up to `length`, and
        "memory_key" and "memory_value", both [B, S, N, H].
      length: int32 scalar, the position of x's first token.
      **where: see `attend` and `recall`.
    """
    x_BTD, cache = self.attend(x_BTD, cache, length, **where)
    if self.cross is not None:
      x_BTD = self.recall(x_BTD, cache, **where)
    x_BTD = self._residual(x_BTD, self.feed_forward_norm, self.feed_forward)
    return x_BTD, cache, {}

  def attend(
    self,
    x_BTD,
    cache=None,
    length=0,
    *,
    bias_BNTS=None,
    segments_BT=None,
    **other,
  ):
    """Returns (x_BTD after self-attention, the cache extended by T).

    Args:
      x_BTD: inputs.
      cache: see above.
      length: see above.
      bias_BNTS: of the scores, or None.
      segments_BT: of packed rows, 0 on padding; or None.
      **other: ignored.
    """
    del other
    x_BTD = place(checkpoint_name(x_BTD, "residual"), "BRD")
    grown = cache

    def attend(y_BTD):
      nonlocal grown
      y_BTD = place(y_BTD, "BTD")
      k_BTNH, v_BTNH = self.attention.remember(y_BTD)
      if cache is None:
        options = {"causal": self.causal, "segments_BT": segments_BT}
      else:
        new = {"key": k_BTNH, "value": v_BTNH}
        grown = cache | {
          name: jax.lax.dynamic_update_slice_in_dim(
            cache[name], x.astype(cache[name].dtype), length, axis=1
          )
          for name, x in new.items()
        }
        k_BTNH, v_BTNH = grown["key"], grown["value"]
        t_T1 = length + jnp.arange(y_BTD.shape[1])[:, None]
        seen_TS = jnp.arange(k_BTNH.shape[1])[None] <= t_T1
        options = {"mask_BNTS": seen_TS[None, None]}
      return self.attention.look(
        y_BTD, k_BTNH, v_BTNH, bias_BNTS=bias_BNTS, **options
      )

    return self._residual(x_BTD, self.attention_norm, attend), grown

  def recall(self, x_BTD, cache=None, *, memory_BSD=None, seen_BNTS, **other):
    """Returns x_BTD after cross-attention to the memory.

    Args:
      x_BTD: inputs.
      cache: see above; or None, and
      memory_BSD: the outputs of the encoder.
      seen_BNTS: bool, the parts of the memory a position attends to; N is 1.
      **other: ignored.
    """
    del other

    def recall(y_BTD):
      y_BTD = place(y_BTD, "BTD")
      if cache is None:
        k_BSNH, v_BSNH = self.cross.remember(memory_BSD)
      else:
        k_BSNH, v_BSNH = cache["memory_key"], cache["memory_value"]
      return self.cross.look(y_BTD, k_BSNH, v_BSNH, mask_BNTS=seen_BNTS)

    return self._residual(x_BTD, self.cross_norm, recall)

  def recall_weights(self, x_BTD, *, memory_BSD, seen_BNTS, **other):
    """Returns the weights of x_BTD's cross-attention, float32 [B, N, T, S]."""
    del other
    y_BTD = self.cross_norm(x_BTD) if self.norm_first else x_BTD
    k_BSNH, _ = self.cross.remember(memory_BSD)
    return self.cross.weights(y_BTD, k_BSNH, seen_BNTS)

  def _residual(self, x_BTD, norm, f) -> jax.Array:
    drop = self.dropout or (lambda x: x)
    if self.norm_first:
      return x_BTD + place(drop(f(norm(x_BTD))), "BRD")
    return norm(x_BTD + place(drop(f(x_BTD)), "BRD"))
