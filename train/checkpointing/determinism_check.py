"""Computes a step twice from the same state and batch, and compares the bits.

This detects hardware that silently produces wrong results, and programs that
are not deterministic.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from common.errors import CorruptionError
from train.checkpointing import digests
from train.types import Batch, State


def twin(
  step_fn: Callable, state: State, batch: Batch, rng: jax.Array
) -> dict[str, str]:
  """Returns digests of (state, metrics) after a step from a copy of `state`."""
  copy = jax.tree.map(jnp.copy, state)
  return _digests(*step_fn(copy, batch, rng))


def compare(
  expected: dict[str, str] | None, state: State, metrics: dict, step: int
) -> None:
  """Compares the result of a step with the digests of its twin, if any.

  Raises:
    CorruptionError: the results differ.
  """
  if expected is None:
    return
  differing = digests.differing(expected, _digests(state, metrics))
  if differing:
    more = f" and {len(differing) - 1} more differ" if differing[1:] else ""
    raise CorruptionError(
      f"the update after step {step} was computed twice with different results:"
      f" {differing[0]}{more or ' differs'}; the hardware may be faulty: resume"
      " on other devices from the last checkpoint, which precedes this step"
    )


def _digests(state, metrics):
  return digests.of({"state": state, "metrics": metrics})
