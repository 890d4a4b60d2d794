"""Sorts rows by expert, and computes matrix products group by group.

The shape legend is in models/layers/basic.py; here also

  M tokens     J choices of a token        R rows: a token for one of its
  experts

Rows that belong to no expert come last and may hold any values, including NaN;
values read from them are masked.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from models.layers import partition

# Rows, inputs and outputs of a tile of the TPU kernel, chosen to fit in VMEM.
TILE = (512, 1024, 1024)


class Plan(NamedTuple):
  """The assignment of choices to rows, which are sorted by expert.

  sizes_E: rows of each expert, int32.
  choice_R: the row's choice, an index into a flat _MJ.
  real_R: whether the row belongs to an expert.
  row_MJ: the choice's row, where ours_MJ.
  ours_MJ: whether the choice fell on one of the experts.
  """

  sizes_E: jax.Array
  choice_R: jax.Array
  real_R: jax.Array
  row_MJ: jax.Array
  ours_MJ: jax.Array


def plan(chosen_MJ: jax.Array, experts: int) -> Plan:
  """Returns the Plan of all choices of experts 0 … experts - 1.

  Args:
    chosen_MJ: experts, int32; those of a token differ, so that M min(J, E) rows
      suffice for any choices.
    experts: E.
  """
  M, J = chosen_MJ.shape
  ours_MJ = (chosen_MJ >= 0) & (chosen_MJ < experts)
  key = jnp.where(ours_MJ, chosen_MJ, experts).reshape(-1)
  choice_R = jnp.argsort(key, stable=True)
  row_MJ = jnp.argsort(choice_R).reshape(M, J)
  sizes_E = (key[:, None] == jnp.arange(experts)[None]).sum(0, dtype=jnp.int32)
  rows = M * min(J, experts)
  if partition.platform() == "tpu":
    rows = -(-rows // TILE[0]) * TILE[0]
  choice_R = jnp.pad(choice_R, (0, max(0, rows - M * J)))[:rows]
  real_R = jnp.arange(rows) < sizes_E.sum()
  return Plan(sizes_E, choice_R, real_R, row_MJ, ours_MJ)


# Sorting is a permutation, so the gradient of a gather by it is a gather by its
# inverse; JAX would use a scatter.


@jax.custom_vjp
def dispatch(
  x_MD: jax.Array, weight_MJ: jax.Array, plan: Plan
) -> tuple[jax.Array, jax.Array]:
  """Returns (x_RD, weight_R), each row's token and weight, 0 where not real."""
  x_RD = x_MD[plan.choice_R // weight_MJ.shape[1]]
  weight_R = weight_MJ.reshape(-1)[plan.choice_R]
  return x_RD, jnp.where(plan.real_R, weight_R, 0)


def _dispatch_backward(plan, gradients):
  x_RD, weight_R = gradients
  weight_MJ = weight_R.at[plan.row_MJ].get(mode="clip")
  return collect(x_RD, plan), jnp.where(plan.ours_MJ, weight_MJ, 0), None


dispatch.defvjp(lambda *a: (dispatch(*a), a[-1]), _dispatch_backward)


@jax.custom_vjp
def collect(y_RD: jax.Array, plan: Plan) -> jax.Array:
  """Returns y_MD, the sum of each token's rows, accumulated in float32."""
  y_MJD = y_RD.at[plan.row_MJ].get(mode="clip")
  y_MJD = jnp.where(plan.ours_MJ[:, :, None], y_MJD, 0)
  return y_MJD.sum(1, dtype=jnp.float32).astype(y_RD.dtype)


def _collect_backward(plan, y_MD):
  return y_MD[plan.choice_R // plan.row_MJ.shape[1]], None


collect.defvjp(lambda *a: (collect(*a), a[-1]), _collect_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def product(
  shard: int | None,
  kernel_EIO: jax.Array,
  sizes_E: jax.Array,
  x_RI: jax.Array,
) -> jax.Array:
  """Multiplies each row by the kernel of its expert, y_RO (arXiv:2211.15841).

  Args:
    shard: the kernel's dimension that is sharded along the mesh axis fsdp. It
      is gathered here and again for the gradient, rather than kept; the
      gradient is scattered. None if it is not sharded.
    kernel_EIO: in x's dtype.
    sizes_E: the number of rows of each expert, int32.
    x_RI: rows by expert.
  """
  return jax.lax.ragged_dot(x_RI, _whole(kernel_EIO, shard), sizes_E)


def _product_backward(shard, residuals, y_RO):
  kernel_EIO, sizes_E, x_RI = residuals
  kernel_EOI = _whole(kernel_EIO, shard).swapaxes(1, 2)
  kernel_EIO = outer(x_RI, y_RO, sizes_E)
  if shard is not None:
    kernel_EIO = jax.lax.psum_scatter(
      kernel_EIO, "fsdp", scatter_dimension=shard, tiled=True
    )
  return kernel_EIO, None, jax.lax.ragged_dot(y_RO, kernel_EOI, sizes_E)


product.defvjp(lambda *a: (product(*a), a[1:]), _product_backward)


def _whole(kernel_EIO, shard):
  """Returns the kernel, gathered along fsdp."""
  if shard is None:
    return kernel_EIO
  return jax.lax.all_gather(kernel_EIO, "fsdp", axis=shard, tiled=True)


def outer(x_RI: jax.Array, y_RO: jax.Array, sizes_E: jax.Array) -> jax.Array:
  """Returns [E, I, O], each expert's sum over its rows of x's times y's."""
  if partition.platform() == "tpu":
    # XLA for TPU supports grouped products of rows, but not sums over rows.
    from jax.experimental.pallas.ops.tpu.megablox.gmm import tgmm

    tile = map(min, TILE, (x_RI.shape[0], x_RI.shape[1], y_RO.shape[1]))
    return tgmm(x_RI.T, y_RO, sizes_E, x_RI.dtype, tuple(tile))
  summed = jax.lax.RaggedDotDimensionNumbers(
    dot_dimension_numbers=(((0,), (0,)), ((), ())),
    lhs_ragged_dimensions=[0],
    rhs_group_dimensions=[],
  )
  return jax.lax.ragged_dot_general(x_RI, y_RO, sizes_E, summed)
