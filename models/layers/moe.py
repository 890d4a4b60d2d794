"""A mixture of experts as a feed-forward network; no token is dropped.

The shape legend is in models/layers/basic.py; for M, J and R see
models/layers/grouped.py.

A router sends each token to J of E experts (arXiv:2401.04088). Tokens are
sorted by expert and multiplied group by group (arXiv:2211.15841), so that
experts have no capacity limit. On a mesh, a device holds a share of the experts
and of their hidden units. It gathers the tokens of its group, the devices along
the axes expert and tensor, computes its share for them, and the group scatters
the sums: one all-gather and one reduce-scatter of activations per layer. Arrays
sharded along fsdp are gathered for each product, and again for its gradient.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from models.layers import basic, grouped, partition

# The mesh axes whose devices share the work on a token.
GROUP_AXES = ("expert", "tensor")
# The kernels, and their axes by the letters of the legend.
CUTS = {"up": "EDF", "gate": "EDF", "down": "EFD"}


class Kernels(nnx.Module):
  """E matrices, [E, I, O] in param_dtype, each initialized by `kernel_init`."""

  def __init__(self, experts, inputs, outputs, kernel_init, param_dtype, rngs):
    def draw(key):
      return kernel_init(key, (inputs, outputs), param_dtype)

    keys = jax.random.split(rngs.params(), experts)
    self.kernel = nnx.Param(jax.vmap(draw)(keys))


class Experts(nnx.Module):
  """E feed-forward networks without biases; `gate` is None unless gated."""

  def __init__(self, experts, dim, hidden, *, gated, inits, param_dtype, rngs):
    inner_init, out_init = inits
    inner = (experts, dim, hidden, inner_init, param_dtype, rngs)
    self.up = Kernels(*inner)
    self.gate = nnx.data(Kernels(*inner) if gated else None)
    self.down = Kernels(experts, hidden, dim, out_init, param_dtype, rngs)


class MixtureOfExperts(nnx.Module):
  """y = sum over a token's experts e of weight_e expert_e(x).

  The experts are the J with the highest router logits, and the weights are the
  softmax of those J; the router computes in float32. An expert is a FeedForward
  without biases.

  Attributes:
    router: kernel [D, E].
    experts: `up` and `gate`, kernels [E, D, F], and `down`, [E, F, D]; always
      multiplied in `dtype`.
  """

  def __init__(
    self,
    dim: int,
    hidden: int,
    *,
    experts: int,
    experts_per_token: int,
    activation: str,
    out_init: Callable,
    kernel_init: Callable = nnx.initializers.normal(0.02),
    dtype: jnp.dtype = jnp.float32,
    param_dtype: jnp.dtype = jnp.float32,
    rngs: nnx.Rngs,
    **_,
  ):
    """Initializes the layer; FeedForward's other arguments are ignored.

    Raises:
      ValueError: experts_per_token is not in 1 … experts, or an unknown
        activation.
    """
    if not 1 <= experts_per_token <= experts:
      raise ValueError(
        f"experts_per_token = {experts_per_token} is not in 1 … {experts},"
        " the number of experts"
      )
    self.choices = experts_per_token
    self.activation = basic.choose("activation", activation, basic.ACTIVATIONS)
    self.dtype = dtype
    self.router = basic.Dense(
      dim,
      experts,
      bias=False,
      kernel_init=kernel_init,
      param_dtype=param_dtype,
      rngs=rngs,
    )
    self.experts = Experts(
      experts,
      dim,
      hidden,
      gated=activation in basic.GATED,
      inits=(kernel_init, out_init),
      param_dtype=param_dtype,
      rngs=rngs,
    )

  def __call__(
    self, x_BTD: jax.Array, mask_BT: jax.Array | None = None
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns (y_BTD, the layer's losses, of the entire batch on any mesh).

    The losses are float32 scalars, to be weighted by the caller:

      load_balance: E sum_e f_e P_e, with f_e the share of the choices that fell
        on e and P_e the mean of its probability (arXiv:2101.03961, eq. 4); 1 if
        all experts are equally likely, E if one gets everything.
      router_z: the mean of logsumexp(logits)^2 (arXiv:2202.08906, eq. 5).

    Args:
      x_BTD: inputs.
      mask_BT: 1 where the losses count a token; None for all.

    Raises:
      ValueError: the mesh does not evenly divide the experts or hidden units.
    """
    if mask_BT is None:
      mask_BT = jnp.ones(x_BTD.shape[:2], jnp.float32)
    kernels = {
      name: getattr(self.experts, name).kernel[...].astype(self.dtype)
      for name in CUTS
      if getattr(self.experts, name) is not None
    }
    y_BTD, sums = _on_mesh(
      self._local,
      x_BTD.astype(self.dtype),
      mask_BT.astype(jnp.float32),
      self.router.kernel[...].astype(jnp.float32),
      kernels,
    )
    return y_BTD, _losses(sums.sum(0), self.choices)

  def _local(self, group, x_BTD, mask_BT, router_DE, kernels):
    """Returns y_BTD of a device's tokens, and sums for `_losses`, [1, 2 E + 2].

    The group computes the tokens of all its devices, each with its own kernels.
    """
    x_MD = x_BTD.reshape(-1, x_BTD.shape[-1])
    weight_MJ, chosen_MJ, sums = _route(
      x_MD, mask_BT.reshape(-1), router_DE, self.choices
    )
    routes = jnp.concatenate([weight_MJ, chosen_MJ.astype(jnp.float32)], axis=1)
    weight_MJ, chosen_MJ = jnp.split(_gather(routes, group), 2, axis=1)
    experts = kernels["up"].shape[0]
    first = 0
    if "expert" in group.cut + group.whole:
      first = jax.lax.axis_index("expert") * experts
    plan = grouped.plan(chosen_MJ.astype(jnp.int32) - first, experts)
    x_RD, weight_R = grouped.dispatch(_gather(x_MD, group), weight_MJ, plan)
    multiply = {
      name: functools.partial(
        grouped.product, group.shards.get(name), kernel, plan.sizes_E
      )
      for name, kernel in kernels.items()
    }
    y_RD = self._experts(x_RD, weight_R, multiply)
    y_MD = _reduce(grouped.collect(y_RD, plan), group)
    return y_MD.reshape(x_BTD.shape), sums[None]

  def _experts(self, x_RD, weight_R, multiply):
    """Returns weight_R times the outputs of the experts for x_RD."""
    activate = basic.ACTIVATIONS[self.activation]
    h_RF = multiply["up"](x_RD)
    if "gate" in multiply:
      h_RF *= activate(multiply["gate"](x_RD))
    else:
      h_RF = activate(h_RF)
    # Weighted here, not after `down`, so that the backward pass needs no y_RD.
    return multiply["down"](h_RF * weight_R[:, None].astype(h_RF.dtype))


