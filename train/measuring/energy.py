"""The energy of a run, read from the devices or estimated from their power."""

import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

KEYS = ("energy_kwh", "energy_kwh_estimated")
_JOULES = 3.6e6  # of a kWh


class Meter(NamedTuple):
  """Measures the energy of the devices, without that of their hosts.

  key: "energy_kwh" if it is read from counters, "energy_kwh_estimated" if not.
  kwh: () -> kWh since the meter was made.
  """

  key: str
  kwh: Callable[[], float]


def meter(costs: Any = None) -> Meter | None:
  """The Meter of this run's devices; None if their power is unknown.

  NVIDIA's counters are read through NVML if `pynvml` is installed (the package
  nvidia-ml-py). A run on several hosts reads the counters of one host and
  multiplies by the number of hosts, which is an estimate. Without counters the
  estimate is `costs.watts`, the maximum power, times devices and seconds.
  """
  joules = _nvml_joules()
  if joules is not None:
    hosts = jax.device_count() / jax.local_device_count()
    start = joules()
    key = KEYS[0] if hosts == 1 else KEYS[1]
    return Meter(key, lambda: hosts * (joules() - start) / _JOULES)
  if costs is None or not costs.watts:
    return None
  watts, began = costs.watts * costs.devices, time.monotonic()
  return Meter(KEYS[1], lambda: watts * (time.monotonic() - began) / _JOULES)


def _nvml_joules() -> Callable[[], float] | None:
  """() -> joules used by this host's GPUs since their driver was loaded."""
  if jax.local_devices()[0].platform != "gpu":
    return None
  try:
    import pynvml

    pynvml.nvmlInit()
  except Exception:  # no package, no library or no such driver
    return None
  count = pynvml.nvmlDeviceGetCount()
  every = ",".join(map(str, range(count)))
  names = os.environ.get("CUDA_VISIBLE_DEVICES", every).split(",")
  handles = []
  for device in jax.local_devices():
    name = names[device.local_hardware_id]
    handles.append(
      pynvml.nvmlDeviceGetHandleByIndex(int(name))
      if name.strip().isdigit()
      else pynvml.nvmlDeviceGetHandleByUUID(name)
    )
  read = pynvml.nvmlDeviceGetTotalEnergyConsumption  # millijoules
  try:
    read(handles[0])
  except pynvml.NVMLError:  # GPUs before Volta count nothing
    return None
  return lambda: sum(map(read, handles)) / 1e3
