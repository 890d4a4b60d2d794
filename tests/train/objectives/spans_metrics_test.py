"""Span F1 and SQuAD's figures against cases worked out by hand."""

import itertools
import random

import pytest

from train.objectives import span_f1, squad_metrics


@pytest.mark.parametrize(
  "tags, wanted",
  [
    ("O O", []),
    ("B-a I-a O B-b", [("a", 0, 1), ("b", 3, 3)]),
    ("I-a I-a", [("a", 0, 1)]),  # malformed: begins with I
    ("B-a I-b", [("a", 0, 0), ("b", 1, 1)]),  # malformed: the type changes
    ("B-a B-a", [("a", 0, 0), ("a", 1, 1)]),
    ("B-a E-a E-a", [("a", 0, 1), ("a", 2, 2)]),
    ("S-a I-a", [("a", 0, 0), ("a", 1, 1)]),
    ("B-a O I-a", [("a", 0, 0), ("a", 2, 2)]),
    ("B-creative-work I-creative-work", [("creative-work", 0, 1)]),
    ("B I O", [("_", 0, 1)]),
  ],
)
def test_spans_by_hand(tags, wanted):
  assert span_f1.spans(tags.split()) == wanted


def test_span_scores_by_hand():
  true = ["B-a I-a O B-b".split(), "B-a O".split(), "O B-b".split()]
  told = ["B-a I-a O B-a".split(), "B-a I-a".split(), "O B-b".split()]
  found = span_f1.score(true, told)
  # a: one of three told, one of two wanted; b: one of one, one of two.
  assert found["a"] == (1 / 3, 1 / 2, pytest.approx(0.4), 2)
  assert found["b"] == (1.0, 0.5, pytest.approx(2 / 3), 2)
  assert found["micro"] == (0.5, 0.5, 0.5, 4)
  assert found["macro"].f1 == pytest.approx((0.4 + 2 / 3) / 2)
  assert span_f1.score([["O"]], [["O"]])["micro"] == (0, 0, 0, 0)


@pytest.mark.parametrize("tag", ["PER", "X-a", "O-a", "", "b-a"])
def test_a_tag_without_a_prefix_is_told(tag):
  with pytest.raises(ValueError, match="is neither O nor B-"):
    span_f1.spans([tag])


def test_sequences_of_other_lengths_are_told():
  with pytest.raises(ValueError, match="sequence 1 has 1 tags"):
    span_f1.score([["O"], ["O", "O"]], [["O"], ["O"]])


@pytest.mark.parametrize(
  "text, wanted",
  [
    ("The  Quick, brown fox!", "quick brown fox"),
    ("an  apple a day", "apple day"),
    ("Theatre of a-the", "theatre of athe"),  # punctuation goes first
    ("U.S. $5,000", "us 5000"),
    ("“naïve”", "“naïve”"),  # ASCII punctuation alone
    ("the", ""),
  ],
)
def test_answers_are_normalized_as_squad_does(text, wanted):
  assert squad_metrics.normalize(text) == wanted


def test_chinese_is_compared_by_characters():
  normalize = squad_metrics.normalize
  assert normalize("黑豹队 (NFL)，24 次。", mixed=True) == "黑 豹 队 nfl24 次"
  assert normalize("the 年", mixed=True) == "the 年"  # no articles there
  assert squad_metrics.exact("308分", "308 分。", mixed=True) == 1
  # Two of three characters told, two of four wanted: 2·(2/3)(1/2)/(7/6).
  f1 = squad_metrics.f1("黑豹人", "黑豹队员", mixed=True)
  assert f1 == pytest.approx(4 / 7)


def test_f1_by_hand():
  f1 = squad_metrics.f1
  assert f1("the cat sat", "A cat sat down") == pytest.approx(0.8)
  assert f1("cat cat", "cat") == pytest.approx(2 / 3)  # a bag counts
  assert f1("dog", "cat") == 0
  assert squad_metrics.best("b c", ["a x b", "b c d", "b"]) == (
    0,
    pytest.approx(0.8),
  )
  # What is empty: nothing is shared in version 1; in version 2 it is the same.
  assert f1("the", "a") == 0 and squad_metrics.exact("the", "a") == 1
  assert f1("", "", version=2) == 1 and f1("x", "", version=2) == 0


def test_scores_of_both_versions_by_hand():
  score = squad_metrics.score
  found = score(["cat", "red dog"], [["the cat", "a dog"], ["dog"]])
  assert found == {
    "exact_match": 50,
    "f1": pytest.approx(100 * (1 + 2 / 3) / 2),
  }
  found = score(["cat", "", "x"], [["cat"], [], []])
  assert found == {
    "exact_match": pytest.approx(200 / 3),
    "f1": pytest.approx(200 / 3),
    "answerable_f1": 100,
    "unanswerable_f1": 50,
  }
  with pytest.raises(ValueError, match="no questions"):
    score([], [])


WORDS = "the a an The cat dog, dogs. (U.S.) $5 5,000 naïve — café A's x ! of"
# exact match and F1 of the scripts squad and squad_v2 of the library evaluate
# on the answers of `drawn`.
OF_EVALUATE = [
  (0, 56.6666666667, 50.2857142857, 30.0, 33.0),
  (1, 63.3333333333, 56.5555555556, 43.3333333333, 43.3333333333),
  (2, 76.6666666667, 46.6666666667, 46.6666666667, 46.6666666667),
  (3, 56.6666666667, 40.0634920635, 40.0, 42.7777777778),
]


def drawn(seed):
  rng = random.Random(seed)

  def answer():
    return " ".join(rng.choice(WORDS.split()) for _ in range(rng.randint(0, 5)))

  true = [[answer() for _ in range(rng.randint(1, 4))] for _ in range(30)]
  told = [rng.choice([answer(), rng.choice(each)]) for each in true]
  return told, true


@pytest.mark.parametrize("seed, exact1, f1, exact2, f2", OF_EVALUATE)
def test_scores_are_those_of_evaluates_scripts(seed, exact1, f1, exact2, f2):
  told, true = drawn(seed)
  found = squad_metrics.score(told, true)
  assert found == pytest.approx({"exact_match": exact1, "f1": f1})
  true = [[] if i % 3 == 0 else each for i, each in enumerate(true)]
  told = ["" if i % 2 == 0 else each for i, each in enumerate(told)]
  found = squad_metrics.score(told, true)
  assert (found["exact_match"], found["f1"]) == pytest.approx((exact2, f2))


def test_the_order_of_references_does_not_matter():
  texts = ["the cat", "cat sat", "a big dog"]
  found = {
    squad_metrics.best("cat dog", each)
    for each in itertools.permutations(texts)
  }
  assert len(found) == 1
