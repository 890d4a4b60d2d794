"""Parses the text of a compiled XLA program and counts its instructions.

XLA's own cost analysis counts the body of a loop once; here it counts once per
iteration. The grammar is that of openxla.org/xla/operation_semantics and of
HloModule::ToString, for programs of TPUs and CPUs.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_BITS = {
  "pred": 8,
  "token": 0,
  "opaque": 0,
  "s2": 2,
  "u2": 2,
  "s4": 4,
  "u4": 4,
}
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,<=]*)\](\{[^{}]*\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([^ ]+) \(.*\) -> .* \{$")
_NAMED = re.compile(r"^\s+(ROOT )?%?([^ ]+) = ")
_CALLS = re.compile(
  r"\b(calls|to_apply|body|condition|true_computation|false_computation)"
  r"=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"\b(?:branch|called)_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


class Leaf(NamedTuple):
  """One array of a shape; `nbytes` is its size without padding.

  hbm: whether it is stored in main memory instead of an on-chip memory.
  """

  dtype: str
  dims: tuple[int, ...]
  nbytes: int
  hbm: bool


class Instruction(NamedTuple):
  """One instruction: %name = shape opcode(operands), attributes."""

  name: str
  opcode: str
  leaves: tuple[Leaf, ...]
  operands: tuple[str, ...]
  attributes: str
  literal: str
  root: bool

  @property
  def nbytes(self) -> int:
    """Returns the bytes of all arrays of the result."""
    return sum(leaf.nbytes for leaf in self.leaves)


class Program(NamedTuple):
  """A parsed program.

  computations: {name: {name of an instruction: Instruction}}.
  entry: the name of the computation that runs first.
  """

  computations: dict[str, dict[str, Instruction]]
  entry: str


def parse(text: str) -> Program:
  """Parses the result of `compiled.as_text()`.

  Raises:
    ValueError: the text has no entry computation.
  """
  computations: dict[str, dict[str, Instruction]] = {}
  current, entry = None, None
  for line in text.splitlines():
    header = _HEADER.match(line)
    if header:
      current = computations.setdefault(header[2], {})
      entry = header[2] if header[1] else entry
    elif line == "}":  # lines of kernel metadata may start with a brace too
      current = None
    elif current is not None:
      found = _instruction(line)
      if found:
        current[found.name] = found
  if entry is None:
    raise ValueError("the text is not an HLO module: it has no ENTRY")
  return Program(computations, entry)


def _instruction(line: str) -> Instruction | None:
  named = _NAMED.match(line)
  if not named:
    return None
  rest = line[named.end() :]
  shape_end = _closing(rest, 0) + 1 if rest[0] == "(" else rest.index(" ")
  opening = rest.find("(", shape_end)
  if opening < 0:
    return None
  closing = _closing(rest, opening)
  inside = rest[opening + 1 : closing]
  return Instruction(
    name=named[2],
    opcode=rest[shape_end:opening].strip(),
    leaves=leaves(rest[:shape_end]),
    operands=tuple(re.findall(r"%([\w.\-]+)", inside)),
    attributes=rest[closing + 1 :],
    literal=inside,
    root=bool(named[1]),
  )


def _closing(text: str, opening: int) -> int:
  """Returns the index of the parenthesis that closes the one at `opening`."""
  depth = 0
  for match in re.compile(r"[()]").finditer(text, opening):
    depth += 1 if match[0] == "(" else -1
    if not depth:
      return match.start()
  return len(text) - 1


def leaves(shape: str) -> tuple[Leaf, ...]:
  """Returns the arrays of a shape, which are several for a tuple."""
  found = []
  for dtype, dims, layout in _ARRAY.findall(shape):
    sizes = tuple(int(d.strip("<=")) for d in dims.split(",") if d)
    bits = _BITS.get(dtype)
    if bits is None:
      digits = re.search(r"\d+", dtype)
      bits = int(digits[0]) if digits else 8
    space = re.search(r"S\((\d+)\)", layout)
    found.append(Leaf(dtype, sizes, math.prod(sizes) * bits // 8, not space))
  return tuple(found)


def called(instruction: Instruction) -> list[tuple[str, str]]:
  """Returns (attribute, computation) for each that an instruction calls."""
  found = _CALLS.findall(instruction.attributes)
  for names in _BRANCHES.findall(instruction.attributes):
    found += [("branch", n.strip().lstrip("%")) for n in names.split(",")]
  return found


def executed(program: Program) -> Iterator[tuple[str, float, bool]]:
  """Yields (computation, executions per step, whether it is inside a fusion).

  A computation that is called from several places is yielded once for each.
  Every branch of a conditional counts as executed.
  """

  def visit(name, times, fused):
    yield name, times, fused
    for instruction in program.computations[name].values():
      for how, callee in called(instruction):
        if callee not in program.computations:
          continue
        if how == "to_apply" and instruction.opcode != "call":
          continue  # the scalar function of a reduction
        inner = times
        if how == "body":
          inner *= trips(program, instruction)
        inside = fused or instruction.opcode == "fusion"
        yield from visit(callee, inner, inside)

  yield from visit(program.entry, 1.0, False)


def trips(program: Program, loop: Instruction) -> int:
  """Returns the number of iterations of a `while`.

  That is XLA's known trip count or else the largest constant of the condition,
  because a `scan` counts from 0 up to a constant. 1 if there is no constant.
  """
  known = _TRIPS.search(loop.attributes)
  if known:
    return int(known[1])
  condition = dict(called(loop)).get("condition")
  constants = [
    int(i.literal)
    for i in program.computations.get(condition, {}).values()
    if i.opcode == "constant" and re.fullmatch(r"\d+", i.literal)
  ]
  return max(constants, default=1)
