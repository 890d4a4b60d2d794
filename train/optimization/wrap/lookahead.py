"""Lookahead: slow parameters follow those that the optimizer moves."""

import jax
import jax.numpy as jnp
import optax

from train import types
from train.optimization import parameter_rules


def lookahead(
  optimizer: types.Optimizer, *, every: int = 5, slow_rate: float = 0.5
) -> types.Optimizer:
  """Keeps slow parameters, to which the parameters return at intervals.

  After every `every` updates of the optimizer, the slow parameters move by
  `slow_rate` of their distance from the parameters, which continue from there;
  the moments of the optimizer stay (Zhang et al., arXiv:1907.08610). The slow
  parameters are evaluated and exported.

  Args:
    optimizer: the one that moves the (fast) parameters.
    every: k of the paper, the number of updates from one meeting to the next.
    slow_rate: alpha of the paper, above 0 and at most 1, which makes the slow
      parameters the last fast ones.

  Raises:
    ValueError: a value is out of range.
  """
  if every < 1 or not 0 < slow_rate <= 1:
    raise ValueError(
      f"every={every} is less than 1, or slow_rate={slow_rate} not in 0…1"
    )

  def of_optax(value=None):
    def update(grads, opt_state, params):
      return optimizer.update(grads, opt_state, params, value)

    fast = optax.GradientTransformation(optimizer.init, update)
    return optax.lookahead(fast, every, slow_rate)

  def trained(tree):
    return parameter_rules.part(tree, optimizer.frozen(tree), False)

  def init(params):
    # A copy, because the step donates its buffers, each of them once.
    fast = trained(params)
    slow = jax.tree.map(jnp.copy, fast)
    both = optax.LookaheadParams(fast, slow)
    return {"fast": of_optax().init(both), "slow": slow}

  def update(grads, opt_state, params, value=None):
    both = optax.LookaheadParams(trained(params), opt_state["slow"])
    changes, fast = of_optax(value).update(
      trained(grads), opt_state["fast"], both
    )
    slow = optax.apply_updates(opt_state["slow"], changes.slow)
    still = jax.tree.map(jnp.zeros_like, grads)
    moves = parameter_rules.merged(still, changes.fast)
    return moves, {"fast": fast, "slow": slow}

  def learning_rate(opt_state):
    return optimizer.learning_rate(opt_state["fast"].fast_state)

  def eval_params(opt_state, params):
    fast_state = opt_state["fast"].fast_state
    slow = optimizer.eval_params(fast_state, opt_state["slow"])
    return parameter_rules.merged(params, slow)

  return types.Optimizer(
    init, update, learning_rate, eval_params, optimizer.frozen
  )
