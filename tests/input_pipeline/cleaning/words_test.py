"""Texts split into words and sentences, by hand."""

import pytest

from input_pipeline.cleaning.parts.words import sentence_count, words


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("I don't know.", ["I", "do", "n't", "know", "."]),
    ("John's, they're", ["John", "'s", ",", "they", "'re"]),
    ("the U.S. and Mr. Li", ["the", "U.S.", "and", "Mr.", "Li"]),
    ("3.14 on 7/4/1776, 1,000", ["3.14", "on", "7/4/1776", ",", "1,000"]),
    ("See https://a.org/b?c=1.", ["See", "https://a.org/b?c=1", "."]),
    ("a.b@c-d.org!", ["a.b@c-d.org", "!"]),
    ("I cannot", ["I", "can", "not"]),
    ("1914–1918", ["1914–1918"]),
    ("well-known MPEG-4", ["well", "-", "known", "MPEG-4"]),
    ("so... -- “yes”", ["so", "...", "--", "“", "yes", "”"]),
    ("中文，词", ["中文", "，", "词"]),
  ],
)
def test_words(text, expected):
  assert list(words(text)) == expected


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("", 0),
    ("One", 1),
    ("One. Two", 2),
    ("Mr. Li and Dr. Wu met at 3.15 p.m. in the U.S. once.", 1),
    ('"Really?!" he said. Yes...', 3),
    ("好。不好！", 2),
  ],
)
def test_sentences(text, expected):
  assert sentence_count(text) == expected
