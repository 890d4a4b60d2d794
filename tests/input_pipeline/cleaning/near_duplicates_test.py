"""Near duplicates: MinHash's formula, brute force, any cut of the corpus."""

import random
import sys

import datasketch
import numpy as np
import pytest
from run_global import cut, run_global
from scipy.sparse import coo_array, csgraph

from input_pipeline.cleaning.near_duplicates import near_duplicates
from input_pipeline.cleaning.parts import clusters
from input_pipeline.document import Document, Dropped
from input_pipeline.similarity import odd_sketch
from input_pipeline.similarity.minhash import signatures
from input_pipeline.similarity.shingles import shingles, token_spans, tokens

GONE = Dropped("near_duplicate")


def grams(text: str, n: int = 5) -> set[tuple]:
  """5-grams of words, spelled out."""
  words = text.lower().split()
  return {tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))}


def corpus(seed: int, size: int = 120) -> list[Document]:
  """Texts of made-up words, and some of them again, edited a little."""
  rng = random.Random(seed)
  words = [f"w{i}" for i in range(3_000)]
  documents = []
  for i in range(size):
    if documents and rng.random() < 0.4:
      text = rng.choice(documents).text.split()
      for _ in range(rng.choice([0, 1, 2, 5])):
        text[rng.randrange(len(text))] = rng.choice(words)
    else:
      text = rng.choices(words, k=rng.randint(60, 160))
    fields = {"score": rng.randint(0, 9)}
    documents.append(Document(f"d{i}", " ".join(text), fields))
  return documents


def test_signatures_are_datasketch_s_own():
  rng = np.random.default_rng(0)
  sets = [rng.integers(0, 2**64, n, np.uint64) for n in (1, 7, 20_000)]
  for members, found in zip(sets, signatures(sets, 112), strict=True):
    expected = datasketch.MinHash(112, hashfunc=lambda h: h >> 32)
    for member in members[-2_000:].tolist():
      expected.update(member)
    expected.update_batch(members.tolist())
    np.testing.assert_array_equal(found, expected.hashvalues)


@pytest.mark.parametrize("similarity", [0.6, 0.7, 0.8])
def test_candidates_come_with_the_probability_of_the_formula(similarity):
  # Pairs of 90 words each, of which so many are shared.
  pairs, size = 400, 90
  shared = round(2 * size * similarity / (1 + similarity))
  documents, word = [], iter(f"w{i}" for i in range(10**6))
  for i in range(pairs):
    common = [next(word) for _ in range(shared)]
    for _ in range(2):
      own = [next(word) for _ in range(size - shared)]
      documents.append(Document(str(i), " ".join(common + own)))
  stage = near_duplicates(ngram=1, unit="words", threshold=None)
  results, _ = run_global(stage, [documents])
  s = shared / (2 * size - shared)
  expected = 1 - (1 - s**8) ** 14
  error = 4 * np.sqrt(expected * (1 - expected) / pairs)
  assert abs(results.count(GONE) / pairs - expected) < error
  assert GONE not in results[::2]


@pytest.mark.parametrize(
  ("a", "b", "tolerance"),
  [
    (60, 66, 0.03),
    (500, 520, 0.04),  # Small, and not small: one is folded.
    (1_000, 1_100, 0.04),  # Of neighbouring levels.
    (4_000, 4_200, 0.06),
    (60_000, 66_000, 0.06),
  ],
)
def test_odd_sketches_estimate_the_similarity(a, b, tolerance):
  rng = np.random.default_rng(a)
  for similarity in (0.6, 0.8, 0.95 if b / a < 1.05 else 0.85):
    shared = round((a + b) * similarity / (1 + similarity))
    members = np.unique(rng.integers(0, 2**64, a + b - shared, np.uint64))
    members = rng.permutation(members)
    one, other = members[:a], members[a - shared :]
    rows = [odd_sketch.sketch(one), odd_sketch.sketch(other)]
    found = odd_sketch.jaccard(
      odd_sketch.Sketches(*(np.array(c) for c in zip(*rows, strict=True))),
      np.array([0, 1, 0]),
      np.array([1, 0, 0]),
    )
    exact = shared / len(members)
    assert found[0] == found[1]
    assert abs(found[0] - exact) < tolerance
    assert found[2] == 1


