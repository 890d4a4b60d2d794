"""What only the players of a generator of styles compute."""

import jax
import jax.numpy as jnp

from train.objectives import adversarial, projection
from train.tasks.parts.players import PATH, Players


def lazily(step, every: int, compute, otherwise=None):
  """compute() in every `every`-th step, the first included, else `otherwise`.

  By default this is zeros of the shape that `compute` returns.
  """
  if every == 1:
    return compute()
  if otherwise is None:
    otherwise = jax.tree.map(jnp.zeros_like, jax.eval_shape(compute))
  return jax.lax.cond(step % every == 0, compute, lambda: otherwise)


def path_penalty(of: Players, variables, model_state, batch, context):
  """(weighted penalty, model_state), in every path_every-th step.

  Of half the batch, as in the paper, and multiplied by path_every.
  """
  every, half = of.styles.path_every, (len(batch["image"]) + 1) // 2
  batch = {k: v[:half] for k, v in batch.items()}
  keys = jax.random.split(jax.random.fold_in(context.rng, 2), 4)

  def call(method, *inputs, **how):
    return of.apply(variables, "generator", *inputs, method=method, **how)[0]

  def penalized(mean):
    z_BZ = jax.random.normal(keys[0], (half, of.model.latent))
    how = {"key": keys[1], "mixing": of.styles.mixing}
    w_BLW = call("styles", z_BZ, *of.label(batch), **how)
    length_B = adversarial.path_lengths(
      lambda w_BLW: call("synthesis", w_BLW, keys[2]), w_BLW, keys[3]
    )
    penalty, mean = adversarial.path_penalty(length_B, mean)
    return of.styles.path * every * penalty, mean

  mean = model_state[PATH]
  rests = jnp.zeros((), jnp.float32), mean
  penalty, mean = lazily(context.step, every, lambda: penalized(mean), rests)
  return penalty, {**model_state, PATH: mean}


def projections(of: Players, variables, batch, rng):
  """Each image of the batch as the generator can make it, in [-1, 1]."""
  count = len(batch["image"])

  def call(method, *inputs):
    return of.apply(variables, "generator", *inputs, method=method)[0]

  layers = jax.eval_shape(
    lambda: call(
      "styles", jnp.zeros((count, of.model.latent)), *of.label(batch)
    )
  ).shape[1]

  def synthesize(w_BW):
    shape = (count, layers, w_BW.shape[1])
    w_BLW = jnp.broadcast_to(w_BW[:, None], shape)
    return call("synthesis", w_BLW, rng)

  start_BW = call("average", count)
  w_BW = projection.project(synthesize, start_BW, batch["image"])
  return jnp.clip(synthesize(w_BW), -1, 1)
