"""The communication of a compiled program, by the axes of its mesh."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from train.planning import hlo

KINDS = (
  "all-gather",
  "all-reduce",
  "reduce-scatter",
  "all-to-all",
  "ragged-all-to-all",
  "collective-permute",
  "collective-broadcast",
)
_MESH = re.compile(
  r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((.*?)\))? \{([^}]*)\}"
)
_IOTA = r"\[([\d,]+)\](?:<=\[([\d,]+)\])?(?:T\(([\d,]+)\))?"


class Collective(NamedTuple):
  """One collective instruction.

  name: the name of the instruction.
  kind: one of KINDS.
  axes: names of the mesh axes that its groups span.
  group: the number of devices in a group.
  payload: bytes of the tensor on one device: after the collective for an
    all-gather, before it for all other kinds.
  times: how many times it runs per step.
  spread: the devices of the first group, as indices in the mesh's order.
  """

  name: str
  kind: str
  axes: tuple[str, ...]
  group: int
  payload: int
  times: float
  spread: tuple[int, ...] = ()

  @property
  def sent(self) -> float:
    """Returns the bytes that a device sends per execution, at the minimum.

    A ring algorithm reaches the minimum: (n - 1) / n of the payload, and twice
    that for an all-reduce (Thakur et al. 2005, "Optimization of collective
    communication operations in MPICH").
    """
    if self.kind in ("collective-permute", "collective-broadcast"):
      return float(self.payload)
    rounds = 2 if self.kind == "all-reduce" else 1
    return rounds * self.payload * (self.group - 1) / self.group


def of_program(text: str, mesh_shape: dict[str, int]) -> list[Collective]:
  """Returns every collective in a program's text.

  Args:
    text: compiled.as_text() of a program that runs on the devices of the mesh,
      in the mesh's order.
    mesh_shape: {axis: size}, in order.
  """
  program = hlo.parse(text)
  found: list[Collective] = []
  chains = set()
  for computation, times, _ in hlo.executed(program):
    scope = program.computations[computation]
    for instruction in scope.values():
      kind = instruction.opcode.removesuffix("-start")
      if kind not in KINDS:
        continue
      # The TPU compiler spreads one collective over a chain of fusions.
      chain = re.search(r'chain_id="(\d+)"', instruction.attributes)
      if chain:
        channel = re.search(r"channel_id=(\d+)", instruction.attributes)
        key = (chain[1], channel and channel[1])
        if key in chains:
          continue
        chains.add(key)
      found += _collective(
        instruction, kind, computation, scope, times, mesh_shape
      )
  return found


def _collective(
  instruction, kind, computation, scope, times, mesh_shape
) -> list[Collective]:
  pairs = re.search(
    r"source_target_pairs=\{(\{[\d,{}]*\})\}", instruction.attributes
  )
  if pairs:
    found = re.findall(r"\{(\d+),(\d+)\}", pairs[1])
    groups = [[int(a), int(b)] for a, b in found if a != b]
  else:
    groups = replica_groups(instruction.attributes, mesh_shape)
  if not groups or len(groups[0]) < 2:
    return []
  size = len(groups[0])
  operands = [scope[name] for name in instruction.operands if name in scope]
  payload = sum(operand.nbytes for operand in operands)
  if kind == "all-gather":
    payload *= size
  if kind == "all-reduce" and computation.startswith("all-reduce-scatter"):
    kind = "reduce-scatter"  # the TPU compiler emits it in this form
  return [
    Collective(
      name=instruction.name,
      kind=kind,
      axes=spanned(groups, mesh_shape),
      group=size,
      payload=payload,
      times=times,
      spread=tuple(groups[0]),
    )
  ]


def replica_groups(
  attributes: str, mesh_shape: dict[str, int]
) -> list[list[int]]:
  """Parses the device groups in an instruction's attributes.

  The supported notations are lists, {{0,1},{2,3}}, iota tiles,
  [2,4]<=[4,2]T(1,0), and meshes,
  mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b'}.
  """
  devices = math.prod(mesh_shape.values())
  mesh = _MESH.search(attributes)
  if mesh:
    return _mesh_groups(*mesh.groups())
  iota = re.search(rf"replica_groups={_IOTA}", attributes)
  if iota:
    shape, dims, order = (_numbers(part) for part in iota.groups())
    return _iota(dims, order).reshape(shape).tolist()
  listed = re.search(r"replica_groups=\{((?:\{[\d,]*\},?)*)\}", attributes)
  if listed and listed[1]:
    return [_numbers(group) for group in re.findall(r"\{([\d,]*)\}", listed[1])]
  return [list(range(devices))]


def _mesh_groups(axes: str, ids: str | None, chosen: str) -> list[list[int]]:
  named = re.findall(r"'([^']+)'=(\d+)", axes)
  sizes = [int(n) for _, n in named]
  count = math.prod(sizes)
  dims, order = [count], []
  if ids:
    shape, _, transposed = re.match(_IOTA, ids).groups()
    dims, order = _numbers(shape), _numbers(transposed)
  places = _iota(dims, order).reshape(sizes)
  # A group may span a part of an axis: 'a':(2)4 splits axis a into sub-axes, of
  # which one of size 4 is spanned, after a major one of size 2.
  over = {}
  for name, before, size in re.findall(
    r"'([^']+)'(?::\((\d+)\)(\d+))?", chosen
  ):
    over.setdefault(name, []).append((int(before or 0), int(size or 0)))
  split, inside = [], []
  for (name, _), n in zip(named, sizes, strict=True):
    parts = over.get(name)
    if parts and parts[0][1]:
      before, size = parts[0]
      inside += [len(split) + 1]
      split += [before, size, n // before // size]
    else:
      inside += [len(split)] if parts else []
      split += [n]
  places = places.reshape(split)
  outside = [i for i in range(len(split)) if i not in inside]
  size = math.prod(split[i] for i in inside)
  return places.transpose(*outside, *inside).reshape(-1, size).tolist()


def _numbers(text: str | None) -> list[int]:
  return [int(n) for n in text.split(",")] if text else []


def _iota(dims: Sequence[int], order: Sequence[int]) -> np.ndarray:
  places = np.arange(math.prod(dims)).reshape(dims)
  return places.transpose(order) if order else places


def spanned(
  groups: list[list[int]], mesh_shape: dict[str, int]
) -> tuple[str, ...]:
  """Returns the mesh axes along which the members of a group differ."""
  sizes = tuple(mesh_shape.values())
  names = []
  for axis, name in enumerate(mesh_shape):
    places = [
      set(np.unravel_index(np.array(group), sizes)[axis].tolist())
      for group in groups
    ]
    if any(len(place) > 1 for place in places):
      names.append(name)
  return tuple(names)


def by_axis(found: list[Collective]) -> dict[str, dict[str, dict[str, float]]]:
  """Returns {"data+fsdp": {"all-reduce": {count, bytes, sent_bytes}}} per step.

  The outer keys are mesh axes joined by "+", the inner ones are kinds.
  """
  table: dict[str, dict[str, dict[str, float]]] = {}
  for one in found:
    kinds = table.setdefault("+".join(one.axes), {})
    row = kinds.setdefault(
      one.kind, {"count": 0.0, "bytes": 0.0, "sent_bytes": 0.0}
    )
    row["count"] += one.times
    row["bytes"] += one.times * one.payload
    row["sent_bytes"] += one.times * one.sent
  return table
