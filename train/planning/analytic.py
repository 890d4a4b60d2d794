"""Estimates a step's memory and communication without a compiler.

The bytes of the state are exact, from the sharding rules. The residuals of the
backward pass come from a trace of the gradient, and the collectives from rules
for fully sharded and replicated parameters. What a compiler fuses, pads and
additionally keeps is unknown: the memory of real runs has differed by 10% and
more.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from common.leaf import arrays
from train import assembly, sharding, types
from train.planning import collectives, compile_ahead


class Estimate(NamedTuple):
  """Bytes per device, and the collectives of a step.

  arguments: bytes of the state and the batch.
  temporaries: bytes of the gradients and the residuals of the backward pass;
    the largest residual counts twice, for the moment when it is computed.
  moved: bytes moved to and from the device's memory per step.
  collectives: see collectives.of_program.
  uncounted: mesh axes whose communication is not covered by a formula.
  """

  arguments: int
  temporaries: int
  moved: float
  collectives: list[collectives.Collective]
  uncounted: list[str]


def estimate(parts: assembly.Experiment, kept: list[Any]) -> Estimate:
  """Returns the Estimate of a step.

  Args:
    parts: the result of compile_ahead.experiment, on any devices.
    kept: the result of `residuals`, for the global batch.
  """
  _, state = assembly.state_of(parts)
  mesh, params = parts.mesh, state.variables.params
  microbatches = parts.config["learner"].get("microbatches", 1)
  half = parts.config["model"].get("dtype") != "float32"
  width = 2 if half else 4
  batch_parts = sharding.batch_parts(mesh)
  batch = sum(
    parts.data.batch_size
    // batch_parts
    * math.prod(each.shape)
    * each.dtype.itemsize
    for each in parts.data.spec.values()
  )
  held = compile_ahead.held(state)
  gradients = compile_ahead.held(params) * (1 if microbatches == 1 else 2)
  cut = _activation_parts(parts)
  sizes = [math.prod(x.shape) * x.dtype.itemsize for x in kept]
  activations = sum(sizes) / cut
  largest = max(sizes, default=0) / cut
  whole = sharding.count(params) * width / mesh.shape.get("tensor", 1)
  moved = (
    2 * held
    + 2 * gradients
    + microbatches * (3 * whole + 2 * (activations + largest))
  )
  found, uncounted = _exchanged(parts, params, width, microbatches)
  return Estimate(
    arguments=int(held + batch),
    temporaries=int(gradients + activations + largest),
    moved=float(moved),
    collectives=found,
    uncounted=uncounted,
  )


def residuals(parts: assembly.Experiment) -> list[Any]:
  """Returns the shapes of the residuals kept for the backward pass.

  The shapes are those of the global batch on one device. Parameters are not
  included, nor are attention scores, which fused kernels do not keep.
  """
  data = parts.data
  mesh = jax.sharding.Mesh(np.array(jax.devices("cpu")[:1]), ("data",))
  batch = arrays(data.spec, data.batch_size, jax.ShapeDtypeStruct)
  length = parts.length
  kept: list[Any] = []
  with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
    rng = jax.eval_shape(lambda: jax.random.key(0))
    variables = jax.eval_shape(parts.task.init, rng, batch)
    if parts.learner.loss_batch is not None:
      batch = parts.learner.loss_batch(batch)
    if parts.learner.loss_variables is not None:
      variables = parts.learner.loss_variables(variables)
    own = {(x.shape, x.dtype) for x in jax.tree.leaves(variables.params)}
    for loss in parts.task.losses.values():

      def pulled(params, variables, batch, rng, loss=loss):
        def total(params):
          at = types.Context(rng, jnp.int32(0), True)
          return loss(variables._replace(params=params), batch, at)[0][0]

        return jax.vjp(total, params)[1]

      back = jax.eval_shape(pulled, variables.params, variables, batch, rng)
      kept += [
        x
        for x in jax.tree.leaves(back)
        if (x.shape, x.dtype) not in own
        and (length is None or x.shape.count(length) < 2)
        and not jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
      ]
  return kept


def largest(
  parts: assembly.Experiment, kept: list[Any], most: int
) -> list[compile_ahead.Tensor]:
  """Returns the `most` largest tensors of the state and the residuals."""
  _, state = assembly.state_of(parts)
  found = [
    compile_ahead.Tensor(compile_ahead.held(leaf), _spelled(leaf), path)
    for path, leaf in _paths(state)
  ]
  cut = _activation_parts(parts)
  found += [
    compile_ahead.Tensor(
      math.prod(x.shape) * x.dtype.itemsize // cut,
      _spelled(x),
      "residual of the backward pass (estimated; shape of the global batch)",
    )
    for x in kept
  ]
  return sorted(found, key=lambda tensor: -tensor.nbytes)[:most]


def _paths(tree):
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf


def _spelled(x) -> str:
  return f"{x.dtype}[{','.join(str(n) for n in x.shape)}]"


def _activation_parts(parts: assembly.Experiment) -> int:
  """Returns the number of parts that the batch's activations are split into."""
  shape = parts.mesh.shape
  return (
    sharding.batch_parts(parts.mesh)
    * shape.get("context", 1)
    * shape.get("tensor", 1)
    * parts.config["learner"].get("microbatches", 1)
  )


