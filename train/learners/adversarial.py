"""Adversarial learning: alternating updates of several players."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from common import names
from train import types
from train.learners.wrap.ema import ema as averaging
from train.optimization import updates


class Player(NamedTuple):
  """One of config.learner.players.

  name: its loss, one of the task's.
  params: the top-level keys of params that it updates.
  every: it moves in the steps whose number, from 0, is a multiple of this.
  steps: its updates in such a step, each on its own part of the batch.
  """

  name: str
  params: tuple[str, ...]
  every: int
  steps: int


def adversarial(
  task: types.Task,
  optimizer: types.Optimizer,
  *,
  players: Sequence[Mapping[str, Any]] | None = None,
  discriminator_steps: int = 1,
  ema: float = 0.0,
) -> types.Learner:
  """Alternating gradient descent on the losses of several players.

  In each step the players move in turn, each by the gradient of its own loss
  with respect to its own part of the parameters, which may overlap with the
  parts of others, and each with its own optimizer state. Without `players`, all
  losses of the task are played, each with the params of its name; the generator
  moves last (Goodfellow et al. 2014, Algorithm 1). The optimizer's regexes set
  the rates (`lr=[("generator", 1e-4), ("discriminator", 4e-4)]`).

  A step in which a loss or a gradient of any player is not finite is dropped:
  only `step` changes. The metrics of a player are those of its last update.

  Args:
    task: has a loss for each player.
    optimizer: of all players.
    players: in their order, dict(name=LOSS, params=(NAME, …), every=1,
      steps=1). `params` are the top-level keys of the parameters that the
      player updates, by default its name; it moves in every `every`-th step,
      the first included, by `steps` updates on equal parts of the batch.
    discriminator_steps: the default of `steps` for the player "discriminator",
      k of Algorithm 1; must divide the batch size.
    ema: decay of the moving average of the generator, which is evaluated in its
      place (Yazıcı et al. 2019); 0 keeps none. The wrapper `ema` averages other
      players.

  Raises:
    ValueError: the task has one loss, or a value is out of range. `init` raises
      it if the parts of the players are not those of the parameters.
  """
  if discriminator_steps < 1 or not 0 <= ema < 1:
    raise ValueError(
      f"discriminator_steps={discriminator_steps} < 1 or ema={ema} not in 0…1"
    )
  found = _players(task, players, discriminator_steps)
  lazy = [player for player in found if player.every > 1]
  moves = sum(player.steps for player in found)

  def play(player, variables, opt_state, batch, context):
    """One update of a player: (variables, its opt_state, metrics, finite)."""

    def loss(own):
      params = {**variables.params, **own}
      return task.losses[player.name](
        variables._replace(params=params), batch, context
      )

    own = {key: variables.params[key] for key in player.params}
    grads, mean, aux = updates.gradients(loss, own)
    own, opt_state, grad_norm = updates.descend(
      optimizer, grads, mean, opt_state, own
    )
    params = {**variables.params, **own}
    metrics = {
      f"{player.name}_loss": mean,
      f"{player.name}_grad_norm": types.mean_of(grad_norm),
      **aux.metrics,
    }
    variables = types.Variables(params, aux.model_state, variables.frozen)
    return variables, opt_state, metrics, updates.finite(mean, grad_norm)

  def turn(player, variables, opt_state, batch, contexts):
    """All updates of a player in a step, as `play`."""
    parts = [batch]
    if player.steps > 1:
      split = types.split(batch, player.steps)
      parts = [
        jax.tree.map(lambda x, i=i: x[i], split) for i in range(player.steps)
      ]
    finite, metrics = jnp.bool_(True), {}
    for part, context in zip(parts, contexts, strict=True):
      variables, opt_state, metrics, good = play(
        player, variables, opt_state, part, context
      )
      finite &= good
    return variables, opt_state, metrics, finite

  def context(rng, step, move):
    # The last move of a step has the key 0, the others 1, 2, ….
    rng = jax.random.fold_in(rng, (move + 1) % moves)
    return types.Context(rng, step, train=True)

  def init(rng, batch):
    variables = task.init(rng, batch)
    _check_parts(found, variables.params)
    zero = jnp.zeros((), jnp.int32)
    opt_state = {
      player.name: optimizer.init(
        {key: variables.params[key] for key in player.params}
      )
      for player in found
    }
    last = {}
    for player in lazy:
      at = [context(rng, zero, i) for i in range(player.steps)]
      given = variables, opt_state[player.name], batch, at
      shapes = jax.eval_shape(lambda *a, p=player: turn(p, *a)[2], *given)
      last[player.name] = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), shapes
      )
    return types.State(
      zero, variables, opt_state, {"last": last} if lazy else {}
    )

  def step(state, batch, rng):
    variables, opt_state = state.variables, dict(state.opt_state)
    finite, metrics, last = jnp.bool_(True), {}, {}
    move = 0
    for player in found:
      own = opt_state[player.name]
      at = [context(rng, state.step, move + i) for i in range(player.steps)]
      move += player.steps
      if player in lazy:
        before = state.extra["last"][player.name]
        variables, own, shown, good = jax.lax.cond(
          state.step % player.every == 0,
          lambda v, o, m, p=player, at=at: turn(p, v, o, batch, at),
          lambda v, o, m: (v, o, m, jnp.bool_(True)),
          variables,
          own,
          before,
        )
        last[player.name] = shown
      else:
        variables, own, shown, good = turn(player, variables, own, batch, at)
      opt_state[player.name] = own
      metrics |= shown
      finite &= good
    extra = state.extra
    if lazy:
      extra = {"last": updates.chosen(finite, last, extra["last"])}
    new = types.State(state.step + 1, variables, opt_state, extra)
    new = updates.unless_dropped(finite, new, state)
    norms = {
      f"{key}_param_norm": types.mean_of(optax.tree.norm(params))
      for key, params in new.variables.params.items()
    }
    dropped = {"dropped": updates.dropped(finite)}
    return new, {**metrics, **norms, **dropped}

  def evaluated(state):
    params = dict(state.variables.params)
    for player in found:
      own = {key: params[key] for key in player.params}
      params |= optimizer.eval_params(state.opt_state[player.name], own)
    return state.variables._replace(params=params)

  made = types.Learner(init, step, evaluated, frozen=optimizer.frozen)
  return averaging(made, decay=ema, of="generator") if ema else made


def _players(task, given, discriminator_steps: int) -> list[Player]:
  """Returns the players in their order.

  Raises:
    ValueError: they are not those of the task's losses.
  """
  if len(task.losses) < 2:
    raise ValueError(
      "adversarial needs several losses, one for each player; this task has"
      f" {sorted(task.losses)}"
    )
  if given is None:
    order = sorted(task.losses, key=lambda name: name == "generator")
    given = [{"name": name} for name in order]
  if discriminator_steps > 1 and "discriminator" not in task.losses:
    raise ValueError(
      f"discriminator_steps={discriminator_steps}: the task has no loss"
      ' "discriminator"; set players'
    )

  def player(
    name: str,
    *,
    params: Sequence[str] = (),
    every: int = 1,
    steps: int | None = None,
  ) -> Player:
    if steps is None:
      steps = discriminator_steps if name == "discriminator" else 1
    if name not in task.losses:
      hint = names.nearest(name, task.losses)
      raise ValueError(f"name={name!r} is no loss of the task{hint}")
    if not all(type(n) is int and n > 0 for n in (every, steps)):
      raise ValueError(f"every={every} or steps={steps} is not 1, 2, …")
    if isinstance(params, str):
      raise ValueError(f"params={params!r} is not a list of names")
    return Player(name, tuple(params) or (name,), every, steps)

  found = []
  for i, settings in enumerate(given):
    where = f"config.learner.players[{i}]"
    if not isinstance(settings, Mapping):
      raise ValueError(f"players[{i}]={settings!r} is not a section")
    found.append(names.call(player, where=where, settings=settings))
  played = sorted(player.name for player in found)
  if played != sorted(task.losses):
    raise ValueError(
      f"players={played}: not one for each loss of {sorted(task.losses)}"
    )
  return found


def _check_parts(found: list[Player], params) -> None:
  """Raises ValueError unless the players update all params and no others."""
  for player in found:
    for key in player.params:
      if key not in params:
        raise ValueError(
          f"the player {player.name} updates {key!r}, which is not among the"
          f" params: {', '.join(sorted(params))}{names.nearest(key, params)}"
        )
  left = set(params) - {key for player in found for key in player.params}
  if left:
    raise ValueError(f"no player updates the params {', '.join(sorted(left))}")
