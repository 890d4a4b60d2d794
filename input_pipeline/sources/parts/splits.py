"""TFDS's syntax of splits: "train[10%:-5%]+test" -> slices of splits."""

import re

_PART = re.compile(r"([\w-]+)(?:\[([^\[\]]*):([^\[\]]*)\])?")
_BOUND = re.compile(r"(-?\d+)|(-?\d+(?:\.\d+)?)%")
# The substitutes for splits that the data does not have.
_STAND_INS = {
  "val": ("validation", "test"),
  "valid": ("validation", "test"),
  "validation": ("val", "test"),
  "test": ("validation", "val"),
}


def resolve(
  split: str, lengths: dict[str, int]
) -> tuple[list[tuple[str, int, int]], str]:
  """Returns the slices that a split names.

  Args:
    split: parts joined by "+", each NAME or NAME[FROM:TO], where a bound is a
      count or a percentage (rounded to the closest example); a negative one
      counts from the end.
    lengths: the number of examples of each existing split.

  Returns:
    [(name, start, stop)] and a note: "", or a line that names the split used in
    place of a missing one.

  Raises:
    ValueError: the split is malformed, unknown, or outside the data.
  """
  parts, note = [], ""
  for spec in split.split("+"):
    match = _PART.fullmatch(spec.strip())
    if not match:
      raise ValueError(
        f"split {split!r} is malformed at {spec.strip()!r}; "
        "write NAME or NAME[FROM:TO], as in train[10%:-5%]"
      )
    name, start, stop = match.groups()
    if name == "all" and "all" not in lengths:
      if start or stop:
        raise ValueError(f"split {spec.strip()!r}: 'all' cannot be sliced here")
      parts += [(each, 0, n) for each, n in lengths.items()]
      continue
    if name not in lengths:
      stand_ins = [s for s in _STAND_INS.get(name, ()) if s in lengths]
      if not stand_ins:
        valid = ", ".join(dict.fromkeys([*lengths, "all"]))
        raise ValueError(f"unknown split {name!r}; valid: {valid}")
      # "val" is only a spelling; test in place of validation deserves a note.
      if {name[:3], stand_ins[0][:3]} != {"val"}:
        note = f"no split {name!r}: using {stand_ins[0]!r} instead"
      name = stand_ins[0]
    n = lengths[name]
    start = _bound(start, n, 0, spec)
    stop = _bound(stop, n, n, spec)
    parts.append((name, start, max(start, stop)))
  return parts, note


def _bound(text: str | None, n: int, default: int, spec: str) -> int:
  if not text or not text.strip():
    return default
  match = _BOUND.fullmatch(text.strip())
  if not match:
    raise ValueError(f"split {spec!r}: {text!r} is not a count or percentage")
  count, percent = match.groups()
  if percent is not None:
    value = round(float(percent) * n / 100.0)
  else:
    value = int(count)
  if abs(value) > n:
    raise ValueError(f"split {spec!r} reaches beyond {n} examples")
  return value + n if value < 0 else value
