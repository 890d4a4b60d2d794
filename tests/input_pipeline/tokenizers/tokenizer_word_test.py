import collections
import json
import re

import numpy as np
import pytest

from input_pipeline.batching import added_tokens
from input_pipeline.sources import open_source
from input_pipeline.tokenizers import get_tokenizer, kept, rebuild


@pytest.fixture
def texts(tmp_path):
  folder = tmp_path / "texts"
  folder.mkdir()
  for i in range(30):
    words = [f"w{(i * j) % 17}" for j in range(1 + 3 * i)]
    text = f"The {' '.join(words)}, don't — Naïve well-known! rare{i}"
    (folder / f"{i}.txt").write_text(text, encoding="utf-8")
  return f"text:{folder}/*.txt"


def test_words_are_counted_on_the_train_split_most_frequent_first(texts):
  found = get_tokenizer("word?min_count=4", texts)
  train = open_source(texts, "train").read(np.arange(27))["text"]
  by_hand = collections.Counter()
  for text in train:
    by_hand.update(re.findall(r"[\w'-]+", text.lower()))
  expected = sorted(
    ((w, n) for w, n in by_hand.items() if n >= 4),
    key=lambda each: (-each[1], each[0]),
  )
  assert not any(w.startswith("rare") for w, _ in expected)
  assert found.vocab_size == len(expected) + 1
  assert found.counts.tolist() == [0, *(n for _, n in expected)]
  assert [found.decode([i]) for i in range(1, found.vocab_size)] == [
    w for w, _ in expected
  ]
  assert found.byte_lengths.tolist() == [
    0,
    *(len(w.encode()) for w, _ in expected),
  ]


def test_text_is_parted_into_words_and_what_is_unknown_is_0(texts):
  found = get_tokenizer("word?min_count=4", texts)
  text = "THE  naïve\n(w1) rare0 don't'well-known - w1-"
  ids = found.encode(text)
  assert found.decode(ids) == "the naïve w1 <unk> <unk> w1"
  assert found.encode(text.encode()).tolist() == ids.tolist()
  assert ids.dtype == np.int32
  assert ids[3] == 0
  assert found.decode(found.encode("don't well-known")) == "don't well-known"
  assert found.encode("…").tolist() == []


def test_case_and_size_are_options(texts):
  found = get_tokenizer("word?vocab_size=3&lower=0&min_count=1", texts)
  assert found.vocab_size == 3
  assert "Naïve" in get_tokenizer("word?lower=0", texts).decode(range(20))
  assert "naïve" in get_tokenizer("word", texts).decode(range(20))


def test_it_is_kept_in_the_workdir_and_rebuilt_from_its_content(
  texts, tmp_path
):
  spec, run = "word?min_count=4", str(tmp_path / "run")
  found = get_tokenizer(spec, texts, workdir=run)
  for again in (
    kept(spec, run),
    get_tokenizer(spec, "text:/gone", workdir=run),
    rebuild(spec, found.content),
  ):
    assert again.content == found.content
    assert again.counts.tolist() == found.counts.tolist()
    assert again.encode("the w3").tolist() == found.encode("the w3").tolist()


def test_counts_grow_with_the_tokens_that_ops_add(texts):
  found = get_tokenizer("word", texts)
  grown = added_tokens.extended(found, "mask_tokens(0.15)")
  assert grown.vocab_size == found.vocab_size + 1
  assert grown.counts.tolist() == [*found.counts.tolist(), 0]


@pytest.mark.parametrize(
  "spec, told",
  [
    ("word?size=3", "no option 'size'; valid: vocab_size, min_count, lower"),
    ("word?vocab_size=many", "vocab_size is not a count"),
    ("word?vocab_size=1", "vocab_size is below 2"),
    ("word?lower=2", "lower is 0 or 1"),
    ("word?min_count=100000", "no word occurs min_count=100000 times"),
    ("words", "unknown; valid: byte, char, ids?vocab_size=N&eos=ID, "),
  ],
)
def test_a_wrong_spec_is_told_in_one_line(texts, spec, told):
  with pytest.raises(ValueError, match=re.escape(told)) as error:
    get_tokenizer(spec, texts)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  "kept",
  [
    b"",
    b"[]",
    b'{"characters": "ab"}',
    {"lower": True, "words": [], "counts": []},
    {"lower": True, "words": ["a"], "counts": [0]},
    {"lower": True, "words": ["a"], "counts": [1.5]},
    {"lower": True, "words": ["a", "a"], "counts": [2, 1]},
    {"lower": True, "words": ["a b"], "counts": [2]},
    {"lower": True, "words": ["A"], "counts": [2]},
    {"lower": True, "words": ["a"], "counts": [2, 1]},
    {"lower": True, "words": [1], "counts": [2]},
  ],
)
def test_a_damaged_file_is_told(kept):
  content = kept if isinstance(kept, bytes) else json.dumps(kept).encode()
  with pytest.raises(ValueError, match="does not hold words and their counts"):
    rebuild("word", content)
