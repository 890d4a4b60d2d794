"""The roofline model: a lower bound on the time of a step.

Williams, Waterman and Patterson 2009, "Roofline: an insightful visual
performance model". Compute, memory traffic and communication are assumed to
overlap perfectly, so the bound is the longest of the three times. Imperfect
overlap only makes a step slower.
"""

from collections.abc import Sequence
from typing import NamedTuple

from train.measuring import hardware
from train.planning import collectives, hlo

# Instructions that move no bytes, or whose bytes are counted at their users.
_FREE = {
  "parameter",
  "constant",
  "tuple",
  "get-tuple-element",
  "bitcast",
  "while",
  "conditional",
  "call",
  "iota",
  "partition-id",
  "replica-id",
  "after-all",
  "optimization-barrier",
}
_SLICES = {"dynamic-slice", "slice", "gather"}


class Bound(NamedTuple):
  """Lower bounds on the time of a step, in seconds.

  compute: the time of the arithmetic.
  hbm: the time of the memory traffic.
  interconnect: the time of the collectives, by mesh axes.
  step: the longest of these times.
  mfu: the model FLOPs utilization of a step that takes this long.
  limit: the resource with the longest time: "compute", "hbm" or "interconnect".
  """

  compute: float
  hbm: float
  interconnect: dict[str, float]
  step: float
  mfu: float
  limit: str


def bound(
  chip: hardware.Chip,
  chips: int,
  dtype: str,
  model_flops: float,
  executed_flops: float,
  hbm_bytes: float,
  interconnect: dict[str, float],
) -> Bound:
  """Returns the Bound of a step.

  Args:
    chip: the chip, with its peak rates.
    chips: the number of chips, which share the work evenly.
    dtype: the dtype of matrix products, a key of chip.peak_flops.
    model_flops: the model's FLOPs for the global batch; see
      train.measuring.flops.
    executed_flops: model_flops plus recomputation.
    hbm_bytes: bytes that a chip moves to and from its memory.
    interconnect: seconds of collectives, by mesh axes.
  """
  peak = chips * chip.peak_flops[dtype]
  times = {
    "compute": executed_flops / peak,
    "hbm": hbm_bytes / chip.hbm_bandwidth,
    "interconnect": sum(interconnect.values()),
  }
  limit = max(times, key=lambda name: times[name])
  step = times[limit]
  return Bound(
    times["compute"],
    times["hbm"],
    interconnect,
    step,
    model_flops / (step * peak),
    limit,
  )


