"""Adversarial learning: alternating updates of two players."""

import jax
import jax.numpy as jnp
import optax

from train import types
from train.optimization import updates


def adversarial(
  task: types.Task,
  optimizer: types.Optimizer,
  *,
  discriminator_steps: int = 1,
  ema: float = 0.0,
) -> types.Learner:
  """Alternating gradient descent on the losses of two players.

  Goodfellow et al. 2014, Algorithm 1: `discriminator_steps` updates of the
  discriminator on parts of the batch, then one update of the generator. Each
  player has its own optimizer state; the optimizer's regexes set its rate
  (`lr=[("generator", 1e-4), ("discriminator", 4e-4)]`). A step in which a loss
  or a gradient of either player is not finite is dropped: only `step` changes.

  Args:
    task: has the losses "generator" and "discriminator".
    optimizer: of both players.
    discriminator_steps: k of Algorithm 1; must divide the batch size.
    ema: decay of the moving average of the generator, which is evaluated in its
      place (Yazıcı et al. 2019); 0 keeps none.

  Raises:
    ValueError: the task has other losses, or a value is out of range.
  """
  if sorted(task.losses) != ["discriminator", "generator"]:
    raise ValueError(
      "adversarial needs the losses generator and discriminator; this task"
      f" has {sorted(task.losses)}"
    )
  if discriminator_steps < 1 or not 0 <= ema < 1:
    raise ValueError(
      f"discriminator_steps={discriminator_steps} < 1 or ema={ema} not in 0…1"
    )

  def init(rng, batch):
    variables = task.init(rng, batch)
    return types.State(
      step=jnp.zeros((), jnp.int32),
      variables=variables,
      opt_state={
        player: optimizer.init({player: variables.params[player]})
        for player in sorted(task.losses)
      },
      extra=(
        {"ema": jax.tree.map(jnp.copy, variables.params["generator"])}
        if ema
        else {}
      ),
    )

  def play(player, variables, opt_state, batch, context):
    """One update of a player: (variables, its opt_state, metrics, finite)."""

    def loss(own):
      params = {**variables.params, **own}
      return task.losses[player](
        variables._replace(params=params), batch, context
      )

    own = {player: variables.params[player]}
    grads, mean, aux = updates.gradients(loss, own)
    own, opt_state, grad_norm = updates.descend(
      optimizer, grads, mean, opt_state, own
    )
    params = {**variables.params, **own}
    metrics = {
      f"{player}_loss": mean,
      f"{player}_grad_norm": types.mean_of(grad_norm),
      **aux.metrics,
    }
    variables = types.Variables(params, aux.model_state, variables.frozen)
    return variables, opt_state, metrics, updates.finite(mean, grad_norm)

  def step(state, batch, rng):
    def context(i):
      return types.Context(jax.random.fold_in(rng, i), state.step, train=True)

    variables, opt_state = state.variables, dict(state.opt_state)
    parts = types.split(batch, discriminator_steps)
    finite, metrics = jnp.bool_(True), {}
    for i in range(discriminator_steps):
      part = jax.tree.map(lambda x, i=i: x[i], parts)
      variables, opt_state["discriminator"], metrics, good = play(
        "discriminator",
        variables,
        opt_state["discriminator"],
        part,
        context(i + 1),
      )
      finite &= good
    variables, opt_state["generator"], more, good = play(
      "generator",
      variables,
      opt_state["generator"],
      batch,
      context(0),
    )
    finite &= good
    extra = state.extra
    if ema:
      average = optax.incremental_update(
        variables.params["generator"], extra["ema"], 1 - ema
      )
      extra = {"ema": updates.chosen(finite, average, extra["ema"])}
    new = types.State(state.step + 1, variables, opt_state, extra)
    new = updates.unless_dropped(finite, new, state)
    norms = {
      f"{player}_param_norm": types.mean_of(optax.tree.norm(params))
      for player, params in new.variables.params.items()
    }
    dropped = {"dropped": updates.dropped(finite)}
    return new, {**metrics, **more, **norms, **dropped}

  def evaluated(state):
    variables = state.variables
    if not ema:
      return variables
    params = {**variables.params, "generator": state.extra["ema"]}
    return variables._replace(params=params)

  return types.Learner(init, step, evaluated)
