r"""Our LSTM and GPT compared to PyTorch twins with the same training.

The experiments of configs/language/char_lstm.py and
configs/language/lm_shakespeare.py, and for each a PyTorch network of the same
architecture, with the same initial weights, batches, optimizer, clipping,
schedule and number of updates; both are evaluated on the entire validation
split. They differ only in rounding, whose effect grows in training.

  python benchmarks/language/language_models_pytorch.py \
      --source=text:PATH/input.txt \
    --cores 0 1 --output=benchmarks/language/language_models_pytorch.md

PyTorch runs eagerly; our seconds exclude compilation. --steps shortens both,
including the schedule.
"""

import argparse
import contextlib
import json
import math
import os
import pathlib
import sys
import time

CONFIGS = {"char_lstm": "LSTM", "lm_shakespeare": "GPT-2"}


def gpt(params, settings):
  """Returns (tokens -> logits, parameters by decay) of an unbiased decoder."""
  import torch
  from torch.nn import functional as F

  made = {}

  def tensor(*path, layer=None):
    leaf = params
    for key in path:
      leaf = leaf[key]
    found = torch.tensor(leaf if layer is None else leaf[layer])
    made[(*path, layer)] = torch.nn.Parameter(found)
    return made[(*path, layer)]

  heads, width = settings["heads"], settings["dim"]
  token = tensor("token_embedding", "embedding")
  position = tensor("position_embedding", "embedding")
  last = tensor("final_norm", "scale")
  names = {
    **{n: ("attention", n, "kernel") for n in ("query", "key", "value", "out")},
    **{n: ("feed_forward", n, "kernel") for n in ("up", "down")},
    **{n: (n, "scale") for n in ("attention_norm", "feed_forward_norm")},
  }
  blocks = [
    {n: tensor("blocks", *path, layer=i) for n, path in names.items()}
    for i in range(settings["layers"])
  ]

  def split(x):
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)

  def forward(tokens):
    x = token[tokens] + position[: tokens.shape[1]]
    for b in blocks:
      y = F.layer_norm(x, (width,), b["attention_norm"])
      q, k, v = (split(y @ b[n]) for n in ("query", "key", "value"))
      y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
      x = x + y.transpose(1, 2).flatten(2) @ b["out"]
      y = F.layer_norm(x, (width,), b["feed_forward_norm"])
      x = x + F.gelu(y @ b["up"], approximate="tanh") @ b["down"]
    return F.layer_norm(x, (width,), last) @ token.T

  plain = [p for path, p in made.items() if "scale" in path]
  return forward, [p for p in made.values() if p.dim() > 1], plain


def lstm(params, settings):
  """Returns (tokens -> logits, parameters by decay) of our LSTM."""
  import torch

  def given(module, name, array):
    getattr(module, name).data = torch.tensor(array)

  width, hidden = settings["dim"], settings["hidden"]
  table = params["token_embedding"]["embedding"]
  embedding = torch.nn.Embedding.from_pretrained(torch.tensor(table), False)
  body = torch.nn.LSTM(width, hidden, settings["layers"], batch_first=True)
  for i in range(settings["layers"]):
    layer = params["layers"][str(i)]
    given(body, f"weight_ih_l{i}", layer["input"]["kernel"].T.copy())
    given(body, f"weight_hh_l{i}", layer["kernel"].T.copy())
    given(body, f"bias_ih_l{i}", layer["input"]["bias"])
    # Its second bias would receive the same updates, and double the rate.
    getattr(body, f"bias_hh_l{i}").data.zero_()
    getattr(body, f"bias_hh_l{i}").requires_grad_(False)
  head = torch.nn.Linear(hidden, len(table))
  given(head, "weight", params["unembedding"]["embedding"])
  given(head, "bias", params["bias"])

  def forward(tokens):
    return head(body(embedding(tokens))[0])

  learned = [p for m in (embedding, body, head) for p in m.parameters()]
  learned = [p for p in learned if p.requires_grad]
  plain = [p for p in learned if p.dim() == 1]
  return forward, [p for p in learned if p.dim() > 1], plain


def rate(step: int, total: int, optimizer: dict) -> float:
  """Linear warm-up, then a half cosine down to end_lr."""
  lr, end_lr, warmup = (
    optimizer[key] for key in ("lr", "end_lr", "warmup_steps")
  )
  if step < warmup:
    return lr * step / warmup
  done = min(1.0, (step - warmup) / max(total - warmup, 1))
  return end_lr + (lr - end_lr) * (1 + math.cos(math.pi * done)) / 2


