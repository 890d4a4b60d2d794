"""Arrays of ours from a folder's tensors, and tensors from our arrays."""

import math
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from common import names
from common.errors import UserError
from train import conversions
from train.conversions.parts import family as family_lib
from train.conversions.parts import folder as folder_lib
from train.conversions.parts.family import Family, short
from train.conversions.parts.layout import Row
from train.optimization import parameter_rules

_MOST_ABSENT = 2**24
DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


class Pretrained(NamedTuple):
  """A model that was read.

  model: config.model of it, complete but for what does not change outputs.
  params: nested dicts of NumPy arrays, in the dtype that the file has.
  model_state: likewise; {} where there is none.
  family: that it is of.
  config: config.json.
  notes: lines worth telling.
  """

  model: dict[str, Any]
  params: dict[str, Any]
  model_state: dict[str, Any]
  family: Family
  config: dict[str, Any]
  notes: list[str]


def read(path: str, sha256: str | None = None) -> Pretrained:
  """The model in a folder of Hugging Face's, or in a .safetensors file of one.

  Tensors are read one at a time, straight to where they lie in our arrays.

  Args:
    path: of the folder, or the file: then config.json lies beside it.
    sha256: of the only file of weights, or None.

  Raises:
    UserError: a file is missing, damaged or says what our models cannot do;
      one line.
  """
  with folder_lib.opened(path, sha256) as folder:
    where = folder.path / folder_lib.CONFIG
    try:
      family = _family(folder.config)
      found = _named(folder, family)
      section = family_lib.section_of(family, folder.config, found)
      # No size may be paid for before it is known that the files have it.
      for key in ("layers", "decoder_layers"):
        if section.get(key, 0) > len(folder.tensors):
          raise UserError(f"{section[key]} layers, and not as many tensors")
      full = {
        **family_lib.defaults_of(function(section["name"])),
        **section,
      }
      shapes = _shapes(section)
      rows = family.table(full)
    except RecursionError as error:
      raise UserError(f"{where}: nested too deep") from error
    except (ArithmeticError, TypeError, ValueError) as error:
      line = (str(error).splitlines() or [type(error).__name__])[0]
      raise UserError(f"{where}: {line[:400]}") from error
    notes = [folder.note] if folder.note else []
    _check(folder, family, full, rows, shapes, found)
    dtype, note = _dtype(folder, rows, found)
    notes += note
    section["param_dtype"] = dtype
    arrays = {
      path: np.zeros(shape, np.float32 if _is_state(path) else _numpy(dtype))
      for path, shape in shapes.items()
    }
    strange, absent = [], []
    for row in rows:
      for number, name in enumerate(row.names()):
        if name not in found:
          absent.append(name)
          continue
        tensor = folder.read(found[name])
        if not np.isfinite(tensor).all():
          strange.append(name)
        row.put(number, tensor, arrays)
    if strange:
      notes.append(
        f"{len(strange)} tensors hold NaN or infinity, the first is"
        f" {strange[0]}"
      )
    if absent:
      notes.append(f"it has no {', '.join(absent)}: 0 in their place")
    notes += _rest(folder, family, full, found)
  tree = parameter_rules.nested(arrays)
  return Pretrained(
    section,
    tree.get("params", {}),
    tree.get("model_state", {}),
    family,
    folder.config,
    notes,
  )


def are_at(path: str) -> bool:
  """Whether it is a file or folder for `read`, and no workdir of ours."""
  folder = pathlib.Path(path)
  if folder.suffix == ".safetensors" and not folder.is_dir():
    return True
  ours = [folder / name for name in ("data.json", "checkpoints")]
  return (folder / folder_lib.CONFIG).exists() and not any(
    path.exists() for path in ours
  )


def _family(config: Mapping[str, Any]) -> Family:
  name = config.get("model_type")
  if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9_]+", name):
    raise UserError(f"model_type = {short(name)}: is no family")
  return names.find(conversions.__name__, name, "model_type")


def function(model: str) -> Callable[..., Any]:
  """What makes models of that name."""
  return names.find("models", model, "config.model.name")


def _model(section: Mapping[str, Any]):
  settings = {k: v for k, v in section.items() if k != "name"}
  return names.call(
    function(section["name"]), where="config.model", settings=settings
  )


def _shapes(section) -> dict[str, tuple[int, ...]]:
  """{path: shape} of a model's arrays, of which none is made."""
  model = _model(section)
  rng = jax.eval_shape(lambda: jax.random.key(0))
  params, state = jax.eval_shape(model.init, rng)
  found = parameter_rules.flat({"params": params, "model_state": state})
  return {path: x.shape for path, x in found.items()}


def _is_state(path: str) -> bool:
  return path.startswith("model_state/")


def _numpy(dtype: str) -> np.dtype:
  return np.dtype(jax.numpy.dtype(dtype))


def _named(folder, family: Family) -> dict[str, str]:
  """{name in the table: name in the files}; a prefix may be left out."""
  spelled = {family.spelling(name): name for name in folder.tensors}
  if len(spelled) != len(folder.tensors):
    raise UserError("two of its tensors are the same under other names")
  prefix = family.prefix
  if not prefix or any(name.startswith(prefix) for name in spelled):
    return spelled
  return {
    name if name.startswith(family.tops) else prefix + name: theirs
    for name, theirs in spelled.items()
  }


