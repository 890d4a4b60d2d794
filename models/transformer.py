"""The pre-norm transformer block and a stack of them, scanned over layers.

The shape legend stands in models/layers.py.
"""

import functools

import jax
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import layers
from models.attention import SelfAttention

ACTIVATIONS = {
  "gelu": functools.partial(jax.nn.gelu, approximate=True),
  "gelu_exact": functools.partial(jax.nn.gelu, approximate=False),
  "swiglu": jax.nn.silu,
}
# What a layer keeps for its backward pass; the rest is computed again.
REMAT = {
  "none": jax.checkpoint_policies.everything_saveable,
  "full": jax.checkpoint_policies.nothing_saveable,
  "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}
# Each head, and each hidden unit, lives whole on one device of the axis, so
# that a block exchanges activations twice (arXiv:1909.08053). The first axis
# is the layer's.
SHARDING = [
  (r"blocks/attention/(query|key|value)/kernel", P(None, None, "tensor")),
  (r"blocks/attention/(query|key|value)/bias", P(None, "tensor")),
  (r"blocks/attention/out/kernel", P(None, "tensor", None)),
  (r"blocks/feed_forward/(up|gate)/kernel", P(None, None, "tensor")),
  (r"blocks/feed_forward/(up|gate)/bias", P(None, "tensor")),
  (r"blocks/feed_forward/down/kernel", P(None, "tensor", None)),
]


class FeedForward(nnx.Module):
  """down(activation(up(x))); gated, down(silu(gate(x)) * up(x)), for "swiglu".

  SwiGLU is of arXiv:2002.05202.
  """

  def __init__(
    self, dim: int, hidden: int, *, activation: str, out_init, **common
  ):
    self.activation = layers.choose("activation", activation, ACTIVATIONS)
    self.up = layers.Dense(dim, hidden, **common)
    self.gate = nnx.data(
      layers.Dense(dim, hidden, **common) if activation == "swiglu" else None
    )
    self.down = layers.Dense(hidden, dim, **common | {"kernel_init": out_init})

  def __call__(self, x_BTD: jax.Array) -> jax.Array:
    """x_BTD, position by position."""
    h_BTF = self.up(x_BTD)
    activate = ACTIVATIONS[self.activation]
    if self.gate is None:
      return self.down(activate(h_BTF))
    return self.down(activate(self.gate(x_BTD)) * h_BTF)


class Block(nnx.Module):
  """x += attention(norm(x)); x += feed_forward(norm(x))."""

  def __init__(
    self,
    dim: int,
    *,
    attention: dict,
    feed_forward: dict,
    norm: dict,
    dropout: float,
    **common,
  ):
    param_dtype = common["param_dtype"]
    self.attention_norm = layers.Norm(dim, param_dtype=param_dtype, **norm)
    self.attention = SelfAttention(dim, **attention, **common)
    self.feed_forward_norm = layers.Norm(dim, param_dtype=param_dtype, **norm)
    self.feed_forward = FeedForward(dim, **feed_forward, **common)
    self.dropout = nnx.data(layers.dropout_layer(dropout, common["rngs"]))

  def __call__(self, x_BTD, cache=None, length=0):
    """(x_BTD, cache); see SelfAttention."""
    drop = self.dropout or (lambda x: x)
    y_BTD, cache = self.attention(self.attention_norm(x_BTD), cache, length)
    x_BTD += drop(y_BTD)
    x_BTD += drop(self.feed_forward(self.feed_forward_norm(x_BTD)))
    return x_BTD, cache


def stacked_blocks(count: int, rngs: nnx.Rngs, *args, **kwargs) -> Block:
  """`count` blocks as one, each array with a leading axis L."""

  @nnx.split_rngs(splits=count)
  @nnx.vmap(in_axes=0, out_axes=0)
  def make(rngs):
    return Block(*args, rngs=rngs, **kwargs)

  return make(rngs)


def run_blocks(
  blocks: Block,
  x_BTD: jax.Array,
  cache: dict[str, jax.Array] | None = None,
  length: jax.Array | int = 0,
  *,
  scan: bool = True,
  remat: str = "none",
) -> tuple[jax.Array, dict[str, jax.Array] | None]:
  """Runs x_BTD through the blocks; (x_BTD, the new cache).

  Args:
    blocks: from `stacked_blocks`.
    x_BTD: inputs.
    cache: "key" and "value", both [L, B, S, K, H], filled up to `length`.
    length: int32 scalar, the position of x's first token.
    scan: compile one layer and loop over it; else compile each on its own.
    remat: name of a policy in REMAT.
  """
  graphdef, state_L = nnx.split(blocks)

  def step(x_BTD, layer):
    state, layer_cache = layer
    return nnx.merge(graphdef, state)(x_BTD, layer_cache, length)

  if remat != "none":
    step = jax.checkpoint(step, policy=REMAT[remat], prevent_cse=not scan)
  return jax.lax.scan(step, x_BTD, (state_L, cache), unroll=1 if scan else True)
