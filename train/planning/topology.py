"""Descriptions of machines that need not exist here: v5e:16x16, h100:8x8."""

import dataclasses
import math
import os
import re
from typing import Any, NamedTuple

from common import cli
from common.errors import UserError
from common.names import nearest
from train.measuring import hardware

# The number of dimensions of a slice and its maximum number of chips:
# cloud.google.com/tpu/docs/v4, /v5e, /v5p and /v6e, "Supported configurations".
_TPUS = {"v4": (3, 4096), "v5e": (2, 256), "v5p": (3, 6144), "v6e": (2, 256)}
_GPUS = ("a100", "h100", "h200", "b200")


class Topology(NamedTuple):
  """The devices of a plan.

  name: the name that the user gave.
  chip: the kind of chip; None for simulated CPU devices.
  devices: devices of JAX, or StandIns for GPUs.
  compiles: whether a compiler for the devices is available here.
  host_size: the number of devices in one fast network: a slice, or a host of
    GPUs.
  torus: the sizes of the slice's dimensions; () if there is no torus.
  """

  name: str
  chip: hardware.Chip | None
  devices: list[Any]
  compiles: bool
  host_size: int
  torus: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class StandIn:
  """A device without hardware, sufficient for computing shardings."""

  id: int
  device_kind: str
  slice_index: int = 0
  platform: str = "gpu"
  num_cores: int = 1
  process_index: int = 0


def parse(text: str) -> tuple[str, tuple[int, ...]]:
  """Parses "v5e:16x16" into (chip, sizes) without importing JAX.

  Raises:
    UserError: the text has another form, or there is no such machine.
  """
  match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", text)
  known = [*_TPUS, *_GPUS, "cpu"]
  if not match or match[1] not in known:
    name = text.partition(":")[0]
    raise UserError(
      f"--topology={text}: not CHIP:SIZExSIZE, where CHIP is one of"
      f" {', '.join(known)}{'' if name in known else nearest(name, known)}"
    )
  name, sizes = match[1], tuple(int(n) for n in match[2].split("x"))
  if 0 in sizes:
    raise UserError(f"--topology={text}: a size is 0")
  if name in _TPUS:
    dimensions, most = _TPUS[name]
    if len(sizes) != dimensions:
      example = "x".join("4" * dimensions)
      raise UserError(
        f"--topology={text}: a slice of {name} has {dimensions} sizes, such as"
        f" {name}:{example}"
      )
    if math.prod(sizes) > most:
      raise UserError(
        f"--topology={text}: a slice of {name} has at most {most} chips"
      )
  elif len(sizes) > (2 if name in _GPUS else 1):
    spelled = "HOSTSxGPUS" if name in _GPUS else "DEVICES"
    raise UserError(f"--topology={text}: the format is {name}:{spelled}")
  return name, sizes


def prepare(text: str) -> None:
  """Sets the environment variables of JAX; call it before importing JAX.

  Raises:
    UserError: see `parse`.
  """
  name, sizes = parse(text)
  # Planning computes nothing on devices: leave a local accelerator free.
  os.environ["JAX_PLATFORMS"] = "cpu"
  os.environ["TPU_SKIP_MDS_QUERY"] = "1"
  # Programs for other machines can be written to the cache but not read back.
  os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
  # Several plans may run at the same time.
  os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
  os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
  os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
  cli.quiet_libtpu()
  if name == "cpu":
    given = os.environ.get("XLA_FLAGS", "")
    given = re.sub(r"--xla_force_host_platform_device_count=\d+", "", given)
    wanted = f"--xla_force_host_platform_device_count={sizes[0]}"
    os.environ["XLA_FLAGS"] = f"{given} {wanted}".strip()


def find(text: str, slices: int = 1) -> Topology:
  """Returns the Topology of `slices` slices such as "v5e:16x16".

  Raises:
    UserError: see `parse`. Also if libtpu is not installed or rejects the
      sizes, or if there are fewer than N devices for "cpu:N" because `prepare`
      was called too late.
  """
  name, sizes = parse(text)
  if slices < 1 or (slices > 1 and name not in _TPUS):
    raise UserError(
      f"--slices={slices}: must be at least 1, and 1 for anything but TPUs"
    )
  count = math.prod(sizes)
  if name == "cpu":
    import jax

    devices = jax.devices("cpu")
    if len(devices) < count:
      raise UserError(
        f"--topology={text}: this process has {len(devices)} CPU devices"
      )
    return Topology(text, None, devices[:count], True, count)
  chip = hardware.CHIPS[name]
  if name in _GPUS:
    host = sizes[-1] if len(sizes) == 2 else min(8, count)
    kind = name.upper()
    devices = [StandIn(i, kind) for i in range(count)]
    return Topology(text, chip, devices, False, host)
  devices = _tpus(text, name, sizes, slices)
  title = text if slices == 1 else f"{slices} slices of {text}"
  return Topology(title, chip, devices, True, count, sizes)


def _tpus(text, name, sizes, slices) -> list[Any]:
  from jax.experimental import topologies

  try:
    import libtpu  # noqa: F401  (JAX's own message does not name the package)
  except ImportError as error:
    raise UserError(
      f"--topology={text} needs the TPU compiler: pip install -e '.[plan]'"
    ) from error
  options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
  if math.prod(sizes) == 1:
    options["chips_per_host_bounds"] = (1, 1, 1)
  if name == "v4":
    options["chip_config_name"] = "megacore"  # one device a chip, as on a VM
  try:
    return topologies.get_topology_desc(
      platform="tpu", topology_name=text, **options
    ).devices
  except Exception as error:  # XLA's types of error differ between versions
    reason = str(error).strip().splitlines()[0]
    raise UserError(f"--topology={text}: {reason}") from error
