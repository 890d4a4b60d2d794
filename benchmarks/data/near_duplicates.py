"""Pair F1 of near_duplicates at Jaccard 0.8, and its speed versus datatrove.

The data is 10,000 real paragraphs (WikiText-2, SquadShifts, XQuAD in English,
German and Chinese, Chinese hotel reviews, captions of Multi30k in groups of
five) and 2,000 edits of 2,000 of them: words or characters changed, inserted,
removed or moved, until the Jaccard similarity of the 5-grams falls to a target
sampled from 0.5 to 1. True pairs are all pairs of the 12,000 with similarity
0.8 or more, planted or not, computed exactly: sets of strings, intersected
through an inverted index. Predicted pairs are those within a cluster. For
comparison, on the same 5-grams: datasketch's MinHashLSH(threshold=0.8,
num_perm=112), and FineWeb's method of accepting every candidate. With
--datatrove, the path of a Python that has datatrove: CPU seconds of both on the
English paragraphs alone, in three alternating runs; also of datatrove without
its word tokenizer (spaCy's).

  python benchmarks/data/near_duplicates.py --data=DIR [--datatrove=PYTHON]
"""

import argparse
import csv
import gzip
import json
import pathlib
import random
import re
import statistics
import subprocess
import time
from collections import Counter, defaultdict

import datasketch
import numpy as np

from input_pipeline.cleaning import near_duplicates
from input_pipeline.document import Document

SEED, PARAGRAPHS, EDITS, N, THRESHOLD = 20_261_125, 10_000, 2_000, 5, 0.8
SHARD = 1_000

# Runs in datatrove's interpreter: its three steps on one file.
DATATROVE = """
import json, sys, tempfile, time, types
from datatrove.data import Document
from datatrove.pipeline.dedup import minhash
texts = json.load(sys.stdin)
documents = [Document(text=t, id=str(i)) for i, t in enumerate(texts)]
with tempfile.TemporaryDirectory() as folder:
  config = minhash.MinhashConfig()
  warm = minhash.MinhashDedupSignature(folder + "/0", config, "eng")
  warm.run(documents[:5])
  signature = minhash.MinhashDedupSignature(folder + "/1", config, "eng")
  signature.word_tokenizer = warm.word_tokenizer
  if sys.argv[1] == "split":
    signature.word_tokenizer = types.SimpleNamespace(word_tokenize=str.split)
  start = time.process_time()
  signature.run(documents)
  signed = time.process_time() - start
  first, second = folder + "/1", folder + "/2"
  buckets = minhash.MinhashDedupBuckets(first, second, config=config)
  for bucket in range(config.num_buckets):
    buckets.run(rank=bucket, world_size=config.num_buckets)
  minhash.MinhashDedupCluster(second, folder + "/3", config).run()
  print(json.dumps([signed, time.process_time() - start]))
"""


def squad(path: pathlib.Path) -> list[str]:
  """Returns the paragraphs of a file in SQuAD's format."""
  articles = json.loads(path.read_text())["data"]
  return [p["context"] for a in articles for p in a["paragraphs"]]


def paragraphs(data: pathlib.Path) -> list[tuple[str, str]]:
  """Returns (language, text), all distinct, PARAGRAPHS of them."""
  found = []
  for name in ("valid", "test"):
    path = data / f"lm_wikitext2_valid_test/{name}.txt"
    lines = path.read_text().split("\n")
    found += [("en", s.strip()) for s in lines if len(s.split()) >= 40]
  path = data / "qa_squadshifts_newwiki/new_wiki_v1.0.json"
  found += [("en", s) for s in squad(path)]
  for lang in ("en", "de", "zh"):
    found += [(lang, s) for s in squad(data / f"qa_xquad/xquad.{lang}.json")]
  for lang in ("en", "de", "fr"):
    with gzip.open(data / f"mt_multi30k/train.{lang}.gz", "rt") as file:
      lines = file.read().split("\n")[:2_000]
    found += [
      (lang, " ".join(lines[i : i + 5])) for i in range(0, len(lines) - 5, 5)
    ]
  with open(data / "cls_zh_hotel_reviews/ChnSentiCorp_htl_all.csv") as file:
    reviews = [row[1].strip() for row in list(csv.reader(file))[1:]]
  found += [("zh", s) for s in reviews if len(s) >= 60]
  found = list(dict.fromkeys(found))[:PARAGRAPHS]
  assert len({text for _, text in found}) == PARAGRAPHS
  return found


def grams(lang: str, text: str) -> frozenset[str]:
  """Returns the set of 5-grams of words, or of characters in Chinese."""
  parts = re.findall(r"\w+", text.lower())
  if lang == "zh":
    parts = list("".join(parts))
  last = max(1, len(parts) - N + 1)
  return frozenset("\t".join(parts[i : i + N]) for i in range(last))


def jaccard(a: frozenset, b: frozenset) -> float:
  """Returns the number of shared members over that of all members."""
  return len(a & b) / len(a | b)


