"""Text put into one form: what changes, what must not, and round trips."""

import csv
import json
import pickle
import unicodedata

import pytest

from input_pipeline.cleaning.normalize import normalize
from input_pipeline.document import Counted, Document

pytest.importorskip("ftfy")
pytest.importorskip("opencc")


def text_of(stage, text: str) -> str:
  result = stage(Document("id", text))
  return (result.document if isinstance(result, Counted) else result).text


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    # Full-width letters and digits go, Chinese marks stay.
    (
      "Ｐｙｔｈｏｎ３．１２，你好。是吗？！（对）",
      "Python3．12，你好。是吗？！（对）",
    ),
    # Quotation marks too.
    ("“你好”，他说：‘再见’……", "“你好”，他说：‘再见’……"),
    ("schÃ¶n â€” cafÃ©", "schön — café"),
    ("Tom &amp; Jerry", "Tom & Jerry"),
    ("ﬁnal", "final"),
    ("e\u0301te\u0301", "été"),
    ("가", "가"),
    ("a \t b\u00a0\u3000c  \nd", "a b c\nd"),
    ("\u3000\u3000第一段。\n\u3000\u3000第二段。", "第一段。\n第二段。"),
    ("a\r\nb\rc\u2028d", "a\nb\nc\nd"),
    ("a\n\n\n\n\nb\n \n \nc", "a\n\nb\n\nc"),
    ("零\u200b宽\ufeff字\u2060符\u00ad", "零宽字符"),
    ("a\u200db\u200cc\u202ed\u200e", "abcd"),
    ("a\x00b\x07c\x1b[31mred\x1b[0m\x7f", "abcred"),
    ("\ud800x", "\ufffdx"),
    # Joiners in emoji and in Persian mean something.
    ("👩\u200d💻 می\u200cخواهم", "👩\u200d💻 می\u200cخواهم"),
  ],
)
def test_by_default(text, expected):
  assert text_of(normalize(), text) == expected


def test_ftfy_would_repair_nothing_where_it_is_not_asked():
  import ftfy

  sound = "\t\n" + "".join(map(chr, range(32, 127))).replace("&", "")
  assert ftfy.fix_text(sound) == sound
  assert text_of(normalize(), sound) == sound.strip()


def test_clean_text_is_the_same_object():
  document = Document("id", "Nothing to do，无事。")
  assert normalize()(document) is document


@pytest.mark.parametrize(
  ("settings", "text", "expected"),
  [
    ({"width": "keep"}, "ＡＢＣ１２３", "ＡＢＣ１２３"),
    ({"punctuation": "half"}, "你好，Ａ！、。（１）", "你好,A!,.(1)"),
    (
      {"punctuation": "full"},
      "你好,世界.好吗?对!一:二;end, ok.",
      "你好，世界。好吗？对！一：二；end, ok.",
    ),
    # What stands in numbers, times, names and paths is no punctuation.
    (
      {"punctuation": "full"},
      "圆周率3.14,时间12:30,文件名a.txt 第1.2节",
      "圆周率3.14,时间12:30,文件名a.txt 第1.2节",
    ),
    ({"form": "NFKC"}, "①²", "12"),
    ({"form": None, "repair": False}, "e\u0301", "e\u0301"),
    ({"repair": False}, "schÃ¶n &amp;", "schÃ¶n &amp;"),
    ({"straight_quotes": True}, "“a” ‘b’", "\"a\" 'b'"),
    ({"spaces": False}, "a  b \n", "a  b \n"),
    ({"max_newlines": None}, "a\n\n\n\nb", "a\n\n\n\nb"),
    ({"max_newlines": 1}, "a\n\n\n\nb", "a\nb"),
    ({"script": "simplified"}, "漢語與臺灣的頭髮", "汉语与台湾的头发"),
    ({"script": "traditional"}, "头发和发展", "頭髮和發展"),
    # Japanese is left alone.
    (
      {"script": "simplified"},
      "この駅から図書館まで歩きます",
      "この駅から図書館まで歩きます",
    ),
  ],
)
def test_settings(settings, text, expected):
  assert text_of(normalize(**settings), text) == expected


