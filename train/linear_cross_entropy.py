"""Cross-entropy from features and the unembedding, without all the logits.

Logits of T positions over V entries are the largest tensor of a language model.
Here they exist for `chunk` positions at a time, forward and backward, and for
each device's own part of the batch, of time and of the vocabulary alone.
"""

import functools
import math

import jax
import jax.numpy as jnp

from models import partition
from train import losses


def linear_cross_entropy(
  x_BTD: jax.Array,
  unembedding_VD: jax.Array,
  targets_BT: jax.Array,
  *,
  chunk: int = 0,
  label_smoothing: float = 0.0,
  z_loss: float = 0.0,
) -> jax.Array:
  """losses.cross_entropy of the logits x_BTD unembedding_VD^T, float32 [B, T].

  Args:
    x_BTD: features.
    unembedding_VD: of the same dtype.
    targets_BT: integers in 0…V-1.
    chunk: positions whose logits exist at a time, on each device. The last
      chunk may be shorter. 0: all.
    label_smoothing: see losses.cross_entropy.
    z_loss: see losses.cross_entropy.
  """
  if not chunk:
    logits_BTV = jnp.einsum(
      "BTD,VD->BTV", x_BTD, unembedding_VD, preferred_element_type=jnp.float32
    )
    logits_BTV = partition.place(logits_BTV, "BTV")
    return losses.cross_entropy(
      logits_BTV, targets_BT, label_smoothing=label_smoothing, z_loss=z_loss
    )
  settings = (chunk, label_smoothing, z_loss)
  return _chunked(settings, x_BTD, unembedding_VD, targets_BT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _chunked(settings, x_BTD, unembedding_VD, targets_BT):
  return _forward(settings, x_BTD, unembedding_VD, targets_BT)[0]


def _forward(settings, x_BTD, unembedding_VD, targets_BT):
  specs = _specs(x_BTD, unembedding_VD, targets_BT)
  token_spec = specs[2]
  local = functools.partial(_local_forward, settings, unembedding_VD.shape[0])
  nats_BT, log_z_BT = partition.on_each_device(
    local, specs, (token_spec, token_spec)
  )(x_BTD, unembedding_VD, targets_BT)
  return nats_BT, (x_BTD, unembedding_VD, targets_BT, log_z_BT)


def _backward(settings, residuals, slope_BT):
  x_BTD, unembedding_VD, targets_BT, _ = residuals
  specs = _specs(x_BTD, unembedding_VD, targets_BT)
  x_spec, _, token_spec = specs
  sums, slope_spec = _gradient_sums(token_spec, unembedding_VD.shape)
  local = functools.partial(
    _local_backward, settings, unembedding_VD.shape[0], sums
  )
  x_slope, unembedding_slope = partition.on_each_device(
    local, (*specs, token_spec, token_spec), (x_spec, slope_spec)
  )(*residuals, slope_BT)
  return x_slope, unembedding_slope.astype(unembedding_VD.dtype), None


_chunked.defvjp(_forward, _backward)


def _specs(x_BTD, unembedding_VD, targets_BT):
  """How the surrounding mesh cuts features, unembedding and targets."""
  mesh = jax.sharding.get_abstract_mesh()
  return (
    partition.spec(x_BTD.shape, "BTD", mesh),
    partition.spec(unembedding_VD.shape, "VD", mesh),
    partition.spec(targets_BT.shape, "BT", mesh),
  )


def _gradient_sums(token_spec, shape):
  """(the sum of a gradient [V, D] over all that cuts tokens, its spec).

  Over the axis fsdp it is scattered, as the parameter will be, so that only
  shards cross the axes of the slower networks.
  """
  cut = [[axes] if isinstance(axes, str) else axes or [] for axes in token_spec]
  axes = sum(map(list, cut), [])
  mesh = jax.sharding.get_abstract_mesh()
  slope_spec, scattered = partition.spec(shape, "VD", mesh), None
  if "fsdp" in axes:
    slope_spec, scattered = partition.sharded_spec(shape, "VD", mesh)
  if scattered is not None:
    axes.remove("fsdp")

  def sums(slope_VD):
    if scattered is not None:
      slope_VD = jax.lax.psum_scatter(
        slope_VD, "fsdp", scatter_dimension=scattered, tiled=True
      )
    return jax.lax.psum(slope_VD, axes) if axes else slope_VD

  return sums, slope_spec


def _local_forward(settings, V, x_BTD, unembedding_VD, targets_BT):
  """(nats_BT, log_z_BT) of what one device holds."""
  chunk, label_smoothing, z_loss = settings

  def body(_, part):
    x_BCD, targets_BC = part
    logits_BCV = _logits(x_BCD, unembedding_VD)
    top_BC = jnp.max(logits_BCV, axis=-1)
    top_BC = _over_vocabulary(jax.lax.pmax, top_BC, V, unembedding_VD)
    mass_BC = jnp.sum(jnp.exp(logits_BCV - top_BC[..., None]), axis=-1)
    chosen_BCV = _one_hot(targets_BC, unembedding_VD, V)
    chosen_BC = jnp.sum(jnp.where(chosen_BCV, logits_BCV, 0), axis=-1)
    sum_BC = jnp.sum(logits_BCV, axis=-1) if label_smoothing else chosen_BC
    mass_BC, chosen_BC, sum_BC = _over_vocabulary(
      jax.lax.psum, (mass_BC, chosen_BC, sum_BC), V, unembedding_VD
    )
    log_z_BC = top_BC + jnp.log(mass_BC)
    nats_BC = log_z_BC - (1 - label_smoothing) * chosen_BC
    if label_smoothing:
      nats_BC -= label_smoothing * sum_BC / V
    return None, (nats_BC + z_loss * log_z_BC**2, log_z_BC)

  parts = _cut((x_BTD, targets_BT), chunk)
  _, found = jax.lax.scan(body, None, parts)
  return _joined(found, x_BTD.shape[1])


def _local_backward(
  settings, V, sums, x_BTD, unembedding_VD, targets_BT, log_z_BT, slope_BT
):
  """(slope of x_BTD, slope of unembedding_VD) on one device.

  With p = softmax(logits), d nats / d logits = p (1 + 2 z log_z)
  - (1 - s) onehot - s / V. The slope of the unembedding adds up in float32.
  """
  chunk, label_smoothing, z_loss = settings

  def body(unembedding_slope_VD, part):
    x_BCD, targets_BC, log_z_BC, slope_BC = part
    logits_BCV = _logits(x_BCD, unembedding_VD)
    scale_BC = slope_BC * (1 + 2 * z_loss * log_z_BC)
    slope_BCV = jnp.exp(logits_BCV - log_z_BC[..., None]) * scale_BC[..., None]
    chosen_BCV = _one_hot(targets_BC, unembedding_VD, V)
    slope_BCV -= jnp.where(
      chosen_BCV, (1 - label_smoothing) * slope_BC[..., None], 0
    )
    if label_smoothing:
      slope_BCV -= (label_smoothing / V * slope_BC)[..., None]
    slope_BCV = slope_BCV.astype(x_BCD.dtype)
    x_slope_BCD = jnp.einsum(
      "BCV,VD->BCD",
      slope_BCV,
      unembedding_VD,
      preferred_element_type=jnp.float32,
    )
    unembedding_slope_VD += jnp.einsum(
      "BCV,BCD->VD", slope_BCV, x_BCD, preferred_element_type=jnp.float32
    )
    return unembedding_slope_VD, x_slope_BCD.astype(x_BCD.dtype)

  parts = _cut((x_BTD, targets_BT, log_z_BT, slope_BT), chunk)
  zeros_VD = jnp.zeros(unembedding_VD.shape, jnp.float32)
  unembedding_slope_VD, x_slope = jax.lax.scan(body, zeros_VD, parts)
  x_slope_BTD = _joined(x_slope, x_BTD.shape[1])
  return (
    _over_vocabulary(jax.lax.psum, x_slope_BTD, V, unembedding_VD),
    sums(unembedding_slope_VD),
  )


def _logits(x_BCD, unembedding_VD):
  return jnp.einsum(
    "BCD,VD->BCV", x_BCD, unembedding_VD, preferred_element_type=jnp.float32
  )


def _over_vocabulary(collective, values, V, unembedding_VD):
  """`values` of the whole vocabulary, where a device holds a part of it."""
  whole = unembedding_VD.shape[0] == V
  return values if whole else collective(values, "tensor")


def _one_hot(targets_BC, unembedding_VD, V):
  """bool [B, C, v]: whether a target is this entry of the device's part."""
  held = unembedding_VD.shape[0]
  first = 0 if held == V else jax.lax.axis_index("tensor") * held
  entries = first + jnp.arange(held, dtype=targets_BC.dtype)
  return targets_BC[..., None] == entries[None, None]


def _cut(tree, chunk):
  """[B, T, …] -> [T / chunk, B, chunk, …], zeros after the end."""

  def one(x):
    B, T = x.shape[:2]
    size = min(chunk, T)
    parts = math.ceil(T / size)
    ends = [(0, 0), (0, parts * size - T)] + [(0, 0)] * (x.ndim - 2)
    x = jnp.pad(x, ends).reshape(B, parts, size, *x.shape[2:])
    return x.swapaxes(0, 1)

  return jax.tree.map(one, tree)


def _joined(tree, T):
  """What _cut cut."""
  return jax.tree.map(
    lambda x: x.swapaxes(0, 1).reshape(x.shape[1], -1, *x.shape[3:])[:, :T],
    tree,
  )
