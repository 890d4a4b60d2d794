"""A step taken twice from one state and one batch, and compared bit by bit.

Hardware that computes wrongly without a word shows so, and so does a program
that is not deterministic.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from train import digests
from train.errors import CorruptionError
from train.types import Batch, State


def twin(
  step_fn: Callable, state: State, batch: Batch, rng: jax.Array
) -> dict[str, str]:
  """Digests of (state, metrics) after a step from a copy of `state`."""
  return digests.of(step_fn(jax.tree.map(jnp.copy, state), batch, rng))


def compare(expected: dict[str, str] | None, updated, step: int) -> None:
  """Holds (state, metrics) after the step itself against its twin, if any.

  Raises:
    CorruptionError: a bit of them differs.
  """
  if expected is None:
    return
  differing = digests.differing(expected, digests.of(updated))
  if differing:
    more = f" and {len(differing) - 1} more differ" if differing[1:] else ""
    raise CorruptionError(
      f"the update after step {step} gave two results from one state and one"
      f" batch: {differing[0]}{more or ' differs'}; suspect the hardware, and"
      " start again on other devices: the last checkpoint is from before"
    )
