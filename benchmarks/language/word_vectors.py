"""Word vectors compared to gensim's, with the same words and settings.

  python benchmarks/language/word_vectors.py --workdir=runs/w2v

reads a run of configs/text/word2vec_skipgram.py or word2vec_cbow.py, and trains
gensim's Word2Vec twice, with two seeds, on the same rows of words, for the same
number of epochs, with the same window, noise and subsampling. For all three it
prints

  loss        of the held-out text, subsampled as in training, by one NumPy
              function for all: every word with each context within the window
              (CBOW: their mean), against 5 words of noise, the same for all;
  told apart  how often a true context there scores above one word of noise;
  seconds     of training; of our run, those in its ledger;

and the similarity of ours to gensim's vectors, and between gensim's own two:

  neighbours  share that two lists of the ten nearest have in common, of the
              1,000 most frequent words, among the 5,000 most frequent;
  rank        Spearman's correlation of the cosines of 20,000 pairs of those.
"""

import argparse
import json
import pathlib
import time

import jax
import numpy as np
import scipy.stats

from input_pipeline.sources import open_source
from train import trained
from train.evaluators.word_vectors import normalized
from train.objectives import skip_grams

_NOISE = 5


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--workdir", required=True)
  parser.add_argument("--threads", type=int, default=2)
  given = parser.parse_args()
  found = trained.load(given.workdir)
  config, words = found.parts.config, found.parts.data.tokenizer
  task, data = config["task"], config["data"]
  settings = {
    "window": task.get("window", 5),
    "cbow": task.get("architecture") == "cbow",
  }
  training = documents(data["source"], data.get("split", "train"), words)
  held = {"split": "validation", **config["evals"]["val"]}
  testing = documents(held.get("source", data["source"]), held["split"], words)
  read = found.step * config["batch_size"] * data["seq_len"]
  epochs = max(round(read / sum(map(len, training))), 1)
  print(
    f"{words.vocab_size - 1:,} words; text of {sum(map(len, training)):,},"
    f" {epochs} times; held out {sum(map(len, testing)):,}"
  )
  params = found.variables.params
  tables = {
    "ours": (
      np.asarray(params["input"]),
      np.asarray(params["output"]),
      seconds(given.workdir),
    )
  }
  for seed in (1, 2):
    tables[f"gensim {seed}"] = of_gensim(
      training, words, config, settings, epochs, seed, given.threads
    )
  print(f"{'':10}    loss  told apart  seconds")
  for name, (x_VD, y_VD, took) in tables.items():
    loss, apart = score(x_VD, y_VD, testing, words.counts, **settings)
    print(f"{name:10} {loss:7.3f}  {100 * apart:8.2f} %  {took:7.1f}")
  print(f"{'':22} neighbours   rank")
  for one, other in (("ours", "gensim 1"), ("gensim 1", "gensim 2")):
    same, rank = alike(tables[one][0], tables[other][0])
    print(f"{one:10} {other:10}  {100 * same:8.1f} % {rank:6.3f}")


def documents(uri: str, split: str, words) -> list[np.ndarray]:
  """Returns the known words of each document."""
  source = open_source(uri, split)
  texts = source.read(np.arange(source.length))["text"]
  ids = [words.encode(text) for text in texts]
  return [each[each > 0] for each in ids]


def seconds(workdir: str) -> float:
  """Returns the seconds that a run computed, compiled and read data.

  They are from its ledger.
  """
  ledger = pathlib.Path(workdir) / "goodput.jsonl"
  found = 0.0
  for line in filter(None, ledger.read_text().splitlines()):
    spent = json.loads(line).get("seconds", {})
    found += sum(spent.get(k, 0) for k in ("step", "compile", "data"))
  return found


