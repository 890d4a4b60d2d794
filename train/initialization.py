"""Transfer learning: initializes parameters from another run or from files.

`config.init_from` is the workdir of a run, a file or folder of weights, or a
section with further settings:

  config.init_from = dict(path="runs/bert", map=[("^head/.*", "")])

Parameters are matched by path, such as "blocks/attention/query/kernel".
Parameters that the other run does not have keep their random initialization,
and are listed. Both models must agree in every setting that changes what the
parameters compute, such as the number of heads.
"""

import contextlib
import contextvars
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from common.errors import UserError
from models import Model
from train.conversions.parts import arithmetic
from train.optimization import parameter_rules
from train.types import PyTree

# {path: array} of params and of model_state; set while `init` is traced.
_START: contextvars.ContextVar = contextvars.ContextVar("start", default=None)


class Origin(NamedTuple):
  """The model that a run begins with: its arrays and its config.model."""

  params: PyTree
  model_state: PyTree
  section: Mapping[str, Any]


class Start(NamedTuple):
  """The initial arrays, by path."""

  params: dict[str, jax.Array]
  model_state: dict[str, jax.Array]


class Settings(NamedTuple):
  """The keys of `config.init_from`.

  path: a workdir, or a file or folder of weights; None initializes at random.
  step: the step of the checkpoint, or "best"; None is the last checkpoint.
  map: (regex, replacement) pairs, applied in order to the paths of the other
    run, as by re.sub; parameters whose path becomes "" are ignored.
  skip: regexes of parameters of this run that are initialized at random.
  anyway: whether to begin although the models differ in settings that change
    what the parameters compute, such as heads, rope_theta or activation.
  """

  path: str | None = None
  step: int | str | None = None
  map: Sequence[tuple[str, str]] = ()
  skip: Sequence[str] = ()
  anyway: bool = False


def settings(given: str | Mapping[str, Any] | None) -> Settings | None:
  """The Settings of a config's `init_from`; None if it names no path.

  Raises:
    UserError: a key is unknown or a regex is invalid.
  """
  if not given:
    return None
  if isinstance(given, str):
    given = {"path": given}
  from common import names  # a config's keys, as for every section

  found = names.call(Settings, where="config.init_from", settings=given)
  try:
    for regex, replacement in found.map:
      parameter_rules.compiled("map", regex).sub(replacement, "")
    for regex in found.skip:
      parameter_rules.compiled("skip", regex)
  except (TypeError, ValueError, re.error) as error:
    raise UserError(f"config.init_from: {error}") from error
  if found.path is None:
    return None
  if not isinstance(found.anyway, bool):
    raise UserError(
      f"config.init_from.anyway={found.anyway!r}: neither True nor False"
    )
  if not os.path.exists(found.path):
    raise UserError(f"config.init_from: {found.path}: there is no such file")
  return found


def startable(model: Model) -> Model:
  """Returns the model with an `init` that uses the arrays of `beginning`.

  The arrays are not passed as an argument because the task calls
  model.init(rng), and everything that it derives from the parameters, such as a
  frozen copy or an average, must be derived from these arrays.
  """

  def init(rng):
    params, model_state = model.init(rng)
    start = _START.get()
    if start is None:
      return params, model_state
    return _replaced(params, start.params), _replaced(
      model_state, start.model_state
    )

  return model._replace(init=init)


@contextlib.contextmanager
def beginning(start: Start | None) -> Iterator[None]:
  """In this context, the `init` of startable models uses these arrays."""
  token = _START.set(start)
  try:
    yield
  finally:
    _START.reset(token)


def _replaced(tree: PyTree, arrays: Mapping[str, jax.Array]) -> PyTree:
  def one(path, leaf):
    found = arrays.get(path)
    return leaf if found is None else found.astype(leaf.dtype)

  return jax.tree.map(one, parameter_rules.paths(tree), tree)


def read(
  wanted: Settings,
  model: Model,
  section: Mapping[str, Any],
  load: Callable[[str, int | str | None], Origin],
  say: Callable[[str], None],
) -> Start:
  """Returns the initial arrays of the parameters of `model`.

  Args:
    wanted: the Settings.
    model: the model to initialize.
    section: its config.model.
    load: (path, step) -> the Origin.
    say: (line) -> None; prints which parameters were found.

  Raises:
    UserError: no parameter matches, a shape differs, or a setting differs that
      changes what the parameters compute.
  """
  origin = load(wanted.path, wanted.step)
  params, model_state = origin.params, origin.model_state
  rng = jax.eval_shape(lambda: jax.random.key(0))
  own_params, own_state = jax.eval_shape(model.init, rng)
  found = _matched(wanted, params, own_params)
  state = _matched(wanted, model_state, own_state)
  names = list(parameter_rules.flat(own_params))
  if not found:
    other = ", ".join(list(parameter_rules.flat(params))[:3])
    raise UserError(
      f"config.init_from: {wanted.path} has none of this run's parameters"
      f" ({', '.join(names[:3])}, …); it has {other}, …: set init_from.map"
    )
  _check_settings(wanted, origin.section, section, found, say)
  drawn = [name for name in names if name not in found]
  found_text = f"{len(found)} of {len(names)} parameters from {wanted.path}"
  if drawn:
    more = ", …" if len(drawn) > 4 else ""
    found_text += f"; at random: {', '.join(drawn[:4])}{more}"
  say(f"init_from: {found_text}")
  return Start(found, state)


def _check_settings(wanted, theirs, ours, loaded, say) -> None:
  """Refuses or prints the settings that change what parameters compute."""
  differing = arithmetic.differences(theirs, ours, loaded)
  if not differing:
    return
  line = (
    f"config.init_from: {wanted.path} computes something else with the same"
    f" parameters than config.model: {'; '.join(differing)}"
  )
  if not wanted.anyway:
    raise UserError(
      f"{line}: set these keys as they are there, or pass --init_from_anyway"
    )
  say(f"{line} (--init_from_anyway)")


def _matched(wanted: Settings, theirs: PyTree, ours: PyTree):
  """Returns {our path: their array}."""
  renamed: dict[str, jax.Array] = {}
  for path, leaf in parameter_rules.flat(theirs).items():
    for regex, replacement in wanted.map:
      path = re.sub(regex, replacement, path)
    if path in renamed:
      raise UserError(f"config.init_from.map maps two parameters to {path!r}")
    if path:
      renamed[path] = leaf
  found = {}
  for path, leaf in parameter_rules.flat(ours).items():
    if path not in renamed or any(re.search(s, path) for s in wanted.skip):
      continue
    if renamed[path].shape != leaf.shape:
      raise UserError(
        f"config.init_from: {path} is {list(leaf.shape)} here and"
        f" {list(renamed[path].shape)} in {wanted.path}; skip it, or use equal"
        " sizes (and the same tokenizer)"
      )
    found[path] = renamed[path]
  return found
