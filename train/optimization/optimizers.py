"""Optimizers by name: a config in, a pure Optimizer out.

One update is, in this order: clip the gradient of the data (by value, then by
global norm), add the gradients of the l1 and l2 penalties, then the optimizer
of optax with its decoupled weight decay.

Parameters that share a rate and a decay form a group, which has an optimizer
of its own; methods that estimate something over all parameters (prodigy, dog,
momo, …) estimate it once a group.
"""

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from common.names import nearest
from train.optimization import layer_decay as layer_decays
from train.optimization import optax_names, parameter_rules, schedules
from train.optimization.parameter_rules import Rules
from train.types import Optimizer, PyTree

# A plain number for weight_decay, l1 or l2 spares these parameters. (The rank
# does not tell: the biases of scanned layers are matrices.)
UNDECAYED = r"(^|[/_])(bias|scale)$|norm[^/]*/"
STATE_DTYPES = ("bfloat16", "float32")
STATE_MEMORIES = ("device", "host")
# Keywords of optax that are set by ours, or that hold functions.
_RESERVED = re.compile(
  "learning_rate|weight_decay|mask|numbers|warmup_steps|_fn$"
)


class OptimizerState(NamedTuple):
  """The state of an Optimizer; every leaf is an array.

  count: int32 scalar, updates done.
  plateau: of optax.contrib.reduce_on_plateau; () for other schedules.
  groups: one state of optax a group of parameters, by the group's name.
  """

  count: jax.Array
  plateau: PyTree
  groups: dict[str, PyTree]


class _Settings(NamedTuple):
  """What `build` understood; `make_optax` is (rate, decay) -> optax's."""

  name: str
  make_optax: Callable
  schedule: schedules.Schedule
  listener: optax.GradientTransformationExtraArgs | None
  base_lr: float
  lr: list
  weight_decay: list
  l1: list
  l2: list
  clip_norm: float | None
  clip_value: float | None
  freeze: list
  layer_decay: float
  state_dtype: str | None


def make(
  config: Mapping[str, Any],
  total_steps: int,
  params_shape: PyTree | None = None,
) -> Optimizer:
  """The Optimizer of `config`, whose keys are the arguments of `build`.

  Args:
    config: name, lr, …
    total_steps: updates in the whole run; schedules are measured by it.
    params_shape: arrays or shapes; if given, `check_patterns` is called.

  Raises:
    ValueError: an unknown key, name or value, or a regex that does not match.
  """
  optimizer = build(total_steps, **dict(config))
  if params_shape is not None:
    check_patterns(config, params_shape)
  return optimizer


def check_patterns(config: Mapping[str, Any], params_shape: PyTree) -> None:
  """Raises ValueError for a regex of `config` that matches no parameter.

  Apart from `make`, whose Optimizer may be given a part of the parameters.
  """
  paths = jax.tree.leaves(parameter_rules.paths(params_shape))
  for key in ("lr", "weight_decay", "l1", "l2", "freeze"):
    value = config.get(key, ())
    if isinstance(value, int | float):
      continue
    regexes = value if key == "freeze" else [regex for regex, _ in value]
    for regex in regexes:
      if not any(re.search(regex, path) for path in paths):
        raise ValueError(
          f'{key}: the regex "{regex}" matches no parameter'
          f"{nearest(regex, paths)}"
        )