def edited(rng: random.Random, lang: str, text: str) -> str:
  """Returns the text, edited until its similarity is at most a target."""
  mark = "" if lang == "zh" else " "
  parts = list(text) if lang == "zh" else text.split(" ")
  source, target = grams(lang, text), rng.uniform(0.5, 1)
  scattered = rng.random() < 0.6
  while True:
    at = rng.randrange(len(parts))
    length = 1 if scattered else rng.randint(1, max(1, len(parts) // 20))
    piece = parts[at : at + length]
    new = [rng.choice(parts) for _ in piece]
    what = rng.choice(["change", "insert", "delete", "move"])
    if what in ("delete", "move"):
      del parts[at : at + length]
      at = rng.randrange(len(parts) + 1)
    if what == "change":
      parts[at : at + length] = new
    elif what != "delete":
      parts[at:at] = piece if what == "move" else new
    result = mark.join(parts)
    if jaccard(source, grams(lang, result)) <= target or len(parts) < 8:
      return result


def true_pairs(sets: list[frozenset]) -> dict[tuple[int, int], float]:
  """Returns {(i, j): similarity} of all pairs from 0.5 on.

  They are found exactly, by an inverted index.
  """
  holders = defaultdict(list)
  found = {}
  for j, members in enumerate(sets):
    shared = Counter(i for gram in members for i in holders[gram])
    for i, n in shared.items():
      similarity = n / (len(sets[i]) + len(members) - n)
      if similarity >= 0.5:
        found[i, j] = similarity
    for gram in members:
      holders[gram].append(j)
  return found


def run(documents: list[Document], **settings):
  """Returns the pairs within a cluster, and CPU seconds of each step."""
  stage = near_duplicates.near_duplicates(**settings)
  shards = range(0, len(documents), SHARD)
  start = time.process_time()
  summaries = [stage.summarize(documents[s : s + SHARD]) for s in shards]
  signed = time.process_time() - start
  found = [
    stage.combine(p, [s[p] for s in summaries]) for p in range(stage.partitions)
  ]
  stage.conclude(found, [len(documents[s : s + SHARD]) for s in shards])
  seconds = (signed, time.process_time() - start)
  keys, roots, _ = near_duplicates.found_clusters(found)
  numbers = (keys >> np.uint64(32)).astype(int) * SHARD
  numbers += keys.astype(np.uint32).astype(int)
  members = defaultdict(list)
  for number, root in zip(numbers.tolist(), roots.tolist(), strict=True):
    members[root].append(number)
  return pairs_within(members.values()), seconds


def pairs_within(groups) -> set[tuple[int, int]]:
  """Returns all pairs of members of a group."""
  return {(i, j) for group in groups for i in group for j in group if i < j}


def plain_datasketch(sets: list[frozenset]) -> set[tuple[int, int]]:
  """Returns the pairs found by MinHashLSH, which chooses its own bands."""
  index = datasketch.MinHashLSH(threshold=THRESHOLD, num_perm=112)
  encoded = ([gram.encode() for gram in members] for members in sets)
  found = set()
  for j, sketch in enumerate(
    datasketch.MinHash.generator(encoded, num_perm=112)
  ):
    found |= {(i, j) for i in index.query(sketch)}
    index.insert(j, sketch)
  return found


def score(name: str, predicted: set, similar: dict) -> None:
  """Prints precision, recall and F1 of pairs."""
  true = {pair for pair, s in similar.items() if s >= THRESHOLD}
  right = len(true & predicted)
  precision, recall = right / max(1, len(predicted)), right / len(true)
  f1 = 2 * right / (len(true) + len(predicted))
  print(
    f"{name:34} pairs {len(predicted):5}  precision {precision:.4f}"
    f"  recall {recall:.4f}  F1 {f1:.4f}"
  )


def beside_datatrove(python: str, texts: list[str]) -> None:
  """Prints documents per CPU second, in three alternating runs of both."""
  documents = [
    Document(str(i), text, {"lang": "en"}) for i, text in enumerate(texts)
  ]
  ours, theirs, bare = [], [], []
  for _ in range(3):
    ours.append(run(documents)[1])
    for words, rows in (("own", theirs), ("split", bare)):
      done = subprocess.run(
        [python, "-c", DATATROVE, words],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=True,
      )
      rows.append(json.loads(done.stdout.splitlines()[-1]))
  for name, rows in (
    ("near_duplicates", ours),
    ("datatrove", theirs),
    ("datatrove, words by str.split", bare),
  ):
    signed, whole = (statistics.median(c) for c in zip(*rows, strict=True))
    print(
      f"{name:30} signatures {len(texts) / signed:7,.0f}  all steps"
      f" {len(texts) / whole:7,.0f} documents a processor second"
    )


def main() -> None:
  """Plants edits, finds duplicates and prints the results."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--data", required=True, type=pathlib.Path)
  parser.add_argument("--datatrove", default="", help="A Python that has it.")
  args = parser.parse_args()
  rng = random.Random(SEED)
  texts = paragraphs(args.data)
  print(Counter(lang for lang, _ in texts))
  texts += [
    (lang, edited(rng, lang, text)) for lang, text in rng.sample(texts, EDITS)
  ]
  rng.shuffle(texts)
  sets = [grams(lang, text) for lang, text in texts]
  similar = true_pairs(sets)
  true = sum(s >= THRESHOLD for s in similar.values())
  print(f"{len(texts)} documents, {true} true pairs at {THRESHOLD}")
  documents = [
    Document(str(i), text, {"lang": lang})
    for i, (lang, text) in enumerate(texts)
  ]
  for threshold in (0.78, 0.79, 0.8, 0.81):
    predicted, seconds = run(documents, threshold=threshold)
    score(f"near_duplicates({threshold=})", predicted, similar)
  print(f"  {len(texts) / seconds[1]:,.0f} documents a processor second")
  predicted, _ = run(documents, threshold=None)
  score("near_duplicates(threshold=None)", predicted, similar)
  score("datasketch.MinHashLSH", plain_datasketch(sets), similar)
  if args.datatrove:
    english = [text for lang, text in texts if lang == "en"]
    beside_datatrove(args.datatrove, english)


if __name__ == "__main__":
  main()
