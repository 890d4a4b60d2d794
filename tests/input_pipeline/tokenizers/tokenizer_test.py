import os

import numpy as np
import pytest

from input_pipeline.packing import token_file as token_files
from input_pipeline.sources import open_source
from input_pipeline.tokenizers import get_tokenizer

_TEXT = "Où est-il ? — 猫 \U0001f408 \x00\n\tok\r\n"


@pytest.fixture
def texts(tmp_path):
  folder = tmp_path / "texts"
  folder.mkdir()
  for i in range(20):
    words = " ".join(f"word{(i * j) % 37} naïve" for j in range(200))
    (folder / f"{i}.txt").write_text(f"{words}\n  猫 {i}\n", encoding="utf-8")
  return f"text:{folder}/*.txt"


def test_byte_is_utf8():
  tokenizer = get_tokenizer("byte", "unused:")
  expected = list(_TEXT.encode())
  assert tokenizer.encode(_TEXT).tolist() == expected
  assert tokenizer.encode(_TEXT.encode()).tolist() == expected
  assert tokenizer.decode(expected) == _TEXT
  assert tokenizer.decode([0xFF, 65]) == "\ufffdA"
  assert tokenizer.vocab_size == 256
  assert tokenizer.eos == 0


def test_char_is_the_sorted_set_of_characters(texts, tmp_path):
  tokenizer = get_tokenizer("char", texts, workdir=str(tmp_path / "run"))
  whole = "".join(
    open_source(texts, "all").read(np.arange(20))["text"].tolist()
  )
  characters = sorted(set(whole))
  ids = {c: i for i, c in enumerate(characters)}
  text = "naïve 猫 word1\n"
  assert tokenizer.encode(text).tolist() == [ids[c] for c in text]
  assert tokenizer.encode(text.encode()).tolist() == [ids[c] for c in text]
  assert tokenizer.decode(tokenizer.encode(text)) == text
  assert tokenizer.vocab_size == len(characters)
  assert tokenizer.eos is None
  assert tokenizer.byte_lengths.tolist() == [
    len(c.encode()) for c in characters
  ]
  with pytest.raises(ValueError, match="'Ω' is not in the vocabulary"):
    tokenizer.encode("wordΩ")
  # A finished run needs its source no more.
  again = get_tokenizer("char", "text:/gone", workdir=str(tmp_path / "run"))
  assert again.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_sentencepiece_is_trained_once_and_kept(texts, tmp_path, model_type):
  pytest.importorskip("sentencepiece")
  spec = f"sentencepiece?vocab_size=290&model_type={model_type}"
  tokenizer = get_tokenizer(
    spec,
    texts,
    cache_dir=str(tmp_path / "a"),
    workdir=str(tmp_path / "run"),
  )
  assert tokenizer.vocab_size == 290
  # Unknown characters fall back to bytes, and spaces are kept.
  ids = tokenizer.encode("  naïve \U0001f408  word3\n")
  assert tokenizer.decode(ids) == "  naïve \U0001f408  word3\n"
  assert tokenizer.byte_lengths[ids].sum() == len(
    "  naïve \U0001f408  word3\n".encode()
  )
  assert len(tokenizer.encode("word3 naïve")) < 12
  fresh = get_tokenizer(spec, texts, cache_dir=str(tmp_path / "b"))
  assert fresh.content == tokenizer.content
  kept = tmp_path / "run" / "tokenizer.model"
  loaded = get_tokenizer(f"sentencepiece:{kept}", "unused:")
  assert (
    loaded.encode("naïve word3").tolist()
    == tokenizer.encode("naïve word3").tolist()
  )
  again = get_tokenizer(spec, "text:/gone", workdir=str(tmp_path / "run"))
  assert again.content == tokenizer.content