def ours(config, run):
  """Returns (nats per character, seconds, weights, batches) of our training.

  The weights are the initial ones.
  """
  import jax

  from train import loop

  state, batches = run.init(), []
  initial = jax.device_get(state.variables.params)
  step = loop.jit_step(run)
  with contextlib.closing(run.batches(0)) as stream:
    for _ in range(config.total_steps):
      batches.append(next(stream))
  jax.block_until_ready(step(run.init(), batches[0], run.rng))
  began = time.perf_counter()
  for batch in batches:
    state, _ = step(state, batch, run.rng)
  jax.block_until_ready(state)
  took = time.perf_counter() - began
  variables = run.learner.variables(state)
  loss = run.evaluations["val"].evaluate(variables, config.total_steps)["loss"]
  return loss, took, initial, batches


def theirs(make, config, initial, batches, held_out):
  """Returns (nats per character, seconds) of the twin."""
  import numpy as np
  import torch
  from torch.nn import functional as F

  settings, optimizer = config.model.to_dict(), config.optimizer.to_dict()
  forward, decayed, plain = make(initial, settings)
  adamw = torch.optim.AdamW(
    [
      {"params": decayed, "weight_decay": optimizer["weight_decay"]},
      {"params": plain, "weight_decay": 0.0},
    ],
    betas=(0.9, optimizer["b2"]),
  )

  def tensors(batch):
    return (torch.tensor(np.asarray(batch[k])) for k in ("inputs", "targets"))

  def nats(inputs, targets, reduction):
    logits = forward(inputs.long()).flatten(0, 1)
    return F.cross_entropy(
      logits, targets.long().flatten(), reduction=reduction
    )

  began = time.perf_counter()
  for i, batch in enumerate(batches):
    for group in adamw.param_groups:
      group["lr"] = rate(i, len(batches), optimizer)
    nats(*tensors(batch), "mean").backward()
    torch.nn.utils.clip_grad_norm_([*decayed, *plain], optimizer["clip_norm"])
    adamw.step()
    adamw.zero_grad(set_to_none=True)
  took = time.perf_counter() - began
  total = weight = 0.0
  with torch.no_grad():
    for batch in held_out:
      mask = torch.tensor(np.asarray(batch["mask"])).flatten()
      total += float((nats(*tensors(batch), "none") * mask).sum())
      weight += float(mask.sum())
  return total / weight, took


def measure(name: str, args) -> dict:
  """Makes one comparison."""
  import torch
  from language_models import get_config

  from common import cli
  from input_pipeline.batching import pipeline
  from train import build

  cli.start_jax()
  torch.set_num_threads(len(args.cores))
  config = get_config(name, args.source)
  config.total_steps = args.steps or config.total_steps
  loss, took, initial, batches = ours(config, build.run(config, None))
  data = config.data.to_dict()
  held_out = pipeline.evaluation(**data, batch_size=config.batch_size)
  make = lstm if config.model.name == "rnn" else gpt
  other, other_took = theirs(
    make, config, initial, batches, held_out.batches(0)
  )
  return {
    "model": name,
    "steps": config.total_steps,
    "bits": loss / math.log(2),
    "pytorch_bits": other / math.log(2),
    "ratio": loss / other,
    "seconds": took,
    "pytorch_seconds": other_took,
  }


def page(rows: list[dict], args) -> str:
  """Returns Markdown."""
  lines = [
    "| model | config | updates | bits per character | PyTorch's | ratio |"
    " seconds | PyTorch's |",
    "|---|---|---|---|---|---|---|---|",
  ]
  for row in rows:
    lines.append(
      f"| {CONFIGS[row['model']]} | `{row['model']}` | {row['steps']:,} |"
      f" {row['bits']:.4f} | {row['pytorch_bits']:.4f} | {row['ratio']:.4f} |"
      f" {row['seconds']:.0f} | {row['pytorch_seconds']:.0f} |"
    )
  command = (
    "python benchmarks/language/language_models_pytorch.py"
    f" --source=text:PATH/input.txt --cores {' '.join(map(str, args.cores))}"
  ) + (f" --steps={args.steps}" if args.steps else "")
  return f"""# Our LSTM and GPT compared with PyTorch

Both sides are trained on tiny shakespeare with the same architecture, initial
weights, batches, optimizer, schedule and number of updates. The figures are
bits per character on the whole validation split; the target is a ratio within
2 % of 1.

    {command}

{chr(10).join(lines)}
"""


def main() -> None:
  """Measures, prints and writes."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--source", required=True, help="text:PATH/input.txt")
  parser.add_argument("--models", nargs="+", default=list(CONFIGS))
  parser.add_argument("--steps", type=int, help="In place of the config's.")
  parser.add_argument("--cores", type=int, nargs="+", default=[0, 1])
  parser.add_argument("--output", help="The .md to write.")
  args = parser.parse_args()
  os.sched_setaffinity(0, args.cores)  # before any thread starts
  os.environ["JAX_PLATFORMS"] = "cpu"
  rows = []
  for name in args.models:
    rows.append(measure(name, args))
    print(json.dumps(rows[-1]), flush=True)
  if args.output:
    pathlib.Path(args.output).write_text(page(rows, args))


if __name__ == "__main__":
  sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
  main()
