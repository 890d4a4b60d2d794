"""What a step costs, and what the devices that pay for it can do."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from train.measuring import flops, hardware


class Costs(NamedTuple):
  """A step's work beside the devices' peak.

  flops: () -> model FLOPs of a step of the global batch
    (train.measuring.flops).
  devices: of the mesh.
  peak_flops: FLOP/s of one in the dtype that the model computes in; None where
    the device is unknown.
  watts: of one, at most; None where unknown.
  """

  flops: Callable[[], float]
  devices: int
  peak_flops: float | None = None
  watts: float | None = None

  def mfu(self, step_seconds: float) -> float:
    """Model FLOPs utilization (PaLM, arXiv:2204.02311, appendix B).

    model FLOPs a step / (step_seconds * devices * peak_flops), causal
    attention counted as half and what remat computes again not at all.
    """
    peak = self.devices * self.peak_flops
    return self.flops() / (step_seconds * peak)


def of(experiment: Any, compute_dtype: str) -> Costs:
  """The Costs of a assembly.Experiment, on the devices of its mesh.

  `compute_dtype` is the model's where its config names none.
  """
  devices = experiment.mesh.devices
  chip = hardware.chip(devices.flat[0].device_kind)
  dtype = experiment.config["model"].get("dtype", compute_dtype)
  return Costs(
    # Not all models have a formula, and a trace takes seconds: when asked for.
    flops=functools.cache(functools.partial(flops.step, experiment)),
    devices=devices.size,
    peak_flops=chip.peak_flops.get(dtype) if chip else None,
    watts=chip.watts if chip else None,
  )