def build(
  total_steps: int,
  *,
  name: str = "adamw",
  lr: float | Rules = 1e-3,
  schedule: str = "constant",
  warmup_steps: int = 0,
  weight_decay: float | Rules = 0.0,
  l1: float | Rules = 0.0,
  l2: float | Rules = 0.0,
  clip_norm: float | None = None,
  clip_value: float | None = None,
  freeze: Sequence[str] = (),
  layer_decay: float = 1.0,
  state_dtype: str | None = None,
  state_memory: str = "device",
  **hyperparameters: Any,
) -> Optimizer:
  """An optimizer of optax with a schedule, penalties, decay and clipping.

  `lr`, `weight_decay`, `l1` and `l2` are numbers or lists of (regex, number),
  see train.optimization.parameter_rules. A parameter that no regex matches has
  no penalty and no decay, and is an error of `lr`. As plain numbers the latter
  three spare what UNDECAYED matches. Every other setting of optax has optax's
  default.

  Args:
    total_steps: updates in the whole run.
    name: a function of optax or optax.contrib that takes a learning_rate, or
      "momentum" or "nesterov": sgd with momentum 0.9.
    lr: peak learning rate. Of a list the greatest is the base rate, which the
      schedule and `learning_rate` are about; others keep their ratio to it.
    schedule: a function of train.optimization.schedules or, by its full name,
      of optax.schedules. Its settings are further keys, such as end_lr; with
      "schedule_" before them where the optimizer has a key of that name.
    warmup_steps: updates in which the rate rises linearly from 0.
    weight_decay: w; decoupled (Loshchilov and Hutter, arXiv:1711.05101), each
      update subtracts rate * w * p. Where optax's function has a weight_decay
      argument, its definition holds (in lamb, lars, novograd, adadelta and
      madgrad the decay passes through the method's own scaling).
    l1: adds l1 * sign(p) to the gradient.
    l2: adds l2 * p to the gradient, the derivative of l2 / 2 * |p|^2.
    clip_norm: greatest global norm of the gradient, over all that is trained.
    clip_value: greatest absolute value of an element of it.
    freeze: regexes of parameters that never change and keep no moments.
    layer_decay: of L stacked layers the updates of layer l are multiplied by
      layer_decay^(L - l), those of embeddings by layer_decay^(L + 1), l from 0
      (ELECTRA, arXiv:2003.10555); see train/optimization/layer_decay.py.
    state_dtype: what the moments are kept in, such as "bfloat16"; every float
      array of optax's state, and computed with in float32. They are rounded to
      the nearest, so that a second moment whose decay is above 1 - 2^-8 = 0.996
      hardly falls: give b2 below it. None keeps optax's types.
    state_memory: "device", or "host": the state waits in the memory of the
      host, and comes to the device for the update (train.loop).
    **hyperparameters: keywords of the optimizer and of the schedule.

  Raises:
    ValueError: an unknown name or key, or a value out of range. From `init`: a
      parameter that no regex of `lr` matches.
  """
  settings = _settings(**locals())
  return Optimizer(
    init=functools.partial(_init, settings),
    update=functools.partial(_update, settings),
    learning_rate=functools.partial(_learning_rate, settings),
    eval_params=functools.partial(_eval_params, settings),
  )


def _settings(
  total_steps,
  name,
  lr,
  schedule,
  warmup_steps,
  hyperparameters,
  clip_norm,
  clip_value,
  freeze,
  layer_decay,
  state_dtype,
  state_memory,
  **rules,
) -> _Settings:
  factory, implied = optax_names.find(name)
  ours, theirs = _split(name, factory, schedule, hyperparameters)
  if name == "rprop" and (schedule != "constant" or warmup_steps):
    raise ValueError("rprop adapts its own steps: it takes no schedule")
  lr = parameter_rules.parse("lr", lr)
  base_lr = max(value for _, value in lr)
  for key, limit in (("clip_norm", clip_norm), ("clip_value", clip_value)):
    if limit is not None and not limit > 0:
      raise ValueError(f"{key}={limit} is not above 0")
  if isinstance(freeze, str):
    raise ValueError(f"freeze={freeze!r} is no list of regexes")
  layer_decays.check(layer_decay)
  if state_dtype not in (None, *STATE_DTYPES):
    raise ValueError(f"state_dtype={state_dtype!r} is none of {STATE_DTYPES}")
  if state_memory not in STATE_MEMORIES:
    raise ValueError(
      f"state_memory={state_memory!r} is none of {STATE_MEMORIES}"
    )
  on_plateau = schedule == "plateau"
  return _Settings(
    name=name,
    make_optax=functools.partial(
      optax_names.transformation, name, factory, {**implied, **ours}
    ),
    schedule=schedules.make(
      schedule, base_lr, total_steps, warmup_steps, **theirs
    ),
    listener=optax.contrib.reduce_on_plateau(**theirs) if on_plateau else None,
    base_lr=base_lr,
    lr=lr,
    clip_norm=clip_norm,
    clip_value=clip_value,
    freeze=[(parameter_rules.compiled("freeze", p), True) for p in freeze],
    layer_decay=layer_decay,
    state_dtype=state_dtype,
    **{k: parameter_rules.parse(k, v, UNDECAYED) for k, v in rules.items()},
  )


def _split(name, factory, schedule, hyperparameters) -> tuple[dict, dict]:
  """The optimizer's keywords and the schedule's, the latter unprefixed."""
  keywords = inspect.signature(factory).parameters
  for_optimizer = {key for key in keywords if not _RESERVED.search(key)}
  for_schedule = set(schedules.keys(schedule))
  ours, theirs = {}, {}
  for key, value in hyperparameters.items():
    bare = key.removeprefix("schedule_")
    if key in for_optimizer:
      ours[key] = value
    elif bare in for_schedule:
      theirs[bare] = value
    else:
      own = set(inspect.signature(build).parameters)
      own -= {"total_steps", "hyperparameters"}
      known = sorted(own | for_optimizer | for_schedule)
      raise ValueError(
        f'optimizer "{name}" with schedule "{schedule}" has no key "{key}"'
        f"{nearest(key, known)} (there are: {', '.join(known)})"
      )
  return ours, theirs


