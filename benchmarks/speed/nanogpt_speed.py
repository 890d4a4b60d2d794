"""Training speed on a CPU, compared to nanoGPT's own PyTorch step.

The experiment of configs/language/lm_shakespeare.py, as `train.loop.fit` runs
it: the donated step, clipping, AdamW, the schedule, and metrics read at every
step. It is compared to nanoGPT's model, optimizer and clipping in the order of
its train.py, eager and with torch.compile. All are in float32 with the same
shapes, settings, batches and cores, one thread per core. Reading data is not
measured.

  git clone https://github.com/karpathy/nanoGPT DIR
  python benchmarks/speed/nanogpt_speed.py --nanogpt=DIR \
      --torch_python=python3.11

--torch_python is an interpreter with PyTorch and NumPy, this one if not given.
Each of the three is a separate process; they take turns, a block of steps
each, the first of which compiles and is not counted. The others wait on a pipe;
the table shows the number of cores that each kept busy in its turns ("cores")
and between them ("waiting"). `common.cli` makes glibc keep freed memory; to
give PyTorch the same, set MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=2147483647
MALLOC_TOP_PAD_=67108864 MALLOC_ARENA_MAX=1 in the environment.
"""

import argparse
import contextlib
import json
import math
import os
import pathlib
import subprocess
import sys
import time

import numpy as np

from configs.language import lm_shakespeare

NAMES = ("ours", "eager", "compiled")
VOCAB_SIZE = 65
PAUSE = 0.2  # seconds; OpenMP's threads spin for milliseconds
# Zipf's law. A step's time does not depend on the tokens; a loss that falls
# to their entropy shows that each side learns.
CHANCE_V = 1 / np.arange(1, VOCAB_SIZE + 1)
CHANCE_V /= CHANCE_V.sum()


def get_config():
  """Returns the experiment, with its data replaced."""
  config = lm_shakespeare.get_config()
  config.model.vocab_size = VOCAB_SIZE
  config.data.source = "fake:text"
  config.evals, config.early_stopping = {}, {}
  config.checkpoint.keep_best = None
  return config


def make_batches(settings: dict, count: int = 50):
  """Returns (inputs, targets), int64 [count, B, T], equal in every call."""
  shape = count, settings["batch_size"], settings["data"]["seq_len"] + 1
  tokens = np.random.default_rng(0).choice(VOCAB_SIZE, shape, p=CHANCE_V)
  return tokens[..., :-1].copy(), tokens[..., 1:].copy()


def ours(settings: dict):
  """Yields facts, then the loss after each block of steps."""
  import jax

  from common import cli
  from train import build, loop, sharding

  cli.start_jax()
  run = build.run(get_config(), None)
  with contextlib.closing(run.batches(0)) as stream:
    real = next(stream)

  def place(name, tokens):
    return jax.device_put(tokens.astype(real[name].dtype), real[name].sharding)

  batches = [
    {**real, "inputs": place("inputs", x), "targets": place("targets", y)}
    for x, y in zip(*make_batches(settings), strict=True)
  ]

  n, block = settings["steps"], settings["block"]
  # The loop finishes all steps before an evaluation: with one, nothing is
  # under way when the report of a block comes.
  run = run._replace(
    batches=lambda k: (batches[i % len(batches)] for i in range(k, n)),
    total_steps=n,
    log_every=block,
    evaluations={"block": loop.Evaluation(lambda *_: {}, block)},
  )
  _, metrics = jax.jit(run.learner.step)(run.init(), batches[0], run.rng)
  yield {
    "version": f"jax {jax.__version__}",
    "parameters": sharding.count(run.abstract_state.variables.params),
    "first_loss": float(metrics["loss"].value()),
  }
  for report in loop.fit(run):
    yield report.scalars["train/loss"]


def pytorch(settings: dict):
  """NanoGPT's step; yields facts, then the loss after each block of steps."""
  sys.path.insert(0, os.path.abspath(settings["nanogpt"]))
  import torch
  from model import GPT, GPTConfig

  torch.set_num_threads(len(settings["cores"]))
  torch.manual_seed(0)
  optimizer, model = settings["optimizer"], settings["model"]
  sizes = [model[k] for k in ("layers", "heads", "dim", "dropout", "bias")]
  gpt = GPT(GPTConfig(settings["data"]["seq_len"], VOCAB_SIZE, *sizes))
  decay, betas = optimizer["weight_decay"], (0.9, optimizer["b2"])
  adamw = gpt.configure_optimizers(decay, optimizer["lr"], betas, "cpu")
  inputs, targets = map(torch.from_numpy, make_batches(settings))
  yield {
    "version": f"torch {torch.__version__}",
    "parameters": sum(p.numel() for p in gpt.parameters()),
    "first_loss": gpt(inputs[0], targets[0])[1].item(),
  }
  network = torch.compile(gpt) if settings["compiled"] else gpt
  for step in range(settings["steps"]):
    i = step % len(inputs)
    for group in adamw.param_groups:
      group["lr"] = rate(step, settings)
    _, loss = network(inputs[i], targets[i])
    loss.backward()
    torch.nn.utils.clip_grad_norm_(gpt.parameters(), optimizer["clip_norm"])
    adamw.step()
    adamw.zero_grad(set_to_none=True)
    if (step + 1) % settings["block"] == 0:
      yield loss.item()


