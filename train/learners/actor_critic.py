"""An actor and a critic learn from what they live through in environments."""

import jax
import jax.numpy as jnp
import optax

from train import types
from train.optimization import updates

PLACE = "environments"


def actor_critic(
  task: types.Task,
  optimizer: types.Optimizer,
  *,
  environment: types.Environment,
  steps: int = 32,
  discount: float = 0.99,
  gae_lambda: float = 0.95,
  baseline: bool = True,
  normalize: bool = True,
  gather: bool = False,
) -> types.Learner:
  """Advantage actor-critic: one update on each rollout (A2C).

  Each row of the batch is an environment, which a step of the learner plays for
  `steps` steps with actions sampled from the policy (Mnih et al.,
  arXiv:1602.01783, in its synchronous form). Advantages are estimated as in
  Schulman et al., arXiv:1506.02438. After a step that terminates an episode no
  value follows; after one that truncates it, and at the end of the rollout, the
  value of the last observation stands for the rewards that would follow.
  REINFORCE (Williams 1992) is gae_lambda=1, baseline=False.

  The environments' states are part of the State, so a resumed run continues
  every episode where it was. An update whose loss or gradient is not finite is
  dropped: the environments move on, the parameters and moments do not.

  The metrics `return` and `length` are means over the episodes that ended in
  the step, which are absent where none did.

  Args:
    task: has one loss, of a batch of observation, action, advantage, target and
      mask, and the predictions "sample", actions, and "values".
    optimizer: turns gradients into updates.
    environment: of the run: config.data.source="environment:NAME".
    steps: the length of a rollout.
    discount: of the next step's reward against this one's.
    gae_lambda: 0 trusts the values most (of the least variance), 1 the rewards
      alone (of the least bias).
    baseline: whether the value of a state is subtracted from the return.
    normalize: whether the advantages of a rollout are scaled to mean 0 and
      variance 1.
    gather: whether every device computes the update from the whole rollout, and
      not from that of its own environments. Then the result does not depend on
      the number of devices, not even by the rounding of sums, if their products
      are computed alike; for networks that are small beside their environments.

  Raises:
    ValueError: the task lacks a prediction or has several losses, or a value is
      out of range.
  """
  if len(task.losses) != 1 or not {"sample", "values"} <= set(task.predict):
    raise ValueError(
      "actor_critic needs one loss and the predictions sample and values; this"
      f" task has {sorted(task.losses)} and {sorted(task.predict)}"
    )
  if steps < 1 or not (0 <= discount <= 1 and 0 <= gae_lambda <= 1):
    raise ValueError(
      f"steps={steps} < 1, or discount={discount} or gae_lambda={gae_lambda}"
      " not in 0…1"
    )
  (loss_fn,) = task.losses.values()

  def init(rng, batch):
    variables = task.init(rng, batch)
    rng = jax.random.fold_in(rng, 1)
    playing = _begun(environment, rng, len(batch["mask"]))
    opt_state = optimizer.init(variables.params)
    zero = jnp.zeros((), jnp.int32)
    return types.State(zero, variables, opt_state, {PLACE: playing})

  def learned_from(variables, lived, mask_B, rng):
    """The batch of the loss, [B * steps, ...], from the rollout [steps, B]."""
    apply = task.predict["values"]

    def values(observation):
      flat = observation.reshape(-1, *observation.shape[2:])
      found = apply(variables, {"observation": flat}, rng)
      return found.reshape(observation.shape[:2])

    value_TB, next_TB = values(lived["observation"]), values(lived["next"])
    advantage_TB = advantages(
      lived["reward"],
      value_TB,
      next_TB,
      lived["terminated"],
      lived["truncated"],
      discount,
      gae_lambda,
    )
    mask_TB = jnp.broadcast_to(mask_B, advantage_TB.shape)
    target_TB = advantage_TB + value_TB
    weight_TB = advantage_TB if baseline else target_TB
    if normalize:
      mean = types.mean_of(weight_TB, mask_TB).value()
      variance = types.mean_of((weight_TB - mean) ** 2, mask_TB).value()
      weight_TB = (weight_TB - mean) / (jnp.sqrt(variance) + 1e-8)
    found = {
      "observation": lived["observation"],
      "action": lived["action"],
      "advantage": weight_TB,
      "target": target_TB,
      "mask": mask_TB,
    }
    # Rows of one environment stay together, on their device.
    return {
      name: jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:])
      for name, x in found.items()
    }

  def gradients(state, batch, rng):
    """(sum of gradients, Mean of the loss, Aux, environments, episodes)."""
    play_rng, loss_rng = jax.random.split(rng)
    old = state.variables

    def act(observation, rng):
      return task.predict["sample"](old, {"observation": observation}, rng)

    playing = state.extra[PLACE]
    playing, lived = _rollout(environment, act, playing, play_rng, steps)
    mask_B = batch["mask"]
    if gather and not jax.sharding.get_abstract_mesh().empty:
      whole = jax.sharding.PartitionSpec()
      lived, mask_B = jax.lax.with_sharding_constraint((lived, mask_B), whole)
    learned = learned_from(old, lived, mask_B, loss_rng)
    context = types.Context(loss_rng, state.step, train=True)

    def loss(params):
      return loss_fn(old._replace(params=params), learned, context)

    grads, mean, aux = updates.gradients(loss, old.params)
    ended_TB = lived["terminated"] | lived["truncated"]
    episodes = {
      name: types.mean_of(lived[name], ended_TB)
      for name in ("return", "length")
    }
    return grads, mean, aux, playing, episodes

  def mean_gradients(state, batch, rng):
    grads, mean, *_ = gradients(state, batch, rng)
    return updates.averaged(grads, mean)

  def step(state, batch, rng, at=None):
    old = played = state.variables
    if at is not None:  # The policy of these params plays as well.
      played = old._replace(params=at)
    grads, mean, aux, playing, episodes = gradients(
      state._replace(variables=played), batch, rng
    )
    params, opt_state, grad_norm = updates.descend(
      optimizer, grads, mean, state.opt_state, old.params
    )
    finite = updates.finite(mean, grad_norm)
    variables = types.Variables(params, aux.model_state, old.frozen)
    extra = {PLACE: playing}
    new = types.State(state.step + 1, variables, opt_state, extra)
    new = updates.unless_dropped(finite, new, state)
    return new, {
      "loss": mean,
      **aux.metrics,
      **episodes,
      "grad_norm": types.mean_of(grad_norm),
      "param_norm": types.mean_of(optax.tree.norm(new.variables.params)),
      "learning_rate": types.mean_of(optimizer.learning_rate(state.opt_state)),
      "dropped": updates.dropped(finite),
    }

  def evaluated(state):
    params = optimizer.eval_params(state.opt_state, state.variables.params)
    return state.variables._replace(params=params)

  def loss_batch(batch):
    rng = jax.eval_shape(lambda: jax.random.key(0))

    def made(rng, batch):
      variables = task.init(rng, batch)
      playing = _begun(environment, rng, len(batch["mask"]))

      def act(observation, rng):
        return task.predict["sample"](
          variables, {"observation": observation}, rng
        )

      _, lived = _rollout(environment, act, playing, rng, steps)
      return learned_from(variables, lived, batch["mask"], rng)

    return jax.eval_shape(made, rng, batch)

  return types.Learner(
    init,
    step,
    evaluated,
    mean_gradients,
    rows={f"extra/{PLACE}": "batch"},
    loss_batch=loss_batch,
    frozen=optimizer.frozen,
  )


