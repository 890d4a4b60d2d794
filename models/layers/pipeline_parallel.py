"""Pipeline parallelism: microbatches through stages (arXiv:1811.06965).

Each device along the axis "stage" holds an equal part of the layers. At every
tick each device processes another microbatch, and sends its output to the next
by a collective permute; the backward pass is the same in reverse. Of the M + S
- 1 ticks that M microbatches take through S stages, S - 1 are idle on each
device: the bubble.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from models.layers import partition

AXIS = "stage"


def bubble(stages: int, microbatches: int) -> float:
  """Returns the share of time that a stage is idle: (S - 1) / (M + S - 1)."""
  return (stages - 1) / (microbatches + stages - 1)


def run(
  through: Callable,
  state_L,
  x_BTD: jax.Array,
  where: dict[str, jax.Array | None],
  microbatches: int | None = None,
) -> tuple[jax.Array, None, dict[str, jax.Array]]:
  """Runs x_BTD through all stages; (x_BTD, None, auxiliary losses).

  Args:
    through: (layers, x_BTD, None, where) -> (x_BTD, None, losses), for the
      layers of one stage.
    state_L: arrays [L, ...]; random keys among them are made different for each
      microbatch.
    x_BTD: inputs.
    where: arrays [B, T] or [1, T] that go with x_BTD, or None.
    microbatches: M; the number of stages if None. Must divide B.

  Raises:
    ValueError: L is not a multiple of the stages, or B of the microbatches.
  """
  S = partition.axis_size(AXIS)
  M = microbatches or S
  L = jax.tree.leaves(state_L)[0].shape[0]
  B = x_BTD.shape[0]
  if L % S:
    raise ValueError(f"{L} layers cannot be cut into {S} equal stages")
  if B % M:
    raise ValueError(f"a batch of {B} cannot be cut into {M} microbatches")
  where = {
    name: jnp.broadcast_to(x, x_BTD.shape[:2])
    for name, x in where.items()
    if x is not None
  }

  def stage(state_L, x_BTD, where):
    index = jax.lax.axis_index(AXIS)
    x_MBTD, where_M = jax.tree.map(
      lambda x: _split(x, M), (jax.lax.pcast(x_BTD, AXIS, to="varying"), where)
    )

    def tick(x_BTD, t):
      m = jnp.clip(t - index, 0, M - 1)
      x_BTD = jnp.where(index == 0, x_MBTD[jnp.minimum(t, M - 1)], x_BTD)
      here = {name: x_MBT[m] for name, x_MBT in where_M.items()}
      y_BTD, _, losses = through(_reseeded(state_L, m), x_BTD, None, here)
      busy = (t >= index) & (t < index + M)
      losses = jax.tree.map(lambda loss: jnp.where(busy, loss, 0), losses)
      handed_BTD = jax.lax.ppermute(
        y_BTD, AXIS, [(i, i + 1) for i in range(S - 1)]
      )
      return handed_BTD, (y_BTD, losses)

    _, (y_BTD, losses) = jax.lax.scan(
      tick, jnp.zeros_like(x_MBTD[0]), jnp.arange(M + S - 1)
    )
    # The output of the last stage, from its first full tick on; only it has it.
    y_MBTD = jnp.where(index == S - 1, y_BTD[S - 1 :], 0)
    losses = jax.tree.map(lambda loss: jnp.sum(loss) / (M * S), losses)
    y_MBTD, losses = jax.lax.psum((y_MBTD, losses), AXIS)
    return _merged(y_MBTD), losses

  y_BTD, losses = jax.shard_map(
    stage,
    in_specs=(P(AXIS), P(), P()),
    out_specs=P(),
    axis_names={AXIS},
  )(state_L, x_BTD, where)
  return y_BTD, None, losses


def _split(x: jax.Array, parts: int) -> jax.Array:
  """[B, ...] -> [parts, B / parts, ...], row i in part i mod `parts`.

  So no row leaves its device if the batch is sharded in blocks.
  """
  x = partition.place(x, "BTD"[: x.ndim])
  return x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)


def _merged(x: jax.Array) -> jax.Array:
  """The inverse of `_split`."""
  return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])


def _reseeded(state_L, microbatch: jax.Array):
  """Returns the layers with random keys for this microbatch."""

  def one(leaf):
    if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      return leaf
    return jax.vmap(lambda key: jax.random.fold_in(key, microbatch))(leaf)

  return jax.tree.map(one, state_L)
