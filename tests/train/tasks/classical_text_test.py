import pickle
import re
import sys

import pytest

from input_pipeline.cleaning.lowercase import lowercase
from input_pipeline.cleaning.stem import stem
from input_pipeline.cleaning.stop_words import stop_words
from input_pipeline.document import Counted, Document


def run(stage, text, lang=None):
  fields = {} if lang is None else {"lang": lang}
  return pickle.loads(pickle.dumps(stage))(Document("a", text, fields))


def text_of(result):
  return (result.document if isinstance(result, Counted) else result).text


@pytest.mark.parametrize(
  ("text", "lower"),
  [
    ("The CAT", "the cat"),
    ("ÀÉÎ ΣΊΣΥΦΟΣ Ж", "àéî σίσυφος ж"),  # a final sigma
    ("猫 2 İ", "猫 2 i̇"),
  ],
)
def test_lower_case_is_unicode_s(text, lower):
  result = run(lowercase(), text, "en")
  assert result == Document("a", lower, {"lang": "en"})


@pytest.mark.parametrize(
  ("text", "left", "removed"),
  [
    ("The cat sat on the mat.", "cat sat mat.", 3),
    ("It's a dog's life, isn't it?", "dog's life, ?", 4),
    ("It’s what THEY want\nof it", "want\n", 5),
    ("a well-being of “the theatre”", "well-being “theatre”", 3),
    ("theatre another\tword", "theatre another\tword", 0),
    ("我 is a the_thing", "我 the_thing", 2),
    ("", "", 0),
  ],
)
def test_english_stop_words(text, left, removed):
  for stage, lang in ((stop_words("en"), "zh"), (stop_words(), "en")):
    result = run(stage, text, lang)
    assert text_of(result) == left
    counts = result.counts if isinstance(result, Counted) else {"removed": 0}
    assert counts == {"removed": removed}


@pytest.mark.parametrize(
  ("text", "left", "removed"),
  [
    ("我们的房间很干净", "房间干净", 3),
    ("他们的目的是和平", "目的和平", 3),
    ("我了解这个地方", "了解地方", 2),
    ("房间 的 空调 在 响", "房间  空调  响", 2),
    ("the room 的", "the room", 1),
    ("酒店", "酒店", 0),
  ],
)
def test_chinese_stop_words(text, left, removed):
  for stage, lang in ((stop_words("zh"), None), (stop_words(), "zh")):
    result = run(stage, text, lang)
    assert text_of(result) == left
    counts = result.counts if isinstance(result, Counted) else {"removed": 0}
    assert counts == {"removed": removed}


def test_words_of_one_s_own(tmp_path):
  path = tmp_path / "words.txt"
  path.write_text("\ufeffCat\n\n目的 \r\n", encoding="utf-8")
  for stage in (stop_words(words=["Cat", "目的"]), stop_words(file=str(path))):
    assert text_of(run(stage, "the cat 的目的", "de")) == "the 的"


@pytest.mark.parametrize("lang", [None, "de", "xx"])
def test_a_language_without_a_list_is_left(lang):
  document = Document("a", "the cat 的", {"lang": lang} if lang else {})
  assert stop_words()(document) == document


def test_the_lists_are_words_once_each():
  from input_pipeline.cleaning import stop_words as module

  words = module._LISTS["en"]
  assert len(set(words)) == len(words)
  assert all(re.fullmatch(r"[a-z]+('[a-z]+)?", word) for word in words)
  chinese, whole = module._LISTS["zh"], module._CHINESE_WHOLE.split()
  assert len({*chinese, *whole}) == len(chinese) + len(whole)
  # What is passed over without holding a stop word would do nothing.
  assert all(any(stop in word for stop in chinese) for word in whole)


def test_scikit_learn_agrees_on_most_of_the_english_list():
  text = pytest.importorskip("sklearn.feature_extraction.text")
  from input_pipeline.cleaning import stop_words as module

  plain = {word for word in module._LISTS["en"] if "'" not in word}
  assert len(plain & text.ENGLISH_STOP_WORDS) > 0.8 * len(plain)


@pytest.mark.parametrize(
  ("settings", "named"),
  [
    ({"language": "de"}, "language='de'.*valid: en, zh"),
    ({"language": "en", "words": ["a"]}, "one of language, words and file"),
    ({"words": "the"}, "words='the' is not a list"),
    ({"words": ["a", ""]}, "is not a list of words"),
    ({"words": [3]}, "is not a list of words"),
    ({"file": "/nowhere"}, "/nowhere: No such file"),
    ({"file": "EMPTY"}, "empty: contains no word"),
    ({"file": "BINARY"}, "binary: is not UTF-8"),
  ],
)
def test_wrong_stop_words_are_one_line(tmp_path, settings, named):
  (tmp_path / "empty").write_bytes(b" \n")
  (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
  file = settings.get("file")
  if file in ("EMPTY", "BINARY"):
    settings = {"file": str(tmp_path / file.lower())}
  with pytest.raises(ValueError, match=named) as error:
    stop_words(**settings)
  assert "\n" not in str(error.value)


# From the vocabularies that Snowball's own pages show.
@pytest.mark.parametrize(
  ("lang", "text", "stems"),
  [
    ("en", "Connected connections, CONNECTING!", "connect connect, connect!"),
    ("en", "the knightly  knots\nconsigned", "the knight  knot\nconsign"),
    ("de", "aufeinander kategorischen", "aufeinand kategor"),
    ("fr", "continuellement majestueusement", "continuel majestu"),
    ("ru", "вагонами", "вагон"),
    ("zh", "我们 connected", "我们 connected"),
    (None, "connected", "connected"),
  ],
)
def test_stems_are_snowball_s(lang, text, stems):
  pytest.importorskip("snowballstemmer")
  assert run(stem(), text, lang).text == stems
  if lang not in (None, "zh"):
    assert run(stem(lang), text, "zh").text == stems


def test_wrong_stemming_is_one_line(monkeypatch):
  pytest.importorskip("snowballstemmer")
  with pytest.raises(ValueError, match="language='zh'.*valid: ar,.* en,"):
    stem("zh")
  monkeypatch.setitem(sys.modules, "snowballstemmer", None)
  with pytest.raises(ValueError, match=r"-e '.\[clean\]"):
    stem()


def test_every_code_has_an_algorithm():
  snowball = pytest.importorskip("snowballstemmer")
  from input_pipeline.cleaning import stem as module

  assert set(module._CODES.values()) <= set(snowball.algorithms())