def rate(step: int, settings: dict) -> float:
  """Linear warm-up, then a half cosine down to end_lr."""
  keys = "lr", "end_lr", "warmup_steps"
  lr, end_lr, warmup = (settings["optimizer"][key] for key in keys)
  if step < warmup:
    return lr * step / warmup
  done = min(1.0, (step - warmup) / (settings["total_steps"] - warmup))
  return end_lr + (lr - end_lr) * (1 + math.cos(math.pi * done)) / 2


def work(name: str, settings: dict) -> None:
  """Runs a worker: prints its facts, then a block for each line it reads."""
  os.sched_setaffinity(0, settings["cores"])  # before any thread starts
  replies = sys.stdout
  with contextlib.redirect_stdout(None):  # nanoGPT prints as it builds
    make = ours if name == "ours" else pytorch
    blocks = make({**settings, "compiled": name == "compiled"})
    print(json.dumps(next(blocks)), file=replies, flush=True)
    for _ in sys.stdin:
      began = time.perf_counter(), time.process_time()
      loss = next(blocks)
      ended = time.perf_counter(), time.process_time()
      json.dump({"loss": loss, "began": began, "ended": ended}, replies)
      print(file=replies, flush=True)


def start(name: str, python: str, settings: dict) -> subprocess.Popen:
  """Starts a worker in a process of its own."""
  return subprocess.Popen(
    [python, __file__, "worker", name, json.dumps(settings)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
  )


def read(worker: subprocess.Popen) -> dict:
  """Returns the next reply of a worker."""
  return json.loads(worker.stdout.readline() or sys.exit("a worker failed"))


def measure(args) -> dict:
  """Runs the blocks in turn."""
  steps = args.block * (args.rounds + 1)
  settings = {**get_config().to_dict(), **vars(args), "steps": steps}
  workers, found, blocks = {}, {}, {name: [] for name in NAMES}
  for name in NAMES:
    python = sys.executable if name == "ours" else args.torch_python
    workers[name] = start(name, python, settings)
    found[name] = read(workers[name])
  for i in range(args.rounds + 1):
    for name in NAMES[i % 3 :] + NAMES[: i % 3]:
      time.sleep(PAUSE)
      print("run", file=workers[name].stdin, flush=True)
      blocks[name].append(read(workers[name]))
  for name, facts in found.items():
    workers[name].communicate()
    facts.update(summarize(blocks[name], args.block))
    facts["ratio"] = facts["ms_quartiles"][1] / found["ours"]["ms_quartiles"][1]
  return found


def summarize(blocks: list[dict], steps: int) -> dict:
  """Returns ms per step, and busy cores in its turns and between them."""
  began, ended = ([b[k] for b in blocks] for k in ("began", "ended"))
  turns = np.subtract(ended, began)[1:]
  waits = np.subtract(began[1:], ended[:-1])
  ms = 1000 * turns[:, 0] / steps
  return {
    "ms_quartiles": np.quantile(ms, [0.25, 0.5, 0.75]).tolist(),
    "cores_in_turn": turns[:, 1].sum() / turns[:, 0].sum(),
    "cores_waiting": waits[:, 1].sum() / waits[:, 0].sum(),
    "last_loss": blocks[-1]["loss"],
    "ms": ms.tolist(),
  }


def show(found: dict) -> None:
  """Prints the table."""
  entropy = -np.sum(CHANCE_V * np.log(CHANCE_V))
  print(f"ln {VOCAB_SIZE} = {math.log(VOCAB_SIZE):.3f}, entropy {entropy:.3f}")
  print("          ms/step        quartiles  / ours  parameters", end="  ")
  print("first loss  last loss  cores  waiting")
  for name in NAMES:
    row = found[name]
    low, median, high = row["ms_quartiles"]
    print(
      f"{name:8}{median:9.2f}{f'{low:.2f}–{high:.2f}':>17}{row['ratio']:8.2f}"
      f"{row['parameters']:12,}{row['first_loss']:12.3f}"
      f"{row['last_loss']:11.3f}{row['cores_in_turn']:7.2f}"
      f"{row['cores_waiting']:9.2f}  {row['version']}"
    )


def main() -> None:
  """Measures, prints and saves."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--nanogpt", required=True, help="A checkout of nanoGPT.")
  parser.add_argument("--torch_python", default=sys.executable)
  parser.add_argument("--rounds", type=int, default=15)
  parser.add_argument("--block", type=int, default=20, help="Steps a turn.")
  parser.add_argument("--cores", type=int, nargs="+", default=[0, 1])
  parser.add_argument("--json", help="Where the figures go too.")
  args = parser.parse_args()
  if not os.path.exists(os.path.join(args.nanogpt, "model.py")):
    parser.error(f"--nanogpt={args.nanogpt}: there is no model.py")
  found = measure(args)
  show(found)
  if args.json:
    found = {"block": args.block, "cores": args.cores, **found}
    pathlib.Path(args.json).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
  sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
  if sys.argv[1:2] == ["worker"]:
    work(sys.argv[2], json.loads(sys.argv[3]))
  else:
    main()
