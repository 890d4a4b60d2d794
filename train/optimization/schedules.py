"""Learning rate schedules: functions of the number of updates done.

The schedules here follow the formulas of papers. They share their arguments,
support warmup, and take their length from the config. Schedules of Optax can be
selected by name as well.

Symbols in all formulas: k, the number of updates done (0 at the first update);
lr, the base rate; W, warmup_steps; K, total_steps; e, end_lr. A formula applies
for k >= W. During warmup the rate rises linearly from 0 to the value of the
formula at W: rate(k) = (k / W) * formula(W).
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from common.names import nearest

Schedule = Callable[[jax.Array], jax.Array]

# Required arguments of Optax's schedules that are set from lr and total_steps.
_RATES = ("init_value", "peak_value", "value")
_LENGTHS = ("decay_steps", "transition_steps")


def constant(lr: float, total_steps: int, warmup_steps: int) -> Schedule:
  """The constant rate lr."""
  del total_steps, warmup_steps
  return lambda k: jnp.full_like(k, lr, dtype=jnp.float32)


def linear(
  lr: float,
  total_steps: int,
  warmup_steps: int,
  *,
  end_lr: float = 0.0,
  decay_steps: int | None = None,
) -> Schedule:
  """The rate lr + (e - lr) t, where t = min(1, (k - W) / (D - W)).

  D, decay_steps, is the number of updates, counted from the first, after which
  the rate is e. Default: K.
  """
  progress = _progress(total_steps, warmup_steps, decay_steps)
  return lambda k: lr + (end_lr - lr) * progress(k)


def cosine(
  lr: float,
  total_steps: int,
  warmup_steps: int,
  *,
  end_lr: float = 0.0,
  decay_steps: int | None = None,
) -> Schedule:
  """The rate e + (lr - e) (1 + cos(pi t)) / 2, with t and D as in `linear`.

  Loshchilov and Hutter, arXiv:1608.03983, equation 5, without restarts.
  """
  progress = _progress(total_steps, warmup_steps, decay_steps)
  return lambda k: (
    end_lr + (lr - end_lr) * 0.5 * (1 + jnp.cos(jnp.pi * progress(k)))
  )


def step(
  lr: float,
  total_steps: int,
  warmup_steps: int,
  *,
  boundaries: tuple[int, ...] = (),
  every: int | None = None,
  factor: float = 0.1,
) -> Schedule:
  """The rate lr * factor^n.

  n is the number of boundaries b with b <= k, or k // every if `every` is set.

  Raises:
    ValueError: unless exactly one of `boundaries` and `every` is given.
  """
  del total_steps, warmup_steps
  if bool(boundaries) == bool(every):
    raise ValueError(
      'schedule "step" needs either boundaries=[updates, …] or every=updates'
    )
  if every:
    return lambda k: lr * factor ** (k // every).astype(jnp.float32)
  edges = jnp.asarray(sorted(boundaries))
  return lambda k: lr * factor ** jnp.sum(edges <= k).astype(jnp.float32)


def exponential(
  lr: float,
  total_steps: int,
  warmup_steps: int,
  *,
  decay_rate: float = 0.5,
  transition_steps: int | None = None,
  staircase: bool = False,
  end_lr: float = 0.0,
) -> Schedule:
  """The rate max(e, lr * decay_rate^n).

  n = (k - W) / T, rounded down if `staircase`. T is transition_steps, by
  default K - W.
  """
  length = transition_steps or max(total_steps - warmup_steps, 1)

  def rate(k):
    n = (k - warmup_steps) / length
    n = jnp.floor(n) if staircase else n
    return jnp.maximum(end_lr, lr * decay_rate**n)

  return rate


def rsqrt(
  lr: float,
  total_steps: int,
  warmup_steps: int,
  *,
  timescale: int | None = None,
) -> Schedule:
  """The rate lr * sqrt(T / (T + k - W)).

  T is timescale, by default max(W, 1). With T = W the rate is
  lr * sqrt(W / k), the decay of Vaswani et al., arXiv:1706.03762, equation 3.
  """
  del total_steps
  scale = timescale or max(warmup_steps, 1)
  return lambda k: lr * jnp.sqrt(scale / (scale + k - warmup_steps))


def wsd(
  lr: float,
  total_steps: int,
  warmup_steps: int,
  *,
  cooldown_steps: int | None = None,
  cooldown: str = "linear",
  end_lr: float = 0.0,
) -> Schedule:
  """Warmup, stable, decay: e + (lr - e) (1 - g(t)).

  t = max(0, 1 - (K - k) / C), so the rate is lr until update K - C. C is
  cooldown_steps, by default K / 10. g(t) is t for cooldown="linear" and sqrt(t)
  for cooldown="sqrt". The schedule is that of Hu et al., arXiv:2404.06395;
  "sqrt" is the 1-sqrt cooldown of Hägele et al., arXiv:2405.18392.

  Raises:
    ValueError: `cooldown` is neither "linear" nor "sqrt", or `cooldown_steps`
      exceeds the updates after warmup.
  """
  shapes = {"linear": lambda t: t, "sqrt": jnp.sqrt}
  if cooldown not in shapes:
    raise ValueError(f'cooldown="{cooldown}" is neither "linear" nor "sqrt"')
  shape = shapes[cooldown]
  length = cooldown_steps or max(total_steps // 10, 1)
  if length > total_steps - warmup_steps:
    raise ValueError(
      f"cooldown_steps={length} exceeds the {total_steps - warmup_steps}"
      " updates after warmup"
    )

  def rate(k):
    t = jnp.clip(1 - (total_steps - k) / length, 0.0, 1.0)
    return end_lr + (lr - end_lr) * (1 - shape(t))

  return rate


def one_cycle(
  lr: float,
  total_steps: int,
  warmup_steps: int,
  *,
  pct_start: float = 0.3,
  div_factor: float = 25.0,
  final_div_factor: float = 1e4,
) -> Schedule:
  """Rises from lr / div to lr, then falls to lr / (div * final), as cosines.

  div is div_factor and final is final_div_factor. Each phase goes from a to b
  as b + (a - b)(1 + cos(pi t)) / 2 with t in 0…1. With n = k - W, N = K - W and
  P = int(pct_start * N), t is n / P in the first phase and (n - P) / (N - P) in
  the second. Smith and Topin, arXiv:1708.07120; computed by
  optax.cosine_onecycle_schedule.
  """
  rate = optax.cosine_onecycle_schedule(
    max(total_steps - warmup_steps, 1),
    lr,
    pct_start,
    div_factor,
    final_div_factor,
  )
  return lambda k: rate(k - warmup_steps)


def plateau(
  lr: float,
  total_steps: int,
  warmup_steps: int,
  *,
  factor: float = 0.1,
  patience: int = 10,
  rtol: float = 1e-4,
  atol: float = 0.0,
  cooldown: int = 0,
  accumulation_size: int = 1,
  min_scale: float = 0.0,
) -> Schedule:
  """The rate lr * s, where s starts at 1 and is multiplied by `factor`.

  s is multiplied at each plateau of the loss: `patience` consecutive values,
  each the mean of `accumulation_size` losses, of which none is below
  (1 - rtol) * best - atol. The next `cooldown` values are then ignored. s is at
  least `min_scale`. The loss of update k affects the rate from update k + 1 on.
  optax.contrib.reduce_on_plateau keeps s in the state of the optimizer; the
  schedule itself is constant.
  """
  del factor, patience, rtol, atol, cooldown, accumulation_size, min_scale
  return constant(lr, total_steps, warmup_steps)


OWN = {
  f.__name__: f
  for f in (
    constant,
    linear,
    cosine,
    step,
    exponential,
    rsqrt,
    wsd,
    one_cycle,
    plateau,
  )
}


def keys(name: str) -> tuple[str, ...]:
  """Returns the config keys of a schedule, without lr and warmup_steps.

  Raises:
    ValueError: the schedule does not exist.
  """
  parameters = inspect.signature(_find(name)).parameters
  return tuple(
    key
    for key in parameters
    if key not in ("lr", "total_steps", "warmup_steps")
  )


def make(
  name: str, lr: float, total_steps: int, warmup_steps: int, **settings: Any
) -> Schedule:
  """Returns the schedule of that name, with warmup.

  Args:
    name: a function of this file, or a function of optax.schedules by its full
      name. In the latter case the rates (init_value, peak_value, value) default
      to lr and the lengths (decay_steps, transition_steps) to the rest of the
      run; updates are counted from the end of warmup, unless the function takes
      warmup_steps itself.
    lr: the base rate.
    total_steps: K.
    warmup_steps: W.
    **settings: the settings of the schedule.

  Returns:
    A function from k, an int32 scalar, to the rate, a float32 scalar.

  Raises:
    ValueError: the schedule does not exist, a setting is missing or invalid, or
      `warmup_steps` is negative.
  """
  if warmup_steps < 0:
    raise ValueError(f"warmup_steps={warmup_steps} is negative")
  function = _find(name)
  if name not in OWN:
    return _of_optax(name, lr, total_steps, warmup_steps, settings)
  rate = function(lr, total_steps, warmup_steps, **settings)
  return _warmed(rate, warmup_steps)


def _warmed(rate: Schedule, warmup_steps: int) -> Schedule:
  def warmed(k):
    value = rate(jnp.maximum(k, warmup_steps))
    if warmup_steps:
      value = value * jnp.minimum(k / warmup_steps, 1.0)
    return jnp.asarray(value, jnp.float32)

  return warmed


def _of_optax(name, lr, total_steps, warmup_steps, settings) -> Schedule:
  function = _find(name)
  parameters = inspect.signature(function).parameters
  settings = dict(settings)
  if "boundaries_and_scales" in settings:  # JSON has no integer keys
    pairs = dict(settings["boundaries_and_scales"]).items()
    settings["boundaries_and_scales"] = {int(k): v for k, v in pairs}
  own_warmup = "warmup_steps" in parameters
  if own_warmup:
    settings.setdefault("warmup_steps", warmup_steps)
  left = total_steps if own_warmup else total_steps - warmup_steps
  for key, parameter in parameters.items():
    if key in settings or parameter.default is not parameter.empty:
      continue
    if key in _RATES:
      rises = key == "init_value" and "peak_value" in parameters
      settings[key] = 0.0 if rises else lr
    elif key in _LENGTHS:
      settings[key] = max(left, 1)
    else:
      raise ValueError(f'schedule "{name}" needs the setting {key}=')
  rate = function(**settings)
  if own_warmup:
    return lambda k: jnp.asarray(rate(k), jnp.float32)
  return _warmed(lambda k: rate(k - warmup_steps), warmup_steps)


def _progress(total_steps, warmup_steps, decay_steps) -> Schedule:
  end = total_steps if decay_steps is None else decay_steps
  length = max(end - warmup_steps, 1)
  return lambda k: jnp.clip((k - warmup_steps) / length, 0.0, 1.0)


def _find(name: str) -> Callable:
  theirs = {
    key: getattr(optax.schedules, key)
    for key in dir(optax.schedules)
    if key.endswith(("_schedule", "_decay"))
  }
  found = OWN.get(name) or theirs.get(name)
  if found:
    return found
  hint = nearest(name, [*OWN, *theirs])
  raise ValueError(
    f'no schedule "{name}"{hint} (valid: {", ".join(OWN)}, and those of'
    " optax.schedules)"
  )
