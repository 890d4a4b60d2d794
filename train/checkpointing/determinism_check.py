"""Computes a step twice from the same state and batch, and compares the bits.

This detects hardware that silently computes wrongly, and programs that are not
deterministic.
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
  """Digests of (state, metrics) after a step from a copy of `state`."""
  copy = jax.tree.map(jnp.copy, state)
  return _digests(*step_fn(copy, batch, rng))


def compare(
  expected: dict[str, str] | None, state: State, metrics: dict, step: int
) -> None:
  """Holds what the step itself gave against its twin, if there is one.

  Raises:
    CorruptionError: a bit of them differs.
  """
  if expected is None:
    return
  differing = digests.differing(expected, _digests(state, metrics))
  if differing:
    more = f" and {len(differing) - 1} more differ" if differing[1:] else ""
    raise CorruptionError(
      f"the update after step {step} gave two results from one state and one"
      f" batch: {differing[0]}{more or ' differs'}; suspect the hardware, and"
      " start again on other devices: the last checkpoint is from before"
    )


def _digests(state, metrics):
  return digests.of({"state": state, "metrics": metrics})
