"""Low-rank adaptation of a model's matrices (LoRA, arXiv:2106.09685)."""

import math
import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from common.nested import nested
from models import Model
from train.optimization import parameter_rules
from train.types import PyTree


def lora(
  model: Model,
  *,
  rank: int = 8,
  alpha: float = 16.0,
  targets: Sequence[str] = (r"attention/(query|value)/kernel$",),
  trained: Sequence[str] = (r"^head/",),
) -> Model:
  """Returns the model with W + alpha / rank * A B in place of matrices W.

  Its params are {"base": frozen, "trained": trained in full, "lora": {… {"A":
  [..., I, r], "B": [..., r, O]}}}; the run freezes "base". A is sampled from
  normal(1 / sqrt(I)) and B is zero, so that training starts from the model
  itself (section 4.1 of the paper). With leading axes, of layers or experts,
  each matrix has its own A and B.

  Args:
    model: the model to adapt.
    rank: r.
    alpha: numerator of the scale alpha / r.
    targets: regexes of the paths of the adapted matrices.
    trained: regexes of the paths of parameters that are trained in full; they
      may match none.

  Raises:
    ValueError: a setting is out of range; from `init`, a target matches no
      parameter, or one that is not a matrix.
  """
  if rank < 1 or not 0 < alpha < math.inf:
    raise ValueError(f"rank={rank} is below 1, or alpha={alpha} not above 0")
  if isinstance(targets, str) or isinstance(trained, str) or not targets:
    raise ValueError("targets and trained are lists of regexes")
  for regex in (*targets, *trained):
    parameter_rules.compiled("adapt", regex)

  def init(rng):
    rng, own = jax.random.split(rng)
    params, model_state = model.init(rng)
    flat = parameter_rules.flat(params)
    whole = {p for p in flat if any(re.search(t, p) for t in trained)}
    return {
      "base": nested({p: x for p, x in flat.items() if p not in whole}),
      "trained": nested({p: flat[p] for p in sorted(whole)}),
      "lora": _drawn(own, flat, targets, rank),
    }, model_state

  def plain(params: PyTree) -> PyTree:
    """Returns the params of the original model, with the change merged."""
    flat = jax.tree.map(jax.lax.stop_gradient, params["base"])
    flat = parameter_rules.flat(flat) | parameter_rules.flat(params["trained"])
    low = parameter_rules.flat(params["lora"])
    for path in [p.removesuffix("/A") for p in low if p.endswith("/A")]:
      W = flat[path]
      change = jnp.matmul(low[f"{path}/A"], low[f"{path}/B"])
      flat[path] = W + (alpha / rank * change).astype(W.dtype)
    return nested(flat)

  def apply(params, model_state, *inputs, **kwargs):
    return model.apply(plain(params), model_state, *inputs, **kwargs)

  return model._replace(
    init=init, apply=apply, plain=plain, fixed=("base",), adapter="lora"
  )


def _drawn(rng, flat, targets: Sequence[str], rank: int) -> PyTree:
  """Returns the initial A and B of each target, in float32."""
  for regex in targets:
    if not any(re.search(regex, path) for path in flat):
      raise ValueError(
        f'adapt.targets: the regex "{regex}" matches no parameter'
      )
  paths = [p for p in flat if any(re.search(t, p) for t in targets)]
  found = {}
  for i, path in enumerate(paths):
    *leading, inputs, outputs = (1, *flat[path].shape)
    if flat[path].ndim < 2:
      raise ValueError(f"adapt.targets: {path} is not a matrix")
    leading = leading[1:]
    key = jax.random.fold_in(rng, i)
    shape = (*leading, inputs, rank)
    found[f"{path}/A"] = jax.random.normal(key, shape) * inputs**-0.5
    found[f"{path}/B"] = jnp.zeros((*leading, rank, outputs))
  return nested(found)