class Group(NamedTuple):
  """How devices share the work on a token.

  cut: mesh axes along which the group's tokens are sharded.
  whole: mesh axes along which each of its devices has the same tokens.
  shards: by kernel, the dimension that is sharded along fsdp.
  """

  cut: tuple[str, ...] = ()
  whole: tuple[str, ...] = ()
  shards: Mapping[str, int] = {}


def _on_mesh(local, x_BTD, mask_BT, router_DE, kernels):
  """Runs `local` on each device's part, under the surrounding mesh."""
  if not partition.free_axes():
    return local(Group(), x_BTD, mask_BT, router_DE, kernels)
  mesh = jax.sharding.get_abstract_mesh()
  experts, _, hidden = kernels["up"].shape
  for axis, name, size in zip(
    GROUP_AXES, ("experts", "hidden"), (experts, hidden), strict=True
  ):
    if size % partition.axis_size(axis):
      raise ValueError(
        f"{name} = {size} is not a multiple of the mesh's"
        f" {axis} = {partition.axis_size(axis)}"
      )
  tokens = partition.spec(x_BTD.shape, "BRD", mesh)
  cut = tuple(jax.tree.leaves(tuple(tokens)))
  shared = [axis for axis in GROUP_AXES if partition.axis_size(axis) > 1]
  specs = {
    name: partition.spec(kernel.shape, CUTS[name], mesh)
    for name, kernel in kernels.items()
  }
  shards = {}
  for name, kernel in kernels.items():
    specs[name], dimension = _fully_sharded(specs[name], kernel.shape)
    if dimension is not None:
      shards[name] = dimension
  group = Group(
    tuple(axis for axis in shared if axis in cut),
    tuple(axis for axis in shared if axis not in cut),
    shards,
  )
  return jax.shard_map(
    functools.partial(local, group),
    in_specs=(tokens, P(*tokens[:2]), P(), specs),
    out_specs=(tokens, P(cut)),
    axis_names=set(mesh.axis_names) - set(mesh.manual_axes),
    check_vma=False,  # the TPU kernel in grouped.py cannot be checked
  )(x_BTD, mask_BT, router_DE, kernels)