def _check(folder, family, section, rows, shapes, found) -> None:
  """Holds names, shapes and the table itself against one another.

  Raises:
    UserError: a tensor is missing, of another shape, or not of this model.
  """
  covered = {path for row in rows for path in row.paths()}
  if covered != shapes.keys():
    other = sorted(covered ^ shapes.keys())
    raise UserError(f"{folder.path}: no tensor is known of {other[0]}")
  wanted = {}
  for row in rows:
    wanted |= dict.fromkeys(row.names(), row.shape(shapes))
  free = {**family.copies(section)}
  for name in free:
    wanted_too = wanted[free[name]]
    if name in found and folder.tensors[found[name]].shape != wanted_too:
      raise UserError(f"{folder.path}: {name} is not tied to {free[name]}")
  for name, shape in wanted.items():
    if name not in found:
      # Made here, so no larger than what a file would have to hold.
      small = math.prod(shape) <= _MOST_ABSENT
      if re.fullmatch(family.optional, name) and small:
        continue
      raise UserError(f"{folder.path}: tensor {name} is missing")
    there = folder.tensors[found[name]]
    if there.shape != shape:
      raise UserError(
        f"{folder.path / there.part}: {name} is {list(there.shape)}, and by"
        f" config.json {list(shape)}"
      )
  counters = set(family.counters(section))
  for name, theirs in found.items():
    known = name in wanted or name in free or name in counters
    if not known and not re.fullmatch(family.dropped, name):
      part = folder.tensors[theirs].part
      raise UserError(
        f"{folder.path / part}: tensor {short(theirs)} is of no such model"
      )


def _dtype(folder, rows: list[Row], found) -> tuple[str, list[str]]:
  """(the dtype of our arrays, notes)."""
  seen: dict[str, int] = {}
  for row in rows:
    for name in row.names():
      if name not in found:
        continue
      tensor = folder.tensors[found[name]]
      if tensor.dtype not in DTYPES:
        raise UserError(
          f"{folder.path / tensor.part}: {name} is {short(tensor.dtype)}, none"
          f" of: {', '.join(DTYPES)}"
        )
      seen[tensor.dtype] = seen.get(tensor.dtype, 0) + math.prod(tensor.shape)
  if len(seen) == 1:
    return DTYPES[next(iter(seen))], []
  listed = " and ".join(sorted(seen))
  return "float32", [f"its tensors are {listed}: all become float32"]


def _rest(folder, family, section, found) -> list[str]:
  """Holds copies against their originals; notes on what is left behind.

  Raises:
    UserError: a copy differs.
  """
  for copy, original in family.copies(section).items():
    if copy in found:
      pair = [folder.read(found[name]) for name in (copy, original)]
      if pair[0].tobytes() != pair[1].tobytes():
        raise UserError(
          f"{folder.path}: {copy} differs from {original}, and config.json"
          " says that they are tied"
        )
  counted = [
    name
    for name in family.counters(section)
    if name in found
    and folder.tensors[found[name]].shape == ()
    and folder.read(found[name]) != 0
  ]
  notes = []
  if counted:
    notes.append(f"{len(counted)} counters such as {counted[0]} are not kept")
  left = [name for name in found if re.fullmatch(family.dropped, name)]
  left = [name for name in left if name not in _named_in(family, section)]
  if left:
    notes.append(f"{len(left)} tensors such as {left[0]} are not read")
  return notes


def _named_in(family: Family, section) -> set[str]:
  return {name for row in family.table(section) for name in row.names()}


def tensors(
  family: Family, section: Mapping[str, Any], arrays: Mapping[str, Any]
) -> Iterator[tuple[str, int, Any]]:
  """(name, bytes, () -> array) of each tensor that a family writes.

  Args:
    family: to write them as.
    section: config.model, complete.
    arrays: {path: array}, NumPy's or on this host.

  Raises:
    UserError: the arrays are not those of such a model.
  """
  rows = family.table(section)
  covered = {path for row in rows for path in row.paths()}
  if covered != arrays.keys():
    other = sorted(covered ^ arrays.keys())
    raise UserError(f"no tensor is known of {other[0]}")
  dtype = _numpy(section["param_dtype"])
  shapes = {path: x.shape for path, x in arrays.items()}
  for row in rows:
    size = math.prod(row.shape(shapes)) * dtype.itemsize
    for number, name in enumerate(row.names()):

      def make(row=row, number=number):
        return row.take(number, arrays).astype(dtype, copy=False)

      yield name, size, make
  for name in family.counters(section):
    yield name, 8, lambda: np.zeros((), np.int64)


def writable(
  section: Mapping[str, Any], shapes: Mapping
) -> tuple[Family, dict[str, Any], dict[str, Any]]:
  """(family, config.json, complete section) of the first that fits.

  Args:
    section: config.model, and what the data gave.
    shapes: of its arrays.

  Raises:
    UserError: none can say what this model is; tells why.
  """
  reasons = []
  make = function(section["name"])
  for name in sorted(names.discover(conversions.__name__)):
    family = names.find(conversions.__name__, name, "model_type")
    if family.model != section["name"]:
      continue
    try:
      config, full = family_lib.config_of(family, make, section, shapes)
      return family, {"model_type": name, **config}, full
    except UserError as error:
      reasons.append(f"as {name}: {error}")
  if not reasons:
    raise UserError(
      f"no family of pretrained weights uses the model {section['name']!r}"
    )
  raise UserError(f"cannot be written {'; '.join(reasons)}")


def folder_of(path: str) -> pathlib.Path:
  """The folder itself, or that of a file."""
  found = pathlib.Path(path)
  return found.parent if found.suffix == ".safetensors" else found
