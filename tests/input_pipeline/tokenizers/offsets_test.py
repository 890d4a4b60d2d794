"""Tokens stand where they say, whatever the tokenizer and the script."""

import numpy as np
import pytest

from input_pipeline import tokenizers
from input_pipeline.tokenizers import sentencepiece
from input_pipeline.tokenizers.char import load as load_char
from input_pipeline.tokenizers.parts import offsets
from input_pipeline.tokenizers.parts.huggingface import fit_wordpiece, load

TEXTS = {
  "english": "  The $5,000 prize (1990s) didn't go\tto O'Neill-Smith.\n",
  "chinese": "黑豹队以 24 次拦截领先 (NFL)，“职业碗”。",
  "emoji": "so cute 😀😀👩‍👩‍👧 and 🇩🇪!",
  "marks": "cafe\u0301 naïve n\u0303o हिन्दी İstanbul ﬁn",
  "kana": "カタカナとひらがな、한국어 텍스트",
  "marks first": "\u0301a \u200b\u3000x",
}


def made(kind):
  lines = [text for text in TEXTS.values() for text in text.splitlines()]
  if kind == "byte":
    return tokenizers.rebuild("byte", b"")
  if kind == "char":
    from json import dumps

    characters = "".join(sorted(set("".join(TEXTS.values()))))
    return load_char("char", dumps({"characters": characters}).encode())
  if kind == "wordpiece":
    return load("wordpiece:x", fit_wordpiece("x", lines * 3, 200))
  size = {"bpe": 400, "unigram": 356}[kind]
  model = sentencepiece.fit("x", lines * 20, size, kind)
  return sentencepiece.load("sentencepiece:x", model)


@pytest.fixture(
  scope="module", params=["byte", "char", "wordpiece", "unigram", "bpe"]
)
def words(request):
  return request.param, made(request.param)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_every_character_belongs_to_a_token_and_in_order(words, text):
  kind, found = words
  encoded = offsets.encoder(found)(text)
  assert len(encoded.ids) == len(encoded.starts) == len(encoded.word)
  assert (np.diff(encoded.starts) >= 0).all()
  assert (encoded.starts <= encoded.ends).all()
  covered = np.zeros(len(text), bool)
  for start, end in zip(encoded.starts, encoded.ends, strict=True):
    covered[start:end] = True
  dropped = {c for c, seen in zip(text, covered, strict=True) if not seen}
  # White space is of no token; WordPiece drops what it calls no text.
  allowed = "\u200b\u200d" if kind == "wordpiece" else ""
  assert all(c.isspace() or c in allowed for c in dropped), dropped
  spans = offsets.words(text)
  assert "".join(text[a:b] for a, b in spans) == text


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_pieces_that_spell_the_text_stand_exactly_where_they_spell(words, text):
  kind, found = words
  if kind == "wordpiece":
    pytest.skip("it does not spell the text")
  encoded = offsets.encoder(found)(text)
  for i, start, end in zip(
    encoded.ids, encoded.starts, encoded.ends, strict=True
  ):
    piece = found.decode([int(i)])
    if "\ufffd" in piece:  # one byte of several
      assert end - start == 1 or text[start - 1].isspace()
    elif piece.strip():
      # White space in front of a word is of no token.
      assert text[start:end] == piece.lstrip()


def test_wordpiece_stands_where_the_word_is_or_the_piece():
  found = made("wordpiece")
  encoded = offsets.encoder(found)("The CAFÉ, née")
  spans = {
    (int(a), int(b)) for a, b in zip(encoded.starts, encoded.ends, strict=True)
  }
  # Accents change the bytes: all pieces stand for the word. The rest is exact.
  assert (4, 8) in spans and (8, 9) in spans and (10, 13) in spans
  assert not any(a < 4 < b or a < 8 < b for a, b in spans)


def test_words_are_runs_of_letters_or_digits_and_lone_signs():
  text = "a1b2 黑豹, e\u0301s -x"
  found = [text[a:b] for a, b in offsets.words(text)]
  assert found == [
    "a", "1", "b", "2", " 黑", "豹", ",", " e\u0301s", " -", "x",
  ]  # fmt: skip
  assert offsets.words("") == []
  assert offsets.encoder(made("byte"))("").words == ()
