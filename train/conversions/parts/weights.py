"""Converts a folder's tensors to our arrays, and our arrays to tensors."""

import math
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from common import names
from common.errors import UserError
from common.nested import nested
from train import conversions
from train.conversions.parts import family as family_lib
from train.conversions.parts import folder as folder_lib
from train.conversions.parts import torchvision_names
from train.conversions.parts.family import Family, short
from train.conversions.parts.layout import Row
from train.optimization import parameter_rules

_MOST_ABSENT = 2**24
DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


class Pretrained(NamedTuple):
  """A pretrained model that was read.

  model: config.model, with every argument that affects the outputs.
  params: nested dicts of NumPy arrays, in the dtype of the file.
  model_state: nested dicts of float32 NumPy arrays; {} if there are none.
  family: the model's family.
  config: the contents of config.json.
  notes: lines to report to the user.
  names: {name of a tensor in the family's table: its name in the files}.
  used: the names in the files of the tensors in the arrays, and of the copies
    of these.
  """

  model: dict[str, Any]
  params: dict[str, Any]
  model_state: dict[str, Any]
  family: Family
  config: dict[str, Any]
  notes: list[str]
  names: dict[str, str]
  used: list[str]


def read(
  path: str, sha256: str | None = None, unnamed: bool = False
) -> Pretrained:
  """Reads the model in a Hugging Face folder or .safetensors file.

  Tensors are read one at a time, directly into our arrays. A file in the layout
  of torchvision may lack config.json; see torchvision_names.py.

  Args:
    path: the folder, or a .safetensors file next to its config.json.
    sha256: the expected digest of the only file of weights, or None.
    unnamed: whether a file may lack config.json.

  Raises:
    UserError: a file is missing or damaged, or our models do not support it.
  """
  with folder_lib.opened(path, sha256, unnamed=unnamed) as folder:
    folder = torchvision_names.described(folder)
    where = folder.path / folder_lib.CONFIG
    try:
      family = _family(folder.config)
      found = _named(folder, family)
      section = family_lib.section_of(family, folder.config, found)
      # Check sizes against the files before spending time or memory on them.
      for key in ("layers", "decoder_layers"):
        if section.get(key, 0) > len(folder.tensors):
          raise UserError(f"{section[key]} layers, but fewer tensors than that")
      full = {
        **family_lib.defaults_of(function(section["name"])),
        **section,
      }
      shapes = _shapes(section)
      rows = family.table(full)
    except RecursionError as error:
      raise UserError(f"{where}: nested too deeply") from error
    except (ArithmeticError, TypeError, ValueError) as error:
      line = (str(error).splitlines() or [type(error).__name__])[0]
      raise UserError(f"{where}: {line[:400]}") from error
    notes = [folder.note] if folder.note else []
    notes += _passed_over(family, folder.config, found)
    _check(folder, family, full, rows, shapes, found)
    dtype, note = _dtype(folder, rows, found)
    notes += note
    section["param_dtype"] = dtype
    arrays, more = _arrays(folder, rows, shapes, dtype, found)
    notes += more
    notes += _rest(folder, family, full, found)
    copies = family.copies(full)
    mine = _named_in(family, full) | copies.keys()
    used = [theirs for name, theirs in found.items() if name in mine]
  tree = nested(arrays)
  return Pretrained(
    section,
    tree.get("params", {}),
    tree.get("model_state", {}),
    family,
    folder.config,
    notes,
    found,
    used,
  )


def _passed_over(family: Family, config, found) -> list[str]:
  """Returns notes on a missing head and on keys that are not read."""
  headless = family.headless(config, found)
  notes = [headless] if headless else []
  strange = family_lib.passed_over(family, config, found)
  if strange:
    notes.append(
      "keys of config.json that are not read and not known to change the"
      f" outputs: {short(', '.join(strange))[1:-1]}"
    )
  return notes


def _arrays(folder, rows: list[Row], shapes, dtype: str, found):
  """Reads the tensors; returns (arrays, notes)."""
  arrays = {
    path: np.zeros(shape, np.float32 if _is_state(path) else _numpy(dtype))
    for path, shape in shapes.items()
  }
  strange, absent, notes = [], [], []
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
      f"{len(strange)} tensors contain NaN or infinity; the first is"
      f" {strange[0]}"
    )
  if absent:
    more = f" and {len(absent) - 4} more" if len(absent) > 4 else ""
    notes.append(f"missing tensors, set to 0: {', '.join(absent[:4])}{more}")
  return arrays, notes


def are_at(path: str) -> bool:
  """Whether `read` accepts the path; False for a workdir of ours."""
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
    raise UserError(f"model_type = {short(name)}: is not a family's name")
  supported = sorted(names.discover(conversions.__name__))
  # No nearest name is suggested: a family with a similar name computes
  # something else, and a folder that is renamed would give wrong outputs.
  if name not in supported:
    raise UserError(
      f"model_type = {name!r}: this family is not supported; the supported ones"
      f" are: {', '.join(supported)}"
    )
  family = names.find(conversions.__name__, name, "model_type")
  family_lib.check_architectures(family, name, config)
  return family