def test_odd_sketches_of_sets_that_share_nothing():
  rng = np.random.default_rng(1)
  sizes = (3, 500, 513, 1_025, 5_000, 10**5)
  rows = [
    odd_sketch.sketch(rng.integers(0, 2**64, n, np.uint64)) for n in sizes
  ]
  sketches = odd_sketch.Sketches(
    *(np.array(c) for c in zip(*rows, strict=True))
  )
  a, b = np.triu_indices(len(sizes), 1)
  assert odd_sketch.jaccard(sketches, a, b).max() < 0.3


def test_connected_components_are_scipy_s():
  rng = np.random.default_rng(2)
  for nodes, edges in ((1, 1), (50, 30), (300, 200), (2_000, 1_999)):
    a, b = rng.integers(0, nodes, (2, edges))
    if edges == 1_999:  # A path, shuffled.
      order = rng.permutation(nodes)
      a, b = order[:-1], order[1:]
    found = clusters.connected_components(a, b)
    graph = coo_array((np.ones(edges), (a, b)), (nodes, nodes))
    _, expected = csgraph.connected_components(graph, directed=False)
    first = np.unique(expected, return_index=True)[1]
    np.testing.assert_array_equal(found, first[expected][: len(found)])
    alone = np.arange(len(found), nodes)
    assert (first[expected][alone] == alone).all()
  nodes, roots = clusters.forest(
    np.array([9, 5, 2**63], np.uint64), np.array([5, 7, 8], np.uint64)
  )
  assert nodes.tolist() == [5, 7, 8, 9, 2**63]
  assert roots.tolist() == [5, 5, 8, 5, 8]


def groups(documents: list[Document], threshold: float) -> list[list[int]]:
  """Clusters by the exact similarity of all pairs."""
  sets = [grams(d.text) for d in documents]
  n = len(sets)
  near = np.zeros((n, n), bool)
  for i in range(n):
    for j in range(i):
      shared = len(sets[i] & sets[j])
      near[i, j] = shared >= threshold * (len(sets[i] | sets[j]))
  count, label = csgraph.connected_components(near, directed=False)
  return [np.flatnonzero(label == c).tolist() for c in range(count)]


@pytest.mark.parametrize("keep", ["first", "longest", "field:score"])
def test_clusters_are_those_of_brute_force(keep):
  # From 0.75 on, an edge of this corpus is met with: 0.99 and more.
  documents = corpus(4)
  stage = near_duplicates(keep=keep, threshold=0.9)
  results, conclusion = run_global(stage, cut(documents, [30, 50]))
  best = {
    "first": lambda i: -i,
    "longest": lambda i: (len(documents[i].text), -i),
    "field:score": lambda i: (documents[i].fields["score"], -i),
  }[keep]
  expected = groups(documents, 0.9)
  kept = {max(group, key=best) for group in expected}
  assert {i for i, r in enumerate(results) if r != GONE} == kept
  many = [group for group in expected if len(group) > 1]
  summary = conclusion.summary
  assert len(many) > 10
  assert summary["clusters"] == len(many)
  assert summary["dropped"] == len(documents) - len(expected)
  assert sum(summary["sizes"].values()) == len(many)
  largest = sorted(map(len, many), reverse=True)[:20]
  assert [cluster["size"] for cluster in summary["largest"]] == largest
  texts = {d.id: d.text for d in documents}
  of_cluster = {f"d{i}": n for n, group in enumerate(many) for i in group}
  shown = [c["examples"] for c in summary["largest"] if c["examples"]]
  assert shown
  for examples in shown:
    assert all(texts[e["id"]].startswith(e["text"]) for e in examples)
    assert len({of_cluster[e["id"]] for e in examples}) == 1


