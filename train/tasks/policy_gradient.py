"""The policy gradient: actions that turned out well become more likely."""

from models import Model
from train import types
from train.objectives import losses, policies


def policy_gradient(
  model: Model,
  *,
  environment: types.Environment | None = None,
  value_weight: float = 0.5,
  entropy_weight: float = 0.01,
) -> types.Task:
  """The loss of an actor and a critic.

  -advantage * ln p(action) + value_weight * (value - target)^2 / 2 -
  entropy_weight * entropy, averaged over the steps of the rollout (Williams
  1992; Mnih et al., arXiv:1602.01783, section 4). The learner makes its batch:
  observation [N, ...]; action [N] int32 or [N, A]; advantage [N] and target
  [N], the return that the value is to predict, both constants; mask [N].

  Args:
    model: observation -> (outputs [N, O], value [N]). For discrete actions the
      outputs are logits. For vectors of A numbers they are the means and the
      logarithms of standard deviations of a Gaussian policy, O = 2 A.
    environment: of the run; None takes discrete actions.
    value_weight: of the squared error of the values.
    entropy_weight: of the entropy of the policy in nats, which keeps it from
      becoming deterministic too soon.
  """
  policy = policies.categorical()
  if environment is not None and environment.bounds is not None:
    policy = policies.gaussian(*environment.bounds)

  def apply(variables, batch, **how):
    return model.apply(
      variables.params, variables.model_state, batch["observation"], **how
    )

  def loss(variables, batch, context):
    (outputs_NO, value_N), model_state = apply(
      variables, batch, rng=context.rng, train=context.train
    )
    logp_N = policy.log_prob(outputs_NO, batch["action"])
    entropy_N = policy.entropy(outputs_NO)
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
    (outputs_NO, _), _ = apply(variables, batch)
    return policy.sample(rng, outputs_NO)

  def greedy(variables, batch, rng):
    del rng
    (outputs_NO, _), _ = apply(variables, batch)
    return policy.mode(outputs_NO)

  def values(variables, batch, rng):
    del rng
    return apply(variables, batch)[0][1]

  predict = {"sample": sample, "greedy": greedy, "values": values}
  return types.Task(types.init_of(model), {"loss": loss}, predict)
