"""Direct preference optimization (DPO): prefer one answer to another."""

import jax
import jax.numpy as jnp

from models import Model
from train import types
from train.objectives import losses
from train.objectives.linear_cross_entropy import linear_cross_entropy

_SIDES = ("chosen", "rejected")


def preference_optimization(
  model: Model,
  *,
  beta: float = 0.1,
  label_smoothing: float = 0.0,
  loss_chunk: int = 0,
) -> types.Task:
  """DPO (Rafailov et al., arXiv:2305.18290), averaged over real pairs.

  With log pi(y | x) summed over the answer's tokens and a reward
  r = beta (log pi(y | x) - log pi_ref(y | x)), the loss is
  -log sigmoid(r_chosen - r_rejected) (equation 7). The reference pi_ref is the
  model at the start of the run: init copies its params to
  Variables.frozen["reference"]. With an adapter, the reference is the base
  without the adapter, so that only what is trained in full is copied.

  Batch: SIDE_inputs, SIDE_targets int32 [B, T] and SIDE_mask [B, T], 1 on the
  answer, where SIDE is chosen and rejected; mask [B].

  Metrics: accuracy, the share of pairs whose chosen answer has the higher
  reward (a tie counts half); margin, r_chosen - r_rejected; both rewards.

  Args:
    model: tokens_BT -> logits_BTV.
    beta: strength of the penalty for leaving the reference.
    label_smoothing: assumed share of pairs with swapped labels, in 0 … 0.5, in
      training only (conservative DPO: Mitchell, 2023, equation 3).
    loss_chunk: number of positions whose logits are in memory at a time; 0
      computes all at once. It needs a model with the method "represent".

  Raises:
    ValueError: an argument is outside its range, or loss_chunk is set and the
      model has no method "represent".
  """
  if beta <= 0:
    raise ValueError(f"beta={beta} is not positive")
  if not 0 <= label_smoothing <= 0.5:
    raise ValueError(f"label_smoothing={label_smoothing} is outside 0 … 0.5")
  if loss_chunk and not model.represents:
    raise ValueError(f"loss_chunk={loss_chunk}: the model has no represent()")

  def init(rng, batch):
    del batch
    params, model_state = model.init(rng)
    shared = (*model.fixed, model.adapter)
    own = {key: x for key, x in params.items() if key not in shared}
    # A copy: a step updates the params in place of their own memory.
    frozen = {"reference": jax.tree.map(jnp.copy, own)}
    return types.Variables(params, model_state, frozen)

  def reference_of(params, own):
    base = {key: params[key] for key in model.fixed}
    return {**base, **own, **({model.adapter: {}} if model.adapter else {})}

  def log_probs(params, model_state, batch, **noise):
    """(log pi(y | x) of the chosen [B], of the rejected [B], model_state)."""
    inputs_BT, targets_BT, mask_BT = (
      jnp.concatenate([batch[f"{side}_{leaf}"] for side in _SIDES])
      for leaf in ("inputs", "targets", "mask")
    )
    given = (params, model_state, inputs_BT)
    if model.represents:
      found, state = model.apply(*given, method="represent", **noise)
      nats_BT = linear_cross_entropy(
        found.x_BTD, found.unembedding_VD, targets_BT, chunk=loss_chunk
      )
    else:
      logits_BTV, state = model.apply(*given, **noise)
      nats_BT = losses.cross_entropy(logits_BTV, targets_BT)
    log_prob_B = -jnp.sum(jnp.where(mask_BT > 0, nats_BT, 0.0), axis=1)
    return *jnp.split(log_prob_B, 2), state

  def rewards(variables, batch, **noise):
    """(reward of the chosen [B], of the rejected [B], model_state)."""
    params, state, frozen = variables
    known = reference_of(params, frozen["reference"])
    reference = log_probs(known, state, batch)[:2]
    *policy, state = log_probs(params, state, batch, **noise)
    chosen_B, rejected_B = (
      beta * (p - jax.lax.stop_gradient(r))
      for p, r in zip(policy, reference, strict=True)
    )
    return chosen_B, rejected_B, state

  def loss(variables, batch, context):
    noise = {"rng": context.rng, "train": context.train}
    chosen_B, rejected_B, model_state = rewards(variables, batch, **noise)
    margin_B = chosen_B - rejected_B
    wrong = label_smoothing if context.train else 0.0
    nats_B = (1 - wrong) * jax.nn.softplus(-margin_B)
    nats_B += wrong * jax.nn.softplus(margin_B)
    found = {
      "accuracy": (jnp.sign(margin_B) + 1) / 2,
      "margin": margin_B,
      "chosen_reward": chosen_B,
      "rejected_reward": rejected_B,
    }
    metrics = {k: types.mean_of(v, batch["mask"]) for k, v in found.items()}
    mean = types.mean_of(nats_B, batch["mask"])
    return mean, types.Aux(model_state, metrics)

  def margins(variables, batch, rng):
    del rng
    chosen_B, rejected_B, _ = rewards(variables, batch)
    return chosen_B - rejected_B

  return types.Task(init, {"loss": loss}, {"margins": margins})
