"""Whole episodes of an environment, played by the policy."""

import jax
import jax.numpy as jnp

from train import types


def episodes(
  context: types.EvalContext, *, count: int = 100, sampled: bool = False
) -> types.Evaluator:
  """Returns `return` and `length`, means over episodes, and `least_return`.

  All episodes are played at once, inside one program, from random keys that
  depend on the run's seed alone, so figures of two steps or two runs of one
  seed are of the same beginnings.

  Args:
    context: its task predicts "greedy" and "sample", actions.
    count: the number of episodes.
    sampled: whether actions are drawn from the policy, instead of taking the
      most likely one.

  Raises:
    ValueError: the data are no environment, or the task predicts no actions.
  """
  environment, name = context.environment, "sample" if sampled else "greedy"
  if environment is None:
    raise ValueError(
      "episodes plays an environment: set source='environment:NAME'"
    )
  if name not in context.task.predict:
    raise ValueError(f"the task does not predict {name!r}, actions to take")
  act = context.task.predict[name]

  @jax.jit
  def played(variables):
    reset_rng, play_rng = jax.random.split(context.rng)
    keys = jax.random.split(reset_rng, count)
    state, observation = jax.vmap(environment.reset)(keys)

    def one(carry, rng):
      state, observation, alive, totals, lengths = carry
      act_rng, step_rng = jax.random.split(rng)
      action = act(variables, {"observation": observation}, act_rng)
      state, observation, reward, terminated, truncated = jax.vmap(
        environment.step
      )(state, action, jax.random.split(step_rng, count))
      totals += jnp.where(alive, reward, 0.0)
      lengths += alive
      alive &= ~(terminated | truncated)
      return (state, observation, alive, totals, lengths), None

    alive = jnp.ones(count, bool)
    zeros = jnp.zeros(count, jnp.float32), jnp.zeros(count, jnp.int32)
    rngs = jax.random.split(play_rng, environment.most_steps)
    carry, _ = jax.lax.scan(one, (state, observation, alive, *zeros), rngs)
    *_, totals, lengths = carry
    return {
      "return": jnp.mean(totals),
      "least_return": jnp.min(totals),
      "length": jnp.mean(lengths.astype(jnp.float32)),
    }

  def evaluate(variables, step):
    del step
    found = context.fetch(played(variables))
    return {name: float(value) for name, value in found.items()}

  names = ("return", "least_return", "length")
  return types.Measuring(evaluate, lambda variables: names)
