r"""Language models, from n-grams on, with equal training time on the same text.

Each config of MODELS is trained on the first 90 % of tiny shakespeare for the
same number of seconds of updates, then evaluated on all of the rest; the time
and the result are written to a table.

  python benchmarks/language/language_models.py --source=text:PATH/input.txt \
    --seconds=120 --cores 0 1 --output=benchmarks/language/language_models.md

Each model runs in a process of its own, on the given cores. The time excludes
compilation and includes reading data. A first run of a few seconds measures the
time of an update; the learning rate's schedule then spans the number of updates
that fit into the budget, and a wall clock stops them if they take longer.
Counting needs one epoch, and stops there.

Bits per character are the mean of -log2 p over all characters of the validation
split except its first; each model reads them in windows of its own length,
without context at the start of a window.
"""

import argparse
import contextlib
import importlib
import json
import math
import os
import pathlib
import subprocess
import sys
import time

MODELS = {
  "char_ngram": "Kneser-Ney n-grams",
  "char_bengio": "Bengio 2003",
  "char_elman": "Elman RNN",
  "char_lstm": "LSTM",
  "char_gru": "GRU",
  "lm_shakespeare": "GPT-2",
  "char_llama": "Llama style",
  "char_moe": "mixture of experts",
  "char_glm": "GLM, left to right",
}
CALIBRATION = 5  # seconds
BLOCK = 10  # updates between two readings of the clock


def get_config(name: str, source: str):
  """Returns the config of that name on `source`, without samples."""
  config = importlib.import_module(f"configs.language.{name}").get_config()
  config.data.source = source
  config.evals = {"val": {**config.evals.val, "every_steps": 0}}
  return config


def train(run, seconds: float):
  """Returns (state, updates, seconds) of all updates that fit the time.

  The first update, which compiles, is extra: it is undone.
  """
  import jax

  from train import loop

  step = loop.jit_step(run)
  with contextlib.closing(run.batches(0)) as batches:
    batch = next(batches)
    jax.block_until_ready(step(run.init(), batch, run.rng))
  with contextlib.closing(run.batches(0)) as batches:
    state = jax.block_until_ready(run.init())
    began, updates = time.perf_counter(), 0
    while updates < run.total_steps:
      state, metrics = step(state, next(batches), run.rng)
      updates += 1
      if updates % BLOCK == 0 or updates == run.total_steps:
        jax.block_until_ready((state, metrics))
        if time.perf_counter() - began > seconds:
          break
    jax.block_until_ready(state)
    return state, updates, time.perf_counter() - began


def measure(name: str, source: str, seconds: float) -> dict:
  """Returns a row of the table."""
  import jax
  import numpy as np

  from common import cli
  from train import build, sharding

  cli.start_jax()
  config = get_config(name, source)
  if config.learner.name != "counting":
    config.total_steps = 10**6
    _, updates, took = train(build.run(config, None), CALIBRATION)
    config.total_steps = max(int(seconds * updates / took), 1)
  run = build.run(config, None)
  state, updates, took = train(run, seconds)
  variables = run.learner.variables(state)
  loss = run.evaluations["val"].evaluate(variables, updates)["loss"]
  size = sharding.count(variables.params)
  if not size:
    leaves = jax.tree_util.tree_leaves_with_path(variables.model_state)
    size = sum(
      int(np.sum(np.asarray(leaf) > 0))
      for path, leaf in leaves
      if path[-1].key == "counts"
    )
  tokens = config.batch_size * config.data.seq_len
  return {
    "model": name,
    "bits": loss / math.log(2),
    "seconds": took,
    "updates": updates,
    "planned": config.total_steps,
    "size": size,
    "window": config.data.seq_len,
    "characters_per_second": updates * tokens / took,
    "version": f"jax {jax.__version__}",
  }


def table(rows: list[dict]) -> str:
  """Returns Markdown, the best model last."""
  lines = [
    "| model | config | bits per character | seconds | updates |"
    " characters/s | parameters | window |",
    "|---|---|---|---|---|---|---|---|",
  ]
  for row in sorted(rows, key=lambda row: -row["bits"]):
    name = row["model"]
    lines.append(
      f"| {MODELS[name]} | `{name}` | {row['bits']:.3f} |"
      f" {row['seconds']:.0f} | {row['updates']:,} |"
      f" {row['characters_per_second']:,.0f} | {row['size']:,} |"
      f" {row['window']:,} |"
    )
  return "\n".join(lines)


def page(rows: list[dict], args) -> str:
  """Returns the content of language_models.md."""
  command = (
    f"python benchmarks/language/language_models.py \
        --source=text:PATH/input.txt"
    f" --seconds={args.seconds:g} --cores {' '.join(map(str, args.cores))}"
  )
  return f"""# Language models with equal training time

Models of the characters of tiny shakespeare. They are trained on the first
90 % and evaluated on the rest, the split of nanoGPT. Each model was trained for
{args.seconds:g} seconds of updates on {len(args.cores)} CPU cores, in float32
({rows[0]["version"]}); the n-gram model needs one pass only.

    {command}

{table(rows)}

Every model predicts each character of the validation split once. It reads them
in windows of its own length and has no context at the start of a window, so a
model with short windows is at a disadvantage. The size of the n-gram model is
the number of n-grams that it counted. The GLM model is trained to fill in
blanks after a prefix that it reads in both directions. Here the prefix is the
first character of a window, and the rest is filled in from left to right. The
model also assigns probability to its special tokens and to the end of a blank,
which the other models do not have; this raises its bits per character.
"""


def main() -> None:
  """Measures, prints and writes."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--source", required=True, help="text:PATH/input.txt")
  parser.add_argument("--seconds", type=float, default=120)
  parser.add_argument("--models", nargs="+", default=list(MODELS))
  parser.add_argument("--cores", type=int, nargs="+", default=[0, 1])
  parser.add_argument("--output", help="The .md to write.")
  parser.add_argument("--json", help="Where the rows go too.")
  parser.add_argument("--worker", help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.worker:
    os.sched_setaffinity(0, args.cores)  # before any thread starts
    print(json.dumps(measure(args.worker, args.source, args.seconds)))
    return
  rows = []
  for name in args.models:
    done = subprocess.run(
      [sys.executable, __file__, *sys.argv[1:], f"--worker={name}"],
      stdout=subprocess.PIPE,
      text=True,
      check=True,
      env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    rows.append(json.loads(done.stdout.splitlines()[-1]))
    print(json.dumps(rows[-1]), flush=True)
  print(table(rows))
  if args.output:
    pathlib.Path(args.output).write_text(page(rows, args))
  if args.json:
    pathlib.Path(args.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
  sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
  main()