def advantages(
  reward_TB: jax.Array,
  value_TB: jax.Array,
  next_TB: jax.Array,
  terminated_TB: jax.Array,
  truncated_TB: jax.Array,
  discount: float,
  gae_lambda: float,
) -> jax.Array:
  """Returns the generalized advantage estimates, float32 [T, B].

  Args:
    reward_TB: of each step.
    value_TB: of the observation before the step.
    next_TB: of the observation after it, which is the last one of an episode
      where the step ends it.
    terminated_TB: whether no reward follows the step.
    truncated_TB: whether the episode is cut off after it.
    discount: gamma.
    gae_lambda: lambda.
  """
  follows_TB = jnp.where(terminated_TB, 0.0, discount)
  delta_TB = reward_TB + follows_TB * next_TB - value_TB
  decay_TB = jnp.where(truncated_TB, 0.0, follows_TB * gae_lambda)

  def back(later_B, now):
    delta_B, decay_B = now
    advantage_B = delta_B + decay_B * later_B
    return advantage_B, advantage_B

  zero_B = jnp.zeros_like(delta_TB[0])
  given = delta_TB, decay_TB
  return jax.lax.scan(back, zero_B, given, reverse=True)[1]


def _begun(environment, rng, count: int):
  """The rows of `count` environments at the beginning of an episode."""
  state, observation = jax.vmap(environment.reset)(jax.random.split(rng, count))
  return {
    "state": state,
    # A copy, because the step donates its buffers, each of them once.
    "observation": jnp.copy(observation),
    "return": jnp.zeros(count, jnp.float32),
    "length": jnp.zeros(count, jnp.int32),
  }


def _rollout(environment, act, playing, rng, steps: int):
  """Plays `steps` steps; returns (rows, what was lived through [steps, B])."""
  count = len(playing["length"])

  def one(playing, rng):
    act_rng, step_rng, reset_rng = jax.random.split(rng, 3)
    observation = playing["observation"]
    action = act(observation, act_rng)
    state, following, reward, terminated, truncated = jax.vmap(
      environment.step
    )(playing["state"], action, jax.random.split(step_rng, count))
    moved = {
      "state": state,
      "observation": following,
      "return": playing["return"] + reward,
      "length": playing["length"] + 1,
    }
    lived = {
      "observation": observation,
      "action": action,
      "reward": reward,
      "next": following,
      "terminated": terminated,
      "truncated": truncated,
      "return": moved["return"],
      "length": moved["length"],
    }
    ended = terminated | truncated
    fresh = _begun(environment, reset_rng, count)

    def chosen(new, old):
      where = ended.reshape(-1, *[1] * (old.ndim - 1))
      return jnp.where(where, new, old)

    return jax.tree.map(chosen, fresh, moved), lived

  return jax.lax.scan(one, playing, jax.random.split(rng, steps))