def _groups(settings: _Settings, params):
  """{group: (rate / base rate, decay)}, and the tree of groups' names."""
  members = {}

  def group(path):
    if parameter_rules.first(settings.freeze, path, False):
      return "frozen"
    lr = parameter_rules.first(settings.lr, path, None)
    if lr is None:
      raise ValueError(
        f'lr: no regex matches "{path}"; end the list with (".*", rate)'
      )
    relative = lr / settings.base_lr if settings.base_lr else 1.0
    decay = parameter_rules.first(settings.weight_decay, path)
    return members.setdefault((relative, decay), f"group{len(members)}")

  labels = jax.tree.map(group, parameter_rules.paths(params))
  return {name: member for member, name in members.items()}, labels


def _init(settings: _Settings, params):
  count = jnp.zeros((), jnp.int32)
  rate = settings.schedule(count)
  groups, labels = _groups(settings, params)
  states = {
    group: _kept_in(
      settings.state_dtype,
      settings.make_optax(rate * relative, decay).init(
        parameter_rules.part(params, labels, group)
      ),
    )
    for group, (relative, decay) in groups.items()
  }
  listener = settings.listener
  plateau = listener.init(jnp.zeros(())) if listener else ()
  return OptimizerState(count, plateau, states)


def _update(settings: _Settings, grads, opt_state, params, value=None):
  rate = _learning_rate(settings, opt_state)
  groups, labels = _groups(settings, params)
  grads = _regularised(settings, labels, grads, params)
  updates = jax.tree.map(jnp.zeros_like, grads)
  states = {}
  for group, (relative, decay) in groups.items():
    old = opt_state.groups[group]
    wide = _kept_in("float32" if settings.state_dtype else None, old)
    change, new = settings.make_optax(rate * relative, decay).update(
      parameter_rules.part(grads, labels, group),
      wide,
      parameter_rules.part(params, labels, group),
      value=value,
    )
    # As it was kept. (The rate is float32, and widens a bfloat16 state too.)
    states[group] = jax.tree.map(lambda a, b: a.astype(b.dtype), new, old)
    updates = parameter_rules.merged(updates, change)
  if settings.layer_decay != 1:
    updates = layer_decays.scaled(updates, settings.layer_decay)
  plateau = opt_state.plateau
  if settings.listener:
    if value is None:
      raise ValueError('schedule "plateau" needs the loss: value=')
    zero = jnp.zeros(())
    _, plateau = settings.listener.update(zero, plateau, value=value)
  count = optax.safe_increment(opt_state.count)
  return updates, OptimizerState(count, plateau, states)


def _kept_in(dtype: str | None, state):
  """`state` with its float arrays, but not its scalars, of that type."""

  def cast(x):
    moment = jnp.issubdtype(x.dtype, jnp.floating) and x.ndim > 0
    return x.astype(dtype) if moment else x

  return state if dtype is None else jax.tree.map(cast, state)


def _regularised(settings: _Settings, labels, grads, params):
  """The clipped gradient, 0 where frozen, with those of the penalties."""

  def trained(g, label):
    if label == "frozen":
      return jnp.zeros_like(g)
    limit = settings.clip_value
    return g if limit is None else jnp.clip(g, -limit, limit)

  def penalised(path, g, p):
    l1 = parameter_rules.first(settings.l1, path)
    l2 = parameter_rules.first(settings.l2, path)
    g = g + l1 * jnp.sign(p) if l1 else g
    return g + l2 * p if l2 else g

  grads = jax.tree.map(trained, grads, labels)
  if settings.clip_norm is not None:
    clip = optax.clip_by_global_norm(settings.clip_norm)
    grads, _ = clip.update(grads, clip.init(grads))
  return jax.tree.map(penalised, parameter_rules.paths(params), grads, params)


def _learning_rate(settings: _Settings, opt_state):
  rate = settings.schedule(opt_state.count)
  return rate * opt_state.plateau.scale if settings.listener else rate


def _eval_params(settings: _Settings, opt_state, params):
  if not settings.name.startswith("schedule_free"):
    return params
  _, labels = _groups(settings, params)
  for group, state in opt_state.groups.items():
    average = optax.contrib.schedule_free_eval_params(
      state, parameter_rules.part(params, labels, group)
    )
    params = parameter_rules.merged(params, average)
  return params