@pytest.mark.parametrize("threshold", [0.8, None])
def test_no_cut_of_the_corpus_and_no_partition_changes_a_verdict(threshold):
  documents = corpus(5, 300)
  expected = None
  for sizes, parts in (([], 1), ([7, 0, 190], 3), ([20] * 9, 16)):
    stage = near_duplicates(threshold=threshold, partitions_per_band=parts)
    results, conclusion = run_global(stage, cut(documents, sizes))
    found = results, conclusion.summary
    expected = expected or found
    assert found == expected
  assert results.count(GONE) > 20


def test_characters_where_no_spaces_are_written():
  text = "".join(chr(0x4E00 + 7 * i) + "，" * (i % 9 == 8) for i in range(300))
  other = text[:200] + "花" + text[201:]  # 291 of 301 5-grams are shared.
  documents = [Document("a", text), Document("b", other)]
  assert run_global(near_duplicates(), [documents])[0][1] == GONE
  english = [d._replace(fields={"lang": "en"}) for d in documents]
  assert run_global(near_duplicates(), [english])[0] == english
  by_field = shingles("abcdefg", {"lang": "zh-CN"}, 5, "auto")
  assert len(by_field) == 3 and len(shingles("abcdefg", {}, 5, "auto")) == 1


@pytest.mark.parametrize("characters", [False, True])
def test_tokens_stand_where_their_spans_say(characters):
  text = "İstanbul, ΟΔΟΣ — 第一 a_b\ud800!"
  spans = token_spans(text, characters)
  found = tokens(text, characters)
  assert len(spans) == len(found)
  for (start, stop), token in zip(spans.tolist(), found.tolist(), strict=True):
    piece = text[start:stop]
    assert token == tokens(piece, characters)[0] or piece in ("İ", "Σ")


def test_texts_without_words_are_no_duplicates_and_short_ones_are():
  texts = ["", " ", "!?", "one two", "One, two!", "\ud800", "x" * 10**6]
  documents = [Document(str(i), t) for i, t in enumerate(texts * 2)]
  results, _ = run_global(near_duplicates(), [documents])
  dropped = {i for i, r in enumerate(results) if r == GONE}
  assert dropped == {4, 10, 11, 13}


def test_many_equal_and_many_unequal_documents_of_one_bucket():
  # One row and one band: whoever shares the least word is a candidate.
  rng = random.Random(6)
  common = " ".join(f"c{i}" for i in range(30))
  different = [
    Document(str(i), common + "".join(f" x{rng.random()}" for _ in range(30)))
    for i in range(1_200)
  ]
  equal = [Document("e", common)] * 2_000
  stage = near_duplicates(ngram=1, num_perm=1, bands=1)
  results, conclusion = run_global(stage, [different, equal])
  assert results[:1_201] == different + equal[:1]
  assert results.count(GONE) == 1_999
  assert conclusion.summary["sizes"] == {"1025 to 2048": 1}


@pytest.mark.parametrize(
  ("settings", "named"),
  [
    (dict(bands=13), "bands=13.*num_perm=112"),
    (dict(unit="letters"), "'letters'"),
    (dict(threshold=0.3), "threshold=0.3"),
    (dict(keep="best"), "'best'"),
    (dict(partitions_per_band=0), "partitions_per_band=0"),
  ],
)
def test_a_wrong_setting_is_named(settings, named):
  with pytest.raises(ValueError, match=named):
    near_duplicates(**settings)


@pytest.mark.parametrize("name", ["datasketch", "xxhash"])
def test_a_library_that_is_missing_is_named(name, monkeypatch):
  monkeypatch.setitem(sys.modules, name, None)
  with pytest.raises(ValueError, match=f"{name}.*pip install -e '..clean"):
    near_duplicates().summarize([Document("a", "some words")])
