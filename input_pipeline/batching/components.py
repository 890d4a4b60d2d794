"""The data sets that a config names, combined into one Examples."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from common.names import nearest
from input_pipeline import bad_records
from input_pipeline.batching.mixture import positive
from input_pipeline.reading.columns import strings

# An index in a batch is an int32.
_MOST = 2**31 - 1
_KEYS = ("source", "split", "text_key", "weight")


class Part(NamedTuple):
  """One component of the data, as configured; weight is None if not given."""

  source: str
  split: str
  text_key: str
  weight: float | None
  where: str

  def __str__(self) -> str:
    return f"{self.where}{self.source} {self.split}"


def parts(
  source: str | None,
  mixture: Sequence[Mapping] | None,
  split: str = "train",
  text_key: str = "text",
) -> list[Part]:
  """Returns the components of a run's data; a single one if `source` is set.

  Args:
    source: a URI; None or "" if a mixture is given.
    mixture: dicts with the key `source` and optionally `split`, `text_key` and
      `weight`; or None.
    split: the default for components without one.
    text_key: the default for components without one.

  Raises:
    ValueError: the settings are wrong; one line that names the problem.
  """
  if bool(source) == bool(mixture):
    given = "both are" if source else "neither is"
    raise ValueError(f"set exactly one of source and mixture; {given} given")
  if not mixture:
    return [Part(source, split, text_key, None, "")]
  if not isinstance(mixture, (list, tuple)):
    raise ValueError("mixture is not a list of {'source': URI, 'weight': 2.0}")
  found = []
  for i, given in enumerate(mixture):
    where = f"mixture[{i}]"
    if not isinstance(given, Mapping) or "source" not in given:
      raise ValueError(f"{where} is not a dict with a source: {given!r}")
    for key in given:
      if key not in _KEYS:
        raise ValueError(
          f"{where}.{key}: unknown{nearest(key, _KEYS)}"
          f" (valid: {', '.join(_KEYS)})"
        )
    weight = given.get("weight")
    if weight is not None and not positive(weight):
      raise ValueError(f"{where}.weight={weight!r} is not a positive number")
    found.append(
      Part(
        given["source"],
        given.get("split", split),
        given.get("text_key", text_key),
        weight,
        f"{where} ",
      )
    )
  without = [part for part in found if part.weight is None]
  if 0 < len(without) < len(found):
    raise ValueError(
      f"{without[0].where.strip()}.weight is missing: set all weights or none"
    )
  return found


def inherited(
  shared: Mapping[str, Any], own: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns an evaluation's settings: the training's, overridden by its own.

  Splits are not inherited, including those of a mixture; nor is the data if the
  evaluation has its own.
  """
  taken = {k: v for k, v in shared.items() if k != "split"}
  if "source" in own or "mixture" in own:
    taken = {k: v for k, v in taken.items() if k not in ("source", "mixture")}
  if isinstance(taken.get("mixture"), (list, tuple)):
    taken["mixture"] = [
      {k: v for k, v in each.items() if k != "split"}
      if isinstance(each, Mapping)
      else each
      for each in taken["mixture"]
    ]
  return {**taken, **own}


def joined(components: Sequence, titles: Sequence[str]):
  """Concatenates the Examples of all components into one Examples.

  Args:
    components: examples.Examples, one or more, that share a tally.
    titles: the name of each component in error messages.

  Raises:
    ValueError: the components differ in a field, have more examples together
      than an int32 index can count, or one of them has no readable example; one
      line that names the component.
  """
  ends = np.cumsum([each.length for each in components])
  if ends[-1] > _MOST:
    raise ValueError(f"{ends[-1]} examples: at most 2**31 - 1 can be indexed")
  first = components[0]
  if len(components) == 1:
    return first
  policy = first.tally.policy
  samples = [bad_records.typed(each, policy) for each in components]
  for title, each, sample in zip(titles, components, samples, strict=True):
    _same(title, {"classes": each.num_classes}, {"classes": first.num_classes})
    _same(title, _fields(sample), _fields(samples[0]))
  types = {field: leaf.dtype for field, leaf in samples[0].items()}

  def locate(indices: np.ndarray):
    which = np.searchsorted(ends, indices, side="right")
    for i in np.unique(which):
      rows = np.flatnonzero(which == i)
      yield rows, int(i), indices[rows] - (ends[i] - components[i].length)

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    indices = np.asarray(indices, np.int64)
    if not indices.size:
      return first.read(indices)
    found = [(r, components[i].read(w)) for r, i, w in locate(indices)]
    back = np.argsort(np.concatenate([rows for rows, _ in found]))
    return {
      field: _stacked([_cast(x[field], dtype) for _, x in found])[back]
      for field, dtype in types.items()
    }

  def name(index: int) -> str:
    _, i, within = next(locate(np.array([index], np.int64)))
    return components[i].name(int(within[0]))

  def record(index: int) -> str:
    _, i, within = next(locate(np.array([index], np.int64)))
    return (components[i].record or components[i].name)(int(within[0]))

  def texts(indices: np.ndarray) -> dict[str, list]:
    found: dict[str, list] = {}
    for rows, i, within in locate(np.asarray(indices, np.int64)):
      for field, values in components[i].texts(within).items():
        column = found.setdefault(field, [None] * len(indices))
        for row, value in zip(rows, values, strict=True):
          column[row] = value
    return found

  notes = dict.fromkeys(each.note for each in components if each.note)
  return first._replace(
    length=int(ends[-1]),
    read=read,
    name=name,
    note="; ".join(notes),
    texts=texts if all(each.texts for each in components) else None,
    record=record,
    fingerprint=" ".join(each.fingerprint for each in components)
    if all(each.fingerprint for each in components)
    else "",
  )


def _fields(sample: dict[str, np.ndarray]) -> dict[str, str]:
  """Describes the fields of an example, for comparison and error messages."""
  kinds = {"b": "bool", "i": "int", "u": "uint", "f": "float", "O": "object"}
  return {
    name: f"{kinds.get(leaf.dtype.kind, leaf.dtype)} {list(leaf.shape[1:])}"
    for name, leaf in sample.items()
  }


def _same(title: str, found: dict, wanted: dict) -> None:
  for field in {**wanted, **found}:
    if found.get(field) != wanted.get(field):
      here, there = found.get(field, "absent"), wanted.get(field, "absent")
      raise ValueError(
        f"{title}: {field!r} is {here}, but {there} in the first component"
      )


def _stacked(leaves: list[np.ndarray]) -> np.ndarray:
  """Concatenates the leaves, as objects if bad records have other shapes."""
  if len({leaf.shape[1:] for leaf in leaves}) > 1:
    leaves = [strings(leaf.tolist()) for leaf in leaves]
  return np.concatenate(leaves)


def _cast(leaf: np.ndarray, dtype: np.dtype) -> np.ndarray:
  """Casts within the same kind of number, such as int32 to int64."""
  alike = np.can_cast(leaf.dtype, dtype, "same_kind")
  return leaf.astype(dtype, copy=False) if alike else leaf
