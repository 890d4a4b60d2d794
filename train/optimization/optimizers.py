"""Builds an Optimizer, whose functions are pure, from a config.

An update consists of these steps: clip the gradient of the loss, by value and
then by global norm; add the gradients of the l1 and l2 penalties; apply the
optimizer of Optax with decoupled weight decay.

Parameters that share a learning rate and a weight decay form a group, and each
group has its own optimizer. Methods that estimate a quantity over all
parameters (prodigy, dog, momo, …) estimate it separately for each group.
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

# Parameters to which weight_decay, l1 and l2 do not apply if they are plain
# numbers. They cannot be recognized by rank: the biases of scanned layers are
# matrices.
UNDECAYED = r"(^|[/_])(bias|scale)$|norm[^/]*/"
STATE_DTYPES = ("bfloat16", "float32")
STATE_MEMORIES = ("device", "host")
# Keyword arguments of Optax that this file sets or that are functions.
_RESERVED = re.compile(
  "learning_rate|weight_decay|mask|numbers|warmup_steps|_fn$"
)


class OptimizerState(NamedTuple):
  """The state of an Optimizer; every leaf is an array.

  count: int32 scalar, the number of updates done.
  plateau: the state of optax.contrib.reduce_on_plateau; () for other schedules.
  groups: the Optax state of each group of parameters, by the group's name.
  """

  count: jax.Array
  plateau: PyTree
  groups: dict[str, PyTree]


class _Settings(NamedTuple):
  """The parsed arguments of `build`.

  make_optax: (rate, decay) -> transformation of Optax.
  """

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
  """Returns the Optimizer of `config`, whose keys are arguments of `build`.

  Args:
    config: the arguments of `build`: name, lr, …
    total_steps: the number of updates in the whole run, which determines the
      length of schedules.
    params_shape: the parameters or their shapes; if given, the regexes are
      checked by `check_patterns`.

  Raises:
    ValueError: a key, name or value is invalid, or a regex matches nothing.
  """
  optimizer = build(total_steps, **dict(config))
  if params_shape is not None:
    check_patterns(config, params_shape)
  return optimizer


def check_patterns(config: Mapping[str, Any], params_shape: PyTree) -> None:
  """Raises ValueError for a regex of `config` that matches no parameter.

  This is separate from `make` because an Optimizer may be used for only a part
  of the parameters.
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
  """Returns an optimizer of Optax with schedule, penalties, decay and clipping.

  `lr`, `weight_decay`, `l1` and `l2` are numbers or lists of (regex, number);
  see train.optimization.parameter_rules. With lists, a parameter that no regex
  matches has no weight decay and no penalty; a parameter that no regex of `lr`
  matches is an error. As plain numbers, `weight_decay`, `l1` and `l2` do not
  apply to parameters that UNDECAYED matches. All other settings of Optax keep
  their defaults.

  Args:
    total_steps: the number of updates in the whole run.
    name: a function of optax or optax.contrib that takes a learning_rate, or
      "momentum" or "nesterov", which are sgd with momentum 0.9.
    lr: the peak learning rate. The greatest rate of a list is the base rate, to
      which the schedule and `learning_rate` refer; the ratios of the other
      rates to it are constant.
    schedule: a function of train.optimization.schedules or, by its full name,
      of optax.schedules. Its settings are further keys, such as end_lr; they
      are prefixed with "schedule_" if the optimizer has a key of that name.
    warmup_steps: the number of updates in which the rate rises linearly from 0.
    weight_decay: the decoupled weight decay w (Loshchilov and Hutter,
      arXiv:1711.05101): each update subtracts rate * w * p. If Optax's function
      has an argument weight_decay, its definition applies; in lamb, lars,
      novograd, adadelta and madgrad, the method's scaling includes the decay.
    l1: adds l1 * sign(p) to the gradient.
    l2: adds l2 * p to the gradient, the derivative of l2 / 2 * |p|^2.
    clip_norm: the greatest global norm of the gradient of all parameters that
      are trained.
    clip_value: the greatest absolute value of an element of the gradient.
    freeze: regexes of parameters that are not updated and have no moments.
    layer_decay: multiplies the updates of layer l of L stacked layers, counted
      from 0, by layer_decay^(L - l), and those of embeddings by
      layer_decay^(L + 1) (ELECTRA, arXiv:2003.10555); see
      train/optimization/layer_decay.py.
    state_dtype: the dtype in which the float arrays of the optimizer state,
      such as the moments, are stored: "bfloat16" or "float32". They are
      computed in float32 and rounded to the nearest value, so a bfloat16 second
      moment hardly decreases if its decay is above 1 - 2^-8 = 0.996: choose a
      smaller b2. None keeps the dtypes of Optax.
    state_memory: "device", or "host", which keeps the state in host memory and
      copies it to the device for each update; see train.loop.
    **hyperparameters: keyword arguments of the optimizer and the schedule.

  Raises:
    ValueError: a name or key is unknown, or a value is out of range. `init`
      raises it for a parameter that no regex of `lr` matches.
  """
  settings = _settings(**locals())
  return Optimizer(
    init=functools.partial(_init, settings),
    update=functools.partial(_update, settings),
    learning_rate=functools.partial(_learning_rate, settings),
    eval_params=functools.partial(_eval_params, settings),
    frozen=functools.partial(_frozen, settings),
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
    raise ValueError(
      "rprop adapts its step sizes itself: remove schedule and warmup_steps"
    )
  lr = parameter_rules.parse("lr", lr)
  base_lr = max(value for _, value in lr)
  for key, limit in (("clip_norm", clip_norm), ("clip_value", clip_value)):
    if limit is not None and not limit > 0:
      raise ValueError(f"{key}={limit} is not positive")
  if isinstance(freeze, str):
    raise ValueError(f"freeze={freeze!r} is not a list of regexes")
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
  """Returns the keywords of the optimizer and the unprefixed schedule's."""
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
      known = sorted(own | for_optimizer | for_schedule | {"wrap"})
      raise ValueError(
        f'optimizer "{name}" with schedule "{schedule}" has no key "{key}"'
        f"{nearest(key, known)} (valid: {', '.join(known)})"
      )
  return ours, theirs


def _frozen(settings: _Settings, params):
  return jax.tree.map(
    lambda path: parameter_rules.first(settings.freeze, path, False),
    parameter_rules.paths(params),
  )


def _groups(settings: _Settings, params):
  """Returns {group: (rate / base rate, decay)} and the tree of group names."""
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
    # Back to the stored dtypes; the float32 rate also promotes bfloat16 states.
    states[group] = jax.tree.map(lambda a, b: a.astype(b.dtype), new, old)
    updates = parameter_rules.merged(updates, change)
  if settings.layer_decay != 1:
    updates = layer_decays.scaled(updates, settings.layer_decay)
  plateau = opt_state.plateau
  if settings.listener:
    if value is None:
      raise ValueError('schedule "plateau" needs the loss: pass value=')
    zero = jnp.zeros(())
    _, plateau = settings.listener.update(zero, plateau, value=value)
  count = optax.safe_increment(opt_state.count)
  return updates, OptimizerState(count, plateau, states)


def _kept_in(dtype: str | None, state):
  """Returns `state` with its float arrays, except scalars, cast to `dtype`."""

  def cast(x):
    moment = jnp.issubdtype(x.dtype, jnp.floating) and x.ndim > 0
    return x.astype(dtype) if moment else x

  return state if dtype is None else jax.tree.map(cast, state)


def _regularised(settings: _Settings, labels, grads, params):
  """Returns clipped gradients, 0 if frozen, plus those of the penalties."""

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
