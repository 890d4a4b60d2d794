"""Transfer learning: initializes parameters from another run or from files.

`config.init_from` is the workdir of a run, a file or folder of weights, or a
section with further settings:

  config.init_from = dict(path="runs/bert", map=[("^head/.*", "")])

A model that consists of several networks takes one of these for each network,
or one for all of them, from a run that has networks of the same names:

  config.init_from = dict(generator="runs/a", discriminator=dict(path="runs/b"))

Parameters are matched by path, such as "blocks/attention/query/kernel".
Parameters that the other run does not have keep their random initialization,
and are listed. Both models must agree in every setting that changes what the
parameters compute, such as the number of heads.
"""

import contextlib
import contextvars
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from common.errors import UserError
from common.names import nearest
from models import Model
from train.conversions.parts import arithmetic
from train.optimization import parameter_rules
from train.types import PyTree

# {path: array} of params and of model_state; set while `init` is traced.
_START: contextvars.ContextVar = contextvars.ContextVar("start", default=None)


class Origin(NamedTuple):
  """The model that a run begins with.

  params, model_state: its arrays; by network if it consists of several.
  section: its config.model.
  networks: their names; () if it is a single network.
  """

  params: PyTree
  model_state: PyTree
  section: Mapping[str, Any]
  networks: tuple[str, ...] = ()


class Start(NamedTuple):
  """The initial arrays, by path."""

  params: dict[str, jax.Array]
  model_state: dict[str, jax.Array]


class Settings(NamedTuple):
  """The keys of `config.init_from`, or of `config.init_from.NETWORK`.

  path: a workdir, or a file or folder of weights; None initializes at random.
  step: the step of the checkpoint, or "best"; None is the last checkpoint.
  map: (regex, replacement) pairs, applied in order to the paths of the other
    run, as by re.sub; parameters whose path becomes "" are ignored.
  skip: regexes of parameters of this run that are initialized at random.
  anyway: whether to begin although the models differ in settings that change
    what the parameters compute, such as heads, rope_theta or activation.
  network: which network of the other run, if it has several; by default the one
    of the same name.
  """

  path: str | None = None
  step: int | str | None = None
  map: Sequence[tuple[str, str]] = ()
  skip: Sequence[str] = ()
  anyway: bool = False
  network: str | None = None


def networks(model: Any) -> dict[str, Model]:
  """Returns the networks of a model by name; {} if it is a single one."""
  if isinstance(model, Model):
    return {}
  found = model._asdict() if hasattr(model, "_asdict") else {}
  return {name: x for name, x in found.items() if isinstance(x, Model)}


def settings(
  given: str | Mapping[str, Any] | None, known: Collection[str] | None = ()
) -> dict[str, Settings]:
  """The Settings of a config's `init_from` for each network.

  Args:
    given: the value in the config.
    known: the names of the model's networks, () if it is a single one. None, if
      they are not known yet, checks only what does not depend on them.

  Returns:
    {name of a network, or "" for a single one: Settings}, of those that do not
    begin at random.

  Raises:
    UserError: a key or a network is unknown, a regex is invalid, or a path does
      not exist.
  """
  if not given:
    return {}
  if isinstance(given, str):
    given = {"path": given}
  if not isinstance(given, Mapping):
    raise UserError(f"config.init_from={given!r}: neither a path nor a section")
  if known == () or set(given) & set(Settings._fields):
    found = _settings("config.init_from", given)
    return dict.fromkeys(known or ("",), found) if found else {}
  if known is None:
    return {}
  for name in given:
    if name not in known:
      raise UserError(
        f"config.init_from.{name}: the model has no such network"
        f"{nearest(name, known)} (there are: {', '.join(sorted(known))})"
      )
  each = {k: _settings(f"config.init_from.{k}", v) for k, v in given.items()}
  return {name: found for name, found in each.items() if found}


def _settings(where: str, given) -> Settings | None:
  """The Settings of one network; None if they name no path."""
  if not given:
    return None
  if isinstance(given, str):
    given = {"path": given}
  if not isinstance(given, Mapping):
    raise UserError(f"{where}={given!r}: neither a path nor a section")
  from common import names  # a config's keys, as for every section

  found = names.call(Settings, where=where, settings=given)
  try:
    for pair in found.map:
      if not isinstance(pair, (list, tuple)) or len(pair) != 2:
        raise ValueError(f"map: {pair!r} is no pair (regex, replacement)")
      regex, replacement = pair
      parameter_rules.compiled("map", regex).sub(replacement, "")
    for regex in found.skip:
      parameter_rules.compiled("skip", regex)
  except (TypeError, ValueError, re.error) as error:
    raise UserError(f"{where}: {error}") from error
  if found.path is None:
    return None
  if not isinstance(found.anyway, bool):
    raise UserError(f"{where}.anyway={found.anyway!r}: neither True nor False")
  if not os.path.exists(found.path):
    raise UserError(f"{where}: {found.path}: there is no such file")
  return found


def check_needs(model: Any, found: Collection[str]) -> None:
  """Checks that the networks that a model `needs` begin with another run.

  A model of several networks may have the field `needs`, the names of those
  that are of no use without training, and that its own run does not train.

  Args:
    model: the model.
    found: the names of the networks that do not begin at random.

  Raises:
    UserError: one of them would begin at random.
  """
  for name in getattr(model, "needs", ()):
    if name not in found:
      raise UserError(
        f"config.init_from.{name} is not set: this run does not train the"
        f" network {name}, so that another run must give it; pass"
        f" --config.init_from.{name}=WORKDIR"
      )


