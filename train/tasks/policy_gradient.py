"""The policy gradient: actions that turned out well become more likely."""

import jax
import jax.numpy as jnp

from models import Model
from train import types
from train.objectives import losses


def policy_gradient(
  model: Model,
  *,
  environment: types.Environment | None = None,
  value_weight: float = 0.5,
  entropy_weight: float = 0.01,
) -> types.Task:
  """The loss of an actor and a critic, for discrete actions.

  -advantage * ln p(action) + value_weight * (value - target)^2 / 2 -
  entropy_weight * entropy, averaged over the steps of the rollout (Williams
  1992; Mnih et al., arXiv:1602.01783, section 4). The learner makes its batch:
  observation [N, ...]; action [N] int32; advantage [N] and target [N], the
  return that the value is to predict, both constants; mask [N].

  Args:
    model: observation -> (logits [N, A], value [N]).
    environment: of the run.
    value_weight: of the squared error of the values.
    entropy_weight: of the entropy of the policy in nats, which keeps it from
      becoming deterministic too soon.

  Raises:
    ValueError: the actions of the environment are not discrete.
  """
  if environment is not None and environment.actions is None:
    raise ValueError("policy_gradient takes environments of discrete actions")

  def apply(variables, batch, **how):
    return model.apply(
      variables.params, variables.model_state, batch["observation"], **how
    )

  def loss(variables, batch, context):
    (logits_NA, value_N), model_state = apply(
      variables, batch, rng=context.rng, train=context.train
    )
    logp_NA = jax.nn.log_softmax(logits_NA)
    logp_N = jnp.take_along_axis(logp_NA, batch["action"][:, None], 1)[:, 0]
    entropy_N = -jnp.sum(jnp.exp(logp_NA) * logp_NA, axis=-1)
    policy_N = -batch["advantage"] * logp_N
    error_N = losses.squared_error(value_N, batch["target"]) / 2
    total_N = policy_N + value_weight * error_N - entropy_weight * entropy_N
    parts = {
      "policy_loss": policy_N,
      "value_loss": error_N,
      "entropy": entropy_N,
    }
    metrics = {k: types.mean_of(v, batch["mask"]) for k, v in parts.items()}
    return types.mean_of(total_N, batch["mask"]), types.Aux(
      model_state, metrics
    )

  def sample(variables, batch, rng):
    (logits_NA, _), _ = apply(variables, batch)
    return jax.random.categorical(rng, logits_NA).astype(jnp.int32)

  def greedy(variables, batch, rng):
    del rng
    (logits_NA, _), _ = apply(variables, batch)
    return jnp.argmax(logits_NA, axis=-1).astype(jnp.int32)

  def values(variables, batch, rng):
    del rng
    return apply(variables, batch)[0][1]

  predict = {"sample": sample, "greedy": greedy, "values": values}
  return types.Task(types.init_of(model), {"loss": loss}, predict)
