"""The FLOPs of a step, and the peak FLOP/s and power of its devices."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from train.measuring import flops, hardware


class Costs(NamedTuple):
  """The work of a step and the capacity of the devices.

  flops: () -> model FLOPs of a step of the global batch
    (train.measuring.flops).
  devices: the number of devices in the mesh.
  peak_flops: FLOP/s of one device in the dtype that the model computes in; None
    if the device is unknown.
  watts: the maximum power of one device; None if it is unknown.
  """

  flops: Callable[[], float]
  devices: int
  peak_flops: float | None = None
  watts: float | None = None

  def mfu(self, step_seconds: float) -> float:
    """Model FLOPs utilization (PaLM, arXiv:2204.02311, appendix B).

    model FLOPs per step / (step_seconds * devices * peak_flops). Causal
    attention counts as half, and recomputation under remat does not count.
    """
    peak = self.devices * self.peak_flops
    return self.flops() / (step_seconds * peak)


def of(experiment: Any, compute_dtype: str) -> Costs:
  """The Costs of an assembly.Experiment on the devices of its mesh.

  `compute_dtype` is used where the model's config names no dtype.
  """
  devices = experiment.mesh.devices
  chip = hardware.chip(devices.flat[0].device_kind)
  dtype = experiment.config["model"].get("dtype", compute_dtype)
  return Costs(
    # Computed on first use: a model without a formula is traced for seconds.
    # Batches of buckets are shorter than the spec.
    flops=functools.cache(
      lambda: flops.step(experiment) * experiment.data.share
    ),
    devices=devices.size,
    peak_flops=chip.peak_flops.get(dtype) if chip else None,
    watts=chip.watts if chip else None,
  )