def of_gensim(training, words, config, settings, epochs, seed, threads):
  """Returns (input_VD, output_VD, seconds) of gensim's Word2Vec."""
  from gensim.models import Word2Vec

  size = config["data"]["seq_len"]
  rows = [
    list(map(str, ids[start : start + size]))
    for ids in training
    for start in range(0, len(ids), size)
  ]
  task = config["task"]
  began = time.perf_counter()
  model = Word2Vec(
    rows,
    vector_size=config["model"].get("dim", 100),
    window=settings["window"],
    sg=0 if settings["cbow"] else 1,
    negative=task.get("negatives", 5),
    ns_exponent=task.get("power", 0.75),
    sample=task.get("subsample", 1e-3),
    min_count=1,
    epochs=epochs,
    seed=seed,
    workers=threads,
  )
  took = time.perf_counter() - began
  x_VD = np.zeros((words.vocab_size, model.vector_size), np.float32)
  y_VD = np.zeros_like(x_VD)
  place = [int(key) for key in model.wv.index_to_key]
  x_VD[place], y_VD[place] = model.wv.vectors, model.syn1neg
  return x_VD, y_VD, took


def score(x_VD, y_VD, testing, counts_V, window, cbow) -> tuple[float, float]:
  """Returns (loss, how often a true context is told apart), held out."""
  stay_V, sums_V = skip_grams.chances(counts_V, 0.75, 1e-3)
  rng = np.random.default_rng(0)
  losses, told, weight = 0.0, 0.0, 0
  for ids in testing:
    ids = ids[rng.random(len(ids)) < stay_V[ids]]
    for start in range(0, len(ids) - window, 4096):
      part = ids[start : start + 4096]
      draws = rng.random((len(part), _NOISE), np.float32)
      noise = np.minimum(
        np.searchsorted(sums_V, draws, side="right"), len(sums_V) - 1
      )
      y, n = y_VD[part], y_VD[noise]
      shifts = [d for d in range(-window, window + 1) if d]
      near = [(part, *_shifted(part, d)) for d in shifts]
      if cbow:
        real = np.stack([inside for _, _, inside in near]).astype(np.float32)
        x = (
          sum(x_VD[other] * inside[:, None] for _, other, inside in near)
          / np.maximum(real.sum(0), 1)[:, None]
        )
        sides = [(x, y, real.sum(0) > 0)]
      else:
        sides = [(x_VD[part], y_VD[other], inside) for _, other, inside in near]
      for h, right, inside in sides:
        for_it = np.sum(h * right, 1)
        against = np.einsum("td,tkd->tk", h, n)
        loss = np.logaddexp(0, -for_it) + np.logaddexp(0, against).sum(1)
        losses += float(loss[inside].sum())
        above = (for_it > against[:, 0]) + 0.5 * (for_it == against[:, 0])
        told += float(above[inside].sum())
        weight += int(inside.sum())
  return losses / weight, told / weight


def _shifted(ids, d):
  """Returns (the word d places later, whether there is one)."""
  place = np.arange(len(ids)) + d
  inside = (place >= 0) & (place < len(ids))
  return ids[np.clip(place, 0, len(ids) - 1)], inside


def alike(one_VD, other_VD) -> tuple[float, float]:
  """Returns (share of common neighbours, rank correlation of cosines)."""
  lists, cosines = [], []
  pairs = np.random.default_rng(0).integers(1, 1001, (20_000, 2))
  pairs = pairs[pairs[:, 0] != pairs[:, 1]]
  for table in (one_VD, other_VD):
    unit = normalized(table[1:5001])
    product = unit[:1000] @ unit.T
    np.fill_diagonal(product, -np.inf)
    lists.append(np.argsort(-product, axis=1)[:, :10])
    i, j = pairs.T - 1
    cosines.append(np.sum(unit[i] * unit[j], 1))
  common = [
    len(set(a) & set(b)) / 10
    for a, b in zip(*(x.tolist() for x in lists), strict=True)
  ]
  return float(np.mean(common)), scipy.stats.spearmanr(*cosines).statistic


if __name__ == "__main__":
  jax.config.update("jax_platforms", "cpu")
  main()
