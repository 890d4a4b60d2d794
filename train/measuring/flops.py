"""Floating-point operations of a training step.

"Model FLOPs" are counted as in PaLM (arXiv:2204.02311, appendix B): a multiply
and an add are two operations; only matrix products and convolutions count;
recomputation to save memory does not count; causal attention counts as half of
full attention. MFU is model FLOPs / seconds / (chips * peak FLOP/s of a chip).
"""

import math
from typing import Any

import jax
import numpy as np

from common import leaf

# The name scope in which JAX computes again what a remat policy dropped.
_RECOMPUTED = "rematted_computation"


def step(experiment: Any) -> float:
  """Model FLOPs of one training step of the global batch.

  This is three times the model's own formula, because the backward pass has two
  products for each product of the forward pass. A model without a formula is
  traced as one device would run it; a trace counts causal attention in full.

  Args:
    experiment: an assembly.Experiment, or an object with its fields model,
      data, learner and length.
  """
  model, data = experiment.model, experiment.data
  formula = getattr(model, "flops", None)
  length = getattr(experiment, "length", None)
  if formula is not None and length is not None:
    return 3.0 * data.batch_size * formula(length)
  return traced(experiment)


def traced(experiment: Any, recomputed: bool = False) -> float:
  """FLOPs of a step by its trace; `recomputed` includes recomputation."""
  learner, data = experiment.learner, experiment.data
  batch = leaf.arrays(data.spec, data.batch_size, jax.ShapeDtypeStruct)
  # On one CPU device no kernel hides its products from the trace.
  mesh = jax.sharding.Mesh(np.array(jax.devices("cpu")[:1]), ("data",))
  with jax.set_mesh(mesh):
    rng = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(learner.init, rng, batch)
    jaxpr = jax.make_jaxpr(learner.step)(state, batch, rng)
  return count(jaxpr.jaxpr, recomputed)


def count(jaxpr: Any, recomputed: bool = False) -> float:
  """FLOPs of the products and convolutions in a jaxpr.

  The body of a `scan` is multiplied by its length, the most expensive branch of
  a `cond` counts, and the body of a `while` counts once, because its number of
  iterations is unknown.
  """
  total = 0.0
  for eqn in jaxpr.eqns:
    if not recomputed and _RECOMPUTED in str(eqn.source_info.name_stack):
      continue
    name = eqn.primitive.name
    if name == "dot_general":
      total += _dot(eqn)
    elif name == "ragged_dot_general":
      total += _ragged_dot(eqn)
    elif name == "conv_general_dilated":
      total += _convolution(eqn)
    elif name == "cond":
      branches = eqn.params["branches"]
      total += max(count(branch.jaxpr, recomputed) for branch in branches)
    else:
      times = eqn.params.get("length", 1) if name == "scan" else 1
      inner = sum(count(sub, recomputed) for sub in _inside(eqn))
      total += times * inner
  return total


def _inside(eqn):
  """The jaxprs among an equation's parameters."""
  for value in eqn.params.values():
    for item in value if isinstance(value, tuple | list) else (value,):
      item = getattr(item, "jaxpr", item)
      if hasattr(item, "eqns"):
        yield item


def _dot(eqn) -> float:
  (contracted, _), _ = eqn.params["dimension_numbers"]
  left = eqn.invars[0].aval.shape
  (out,) = eqn.outvars
  inner = math.prod(left[i] for i in contracted)
  return 2.0 * math.prod(out.aval.shape) * inner


def _ragged_dot(eqn) -> float:
  """Each row is multiplied by the matrix of its own group only."""
  numbers = eqn.params["ragged_dot_dimension_numbers"]
  (contracted, _), _ = numbers.dot_dimension_numbers
  left = eqn.invars[0].aval.shape
  (out,) = eqn.outvars
  total = 2.0 * math.prod(out.aval.shape)
  total *= math.prod(left[i] for i in contracted)
  by_group = set(numbers.lhs_ragged_dimensions) & set(contracted)
  return total / eqn.invars[2].aval.shape[-1] if by_group else total


def _convolution(eqn) -> float:
  """2 * outputs * kernel elements per output, without inserted zeros.

  The gradient with respect to the inputs of a strided convolution is a
  convolution of a dilated array, whose inserted zeros do not count.
  """
  kernel = eqn.invars[1].aval.shape
  spec = eqn.params["dimension_numbers"].rhs_spec
  (out,) = eqn.outvars
  each = math.prod(kernel) / kernel[spec[0]]
  spread = math.prod(eqn.params["lhs_dilation"])
  return 2.0 * math.prod(out.aval.shape) * each / spread