def _fully_sharded(spec, shape):
  """Returns (`spec` with its largest free dimension along fsdp, which one).

  It equals the sharding of parameters in a run that shards them along fsdp.
  """
  size = partition.axis_size("fsdp")
  fitting = [i for i, n in enumerate(shape) if not spec[i] and n % size == 0]
  if size == 1 or not fitting:
    return spec, None
  largest = max(fitting, key=lambda i: shape[i])
  parts = list(spec)
  parts[largest] = "fsdp"
  return P(*parts), largest


def _gather(x, group):
  """Returns the rows of all devices of the group."""
  if not group.cut:
    return x
  return jax.lax.all_gather(x, group.cut, axis=0, tiled=True)


def _reduce(y, group):
  """Returns a device's rows of the group's sum; the transpose of `_gather`."""
  if group.whole:
    y = jax.lax.psum(y, group.whole)
  if group.cut:
    y = jax.lax.psum_scatter(y, group.cut, scatter_dimension=0, tiled=True)
  return y


def _route(x_MD, mask_M, router_DE, choices):
  """Returns weight_MJ, chosen_MJ, and token sums for `_losses`, [2 E + 2]."""
  logits_ME = jnp.dot(
    x_MD.astype(jnp.float32), router_DE, precision=jax.lax.Precision.HIGHEST
  )
  top_MJ, chosen_MJ = jax.lax.top_k(logits_ME, choices)
  every_E = jnp.arange(logits_ME.shape[1])
  is_chosen = chosen_MJ[:, :, None] == every_E[None, None]
  z_M = jax.nn.logsumexp(logits_ME, axis=1)
  columns = [
    is_chosen.sum(1, dtype=jnp.float32),
    jax.nn.softmax(logits_ME),
    jnp.square(z_M)[:, None],
    jnp.ones_like(z_M)[:, None],
  ]
  sums = (jnp.concatenate(columns, axis=1) * mask_M[:, None]).sum(0)
  return jax.nn.softmax(top_MJ), chosen_MJ, sums


def _losses(sums, choices):
  """Returns the losses, given `_route`'s sums over the entire batch."""
  experts = sums.size // 2 - 1
  tokens = jnp.maximum(sums[-1], 1)
  share_E, probability_E = sums[:-2].reshape(2, experts) / tokens
  return {
    "load_balance": experts * jnp.vdot(share_E, probability_E) / choices,
    "router_z": sums[-2] / tokens,
  }


# In stacked layers the first axis is the layer's.
SHARDING = [
  (r"experts/(gate|up)/kernel", P("stage", "expert", None, "tensor")),
  (r"experts/down/kernel", P("stage", "expert", "tensor", None)),
]
