"""The transformer block and stacks of blocks, scanned over layers.

The shape legend is in models/layers/basic.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P

from models.layers import basic, moe, partition, pipeline_parallel
from models.layers.attention import SelfAttention
from models.layers.partition import place


def _not_gathered(primitive, *_, **__) -> bool:
  """Saves all arrays but resharded ones, which are communicated again."""
  return primitive.name != "sharding_constraint"


# The arrays that a layer keeps for its backward pass; the rest is recomputed.
# "none" keeps all that a device computes, but neither the weights nor the
# activations that it gathers (as arXiv:1910.02054 and arXiv:2205.05198 do).
# "full" keeps only a layer's input, "attention" also the attention output,
# "dots" every product with weights; "offload" is "full" with the inputs in
# the memory of the host.
_policies = jax.checkpoint_policies
REMAT = {
  "none": _not_gathered,
  "full": _policies.nothing_saveable,
  "attention": _policies.save_only_these_names("attention"),
  "dots": _policies.save_from_both_policies(
    _policies.dots_with_no_batch_dims_saveable,
    _policies.save_only_these_names("matmul"),  # in 8 bits: see quantization
  ),
  "offload": _policies.save_and_offload_only_these_names(
    names_which_can_be_saved=[],
    names_which_can_be_offloaded=["residual"],
    offload_src="device",
    offload_dst="pinned_host",
  ),
}
# Each head, and each hidden unit, is on a single device of the axis, so that a
# block exchanges activations twice (arXiv:1909.08053). The first axis is the
# layer's.
SHARDING = [
  *moe.SHARDING,
  (r"blocks/attention/(query|key|value)/kernel", P("stage", None, "tensor")),
  (r"blocks/attention/(query|key|value)/bias", P("stage", "tensor")),
  (r"blocks/attention/out/kernel", P("stage", "tensor", None)),
  (r"blocks/feed_forward/(up|gate)/kernel", P("stage", None, "tensor")),
  (r"blocks/feed_forward/(up|gate)/bias", P("stage", "tensor")),
  (r"blocks/feed_forward/down/kernel", P("stage", "tensor", None)),
  (r"blocks/", P("stage")),
]


class FeedForward(nnx.Module):
  """down(activation(up(x))); down(activation(gate(x)) * up(x)) if gated.

  SwiGLU and GEGLU are from arXiv:2002.05202.
  """

  def __init__(
    self, dim: int, hidden: int, *, activation: str, out_init, **common
  ):
    self.activation = basic.choose("activation", activation, basic.ACTIVATIONS)
    self.up = basic.Dense(dim, hidden, axes="DF", **common)
    self.gate = nnx.data(
      basic.Dense(dim, hidden, axes="DF", **common)
      if activation in basic.GATED
      else None
    )
    self.down = basic.Dense(
      hidden, dim, axes="FD", **common | {"kernel_init": out_init}
    )

  def __call__(self, x_BTD: jax.Array) -> jax.Array:
    """Returns x_BTD, computed position by position."""
    x_BTD = place(x_BTD, "BTD")
    h_BTF = place(self.up(x_BTD), "BTF")
    activate = basic.ACTIVATIONS[self.activation]
    if self.gate is None:
      return self.down(activate(h_BTF))
    gate_BTF = place(self.gate(x_BTD), "BTF")
    return self.down(activate(gate_BTF) * h_BTF)


class Block(nnx.Module):
  """x += attention(norm(x)); x += feed_forward(norm(x)).

  With `post_norm`, the order of arXiv:1706.03762: x = norm(x + attention(x)), x
  = norm(x + feed_forward(x)). With `experts` in feed_forward it is a mixture of
  experts. `layer_scale` multiplies both additions by learned factors for each
  channel, which begin at this value (arXiv:2103.17239). Between the two, the
  residual stream is also sharded along time over the axis tensor, so that norms
  are not computed twice (arXiv:2205.05198).
  """

  def __init__(
    self,
    dim: int,
    *,
    attention: dict,
    feed_forward: dict,
    norm: dict,
    dropout: float,
    post_norm: bool = False,
    layer_scale: float | None = None,
    **common,
  ):
    param_dtype = common["param_dtype"]
    self.post_norm = post_norm
    self.attention_norm = basic.Norm(dim, param_dtype=param_dtype, **norm)
    self.attention = SelfAttention(dim, **attention, **common)
    self.feed_forward_norm = basic.Norm(dim, param_dtype=param_dtype, **norm)
    self.mixture = "experts" in feed_forward
    kind = moe.MixtureOfExperts if self.mixture else FeedForward
    self.feed_forward = kind(dim, **feed_forward, **common)
    self.dropout = nnx.data(basic.dropout_layer(dropout, common["rngs"]))
    self.attention_scale, self.feed_forward_scale = (
      nnx.data(
        None
        if layer_scale is None
        else nnx.Param(jnp.full((dim,), layer_scale, param_dtype))
      )
      for _ in range(2)
    )

  def __call__(self, x_BTD, cache=None, length=0, **where):
    """Returns (x_BTD, cache, losses); see SelfAttention, MixtureOfExperts."""
    x_BTD = place(checkpoint_name(x_BTD, "residual"), "BRD")
    y_BTD, cache = self.attention(
      self._before(self.attention_norm, x_BTD), cache, length, **where
    )
    y_BTD = _scaled(self.attention_scale, y_BTD)
    x_BTD = self._added(self.attention_norm, x_BTD, y_BTD)
    y_BTD, losses = self._before(self.feed_forward_norm, x_BTD), {}
    if self.mixture:
      y_BTD, losses = self.feed_forward(y_BTD)
    else:
      y_BTD = self.feed_forward(y_BTD)
    y_BTD = _scaled(self.feed_forward_scale, y_BTD)
    x_BTD = self._added(self.feed_forward_norm, x_BTD, y_BTD)
    return x_BTD, cache, losses

  def _before(self, norm, x_BTD):
    return x_BTD if self.post_norm else norm(x_BTD)

  def _added(self, norm, x_BTD, y_BTD):
    """Adds the output y_BTD of a part of the block to the residual stream."""
    x_BTD += place(self.dropout(y_BTD) if self.dropout else y_BTD, "BRD")
    return norm(x_BTD) if self.post_norm else x_BTD


def _scaled(scale_D, x_BTD):
  if scale_D is None:
    return x_BTD
  return x_BTD * scale_D[...].astype(x_BTD.dtype)[None, None]


def stacked_blocks(
  count: int, rngs: nnx.Rngs, *args, kind: type[nnx.Module] = Block, **kwargs
) -> nnx.Module:
  """Returns `count` blocks of a kind as one, with arrays [L, ...]."""

  @nnx.split_rngs(splits=count)
  @nnx.vmap(in_axes=0, out_axes=0)
  def make(rngs):
    return kind(*args, rngs=rngs, **kwargs)

  return make(rngs)


def list_blocks(
  count: int, rngs: nnx.Rngs, *args, kind: type[nnx.Module] = Block, **kwargs
) -> nnx.List:
  """Returns `count` blocks of a kind, each with arrays of its own."""
  return nnx.List([kind(*args, rngs=rngs, **kwargs) for _ in range(count)])


def apart(tree_L, count: int) -> dict:
  """Returns {"0": …, "1": …}, the layers of arrays with a leading axis L."""

  def cut(layer):
    return jax.tree.map(lambda leaf: leaf[layer], tree_L)

  return {str(layer): cut(layer) for layer in range(count)}


def apart_without_copies(tree_L, count: int) -> dict:
  """Returns the same as `apart`, of arrays rather than of tracers.

  On a CPU the layers share the memory of the arrays they are cut from, so that
  serving a model does not take twice its size. They must not be donated.
  """

  def on_one_cpu(leaf):
    if not isinstance(leaf, jax.Array):
      return False
    (device, *more) = leaf.sharding.device_set
    return not more and device.platform == "cpu"

  if not all(map(on_one_cpu, jax.tree.leaves(tree_L))):
    # Compiled as one program rather than one per slice.
    return jax.jit(apart, static_argnums=1)(tree_L, count)
  (device,) = jax.tree.leaves(tree_L)[0].sharding.device_set
  return jax.device_put(apart(jax.tree.map(np.asarray, tree_L), count), device)


def run_blocks(
  blocks: nnx.Module,
  x_BTD: jax.Array,
  cache: dict[str, jax.Array] | None = None,
  length: jax.Array | int = 0,
  *,
  scan: bool = True,
  remat: str = "none",
  stage_microbatches: int | None = None,
  **where: jax.Array | None,
) -> tuple[jax.Array, dict[str, jax.Array] | None, dict[str, jax.Array]]:
  """Runs x_BTD through the blocks; (x_BTD, new cache, auxiliary losses).

  The losses are float32 scalars, averaged over the layers; {} without experts.
  If the mesh has an axis "stage", each of its devices holds an equal part of
  the layers, and the batch passes through them as a pipeline.

  Args:
    blocks: from `stacked_blocks`; or from `list_blocks`, for inference on one
      device, with a cache {"0": that of layer 0, …}, as `apart` makes it.
    x_BTD: inputs.
    cache: "key" and "value", both [L, B, K, S, H], filled up to `length`; or
      other arrays that a kind of blocks keeps, with a leading axis L.
    length: int32, the position of x's first token: a scalar or [B].
    scan: compile one layer and loop over it; otherwise compile each layer
      separately.
    remat: name of a policy in REMAT.
    stage_microbatches: see pipeline_parallel.run.
    **where: positions_BT, segments_BT and prefix_B of the tokens, see
    SelfAttention; or other arguments of a kind of blocks.

  Raises:
    ValueError: the layers or the batch cannot be cut into stages, or a prefix
      is used with stages.
  """
  if isinstance(blocks, nnx.List):
    return _run_each(blocks, x_BTD, cache, length, **where)
  graphdef, state_L = nnx.split(blocks)

  def through(state_L, x_BTD, cache, where):
    def step(x_BTD, layer):
      state, layer_cache = layer
      block = nnx.merge(graphdef, state)
      x_BTD, layer_cache, losses = block(x_BTD, layer_cache, length, **where)
      return x_BTD, (layer_cache, losses)

    gathers = any(partition.axis_size(a) > 1 for a in ("fsdp", "tensor"))
    if remat != "none" or gathers:
      step = jax.checkpoint(step, policy=REMAT[remat], prevent_cse=not scan)
    x_BTD, (cache, losses) = jax.lax.scan(
      step, x_BTD, (state_L, cache), unroll=1 if scan else True
    )
    return x_BTD, cache, jax.tree.map(jnp.mean, losses)

  if cache is None and partition.axis_size("stage") > 1:
    if where.pop("prefix_B", None) is not None:
      raise ValueError("a prefix cannot be used with the stages of a pipeline")
    return pipeline_parallel.run(
      through, state_L, x_BTD, where, stage_microbatches
    )
  return through(state_L, x_BTD, cache, where)


def _run_each(blocks, x_BTD, cache, length, **where):
  """`run_blocks` for separate blocks with separate caches."""
  caches, losses = {}, []
  for layer, block in enumerate(blocks):
    own = cache and cache[str(layer)]
    x_BTD, own, found = block(x_BTD, own, length, **where)
    caches[str(layer)] = own
    losses.append(found)
  mean = jax.tree.map(lambda *each: sum(each) / len(each), *losses)
  return x_BTD, cache and caches, mean