@pytest.mark.parametrize(
  ("spec", "named"),
  [
    ("bytes", "tokenizer 'bytes' is unknown; valid: byte"),
    ("sentencepiece:/nowhere.model", "/nowhere.model: No such file"),
    ("sentencepiece:/nowhere.model?eos=1", r"leave out '[?]eos=1'"),
    ("sentencepiece?vocab=3", "no option 'vocab'"),
    ("sentencepiece?vocab_size=many", "vocab_size is not a count"),
    ("sentencepiece?vocab_size=99999", "(?i)vocabulary size"),
  ],
)
def test_a_wrong_tokenizer_is_named(texts, spec, named):
  with pytest.raises(ValueError, match=named) as error:
    get_tokenizer(spec, texts)
  assert "\n" not in str(error.value)


def test_a_text_in_one_long_line_is_named(monkeypatch):
  from input_pipeline.tokenizers import sentencepiece

  monkeypatch.setattr(sentencepiece, "_LONGEST", 20)
  with pytest.raises(ValueError, match="^T: no line .* into shorter lines$"):
    sentencepiece.fit("T", ["some words " * 9], 300, "bpe")


def test_a_missing_library_names_its_extra(texts, monkeypatch):
  monkeypatch.setitem(__import__("sys").modules, "sentencepiece", None)
  with pytest.raises(ValueError, match=r"-e '\.\[text\]"):
    get_tokenizer("sentencepiece?vocab_size=301", texts)


def make(uri, split, cache, spec="byte"):
  source = open_source(uri, split)
  tokenizer = get_tokenizer(spec, uri, cache_dir=cache)
  return token_files.token_file(
    source, tokenizer, uri=uri, split=split, cache_dir=cache
  )


def test_token_file_holds_the_documents_in_order(texts, tmp_path):
  cache = str(tmp_path / "cache")
  tokens, ends, _ = make(texts, "all", cache)
  documents = open_source(texts, "all").read(np.arange(20))["text"]
  expected = b"\0".join(d.encode() for d in documents)
  assert tokens.dtype == np.uint8
  assert tokens.tobytes() == expected
  starts = [0, *(ends[:-1] + 1)]
  for start, end, document in zip(starts, ends, documents, strict=True):
    assert tokens[start:end].tobytes() == document.encode()
  # Characters have no token that ends a document.
  characters, ends, _ = make(texts, "all", cache, "char")
  tokenizer = get_tokenizer("char", texts, cache_dir=cache)
  assert tokenizer.decode(characters) == "".join(documents)
  np.testing.assert_array_equal(ends, np.cumsum([len(d) for d in documents]))


def test_token_file_is_made_once_and_again_when_files_change(
  texts, tmp_path, monkeypatch
):
  cache = str(tmp_path / "cache")
  make(texts, "all", cache)
  assert len(os.listdir(cache)) == 2
  with monkeypatch.context() as patch:
    patch.setattr(token_files, "_chunks", None)
    make(texts, "all", cache)
  with open(texts.removeprefix("text:").replace("*", "3"), "a") as file:
    file.write("more")
  assert b"more" in make(texts, "all", cache).tokens.tobytes()
  make(texts, "train", cache)
  assert len(os.listdir(cache)) == 6


def test_a_killed_run_leaves_nothing_half(texts, tmp_path, monkeypatch):
  cache = str(tmp_path / "cache")

  def chunks(*arguments):
    yield b"half"
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(token_files, "_chunks", chunks)
    with pytest.raises(KeyboardInterrupt):
      make(texts, "all", cache)
  assert os.listdir(cache) == []
  assert b"half" not in make(texts, "all", cache).tokens.tobytes()


def test_text_outside_the_vocabulary_names_its_file(texts, tmp_path):
  workdir = str(tmp_path / "run")
  tokenizer = get_tokenizer("char", texts, workdir=workdir)
  (tmp_path / "new.txt").write_text("Ω")
  (tmp_path / "other.txt").write_text("word")
  uri = f"text:{tmp_path}/*.txt"
  with pytest.raises(ValueError, match=r"new\.txt: character 'Ω'"):
    token_files.token_file(
      open_source(uri, "all"),
      tokenizer,
      uri=uri,
      split="all",
      cache_dir=str(tmp_path / "cache"),
    )