def test_counts_name_the_steps():
  stage = normalize(script="simplified")
  document, counts = stage(Document("id", "Ａ\u200b漢  e\u0301 &lt;", {"a": 1}))
  assert document == Document("id", "A汉 é <", {"a": 1})
  assert counts == {
    "repaired": 1,
    "invisible_removed": 1,
    "composed": 1,
    "width_changed": 1,
    "script_changed": 1,
    "spaces_changed": 1,
  }


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    (
      {"form": "nfc"},
      "form='nfc' is none of 'NFC', 'NFD', 'NFKC', 'NFKD', None",
    ),
    ({"width": "full"}, "width='full' is none of 'half', 'keep'"),
    ({"punctuation": "x"}, "punctuation='x' is none of 'keep', 'half', 'full'"),
    ({"script": "zh-tw"}, "script='zh-tw' is none of 'keep', 'simplified'"),
    ({"max_newlines": 0}, "max_newlines=0 is less than 1"),
  ],
)
def test_wrong_settings(settings, message):
  with pytest.raises(ValueError, match=message):
    normalize(**settings)


def test_a_stage_travels_and_is_pure():
  stage = normalize(script="traditional")
  there = pickle.loads(pickle.dumps(stage))
  for text in ("头发 Ａ", "schÃ¶n", "plain"):
    document = Document("id", text)
    assert there(document) == stage(document) == stage(document)


def test_width_agrees_with_unicode():
  # NFKC of a full-width letter or digit is its ASCII form.
  wide = "".join(map(chr, range(0xFF01, 0xFF5F)))
  stage = normalize(repair=False, punctuation="half")
  assert text_of(stage, wide) == unicodedata.normalize("NFKC", wide)


@pytest.mark.shared_data
def test_simplified_sentences_come_back(shared_data):
  path = shared_data / "cls_zh_hotel_reviews" / "ChnSentiCorp_htl_all.csv"
  with path.open(encoding="utf-8-sig", newline="") as file:
    reviews = [row["review"] for row in csv.DictReader(file)][:500]
  first = normalize(script="simplified")
  there = normalize(script="traditional")
  changed = 0
  for review in reviews:
    simplified = text_of(first, review)
    traditional = text_of(there, simplified)
    # The one word of these reviews that has two forms in simplified Chinese.
    back = text_of(first, traditional).replace("想像", "想象")
    assert back == simplified.replace("想像", "想象")
    changed += traditional != simplified
  assert changed / len(reviews) >= 0.99


@pytest.mark.shared_data
def test_poems_come_back(shared_data):
  path = shared_data / "lm_zh_tang_poems" / "poet.tang.0.json"
  poems = json.loads(path.read_text())[:300]
  stage = normalize(script="simplified")
  simplified = [text_of(stage, "\n".join(p["paragraphs"])) for p in poems]
  for poem, text in zip(poems, simplified, strict=True):
    # A character for a character, a line for a line.
    assert len(text) == len(text_of(normalize(), "\n".join(poem["paragraphs"])))
    assert text_of(stage, text) == text


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["en", "de", "zh"])
def test_clean_text_is_hardly_touched(shared_data, name):
  data = json.loads(
    (shared_data / "qa_xquad" / f"xquad.{name}.json").read_text()
  )
  stage = normalize()
  for article in data["data"][:20]:
    for paragraph in article["paragraphs"]:
      text = paragraph["context"]
      once = text_of(stage, text)
      assert text_of(stage, once) == once
      ours, theirs = (
        "".join(unicodedata.normalize("NFKC", t).split()) for t in (once, text)
      )
      drop = str.maketrans("", "", "\u200b\u200c\u200d\ufeff\u200e\xad")
      assert ours.translate(drop) == theirs.translate(drop)
