"""DiLoCo: workers that train separately and average at intervals."""

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec as P

from common.errors import UserError
from train import types
from train.learners.supervised import supervised
from train.optimization import parameter_rules

AXIS = "slice"  # of the mesh; each slice holds one or more workers


def diloco(
  task: types.Task,
  optimizer: types.Optimizer,
  *,
  workers: int,
  local_steps: int,
  outer_lr: float = 0.7,
  outer_momentum: float = 0.9,
  microbatches: int = 1,
  loss_scale: float | str = 1.0,
) -> types.Learner:
  """Distributed low-communication training, arXiv:2311.08105, Algorithm 1.

  Each of W workers has its own parameters and optimizer state, and takes steps
  on its own block of B / W rows of every batch. After `local_steps` of them
  their mean change, global - mean(workers), is the gradient of one step of SGD
  with Nesterov momentum on the global parameters. All workers continue from
  these, and keep their optimizer state.

  If the mesh has an axis "slice", its devices hold the workers in order. Only
  the mean of the parameters every `local_steps` steps and the sums of the
  metrics are communicated over it. Within a slice, a worker is sharded like any
  run.

  In the State, `variables` are the global parameters, which only outer updates
  change and which are evaluated and exported. `extra["workers"]` and
  `opt_state["workers"]` have a leading axis W. model_state is averaged together
  with the parameters. Metrics are merged over the workers.

  Args:
    task: has exactly one loss.
    optimizer: the inner one. Its schedule counts inner steps; its eval_params
      (of schedule-free methods) are not used.
    workers: W; must divide the batch size and be a multiple of the mesh axis.
    local_steps: H, the number of inner steps for each outer step. 1, with
      outer_lr=1, no momentum and SGD as the inner optimizer, is data
      parallelism.
    outer_lr: learning rate of the outer step.
    outer_momentum: momentum of the outer step; 0 keeps no buffer.
    microbatches: number of parts that each worker's share is split into.
    loss_scale: of each worker, as in `supervised`.

  Raises:
    ValueError: the task has several losses, or a value is out of range.
  """
  if workers < 1 or local_steps < 1:
    raise ValueError(f"workers={workers} < 1 or local_steps={local_steps} < 1")
  if not outer_lr > 0 or not 0 <= outer_momentum < 1:
    raise ValueError(
      f"outer_lr={outer_lr} is not above 0, or"
      f" outer_momentum={outer_momentum} not in 0…1"
    )
  local = supervised(
    task, optimizer, microbatches=microbatches, loss_scale=loss_scale
  )
  outer = optax.sgd(outer_lr, outer_momentum or None, nesterov=True)

  def parts(params):
    """What is trained, of which workers have copies, and what is frozen."""
    frozen = optimizer.frozen(params)
    return [parameter_rules.part(params, frozen, own) for own in (False, True)]

  def init(rng, batch):
    one = local.init(rng, batch)
    trained, _ = parts(one.variables.params)
    own = {
      "params": trained,
      "model_state": one.variables.model_state,
      **one.extra,
    }
    return types.State(
      step=one.step,
      variables=one.variables,
      opt_state={"workers": _copies(one.opt_state, workers)},
      extra={
        "workers": _copies(own, workers),
        "outer": outer.init(trained),
      },
    )

  def local_step(shared, own):
    """One worker's step: (opt_state, its part of extra, metrics)."""
    step, fixed, frozen, rng = shared
    opt_state, extra, batch, index = own
    extra = dict(extra)
    params = parameter_rules.joined(extra.pop("params"), fixed)
    variables = types.Variables(params, extra.pop("model_state"), frozen)
    state, metrics = local.step(
      types.State(step, variables, opt_state, extra),
      batch,
      jax.random.fold_in(rng, index),
    )
    extra = {
      "params": parts(state.variables.params)[0],
      "model_state": state.variables.model_state,
      **state.extra,
    }
    return state.opt_state, extra, metrics

  def meet(variables, outer_state, own):
    """The outer step: (variables, outer_state, the workers' part of extra)."""

    def means(tree, like):
      return jax.tree.map(
        lambda x, y: jnp.mean(x, 0, jnp.float32).astype(y.dtype), tree, like
      )

    before, fixed = parts(variables.params)
    params = means(own["params"], before)
    model_state = means(own["model_state"], variables.model_state)
    moves, outer_state = outer.update(
      jax.tree.map(jnp.subtract, before, params), outer_state, before
    )
    params = optax.apply_updates(before, moves)
    common = {"params": params, "model_state": model_state}
    params = parameter_rules.joined(params, fixed)
    variables = types.Variables(params, model_state, variables.frozen)
    return variables, outer_state, {**own, **_copies(common, workers)}

  def step(state, batch, rng):
    slices = jax.sharding.get_abstract_mesh().shape.get(AXIS, 1)
    (size, *_) = {len(x) for x in jax.tree.leaves(batch)}
    if workers % slices or size % workers:
      raise UserError(
        f"workers={workers} must divide the batch of {size}, and be a multiple"
        f" of the mesh's {AXIS}={slices}"
      )

    def each(shared, opt_state, own, batch, indices):
      shares = jax.tree.map(
        lambda x: x.reshape(len(indices), -1, *x.shape[1:]), batch
      )
      # One after another, so that each step is the same as in a separate run.
      return jax.lax.map(
        lambda one: local_step(shared, one),
        (opt_state, own, shares, indices),
      )

    if slices > 1:
      # Manual over this axis: the compiler must add no communication over it.
      each = jax.shard_map(
        each,
        in_specs=(P(), P(AXIS), P(AXIS), P(AXIS), P(AXIS)),
        out_specs=P(AXIS),
        axis_names={AXIS},
        check_vma=False,
      )
    opt_state, own, metrics = each(
      (
        state.step,
        parts(state.variables.params)[1],
        state.variables.frozen,
        rng,
      ),
      state.opt_state["workers"],
      state.extra["workers"],
      batch,
      jnp.arange(workers),
    )
    variables, outer_state, own = jax.lax.cond(
      (state.step + 1) % local_steps == 0,
      meet,
      lambda *unchanged: unchanged,
      state.variables,
      state.extra["outer"],
      own,
    )
    state = types.State(
      state.step + 1,
      variables,
      {"workers": opt_state},
      {"workers": own, "outer": outer_state},
    )
    return state, jax.tree.map(lambda x: jnp.sum(x, axis=0), metrics)

  rows = {"extra/workers": AXIS, "opt_state/workers": AXIS}
  return types.Learner(
    init,
    step,
    lambda state: state.variables,
    rows=rows,
    frozen=optimizer.frozen,
  )


def _copies(tree, n):
  return jax.tree.map(lambda x: jnp.broadcast_to(x, (n, *x.shape)), tree)
