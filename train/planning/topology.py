"""Machines that need not be there: v5e:16x16, h100:8x8, cpu:8."""

import dataclasses
import math
import os
import re
from typing import Any, NamedTuple

from common.errors import UserError
from common.names import nearest
from train.measuring import hardware

# Dimensions of a slice, and its greatest number of chips: cloud.google.com/tpu
# /docs/v4, /v5e, /v5p and /v6e, "Supported configurations".
_TPUS = {"v4": (3, 4096), "v5e": (2, 256), "v5p": (3, 6144), "v6e": (2, 256)}
_GPUS = ("a100", "h100", "h200", "b200")


class Topology(NamedTuple):
  """The devices of a plan.

  name: as it was asked for.
  chip: None for simulated CPU devices.
  devices: of JAX, or stand-ins for GPUs.
  compiles: whether there is a compiler for them here.
  host_size: devices in one fast network: a slice, or a host of GPUs.
  torus: sizes of the slice's dimensions, () where there is no torus.
  """

  name: str
  chip: hardware.Chip | None
  devices: list[Any]
  compiles: bool
  host_size: int
  torus: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class StandIn:
  """A device that is known by its kind alone; enough to shard shapes over."""

  id: int
  device_kind: str
  slice_index: int = 0
  platform: str = "gpu"
  num_cores: int = 1
  process_index: int = 0


def parse(text: str) -> tuple[str, tuple[int, ...]]:
  """(chip, sizes) of "v5e:16x16"; imports nothing heavy.

  Raises:
    UserError: it is not spelled so, or there is no such machine.
  """
  match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", text)
  known = [*_TPUS, *_GPUS, "cpu"]
  if not match or match[1] not in known:
    name = text.partition(":")[0]
    raise UserError(
      f"--topology={text}: not CHIP:SIZExSIZE with a chip of"
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
        f"--topology={text}: a slice of {name} has {dimensions} sizes, as in"
        f" {name}:{example}"
      )
    if math.prod(sizes) > most:
      raise UserError(
        f"--topology={text}: a slice of {name} has at most {most} chips"
      )
  elif len(sizes) > (2 if name in _GPUS else 1):
    spelled = "HOSTSxGPUS" if name in _GPUS else "DEVICES"
    raise UserError(f"--topology={text}: spelled {name}:{spelled}")
  return name, sizes


def prepare(text: str) -> None:
  """Sets what JAX reads when it is imported, so before that.

  Raises:
    UserError: as `parse`.
  """
  name, sizes = parse(text)
  # A plan computes nothing: an accelerator that is here stays free.
  os.environ["JAX_PLATFORMS"] = "cpu"
  os.environ["TPU_SKIP_MDS_QUERY"] = "1"
  # Programs for other machines can be kept, but not be read again.
  os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
  # One plan may be made beside another.
  os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
  os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
  os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
  if name == "cpu":
    given = os.environ.get("XLA_FLAGS", "")
    given = re.sub(r"--xla_force_host_platform_device_count=\d+", "", given)
    wanted = f"--xla_force_host_platform_device_count={sizes[0]}"
    os.environ["XLA_FLAGS"] = f"{given} {wanted}".strip()


def find(text: str, slices: int = 1) -> Topology:
  """The Topology of "v5e:16x16", `slices` times.

  Raises:
    UserError: as `parse`; libtpu is not installed, or refuses the sizes; there
      are too few devices for "cpu:N", where `prepare` came too late.
  """
  name, sizes = parse(text)
  if slices < 1 or (slices > 1 and name not in _TPUS):
    raise UserError(f"--slices={slices}: only TPUs come in slices, 1 or more")
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
  except Exception as error:  # XLA's own kinds, which differ by version
    reason = str(error).strip().splitlines()[0]
    raise UserError(f"--topology={text}: {reason}") from error
