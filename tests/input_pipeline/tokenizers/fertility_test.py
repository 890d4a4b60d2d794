import json
import sys

import forkserver
import pytest

from input_pipeline import train_tokenizer
from input_pipeline.tokenizers import get_tokenizer
from input_pipeline.tokenizers.parts import fertility


def counts(tokens, words, characters, size, unknown):
  return {
    "tokens": tokens,
    "words": words,
    "characters": characters,
    "bytes": size,
    "unknown": unknown,
  }


def test_counts_of_bytes_by_language():
  tokenizer = get_tokenizer("byte", "unused:")
  texts = [("zh", "猫 é"), ("en", "two words\n"), ("en", ""), ("zh", "狗a")]
  found = fertility.measure(tokenizer, texts)
  # A byte is a token; and a character of several is spelled by its pieces.
  assert found == {
    "en": counts(10, 2, 8, 10, 0),
    "zh": counts(10, 3, 4, 10, 3),
  }
  assert list(found) == ["en", "zh"]
  assert fertility.measure(tokenizer, []) == {}


def test_counts_of_wordpiece(tmp_path):
  pytest.importorskip("tokenizers")
  path = tmp_path / "vocab.txt"
  path.write_text("[UNK]\nlow\n##er\n猫\ne\n##x\nl\n", encoding="utf-8")
  tokenizer = get_tokenizer(f"wordpiece:{path}", "unused:")
  found = fertility.measure(tokenizer, [("en", "Lower élow 猫狗")])
  # low ##er, [UNK], 猫, [UNK]; "é" is "e", and o, w and 狗 alone are unknown.
  assert found["en"] == counts(5, 3, 11, 18, 6)
  assert fertility.measure(tokenizer, [("en", "lrow")])["en"]["unknown"] == 3


def test_rates():
  found = fertility.rates(counts(30, 10, 50, 60, 5))
  assert found == {
    "tokens_per_word": 3,
    "tokens_per_character": 0.6,
    "coverage": 0.9,
    "bytes_per_token": 2,
  }
  assert set(fertility.rates(counts(0, 0, 0, 0, 0)).values()) == {0}


@pytest.mark.parametrize(
  ("text", "language"),
  [
    ("The cat sat.", "en"),
    ("猫在垫子上。", "zh"),
    ("我用 iPhone 和 MacBook 上网很快", "zh"),
    ("He wrote 猫 once.", "en"),
    ("ねこがマットのうえに居る", "other"),
    ("Кошка сидит", "other"),
    ("123 !?", "other"),
    ("", "other"),
    ("a" * 3000 + "猫" * 9000, "en"),
  ],
)
def test_a_language_is_told_by_its_script(text, language):
  assert fertility.language(text) == language


@pytest.fixture
def data(tmp_path):
  def lines(name, texts):
    path = tmp_path / name
    path.write_text(
      "".join(json.dumps({"body": t}) + "\n" for t in texts), encoding="utf-8"
    )
    return f"jsonl:{path}"

  words = "the lower river ran newer over paper and under water again".split()
  english = [
    " ".join(words[(i * j + j) % len(words)] for j in range(12))
    for i in range(40)
  ]
  characters = "春眠不覺曉處處聞啼鳥夜來風雨聲花落知多少"
  chinese = [
    "".join(characters[(i + 3 * j) % len(characters)] for j in range(14))
    for i in range(40)
  ]
  return [lines("en.jsonl", english), lines("zh.jsonl", chinese)]


@pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece"])
def test_the_verb_learns_and_measures(data, tmp_path, kind):
  pytest.importorskip("tokenizers" if kind == "wordpiece" else "sentencepiece")
  output, told = str(tmp_path / "out" / "model"), []
  train_tokenizer.train(
    data, output, kind, 305, text_key=["body"], say=told.append
  )
  scheme = "wordpiece" if kind == "wordpiece" else "sentencepiece"
  tokenizer = get_tokenizer(f"{scheme}:{output}", "unused:")
  with open(f"{output}.fertility.json") as file:
    report = json.load(file)
  assert report["vocab_size"] == tokenizer.vocab_size <= 305
  assert report["kind"] == kind and report["data"] == data
  english, chinese = report["languages"]["en"], report["languages"]["zh"]
  assert chinese["tokens_per_character"] <= 1
  assert english["coverage"] == chinese["coverage"] == 1
  if kind == "wordpiece":  # every word was seen, and is one piece
    assert english["tokens_per_word"] == 1
  assert english["words"] == 4 * 12 and chinese["characters"] == 4 * 14
  assert len(told) == 4 and told[0] == output
  assert told[1].split()[2:4] == ["tokens/word", "tokens/character"]
  cells = told[2].split()
  assert cells[0] == "en" and int(cells[1]) == english["tokens"]
  assert cells[2] == f"{english['tokens_per_word']:.3f}"
  again = str(tmp_path / "again")
  train_tokenizer.train(
    data, again, kind, 305, text_key=["body"], held_out="", say=told.append
  )
  with open(output, "rb") as a, open(again, "rb") as b:
    assert a.read() == b.read()


def test_coverage_is_what_the_pieces_hold(data, tmp_path):
  pytest.importorskip("sentencepiece")
  output = str(tmp_path / "model")
  train_tokenizer.train(
    data[:1], output, "bpe", 300, text_key=["body"], say=lambda line: None
  )
  tokenizer = get_tokenizer(f"sentencepiece:{output}", "unused:")
  import sentencepiece

  model = sentencepiece.SentencePieceProcessor(model_file=output)
  pieces = [model.id_to_piece(i) for i in range(300) if not model.is_byte(i)]
  text = "the 猫 ran é over 狗狗 ."
  missing = sum(
    len(c.encode()) > 1 and not any(c in piece for piece in pieces)
    for c in text
  )
  found = fertility.measure(tokenizer, [("x", text)])["x"]
  assert found["unknown"] == missing == 4


def test_languages_may_be_given(data, tmp_path):
  pytest.importorskip("tokenizers")
  output = str(tmp_path / "model")
  train_tokenizer.train(
    data,
    output,
    "wordpiece",
    100,
    text_key=["body", "body"],
    languages=["fr", "ja"],
    say=lambda line: None,
  )
  with open(f"{output}.fertility.json") as file:
    assert list(json.load(file)["languages"]) == ["fr", "ja"]


@pytest.mark.parametrize(
  ("flags", "named"),
  [
    (
      {"kind": "char"},
      "--kind=char is unknown; valid: bpe, unigram, wordpiece",
    ),
    (
      {"text_key": ["a", "b", "c"]},
      "--text_key=a,b,c: give one name, or one for each",
    ),
    ({"languages": ["en"]}, "--languages=en: give one language for each URI"),
    ({"text_key": ["text"]}, "has no field 'text'"),
    ({"vocab_size": 5}, "(?i)bpe on jsonl:.*vocabulary size"),
    ({"data": ["jsonl:/nowhere"]}, "/nowhere"),
  ],
)
def test_the_verb_names_what_is_wrong(data, tmp_path, flags, named):
  pytest.importorskip("sentencepiece")
  output = tmp_path / "model"
  given = {"data": data, "output": str(output), "text_key": ["body"], **flags}
  with pytest.raises(ValueError, match=named) as error:
    train_tokenizer.train(**given)
  assert "\n" not in str(error.value)
  assert not output.exists()


def test_the_command_ends_in_one_line(tmp_path):
  command = [sys.executable, "-m", "input_pipeline.train_tokenizer"]
  for given, line in {
    "--data=txt:x": "error: the flags --data=URI and --output=FILE are",
    f"--output={tmp_path}/m --data=txt:x": "error: source 'txt:x'",
    "--kind=char": "error: flag --kind=char",
  }.items():
    done = forkserver.run(
      [*command, *given.split()], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