def startable(model: Any) -> Any:
  """Returns the model with an `init` that uses the arrays of `beginning`.

  The arrays are not passed as an argument because the task calls
  model.init(rng), and everything that it derives from the parameters, such as a
  frozen copy or an average, must be derived from these arrays.
  """
  parts = networks(model)
  if parts:
    own = {name: _startable(part, name) for name, part in parts.items()}
    return model._replace(**own)
  return _startable(model, "") if isinstance(model, Model) else model


def _startable(model: Model, name: str) -> Model:
  def init(rng):
    params, model_state = model.init(rng)
    start = (_START.get() or {}).get(name)
    if start is None:
      return params, model_state
    return _replaced(params, start.params), _replaced(
      model_state, start.model_state
    )

  return model._replace(init=init)


@contextlib.contextmanager
def beginning(start: Mapping[str, Start] | None) -> Iterator[None]:
  """In this context, the `init` of startable models uses these arrays.

  `start` is {name of a network, or "": its Start}.
  """
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
  name: str = "",
) -> Start:
  """Returns the initial arrays of the parameters of `model`.

  Args:
    wanted: the Settings.
    model: the model to initialize.
    section: its config.model.
    load: (path, step) -> the Origin.
    say: (line) -> None; prints which parameters were found.
    name: of the network, if the run's model consists of several.

  Raises:
    UserError: no parameter matches, a shape differs, or a setting differs that
      changes what the parameters compute.
  """
  where = f"config.init_from.{name}".rstrip(".")
  origin = load(wanted.path, wanted.step)
  params, model_state = _part(where, wanted, origin, name)
  rng = jax.eval_shape(lambda: jax.random.key(0))
  own_params, own_state = jax.eval_shape(model.init, rng)
  # What one run trains another may only keep, such as frozen batch norm.
  theirs = parameter_rules.flat(params) | parameter_rules.flat(model_state)
  found = _matched(where, wanted, theirs, own_params)
  state = _matched(where, wanted, theirs, own_state)
  paths = list(parameter_rules.flat(own_params))
  if not found:
    other = ", ".join(list(parameter_rules.flat(params))[:3])
    raise UserError(
      f"{where}: {wanted.path} has none of this run's parameters"
      f" ({', '.join(paths[:3])}, …); it has {other}, …: set init_from.map"
    )
  other = _section(origin.section, wanted.network or name)
  _check_settings(where, wanted, other, _section(section, name), found, say)
  drawn = [path for path in paths if path not in found]
  found_text = f"{len(found)} of {len(paths)} parameters from {wanted.path}"
  if drawn:
    more = ", …" if len(drawn) > 4 else ""
    found_text += f"; at random: {', '.join(drawn[:4])}{more}"
  say(f"{where.removeprefix('config.')}: {found_text}")
  return Start(found, state)


def _part(where: str, wanted: Settings, origin: Origin, name: str):
  """Returns (params, model_state) of the network to begin with."""
  there, chosen = origin.networks, wanted.network
  if chosen is not None and chosen not in there:
    have = f"there are: {', '.join(there)}" if there else "it is a single one"
    raise UserError(
      f"{where}.network={chosen!r}: {wanted.path} has no such network"
      f"{nearest(chosen, there)} ({have})"
    )
  if chosen is None and name in there:
    chosen = name
  if chosen is None:
    return origin.params, origin.model_state
  return origin.params[chosen], origin.model_state.get(chosen, {})


def _section(section: Mapping[str, Any], network: str) -> Mapping[str, Any]:
  """The settings of a network, if those of its model name another model."""
  own = section.get(network)
  return own if isinstance(own, Mapping) and "name" in own else section


def _check_settings(where, wanted, theirs, ours, loaded, say) -> None:
  """Refuses or prints the settings that change what parameters compute."""
  differing = arithmetic.differences(theirs, ours, loaded)
  if not differing:
    return
  line = (
    f"{where}: {wanted.path} computes something else with the same"
    f" parameters than config.model: {'; '.join(differing)}"
  )
  if not wanted.anyway:
    raise UserError(
      f"{line}: set these keys as they are there, or pass --init_from_anyway"
    )
  say(f"{line} (--init_from_anyway)")


def _matched(where: str, wanted: Settings, theirs: Mapping, ours: PyTree):
  """Returns {our path: their array}; `theirs` is {path: array}."""
  renamed: dict[str, jax.Array] = {}
  for path, leaf in theirs.items():
    for regex, replacement in wanted.map:
      path = re.sub(regex, replacement, path)
    if path in renamed:
      raise UserError(f"{where}.map maps two parameters to {path!r}")
    if path:
      renamed[path] = leaf
  found = {}
  for path, leaf in parameter_rules.flat(ours).items():
    if path not in renamed or any(re.search(s, path) for s in wanted.skip):
      continue
    if renamed[path].shape != leaf.shape:
      raise UserError(
        f"{where}: {path} is {list(leaf.shape)} here and"
        f" {list(renamed[path].shape)} in {wanted.path}; skip it, or use equal"
        " sizes (and the same tokenizer)"
      )
    found[path] = renamed[path]
  return found
