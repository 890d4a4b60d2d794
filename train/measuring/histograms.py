"""Histograms of parameters and gradients, computed where the arrays are."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

BINS = 64


class Histogram(NamedTuple):
  """Counts of finite values in BINS equal intervals from `low` to `high`.

  counts: int32 [BINS]; the last interval includes `high`.
  low, high: the smallest and the largest finite value; 0 if there is none.
  total, squares: float32, the sum of the finite values and of their squares.
  """

  counts: Any
  low: Any
  high: Any
  total: Any
  squares: Any


def histogram(values: jax.Array) -> Histogram:
  """The Histogram of an array of any shape; NaN and infinity are left out.

  Each bin is one reduction over the array, so a sharded array is neither
  gathered nor reshaped.
  """
  values = values.astype(jnp.float32)
  real = jnp.isfinite(values)
  low = jnp.min(values, initial=jnp.inf, where=real)
  high = jnp.max(values, initial=-jnp.inf, where=real)
  low, high = (jnp.where(jnp.isfinite(x), x, 0) for x in (low, high))
  # Scaled: the difference of two large values may not be finite. Not halved,
  # since XLA would halve the difference instead.
  scale = jnp.maximum(jnp.maximum(high, -low), jnp.finfo(jnp.float32).tiny)
  width = high / scale - low / scale
  place = (values / scale - low / scale) / jnp.where(width > 0, width, 1)
  place = jnp.clip(jnp.floor(place * BINS), 0, BINS - 1)
  bin_of = jnp.where(real, place, -1).astype(jnp.int8)
  counts = jax.lax.map(
    lambda i: jnp.sum(bin_of == i, dtype=jnp.int32),
    jnp.arange(BINS, dtype=jnp.int8),
  )
  kept = jnp.where(real, values, 0)
  return Histogram(counts, low, high, jnp.sum(kept), jnp.sum(kept * kept))


def of_tree(tree: Any) -> dict[str, Histogram]:
  """{path of a leaf, its keys joined by "/": Histogram}, of floating leaves."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): histogram(leaf)
    for path, leaf in leaves
    if jnp.issubdtype(leaf.dtype, jnp.floating)
  }


def observer(
  gradients: Callable | None,
  every: Sequence[int],
  fetch: Callable[[Any], Any],
  write: Callable[[int, dict[str, Histogram]], None],
) -> Callable[[int, Any, Any, jax.Array], None]:
  """A function of (step, state, batch, rng) to call before each update.

  It writes the histograms "params/PATH" and "gradients/PATH" of the update
  from `step` to step + 1, under step + 1, where that is a multiple of one of
  `every`. The parameters are those before the update, and the gradients are
  those that the update computes, as for "train/loss" of the same step. A second
  compiled function does this: the update itself does not change.

  Args:
    gradients: types.Learner.gradients; None leaves gradients out.
    every: numbers of steps, each at least 1.
    fetch: brings arrays to the host; all processes call it.
    write: (step, {name: Histogram}) -> None.
  """

  @jax.jit
  def compute(state, batch, rng):
    trees = {"params": state.variables.params}
    if gradients is not None:
      rng = jax.random.fold_in(rng, state.step)
      trees["gradients"] = gradients(state, batch, rng)
    return of_tree(trees)

  def observe(step, state, batch, rng):
    if any((step + 1) % n == 0 for n in every):
      # One program at a time: see distributed.one_at_a_time.
      jax.block_until_ready(state)
      write(step + 1, fetch(compute(state, batch, rng)))

  return observe
