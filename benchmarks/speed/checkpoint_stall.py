"""How long a save delays training: the longest stall of a step.

A state of 100M parameters with AdamW's moments, on the CPU, is trained and
saved by `train.loop.fit`. A stall is the time of a step beyond the median of
the steps before any save. The longest one from a save to the next is compared
to the time of a blocking save. The first also allocates memory for the copy of
the state.

  python benchmarks/speed/checkpoint_stall.py --directory=LOCAL_DISK
"""

import argparse
import math
import statistics
import tempfile
import time

import jax
import jax.numpy as jnp
import optax

from common import cli
from train import loop, sharding, types
from train.checkpointing import checkpoint

PARAMETERS, LEAVES = 100_000_000, 50


def learner() -> types.Learner:
  """AdamW on PARAMETERS numbers; a step also multiplies some matrices."""
  side = math.isqrt(PARAMETERS // LEAVES)
  optimizer = optax.adamw(1e-3)

  def init(rng, batch):
    x = jax.random.normal(rng, (LEAVES, side, side))
    params = {str(i): x[i] for i in range(LEAVES)}
    variables = types.Variables(params, {})
    opt_state = optimizer.init(params)
    return types.State(jnp.zeros((), jnp.int32), variables, opt_state, {})

  def step(state, batch, rng):
    params = state.variables.params
    x = params["0"][:512, :512]
    for _ in range(20):
      x = jnp.tanh(x @ x / 512)
    loss = jnp.sum(x)
    grads = jax.tree.map(lambda p: p * 1e-3 + loss * 1e-9, params)
    updates, opt_state = optimizer.update(grads, state.opt_state, params)
    variables = types.Variables(optax.apply_updates(params, updates), {})
    metrics = {"loss": types.Mean(loss, jnp.float32(1))}
    return types.State(state.step + 1, variables, opt_state, {}), metrics

  return types.Learner(init, step, lambda state: state.variables)


def get_run(made: types.Learner, directory: str, steps: int, every: int):
  """Returns a loop.Run of `made` that saves at the given interval of steps."""
  rng = jax.random.key(0)
  shapes = jax.eval_shape(made.init, rng, None)
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  shardings = jax.tree.map(lambda _: place, shapes)
  return loop.Run(
    learner=made,
    init=lambda: jax.jit(made.init)(rng, None),
    abstract_state=sharding.abstract(shapes, shardings),
    batches=lambda first: ({} for _ in range(first, steps)),
    evaluations={},
    total_steps=steps,
    units_per_step={"examples": 1},
    rng=rng,
    checkpoints=checkpoint.open_manager(directory, keep=1),
    checkpoint_every=every,
    log_every=1,
  )


def stalls(made, directory: str, every: int, saves: int):
  """Returns (seconds of a step without a save, longest stall of each save)."""
  run = get_run(made, directory, (saves + 1) * every, every)
  calm, longest = [], [0.0] * saves
  start = time.perf_counter()
  for report in loop.fit(run):
    seconds, start = time.perf_counter() - start, time.perf_counter()
    if saved := (report.step - 1) // every:
      longest[saved - 1] = max(longest[saved - 1], seconds)
    elif report.step > 2:
      calm.append(seconds)
  step = statistics.median(calm)
  return step, [seconds - step for seconds in longest]


def blocking_saves(made, directory: str, saves: int) -> list[float]:
  """Returns the seconds of each blocking save of a trained state.

  Moments that are still zero would be written very quickly.
  """
  state, found = jax.jit(made.init)(jax.random.key(0), None), []
  for _ in range(3):
    state, _ = jax.jit(made.step)(state, None, None)
  with checkpoint.open_manager(directory, keep=1) as manager:
    for step in range(saves):
      start = time.perf_counter()
      checkpoint.save(manager, step, state, {})
      checkpoint.check(manager, wait=True)
      found.append(time.perf_counter() - start)
  return found


def main():
  """Prints the figures, the median of each."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--directory", help="on a local disk")
  parser.add_argument("--every", type=int, default=100, help="steps")
  parser.add_argument("--saves", type=int, default=4)
  args = parser.parse_args()
  cli.start_jax()
  with tempfile.TemporaryDirectory(dir=args.directory) as root:
    step, found = stalls(learner(), f"{root}/a", args.every, args.saves)
    saves = blocking_saves(learner(), f"{root}/b", args.saves)
  save, later = statistics.median(saves), statistics.median(found[1:])
  print(f"step {step:.3f} s, a blocking save {save:.3f} s")
  print(f"longest stall, first: {found[0]:.3f} s, {found[0] / save:.1%}")
  print(f"longest stall, later: {later:.3f} s, {later / save:.1%} (median)")


if __name__ == "__main__":
  main()
