"""How long a save holds up training: the longest stall of a step.

A state of so many parameters with AdamW's two moments, on the CPU, trained by
`train.loop.fit`, which saves it in the background. A stall is what a step takes
beyond the median of the steps with no save under way; the longest of those from
a save to the next is beside the time of a save of the same state that is waited
for. The first save is apart: it also takes new memory for the state's copy.

  python benchmarks/checkpoint_stall.py --directory=LOCAL_DISK
"""

import argparse
import math
import statistics
import tempfile
import time

import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp

from train import checkpoint, cli, loop, types

LEAVES = 50


def learner(parameters: int, products: int) -> types.Learner:
  """AdamW on `parameters` numbers; a step also multiplies some matrices."""
  side = math.isqrt(parameters // LEAVES)
  optimizer = optax.adamw(1e-3)

  def init(rng, batch):
    del batch
    keys = jax.random.split(rng, LEAVES)
    params = {
      str(i): jax.random.normal(k, (side, side)) for i, k in enumerate(keys)
    }
    opt_state = optimizer.init(params)
    variables = types.Variables(params, {})
    return types.State(jnp.zeros((), jnp.int32), variables, opt_state, {})

  def step(state, batch, rng):
    del batch, rng
    params = state.variables.params
    x = params["0"][:512, :512]
    for _ in range(products):
      x = jnp.tanh(x @ x / 512)
    loss = jnp.sum(x)
    grads = jax.tree.map(lambda p: p * 1e-3 + loss * 1e-9, params)
    updates, opt_state = optimizer.update(grads, state.opt_state, params)
    variables = types.Variables(optax.apply_updates(params, updates), {})
    state = types.State(state.step + 1, variables, opt_state, {})
    return state, {"loss": types.Mean(loss, jnp.float32(1))}

  return types.Learner(init, step, lambda state: state.variables)


def get_run(made: types.Learner, directory: str, steps: int, every: int):
  """A loop.Run of `made` that saves every so many steps."""
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  rng = jax.random.key(0)
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
    jax.eval_shape(made.init, rng, None),
  )
  return loop.Run(
    learner=made,
    init=lambda: jax.jit(made.init)(rng, None),
    abstract_state=abstract,
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
  """(seconds of a step with no save under way, longest stall by save)."""
  run = get_run(made, directory, (saves + 1) * every, every)
  calm, longest, saved = [], [0.0] * saves, 0
  start = time.perf_counter()
  for report in loop.fit(run):
    seconds, start = time.perf_counter() - start, time.perf_counter()
    saved = (report.step - 1) // every
    if saved:
      longest[saved - 1] = max(longest[saved - 1], seconds)
    elif report.step > 2:
      calm.append(seconds)
  step = statistics.median(calm)
  return step, [seconds - step for seconds in longest]


def blocking_saves(made, directory: str, saves: int) -> list[float]:
  """Seconds of each save that is waited for."""
  state = jax.block_until_ready(jax.jit(made.init)(jax.random.key(0), None))
  manager = checkpoint.open_manager(directory, keep=1)
  found = []
  for step in range(saves):
    start = time.perf_counter()
    manager.save(step, args=ocp.args.StandardSave(state))
    manager.wait_until_finished()
    found.append(time.perf_counter() - start)
  manager.close()
  return found


def main():
  """Prints the figures, the median of each."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--directory", default=None, help="on a local disk")
  parser.add_argument("--parameters", type=int, default=100_000_000)
  parser.add_argument("--products", type=int, default=100)
  parser.add_argument("--every", type=int, default=20, help="steps")
  parser.add_argument("--saves", type=int, default=5)
  args = parser.parse_args()
  cli.start_jax()
  made = learner(args.parameters, args.products)
  with tempfile.TemporaryDirectory(dir=args.directory) as root:
    step, (first, *later) = stalls(made, f"{root}/a", args.every, args.saves)
    saves = blocking_saves(made, f"{root}/b", args.saves)
  stall, save = statistics.median(later), statistics.median(saves)
  print(f"step {step:.3f} s, a save that is waited for {save:.3f} s")
  for name, seconds in (("first", first), ("median of the later", stall)):
    print(f"longest stall, {name}: {seconds:.3f} s, {seconds / save:.1%}")


if __name__ == "__main__":
  main()