def _exchanged(parts, params, width: int, microbatches: int):
  """Returns (collectives of a step, axes that are not counted)."""
  mesh = parts.mesh
  batch_axes = [
    axis
    for axis in sharding.AXES
    if axis not in ("context", "tensor") and mesh.shape.get(axis, 1) > 1
  ]
  totals: dict[tuple[str, tuple[str, ...]], float] = {}

  def add(kind, axes, nbytes, times):
    if axes and nbytes:
      key = (kind, tuple(axes))
      totals[key] = totals.get(key, 0.0) + nbytes * times

  for leaf in jax.tree.leaves(params):
    spec = leaf.sharding.spec
    names = [n for part in spec for n in _names(part)]
    others = math.prod(mesh.shape[n] for n in names if n not in batch_axes)
    count = math.prod(leaf.shape) / others
    over = [axis for axis in names if axis in batch_axes and axis != "expert"]
    # Once for the forward and once for the backward pass.
    add("all-gather", over, count * width, 2 * microbatches)
    add("reduce-scatter", over, count * width, microbatches)
    cut = math.prod(mesh.shape[n] for n in over)
    rest = [axis for axis in batch_axes if axis not in names]
    add("all-reduce", rest, count / cut * leaf.dtype.itemsize, 1)
  tensor = mesh.shape.get("tensor", 1)
  layers, dim = (parts.config["model"].get(k) for k in ("layers", "dim"))
  if tensor > 1 and layers and dim and parts.length:
    tokens = parts.data.batch_size * parts.length
    tokens /= sharding.batch_parts(mesh) * mesh.shape.get("context", 1)
    # At the input and output of both halves of a block, forward and backward.
    add("all-gather", ["tensor"], tokens * dim * width * layers, 4)
    add("reduce-scatter", ["tensor"], tokens * dim * width * layers, 4)
  uncounted = [
    axis
    for axis, size in mesh.shape.items()
    if size > 1
    and (axis in ("context", "stage", "expert"))
    or (axis == "tensor" and size > 1 and not (layers and dim))
  ]
  return [
    _one(kind, axes, nbytes, mesh) for (kind, axes), nbytes in totals.items()
  ], uncounted


def _names(part) -> tuple[str, ...]:
  return (part,) if isinstance(part, str) else tuple(part or ())


def _one(kind, axes, nbytes, mesh) -> collectives.Collective:
  """Returns one Collective for all exchanges of a kind over the same axes."""
  names = list(mesh.shape)
  places = np.arange(mesh.size).reshape(tuple(mesh.shape.values()))
  first = places[tuple(slice(None) if n in axes else 0 for n in names)]
  group = first.reshape(-1).tolist()
  return collectives.Collective(
    name="",
    kind=kind,
    axes=tuple(axes),
    group=len(group),
    payload=int(nbytes),
    times=1.0,
    spread=tuple(group),
  )


def memory(found: Estimate, limit: float | None) -> compile_ahead.Memory:
  """Returns the Estimate as a Memory; `limit` is the device's bytes or None."""
  return compile_ahead.Memory(
    arguments=found.arguments,
    outputs=found.arguments,
    aliased=found.arguments,
    temporaries=found.temporaries,
    peak=found.arguments + found.temporaries,
    limit=int(limit) if limit else None,
  )
