"""Tang poems: bits per character, and the form of generated poems.

  python benchmarks/language/tang_poems.py --workdir=runs/tang --temperature=0.8

reads a run of configs/language/lm_zh_tang_poems.py. It prints the bits per
character of the network alone, of the n-grams of the training poems alone, and
of both interpolated, whose weight is chosen on the other half of the poems
(train/evaluators/interpolation.py); the last two are those of the run's end.

Bits per character of the validation poems are the negative log likelihood of
everything predicted, including the end of each poem, over the characters
predicted; the first piece of each poem is given. Line ends and punctuation
count.

To measure the form, --count poems are generated, each begun with the first
piece of a validation poem and ended by the model. The figures are the shares of
half-lines of five or seven characters, of lines of two such halves of equal
length, and of poems whose lines are all alike, and the same shares among the
validation poems themselves, truncated to the same number of pieces. Only
complete lines count. The last shares are for poems whose half-lines are sampled
at random from those of all validation poems: the result of chance with the
right half-lines. The first poems are printed.
"""

import argparse
import json
import math
import os
import random
import re

import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline.batching import pipeline
from input_pipeline.sources import open_source
from train import trained, types

_PARTS = re.compile("[，。？！；、：]")
_LENGTHS = (5, 7)


def main() -> None:
  """Prints the figures."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--workdir", required=True)
  parser.add_argument("--count", type=int, default=100)
  parser.add_argument("--pieces", type=int, default=128)
  parser.add_argument("--temperature", type=float, default=0.8)
  parser.add_argument("--print", dest="shown", type=int, default=4)
  given = parser.parse_args()
  found = trained.load(given.workdir)
  config = found.parts.config
  uri = config["evals"]["val"]["source"]
  source = open_source(uri, "all")
  texts = [str(t) for t in source.read(np.arange(source.length))["text"]]
  bits, tokens, characters = score(found, config, uri, given.workdir, texts)
  print(
    f"bits per character {bits / characters:.3f} "
    f"({bits:,.0f} bits, {characters:,} characters)"
  )
  for key, nats in mixed(given.workdir).items():
    print(f"{key} {nats * tokens / math.log(2) / characters:.3f}")
  written = poems(found, texts[: given.count], given)
  for poem in written[: given.shown]:
    print(f"\n{poem}")
  ids = [
    found.parts.data.tokenizer.encode(text)[: given.pieces] for text in texts
  ]
  cut = [found.parts.data.tokenizer.decode(each) for each in ids]
  print(f"\n{'':12}half-lines  lines  poems")
  shuffled = by_chance(texts)
  for name, some in (("written", written), ("real", cut), ("chance", shuffled)):
    print(f"{name:12}{'  '.join(f'{100 * s:6.1f} %' for s in shares(some))}")


def mixed(workdir: str) -> dict[str, float]:
  """Returns the losses of the run's last interpolation, nats per piece."""
  found = {}
  with open(os.path.join(workdir, "metrics.jsonl")) as lines:
    for line in lines:
      found |= json.loads(line)
  return {k: v for k, v in found.items() if k.startswith("mixed/loss")}


def score(found, config, uri, workdir, texts) -> tuple[float, float, int]:
  """Returns (bits, pieces, characters) predicted of the validation poems."""
  data = config["data"]
  held_out = pipeline.evaluation(
    source=uri,
    split="all",
    tokenizer=data["tokenizer"],
    seq_len=data["seq_len"],
    packing=data["packing"],
    batch_size=found.parts.data.batch_size,
    workdir=workdir,
  )
  loss = found.parts.task.losses["loss"]
  at = types.Context(jax.random.key(0), 0, False)
  nats = jax.jit(lambda v, b: loss(v, b, at)[0].total)
  total, tokens = 0.0, 0.0
  for batch in held_out.batches(0):
    total += float(nats(found.variables, batch))
    tokens += float(np.sum(batch["mask"]))
  words = held_out.tokenizer
  first = [len(words.decode(words.encode(text)[:1])) for text in texts]
  return total / math.log(2), tokens, sum(map(len, texts)) - sum(first)


def poems(found, texts, given) -> list[str]:
  """Generates poems from these first pieces; returns their complete lines."""
  words = found.parts.data.tokenizer
  tokens_BL = np.zeros((len(texts), given.pieces), np.int32)
  tokens_BL[:, 0] = [words.encode(text)[0] for text in texts]
  mask_BL = np.zeros(tokens_BL.shape, np.float32)
  mask_BL[:, 0] = 1
  batch = {
    "tokens": jnp.asarray(tokens_BL),
    "mask": jnp.asarray(mask_BL),
    "temperature": jnp.float32(given.temperature),
  }
  draw = jax.jit(found.parts.task.predict["samples"])
  made_BL = np.asarray(draw(found.variables, batch, jax.random.key(0)))
  made = []
  for row in made_BL.tolist():
    ended = words.eos in row
    text = words.decode(row[: row.index(words.eos)] if ended else row)
    # A truncated line does not show the form.
    made.append(text if ended else text.rpartition("\n")[0])
  return made


def halves(line: str) -> list[int]:
  """Returns the characters of each part of a line between punctuation."""
  return [len(part) for part in _PARTS.split(line) if part]


def shares(texts: list[str]) -> tuple[float, float, float]:
  """Returns the shares (of half-lines, lines, poems) that keep the form."""
  kept, all_halves, whole = [], [], []
  for text in texts:
    lines = [halves(line) for line in text.split("\n") if line.strip()]
    if not lines:
      continue
    all_halves += [n in _LENGTHS for line in lines for n in line]
    right = [len(x) == 2 and x[0] == x[1] in _LENGTHS for x in lines]
    kept += right
    whole.append(all(right) and len({x[0] for x in lines}) == 1)
  return tuple(sum(x) / len(x) for x in (all_halves, kept, whole))


def by_chance(texts: list[str]) -> list[str]:
  """Returns poems of the same lengths, with half-lines sampled from all."""
  draw = random.Random(0)
  parts = [p for t in texts for p in _PARTS.split(t.replace("\n", "")) if p]

  def line():
    return f"{draw.choice(parts)}，{draw.choice(parts)}。"

  return ["\n".join(line() for _ in t.split("\n")) for t in texts]


if __name__ == "__main__":
  main()
