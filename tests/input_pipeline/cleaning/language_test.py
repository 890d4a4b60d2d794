"""Languages told apart on texts whose language is known."""

import gzip
import json
import pickle

import pytest

from input_pipeline.cleaning.language import identify, language
from input_pipeline.document import Document, Dropped

pytest.importorskip("py3langid")


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("今天天气很好，我们去公园走走吧。", "zh"),
    ("臺灣的夏天又長又熱。", "zh"),
    ("用 Python 写一个简单的网络爬虫", "zh"),
    ("今日はとても良い天気ですね。", "ja"),
    ("東京の夏は暑い", "ja"),
    ("오늘은 날씨가 정말 좋네요.", "ko"),
    ("The weather is fine today, let us go for a walk.", "en"),
    ("Das Wetter ist heute schön, lass uns spazieren gehen.", "de"),
    ("Il fait beau aujourd'hui, allons nous promener.", "fr"),
    ("The Chinese word 中文 means the Chinese language itself.", "en"),
    # What is an address says nothing about the language around it.
    ("https://www.example.com/the/news/of/the/day 天气很好", "zh"),
  ],
)
def test_a_sentence(text, expected):
  name, score = identify(text)
  assert name == expected
  assert 0 < score <= 1


@pytest.mark.parametrize("text", ["", " \n", "12:30 — 3.14 !!", "http://a.b/c"])
def test_no_letters(text):
  assert identify(text) is None
  assert language(keep=None)(Document("id", text)) == Dropped("no_letters")


def test_the_fields_and_the_count():
  document, counts = language()(Document("id", "今天天气很好", {"url": "u"}))
  assert document.fields == {"url": "u", "lang": "zh", "lang_score": 1.0}
  assert counts == {"lang_zh": 1}


def test_what_is_kept():
  german = Document("id", "Das Wetter ist heute schön und warm.")
  assert language()(german) == Dropped("other_language", "de")
  assert language(keep=("de",))(german).document.fields["lang"] == "de"
  assert language(keep=None)(german).document.fields["lang"] == "de"
  # Two Han characters, weighing five letters, beside four letters: 5 of 9.
  mixed = Document("id", "abcd中文")
  assert language(min_score=0.56)(mixed).document.fields["lang_score"] == 0.56
  assert language(min_score=0.57)(mixed) == Dropped("unsure_language", "zh")


def test_only_the_beginning_is_looked_at():
  text = "天气很好。" + "The weather is fine today. " * 10
  assert language(max_characters=5)(Document("id", text)).counts == {
    "lang_zh": 1
  }
  assert language()(Document("id", text)).counts == {"lang_en": 1}


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"keep": "zh"}, r"keep='zh' is neither None nor a list"),
    ({"keep": ()}, r"keep=\(\) is neither"),
    ({"keep": ("zh", "chinese")}, r"keep has 'chinese', which is not an ISO"),
    ({"min_score": 1.5}, r"min_score=1.5 is not from 0 to 1"),
    ({"max_characters": 0}, r"max_characters=0 is not positive"),
  ],
)
def test_wrong_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    language(**settings)


def test_a_stage_travels_and_is_pure():
  stage = language(keep=None)
  there = pickle.loads(pickle.dumps(stage))
  for text in ("The weather is fine.", "天气很好", "Hola a todos"):
    document = Document("id", text)
    assert there(document) == stage(document) == stage(document)


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["en", "de", "zh"])
def test_xquad(shared_data, name):
  data = json.loads(
    (shared_data / "qa_xquad" / f"xquad.{name}.json").read_text()
  )
  paragraphs = [p for article in data["data"] for p in article["paragraphs"]]
  right = [identify(p["context"][:1000])[0] == name for p in paragraphs]
  assert sum(right) / len(right) >= 0.99
  # Questions are a line long.
  right = [identify(p["qas"][0]["question"])[0] == name for p in paragraphs]
  assert sum(right) / len(right) >= 0.98


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["en", "de", "fr"])
def test_captions(shared_data, name):
  path = shared_data / "mt_multi30k" / f"test_2016_flickr.{name}.gz"
  lines = gzip.decompress(path.read_bytes()).decode().splitlines()[:300]
  assert sum(identify(line)[0] == name for line in lines) / len(lines) >= 0.99
