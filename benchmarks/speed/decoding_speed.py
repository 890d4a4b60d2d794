"""Tokens per second of greedy decoding on a CPU, versus transformers' generate.

A GPT-2 of 51 million parameters (8 layers of 512, vocabulary 50,257) with the
same random weights in float32 continues prompts of 32 random tokens by 128, in
batches of one row and of eight. Both decode with a KV cache, PyTorch in 2
threads. Rounds alternate between the two; the median of each is printed,
excluding compilation and a first round, and the share of equal tokens. On a
busy machine two threads wait for each other: there, --clock=cpu on one core
compares seconds of CPU time.

  pip install -e '.[parity]'
  taskset -c 0,1 python benchmarks/speed/decoding_speed.py --rounds=5
  taskset -c 0 python benchmarks/speed/decoding_speed.py --threads=1 --clock=cpu
"""

import argparse
import statistics
import sys
import time
import types

import jax.numpy as jnp
import numpy as np
import torch
import transformers

from common import cli
from input_pipeline.tokenizers import Tokenizer
from models.language.decoder import decoder
from train.generation import streaming
from train.types import Variables

SIZES = {"layers": 8, "dim": 512, "heads": 8}


def theirs(V: int):
  """Returns a GPT2LMHeadModel with larger random weights than its defaults.

  So the best token is clearly separated from the second.
  """
  torch.manual_seed(0)
  config = transformers.GPT2Config(
    vocab_size=V,
    n_positions=1024,
    n_embd=SIZES["dim"],
    n_layer=SIZES["layers"],
    n_head=SIZES["heads"],
    bos_token_id=None,
    eos_token_id=None,
    pad_token_id=0,
  )
  model = transformers.GPT2LMHeadModel(config).eval()
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      if name.endswith("weight") and ".ln_" not in name:
        parameter.mul_(3.0)
  return model


def params_of(model) -> dict:
  """Returns a GPT2LMHeadModel's weights as those of language/decoder.py."""
  h = model.transformer.h

  def array(tensor):
    return jnp.asarray(tensor.detach().numpy().copy())

  def stacked(get, part=None):
    each = [array(get(block)) for block in h]
    if part is not None:
      each = [jnp.split(x, 3, axis=-1)[part] for x in each]
    return jnp.stack(each)

  def dense(get, part=None):
    return {
      "kernel": stacked(lambda block: get(block).weight, part),
      "bias": stacked(lambda block: get(block).bias, part),
    }

  def norm(get):
    return {
      "scale": stacked(lambda block: get(block).weight),
      "bias": stacked(lambda block: get(block).bias),
    }

  base = model.transformer
  qkv = {
    name: dense(lambda block: block.attn.c_attn, part)
    for part, name in enumerate(("query", "key", "value"))
  }
  return {
    "token_embedding": {"embedding": array(base.wte.weight)},
    "position_embedding": {"embedding": array(base.wpe.weight)},
    "final_norm": {
      "scale": array(base.ln_f.weight),
      "bias": array(base.ln_f.bias),
    },
    "blocks": {
      "attention_norm": norm(lambda block: block.ln_1),
      "attention": qkv | {"out": dense(lambda block: block.attn.c_proj)},
      "feed_forward_norm": norm(lambda block: block.ln_2),
      "feed_forward": {
        "up": dense(lambda block: block.mlp.c_fc),
        "down": dense(lambda block: block.mlp.c_proj),
      },
    },
  }


def found_of(model, V: int):
  """Returns the parts of a run that generation reads, with those weights."""
  nothing = np.zeros(V, np.uint32)
  blind = Tokenizer("none", None, lambda ids: "", V, None, nothing, None, b"")
  ours = decoder(vocab_size=V, max_len=1024, **SIZES)
  return types.SimpleNamespace(
    parts=types.SimpleNamespace(
      model=ours, network=ours, data=types.SimpleNamespace(tokenizer=blind)
    ),
    variables=Variables(params_of(model), {}),
  )


def main() -> None:
  """Prints a line for each number of rows."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--prompt", type=int, default=32)
  parser.add_argument("--tokens", type=int, default=128)
  parser.add_argument("--vocab_size", type=int, default=50257)
  parser.add_argument("--rows", type=int, nargs="+", default=[1, 8])
  parser.add_argument("--threads", type=int, default=2)
  parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
  args = parser.parse_args()
  clock = time.perf_counter if args.clock == "wall" else time.process_time
  torch.set_num_threads(args.threads)
  cli.start_jax()
  model = theirs(args.vocab_size)
  write = streaming.writer(
    streaming.inference(found_of(model, args.vocab_size))
  )
  for rows in args.rows:
    shape = (rows, args.prompt)
    prompts = np.random.default_rng(rows).integers(1, args.vocab_size, shape)
    options = streaming.Options(max_tokens=args.tokens, temperature=0.0)

    def ours(prompts=prompts, options=options):
      ids = [[] for _ in prompts]
      for piece in write(prompts.tolist(), [options] * len(prompts)):
        ids[piece.row] += piece.tokens
      return np.array(ids)

    def other(prompts=prompts):
      given = torch.tensor(prompts)
      with torch.inference_mode():
        found = model.generate(
          given,
          attention_mask=torch.ones_like(given),
          max_new_tokens=args.tokens,
          min_new_tokens=args.tokens,
          do_sample=False,
        )
      return found[:, args.prompt :].numpy()

    same = np.mean(ours() == other())
    seconds = {ours: [], other: []}
    for _ in range(args.rounds):
      for function, taken in seconds.items():
        start = clock()
        function()
        taken.append(clock() - start)
    speeds = {
      function: rows * args.tokens / statistics.median(taken)
      for function, taken in seconds.items()
    }
    print(
      f"{rows} rows: ours {speeds[ours]:.1f} tokens/s, transformers"
      f" {speeds[other]:.1f}, ratio {speeds[ours] / speeds[other]:.2f};"
      f" tokens that agree: {same:.3f}",
      flush=True,
    )


if __name__ == "__main__":
  sys.exit(main())
