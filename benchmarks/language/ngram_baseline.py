r"""The n-grams that stand beside a language model: its text, its tokens.

  python benchmarks/language/ngram_baseline.py --config=language/lm_stdlib
  python benchmarks/language/ngram_baseline.py \
    --config=language/lm_zh_tang_poems --orders 2 3 4

counts interpolated Kneser-Ney n-grams in the training text of a config and
prints their nats per token, and bits per byte, on the windows of its evaluator
"val", exactly the tokens that val/loss of a run measures. A window of one long
text also has the end of the window before it as its context. No network is
trained. The last line has the order chosen on the rows with an even index for
the odd ones, and the other way round.
"""

import argparse
import importlib
import math
import pathlib
import sys
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]


def opened(config, folder: str):
  """Returns (Data of training, batches of the evaluator "val")."""
  from input_pipeline.batching import pipeline

  data = config.data.to_dict()
  shared = {
    key: data[key]
    for key in ("tokenizer", "seq_len", "packing", "rows", "text_key")
    if key in data
  }
  shared.update(batch_size=config.batch_size, workdir=folder)
  split = data.get("split", "train")
  train = pipeline.train(source=data["source"], split=split, **shared)
  val = config.evals.val
  held_out = pipeline.evaluation(
    source=val.get("source", data["source"]), split=val.split, **shared
  )
  return train, held_out.batches(0)


def documents(uri: str, split: str, tokenizer):
  """Yields the ids of each text, with the end of a text if there is one."""
  from input_pipeline.sources import open_source

  source = open_source(uri, split)
  end = [] if tokenizer.eos is None else [tokenizer.eos]
  for text in source.read(np.arange(source.length))["text"]:
    yield np.concatenate([np.asarray(tokenizer.encode(text)), end])


def measured(model, batches) -> tuple[np.ndarray, np.ndarray, float]:
  """Returns (nats [2], tokens [2], bytes), by whether the index is odd."""
  from train.evaluators import interpolation

  nats, tokens, size = np.zeros(2), np.zeros(2), 0.0
  for batch in batches:
    names = ("inputs", "targets", "segments", "index")
    leaves = {k: np.asarray(batch[k]) for k in names if k in batch}
    log_q_BT = interpolation.of_rows(model, **leaves)
    real_BT = np.asarray(batch["mask"]) > 0
    for half in (0, 1):
      rows_B = leaves["index"] % 2 == half
      nats[half] -= log_q_BT[rows_B][real_BT[rows_B]].sum()
      tokens[half] += real_BT[rows_B].sum()
    size += float(np.sum(batch.get("bytes", 0)))
  return nats, tokens, size


def main() -> None:
  """Prints a line for each order, and one for the chosen order."""
  from input_pipeline.cleaning.parts import ngram

  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--config", required=True, help="such as language/NAME")
  parser.add_argument("--source", help="in place of config.data.source")
  parser.add_argument("--val", help="in place of config.evals.val.source")
  parser.add_argument("--orders", type=int, nargs="+", default=[3, 5, 6, 7])
  given = parser.parse_args()
  name = "configs." + given.config.replace("/", ".")
  config = importlib.import_module(name).get_config()
  if given.source:
    config.data.source = given.source
  if given.val:
    config.evals.val.source = given.val
  split = config.data.get("split", "train")
  found, size = [], 0.0
  with tempfile.TemporaryDirectory() as folder:
    train, batches = opened(config, folder)
    batches = list(batches)
    words = train.tokenizer
    for order in given.orders:
      texts = documents(config.data.source, split, words)
      model = ngram.fit(texts, order, words.vocab_size)
      nats, tokens, size = measured(model, batches)
      found.append(nats)
      printed(f"{order}-grams", nats.sum(), tokens.sum(), size)
  of_order = np.stack(found)
  best = of_order[:, ::-1].argmin(axis=0)
  orders = " and ".join(str(given.orders[i]) for i in best)
  nats = of_order[best, [0, 1]].sum()
  printed(f"chosen on the other half: {orders}", nats, tokens.sum(), size)


def printed(name: str, nats: float, tokens: float, size: float) -> None:
  """Prints nats per token and bits per byte."""
  line = f"{name}: {nats / tokens:.3f} nats per token"
  if size:
    line += f", {nats / math.log(2) / size:.3f} bits per byte"
  print(f"{line} ({tokens:,.0f} tokens)", flush=True)


if __name__ == "__main__":
  sys.path.insert(0, str(ROOT))
  main()
