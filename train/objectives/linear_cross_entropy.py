"""Cross-entropy of features and an unembedding, without storing all logits.

The logits of T positions over V entries are the largest tensor of a language
model. Here they are computed for one block of entries at a time, in the forward
and the backward pass, and each device computes only those of its shards of
batch, time and vocabulary. A fully sharded unembedding is gathered one block at
a time, and its gradient is scattered in the same way, so that no device holds
either of them completely.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from models.layers import partition
from train.objectives import losses

_LOWEST = float(jnp.finfo(jnp.float32).min)


def linear_cross_entropy(
  x_BTD: jax.Array,
  unembedding_VD: jax.Array,
  targets_BT: jax.Array,
  *,
  chunk: int = 0,
  label_smoothing: float = 0.0,
  z_loss: float = 0.0,
) -> jax.Array:
  """Returns losses.cross_entropy of x_BTD unembedding_VD^T, float32 [B, T].

  Args:
    x_BTD: features.
    unembedding_VD: the unembedding, of the dtype of the features.
    targets_BT: integers in 0…V-1.
    chunk: limits the logits that a device stores at a time to the number of
      logits of `chunk` positions of each of its rows. 0 stores all.
    label_smoothing: see losses.cross_entropy.
    z_loss: see losses.cross_entropy.
  """
  if not chunk:
    logits_BTV = jnp.einsum(
      "BTD,VD->BTV",
      x_BTD,
      partition.gather(unembedding_VD, "VD"),
      preferred_element_type=jnp.float32,
    )
    logits_BTV = partition.place(logits_BTV, "BTV")
    return losses.cross_entropy(
      logits_BTV, targets_BT, label_smoothing=label_smoothing, z_loss=z_loss
    )
  settings = (chunk, label_smoothing, z_loss)
  return _chunked(settings, x_BTD, unembedding_VD, targets_BT)


class Layout(NamedTuple):
  """How the arrays are sharded over the mesh, and the blocks of the table.

  x, table, tokens: PartitionSpecs of x_BTD, unembedding_VD and targets_BT.
  gathered: the dimension of the table that is sharded over fsdp, or None.
  sums: the mesh axes other than `gathered`'s over which gradients are summed.
  split: whether the entries are sharded over the axis tensor.
  entries: V, the number of entries of the whole table.
  blocks: the number of blocks.
  """

  x: jax.sharding.PartitionSpec
  table: jax.sharding.PartitionSpec
  tokens: jax.sharding.PartitionSpec
  gathered: int | None
  sums: tuple[str, ...]
  split: bool
  entries: int
  blocks: int


def _layout(chunk, x_BTD, unembedding_VD, targets_BT) -> Layout:
  mesh = jax.sharding.get_abstract_mesh()
  tokens = partition.spec(targets_BT.shape, "BT", mesh)
  axes = jax.tree.leaves(tuple(tokens))
  table, gathered = partition.spec(unembedding_VD.shape, "VD", mesh), None
  if "fsdp" in axes:
    table, gathered = partition.sharded_spec(unembedding_VD.shape, "VD", mesh)
  if gathered is not None:
    axes.remove("fsdp")
  cuts = [mesh.shape[axis] for axis in jax.tree.leaves(tuple(tokens)[1:])]
  return Layout(
    x=partition.spec(x_BTD.shape, "BTD", mesh),
    table=table,
    tokens=tokens,
    gathered=gathered,
    sums=tuple(axes),
    split="tensor" in jax.tree.leaves(tuple(table)),
    entries=unembedding_VD.shape[0],
    blocks=max(1, targets_BT.shape[1] // math.prod(cuts) // chunk),
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _chunked(settings, x_BTD, unembedding_VD, targets_BT):
  return _forward(settings, x_BTD, unembedding_VD, targets_BT)[0]


def _forward(settings, x_BTD, unembedding_VD, targets_BT):
  layout = _layout(settings[0], x_BTD, unembedding_VD, targets_BT)
  nats_BT, log_z_BT = partition.on_each_device(
    functools.partial(_own_forward, settings, layout),
    (layout.x, layout.table, layout.tokens),
    (layout.tokens, layout.tokens),
  )(x_BTD, unembedding_VD, targets_BT)
  return nats_BT, (x_BTD, unembedding_VD, targets_BT, log_z_BT)


def _backward(settings, residuals, slope_BT):
  layout = _layout(settings[0], *residuals[:3])
  tokens = layout.tokens
  x_slope, unembedding_slope = partition.on_each_device(
    functools.partial(_own_backward, settings, layout),
    (layout.x, layout.table, tokens, tokens, tokens),
    (layout.x, layout.table),
  )(*residuals, slope_BT)
  return x_slope, unembedding_slope.astype(residuals[1].dtype), None


_chunked.defvjp(_forward, _backward)


def _own_forward(settings, layout, x_BTD, unembedding_VD, targets_BT):
  """Returns (nats_BT, log_z_BT) of the shards of one device."""
  _, label_smoothing, z_loss = settings

  def body(sums, block):
    top_BT, mass_BT, chosen_BT, total_BT = sums
    table_VD, ids_V, real_V = _block(layout, unembedding_VD, block)
    logits_BTV = _logits(x_BTD, table_VD, real_V)
    higher_BT = jnp.maximum(top_BT, jnp.max(logits_BTV, axis=-1))
    mass_BT = mass_BT * jnp.exp(top_BT - higher_BT)
    mass_BT += jnp.sum(jnp.exp(logits_BTV - higher_BT[..., None]), axis=-1)
    is_target_BTV = targets_BT[..., None] == ids_V[None, None]
    chosen_BT += jnp.sum(jnp.where(is_target_BTV, logits_BTV, 0), axis=-1)
    if label_smoothing:
      real_BTV = jnp.where(real_V[None, None], logits_BTV, 0)
      total_BT += jnp.sum(real_BTV, axis=-1)
    return (higher_BT, mass_BT, chosen_BT, total_BT), None

  zeros_BT = jnp.zeros(targets_BT.shape, jnp.float32)
  sums, _ = jax.lax.scan(
    body,
    (zeros_BT + _LOWEST, zeros_BT, zeros_BT, zeros_BT),
    _blocks(layout, unembedding_VD),
  )
  top_BT, *sums = sums
  if layout.split:
    highest_BT = jax.lax.pmax(top_BT, "tensor")
    sums[0] *= jnp.exp(top_BT - highest_BT)
    top_BT, sums = highest_BT, jax.lax.psum(sums, "tensor")
  mass_BT, chosen_BT, total_BT = sums
  log_z_BT = top_BT + jnp.log(mass_BT)
  nats_BT = log_z_BT - (1 - label_smoothing) * chosen_BT
  nats_BT -= label_smoothing / layout.entries * total_BT
  return nats_BT + z_loss * log_z_BT**2, log_z_BT


def _own_backward(
  settings, layout, x_BTD, unembedding_VD, targets_BT, log_z_BT, slope_BT
):
  """Returns the gradients of x_BTD and unembedding_VD on one device.

  The latter is float32. With p = softmax(logits),
  d nats / d logits = p (1 + 2 z log_z) - (1 - s) onehot - s / V.
  """
  _, label_smoothing, z_loss = settings
  scale_BT = slope_BT * (1 + 2 * z_loss * log_z_BT)
  target_BT = (1 - label_smoothing) * slope_BT
  even_BT = label_smoothing / layout.entries * slope_BT

  def body(x_slope_BTD, block):
    table_VD, ids_V, real_V = _block(layout, unembedding_VD, block)
    logits_BTV = _logits(x_BTD, table_VD, real_V)
    p_BTV = jnp.exp(logits_BTV - log_z_BT[..., None])
    slope_BTV = p_BTV * scale_BT[..., None]
    is_target_BTV = targets_BT[..., None] == ids_V[None, None]
    slope_BTV -= jnp.where(is_target_BTV, target_BT[..., None], 0)
    if label_smoothing:
      slope_BTV -= jnp.where(real_V[None, None], even_BT[..., None], 0)
    slope_BTV = slope_BTV.astype(x_BTD.dtype)
    x_slope_BTD += _product("BTV,VD->BTD", slope_BTV, table_VD)
    slope_VD = _product("BTV,BTD->VD", slope_BTV, x_BTD)
    if layout.gathered is not None:
      slope_VD = jax.lax.psum_scatter(
        slope_VD, "fsdp", scatter_dimension=layout.gathered, tiled=True
      )
    return x_slope_BTD, slope_VD

  x_slope_BTD, slopes = jax.lax.scan(
    body,
    jnp.zeros(x_BTD.shape, jnp.float32),
    _blocks(layout, unembedding_VD),
  )
  slope_VD = slopes.reshape(-1, slopes.shape[-1])[: len(unembedding_VD)]
  if layout.sums:
    slope_VD = jax.lax.psum(slope_VD, layout.sums)
  if layout.split:
    x_slope_BTD = jax.lax.psum(x_slope_BTD, "tensor")
  return x_slope_BTD.astype(x_BTD.dtype), slope_VD


def _product(axes, x, y):
  return jnp.einsum(axes, x, y, preferred_element_type=jnp.float32)


def _blocks(layout, unembedding_VD):
  """Returns (numbers, entries [blocks, v, D]) of a shard, padded by zeros."""
  held, D = unembedding_VD.shape
  size = math.ceil(held / layout.blocks)
  padding = size * layout.blocks - held
  table_VD = jnp.pad(unembedding_VD, ((0, padding), (0, 0)))
  return jnp.arange(layout.blocks), table_VD.reshape(layout.blocks, size, D)


def _block(layout, unembedding_VD, block):
  """Returns (table_VD, ids_V, real_V) of a block.

  A block that is gathered over fsdp contains a part of each device's entries.
  real_V is False for padding, whose id is -1.
  """
  (number, table_VD), held = block, len(unembedding_VD)
  size, owners = len(table_VD), 1
  if layout.gathered is not None:
    table_VD = jax.lax.all_gather(
      table_VD, "fsdp", axis=layout.gathered, tiled=True
    )
    owners = len(table_VD) // size
  row_V = number * size + jnp.arange(size)
  first = jax.lax.axis_index("tensor") * held * owners if layout.split else 0
  ids = first + held * jnp.arange(owners)[:, None] + row_V[None]
  real_V = jnp.tile(row_V < held, owners)
  return table_VD, jnp.where(real_V, ids.reshape(-1), -1), real_V


def _logits(x_BTD, table_VD, real_V):
  """Returns logits_BTV of a block; those of padding have probability 0."""
  logits_BTV = _product("BTD,VD->BTV", x_BTD, table_VD)
  return jnp.where(real_V[None, None], logits_BTV, _LOWEST)