def function(model: str) -> Callable[..., Any]:
  """Returns the function that builds the models of that name."""
  return names.find("models", model, "config.model.name")


def _model(section: Mapping[str, Any]):
  settings = {k: v for k, v in section.items() if k != "name"}
  return names.call(
    function(section["name"]), where="config.model", settings=settings
  )


def _shapes(section) -> dict[str, tuple[int, ...]]:
  """Returns {path: shape} of a model's arrays, without allocating them."""
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
  """Returns {name in the table: name in the files}; the prefix is optional."""
  spelled = {family.spelling(name): name for name in folder.tensors}
  if len(spelled) != len(folder.tensors):
    raise UserError("two tensors are old and new names of the same parameter")
  prefix = family.prefix
  if prefix and not any(name.startswith(prefix) for name in spelled):
    spelled = {
      name if name.startswith(family.tops) else prefix + name: theirs
      for name, theirs in spelled.items()
    }
  for name, other in family.aliases.items():
    if name not in spelled and other in spelled:
      spelled[name] = spelled.pop(other)
  return spelled


def _check(folder, family, section, rows, shapes, found) -> None:
  """Checks the tensors' names and shapes against the table and the model.

  Raises:
    UserError: a tensor is missing, has the wrong shape or is not part of the
      model.
  """
  covered = {path for row in rows for path in row.paths()}
  if covered != shapes.keys():
    other = sorted(covered ^ shapes.keys())
    raise UserError(f"{folder.path}: no tensor corresponds to {other[0]}")
  wanted = {}
  for row in rows:
    wanted |= dict.fromkeys(row.names(), row.shape(shapes))
  free = {**family.copies(section)}
  for name in free:
    wanted_too = wanted[free[name]]
    if name in found and folder.tensors[found[name]].shape != wanted_too:
      raise UserError(f"{folder.path}: {name} is not tied to {free[name]}")
  free_to_lack = {n for n in wanted if re.fullmatch(family.optional, n)}
  lacks_all = not any(name in found for name in free_to_lack)
  present = {folder.tensors[theirs].shape for theirs in found.values()}
  for name, shape in wanted.items():
    if name not in found:
      # No file backs this array of zeros, so its size is limited.
      small = math.prod(shape) <= _MOST_ABSENT or shape in present
      if lacks_all and name in free_to_lack and small:
        continue
      raise UserError(f"{folder.path}: tensor {name} is missing")
    there = folder.tensors[found[name]]
    if there.shape != shape:
      raise UserError(
        f"{folder.path / there.part}: {name} is {list(there.shape)}, but by"
        f" config.json {list(shape)}"
      )
  counters = set(family.counters(section))
  for name, theirs in found.items():
    known = name in wanted or name in free or name in counters
    if not known and not re.fullmatch(family.dropped, name):
      part = folder.tensors[theirs].part
      raise UserError(
        f"{folder.path / part}: tensor {short(theirs)} is not part of the model"
      )


def _dtype(folder, rows: list[Row], found) -> tuple[str, list[str]]:
  """Returns (the dtype of our arrays, notes)."""
  seen: dict[str, int] = {}
  for row in rows:
    for name in row.names():
      if name not in found:
        continue
      tensor = folder.tensors[found[name]]
      if tensor.dtype not in DTYPES:
        raise UserError(
          f"{folder.path / tensor.part}: {name} is {short(tensor.dtype)}, not"
          f" one of: {', '.join(DTYPES)}"
        )
      seen[tensor.dtype] = seen.get(tensor.dtype, 0) + math.prod(tensor.shape)
  if len(seen) == 1:
    return DTYPES[next(iter(seen))], []
  listed = " and ".join(sorted(seen))
  return "float32", [f"its tensors are {listed}: all are read as float32"]


def _rest(folder, family, section, found) -> list[str]:
  """Checks copies against their originals; returns notes on unused tensors.

  Raises:
    UserError: a copy differs from its original.
  """
  for copy, original in family.copies(section).items():
    if copy in found:
      pair = [folder.read(found[name]) for name in (copy, original)]
      if pair[0].tobytes() != pair[1].tobytes():
        raise UserError(
          f"{folder.path}: {copy} differs from {original}, but config.json"
          " specifies that they are tied"
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
    notes.append(f"{len(counted)} counters such as {counted[0]} are not read")
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
  """Yields (name, bytes, () -> array) for each tensor of a model.

  Args:
    family: the family to write.
    section: config.model, complete.
    arrays: {path: array}, in NumPy or on this host.

  Raises:
    UserError: the arrays do not match the family's table.
  """
  rows = family.table(section)
  covered = {path for row in rows for path in row.paths()}
  if covered != arrays.keys():
    other = sorted(covered ^ arrays.keys())
    raise UserError(f"no tensor corresponds to {other[0]}")
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
  """Returns (family, config.json, complete section) of the first match.

  Args:
    section: config.model, including the sizes that come from the data.
    shapes: the shapes of the model's arrays.

  Raises:
    UserError: no family can express the model; the message gives the reasons.
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
  """Returns the folder itself, or the folder of a file."""
  found = pathlib.Path(path)
  return found.parent if found.suffix == ".safetensors" else found
