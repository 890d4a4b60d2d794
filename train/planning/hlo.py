"""A compiled program's text, as XLA prints it: instructions, and how often.

XLA counts a loop's body once in its own cost analysis; here it counts as often
as the loop runs. The grammar is that of openxla.org/xla/operation_semantics
and of HloModule::ToString, for programs of TPUs and CPUs.
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
  """One array of a shape; `nbytes` as it is stored without padding.

  hbm: it lives in the main memory, not in one on the chip.
  """

  dtype: str
  dims: tuple[int, ...]
  nbytes: int
  hbm: bool


class Instruction(NamedTuple):
  """One line: %name = shape opcode(operands), attributes."""

  name: str
  opcode: str
  leaves: tuple[Leaf, ...]
  operands: tuple[str, ...]
  attributes: str
  literal: str
  root: bool

  @property
  def nbytes(self) -> int:
    """Of all arrays of its result."""
    return sum(leaf.nbytes for leaf in self.leaves)


class Program(NamedTuple):
  """computations: {name: {instruction's name: Instruction}}."""

  computations: dict[str, dict[str, Instruction]]
  entry: str


def parse(text: str) -> Program:
  """The Program of `compiled.as_text()`.

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
    elif line == "}":  # a kernel's own notes may begin so, and go on
      current = None
    elif current is not None:
      found = _instruction(line)
      if found:
        current[found.name] = found
  if entry is None:
    raise ValueError("not the text of an HLO module: it has no ENTRY")
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
  """Where the parenthesis that opens at `opening` closes."""
  depth = 0
  for match in re.compile(r"[()]").finditer(text, opening):
    depth += 1 if match[0] == "(" else -1
    if not depth:
      return match.start()
  return len(text) - 1


def leaves(shape: str) -> tuple[Leaf, ...]:
  """The arrays of a shape; a tuple has many."""
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
  """(how, computation) of each that an instruction runs."""
  found = _CALLS.findall(instruction.attributes)
  for names in _BRANCHES.findall(instruction.attributes):
    found += [("branch", n.strip().lstrip("%")) for n in names.split(",")]
  return found


def executed(program: Program) -> Iterator[tuple[str, float, bool]]:
  """(computation, times it runs a step, whether it is inside a fusion).

  A computation called from several places comes once for each. Each branch of
  a conditional counts as run.
  """

  def visit(name, times, fused):
    yield name, times, fused
    for instruction in program.computations[name].values():
      for how, callee in called(instruction):
        if callee not in program.computations:
          continue
        if how == "to_apply" and instruction.opcode != "call":
          continue  # one addition of a reduction
        inner = times
        if how == "body":
          inner *= trips(program, instruction)
        inside = fused or instruction.opcode == "fusion"
        yield from visit(callee, inner, inside)

  yield from visit(program.entry, 1.0, False)


def trips(program: Program, loop: Instruction) -> int:
  """How often a `while` runs: as XLA noted it, else its condition's constant.

  The loops of `scan` count from 0 to below a constant. 1 where there is none.
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
