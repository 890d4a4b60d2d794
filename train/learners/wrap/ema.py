"""An exponential moving average of the parameters, which is evaluated."""

import math

import jax
import jax.numpy as jnp
import optax

from common.names import nearest
from train import types
from train.optimization import parameter_rules, updates

KEY = "ema"  # of State.extra


def ema(
  learner: types.Learner,
  *,
  decay: float = 0.999,
  warmup: bool = False,
  of: str | None = None,
  end: float | None = None,
  lend: str | None = None,
  total_steps: int = 0,
) -> types.Learner:
  """Evaluates and exports an average of the parameters over the updates.

  The average e starts at the initial parameters and follows them,
  `e <- decay * e + (1 - decay) * params`, after every update that is not
  dropped. It is kept in `extra["ema"]`, without the parameters that are frozen,
  such as the base under an adapter.

  Args:
    learner: the learner whose parameters are averaged.
    decay: the share of the average that an update keeps, from 0 to below 1.
    warmup: whether the decay of the update after step t is
      min(decay, (1 + t) / (10 + t)), so that the initial parameters are soon
      forgotten.
    of: a top-level key of the parameters, such as "generator", if only these
      are averaged.
    end: the decay at the end of the run, which it approaches along half a
      cosine from `decay`; None keeps it constant.
    lend: the entry of Variables.frozen in which the loss reads the averaged
      parameters, such as "teacher"; they are saved once, as the average.
    total_steps: the length of the run.

  Raises:
    ValueError: `decay` or `end` is out of range. `init` raises it if there are
      no parameters `of`, or an average is kept already.
  """
  if not 0 <= decay < 1:
    raise ValueError(f"decay={decay} not in 0…1")
  if end is not None and not 0 <= end <= 1:
    raise ValueError(f"end={end} not in 0…1")

  def part(params):
    frozen = learner.frozen(params)
    trained = parameter_rules.part(params, frozen, False)
    return trained if of is None else trained[of]

  def inner(state):
    rest = {k: v for k, v in state.extra.items() if k != KEY}
    given = state._replace(extra=rest)
    if lend is None:
      return given
    whole = merged(state.variables.params, state.extra[KEY])
    return given._replace(variables=lent(state.variables, whole))

  def lent(variables, average):
    """The variables that the loss reads."""
    frozen = {**(variables.frozen or {}), lend: average}
    return variables._replace(frozen=frozen)

  def returned(variables, state):
    """The variables without what was lent."""
    if lend is None:
      return variables
    return variables._replace(frozen=state.variables.frozen)

  def merged(params, average):
    if of is None:
      return parameter_rules.merged(params, average)
    return {**params, of: parameter_rules.merged(params[of], average)}

  def init(rng, batch):
    state = learner.init(rng, batch)
    params = state.variables.params
    if KEY in state.extra:
      raise ValueError("ema: the learner keeps a moving average already")
    if of is not None and of not in params:
      there = f"there are: {', '.join(sorted(params))}"
      raise ValueError(f"ema: no params {of!r}{nearest(of, params)} ({there})")
    # A copy, because the step donates its buffers, each of them once.
    average = jax.tree.map(jnp.copy, part(params))
    return state._replace(extra={**state.extra, KEY: average})

  def step(state, batch, rng, **at):
    new, metrics = learner.step(inner(state), batch, rng, **at)
    rate = decay
    if end is not None:
      done = jnp.minimum(state.step / max(total_steps, 1), 1.0)
      rate = end + (decay - end) * 0.5 * (1 + jnp.cos(math.pi * done))
    if warmup:
      rate = jnp.minimum(rate, (1 + state.step) / (10 + state.step))
    old = state.extra[KEY]
    average = optax.incremental_update(
      part(new.variables.params), old, 1 - rate
    )
    average = updates.chosen(updates.kept(metrics), average, old)
    variables = returned(new.variables, state)
    extra = {**new.extra, KEY: average}
    return new._replace(variables=variables, extra=extra), metrics

  offered = learner.gradients

  def gradients(state, batch, rng):
    assert offered is not None
    return offered(inner(state), batch, rng)

  def evaluated(state):
    variables, average = learner.variables(inner(state)), state.extra[KEY]
    params = merged(variables.params, average)
    return returned(variables, state)._replace(params=params)

  return learner._replace(
    init=init,
    step=step,
    variables=evaluated,
    gradients=gradients if offered else None,
    loss_variables=(lambda v: lent(v, v.params)) if lend else None,
  )
