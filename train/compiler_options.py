"""Options with which XLA compiles the programs of a run."""

import jax

from train.types import PyTree


def of_step(shardings: PyTree) -> dict[str, str] | None:
  """Those of an update of a state that is sharded so.

  On CPU, XLA removes barriers before it fuses. Here it keeps those of
  models/layers/partition.py, without which it computes the norms and
  activations before a convolution again for its gradient. The values stay the
  same, to the bit.
  """
  # A program may be compiled for other devices than those of this process.
  device = next(iter(jax.tree.leaves(shardings)[0].device_set))
  if device.platform != "cpu":
    return None
  return {"xla_disable_hlo_passes": "cse_barrier_expander"}


def of_init() -> dict[str, int] | None:
  """Those of the program that initializes a state, which runs once.

  On CPU it takes a third of the time to compile, and the values are the same.
  """
  if jax.default_backend() != "cpu":
    return None
  return {"xla_backend_optimization_level": 1}