def interconnect(
  found: Sequence[collectives.Collective],
  chip: hardware.Chip,
  devices: Sequence,
  host_size: int,
  torus: Sequence[int],
) -> dict[str, float]:
  """Returns the seconds of communication per step, by mesh axes.

  On a torus, a group uses the links of the dimensions that it spans, in both
  directions if the dimension closes to a ring. Data that leaves the slice or
  the host also crosses the slow network; each of the n devices in a fast
  network sends one n-th of it.

  Args:
    found: the collectives, from collectives.of_program or by formula.
    chip: the chip, with its bandwidths.
    devices: the devices in the mesh's order; with `coords` on a torus.
    host_size: the number of devices in one fast network.
    torus: the sizes of a slice's dimensions; () for a switch.
  """
  times: dict[str, float] = {}
  for one in found:
    members = [devices[i] for i in one.spread] or list(devices)[: one.group]
    networks = {_network(device, host_size) for device in members}
    seconds = 0.0
    if len(members) > len(networks) or len(networks) == 1:
      bandwidth = _bandwidth(members, chip, torus)
      seconds = one.sent / bandwidth
    if len(networks) > 1:
      inside = max(1, len(members) // len(networks))
      ring = one._replace(group=len(networks)).sent / inside
      seconds = max(seconds, ring / chip.dcn_bandwidth)
    key = "+".join(one.axes)
    times[key] = times.get(key, 0.0) + one.times * seconds
  return times


def _network(device, host_size: int) -> tuple[int, int]:
  """Returns the key of a device's fast network: its slice, or its host."""
  return (getattr(device, "slice_index", 0) or 0, device.id // host_size)


def _bandwidth(members, chip: hardware.Chip, torus: Sequence[int]) -> float:
  """Returns the bytes/s that a member can send to the others, one way."""
  if not chip.torus:
    return chip.ici_bandwidth
  a_dimension = chip.ici_bandwidth / chip.torus  # both its links
  total = 0.0
  for axis, size in enumerate(torus):
    places = {device.coords[axis] for device in members}
    if len(places) < 2:
      continue
    # A ring needs a group that spans a dimension with wraparound links: size 16
    # on v5e and v6e, any multiple of 4 on v4 and v5p.
    wired = size == 16 if chip.torus == 2 else size % 4 == 0
    total += a_dimension if wired and len(places) == size else a_dimension / 2
  return total or a_dimension / 2


def hbm_bytes(text: str) -> float:
  """Returns the bytes of HBM traffic per step and device, from the program.

  Each instruction outside a fusion reads its operands and writes its result
  once. A slice reads only the slice, and an in-place update writes only the
  update. A kernel that reads an operand twice is counted once.
  """
  program = hlo.parse(text)
  total = 0.0
  for name, times, fused in hlo.executed(program):
    if fused:
      continue
    scope = program.computations[name]
    total += times * sum(_moved(program, scope, i) for i in scope.values())
  return total


def _moved(program, scope, instruction) -> float:
  opcode = instruction.opcode
  if opcode in _FREE or opcode.endswith(("-done", "-update")):
    return 0.0
  operands = [scope[name] for name in instruction.operands if name in scope]
  if opcode == "fusion":
    callee = dict(hlo.called(instruction)).get("calls")
    if callee in program.computations:
      inner = program.computations[callee]
      reads = _fusion_reads(program, inner, operands)
      return reads + _written(inner, instruction)
  if opcode in _SLICES:
    return 2.0 * _in_hbm(instruction)
  if opcode == "dynamic-update-slice":
    return 2.0 * _in_hbm(operands[1]) if len(operands) > 1 else 0.0
  if opcode == "async-start":
    return 0.0  # counted in the computation that it calls
  if opcode in ("copy-start", "slice-start"):
    first, second, *_ = instruction.leaves
    made, source = (
      (first, second) if opcode == "copy-start" else (second, first)
    )
    return float(made.nbytes * (made.hbm + source.hbm))
  return _in_hbm(instruction) + sum(_in_hbm(operand) for operand in operands)


def _in_hbm(instruction) -> float:
  return float(sum(leaf.nbytes for leaf in instruction.leaves if leaf.hbm))


def _fusion_reads(program, inner, operands) -> float:
  """Returns the bytes of its operands that a fusion reads from HBM."""
  total = 0.0
  for parameter in inner.values():
    if parameter.opcode != "parameter":
      continue
    place = int(parameter.literal)
    if place < len(operands) and _in_hbm(operands[place]):
      whole = _in_hbm(operands[place])
      total += min(whole, _read(program, inner, parameter.name, whole))
  return total


def _read(program, inner, name: str, whole: float) -> float:
  """Returns the bytes of `name` that its users read.

  That is `whole`, the size of `name`, if a user reads all of it.
  """
  total = 0.0
  for user in inner.values():
    if name not in user.operands:
      continue
    first = user.operands[0] == name
    callee = dict(hlo.called(user)).get("calls")
    if user.opcode in _SLICES and first:
      total += user.nbytes
    elif user.opcode == "dynamic-update-slice" and first:
      continue  # in place
    elif user.opcode == "bitcast":
      total += _read(program, inner, user.name, whole)
    elif user.opcode == "fusion" and callee in program.computations:
      nested = program.computations[callee]
      total += sum(
        _read(program, nested, parameter.name, whole)
        for parameter in nested.values()
        if parameter.opcode == "parameter"
        and user.operands[int(parameter.literal)] == name
      )
    elif not _carried(user):
      return whole
  return total


def _carried(user) -> bool:
  """Whether an instruction only forwards a buffer: a tuple or a collective."""
  return (
    user.opcode == "tuple"
    or user.opcode in collectives.KINDS
    or "AsyncCollective" in user.attributes
  )


def _written(inner, fusion) -> float:
  """Returns the bytes that a fusion writes; in place, only the update."""
  root = next(i for i in inner.values() if i.root)
  made = [root]
  if root.opcode == "tuple":
    made = [inner[name] for name in root.operands if name in inner]
  total = 0.0
  for index, one in enumerate(made):
    leaf = fusion.leaves[index] if index < len(fusion.leaves) else None
    if leaf is None or not leaf.hbm or one.opcode == "parameter":
      continue
    source = one
    while source.opcode == "bitcast" and source.operands[0] in inner:
      source = inner[source.operands[0]]
    if source.opcode == "dynamic-update-slice":
      total += inner[source.operands[1]].nbytes
    elif source.opcode != "get-tuple-element" and not _carried(source):
      total += leaf.nbytes
  return total


def dtype_of(name: str | None) -> str:
  """Returns the key of Chip.peak_flops for a dtype; bfloat16 by default."""
  return name if name in ("float32", "float16", "int8", "fp8") else "bfloat16"


def whole_run(
  step_seconds: float,
  steps: int,
  chips: int,
  watts: float,
  price: float | None,
) -> dict[str, float | None]:
  """Returns the hours, chip-hours, kWh and cost of a run.

  Args:
    step_seconds: seconds per step.
    steps: the number of steps of the run.
    chips: the number of chips that the run occupies.
    watts: the power of a chip.
    price: the price of a chip-hour, in any currency; if None, "money" is None.
  """
  hours = step_seconds * steps / 3600
  chip_hours = hours * chips
  return {
    "hours": hours,
    "chip_hours": chip_hours,
    "kwh": chip_hours * watts / 1000,
    "money": None if price is None else chip_hours * price,
  }
