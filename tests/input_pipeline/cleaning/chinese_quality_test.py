"""The rules for Chinese at both sides of their thresholds, and on real text."""

import json
import pickle

import pytest

from input_pipeline.cleaning.chinese_quality import chinese_quality
from input_pipeline.document import Counted, Document, Dropped

# Han characters that no rule knows, all different.
HAN = "".join(map(chr, range(0x5000, 0x5000 + 4000)))
THRESHOLDS = (
  "min_characters",
  "max_characters",
  "min_han",
  "min_marks",
  "max_marks",
  "max_symbols",
  "max_bullet_lines",
  "max_ellipsis_lines",
  "min_lines_with_mark",
  "max_short_lines",
  "max_duplicate_lines",
  "max_duplicate_line_characters",
  "top_ngrams",
  "duplicate_ngrams",
  "min_stop_characters",
)


def only(*keys: str):
  """The stage with no threshold but these."""
  return chinese_quality(**{key: None for key in THRESHOLDS if key not in keys})


def rule(stage, text: str) -> str | None:
  result = stage(Document("id", text))
  return result.rule if isinstance(result, Dropped) else None


def lines(*parts: str) -> str:
  return "\n".join(parts)


def ended(count: int, whole: int, mark: str) -> str:
  """`whole` different lines, of which `count` end in the mark."""
  return lines(
    *(HAN[20 * i : 20 * i + 20] + mark * (i < count) for i in range(whole))
  )


CASES = [
  ("min_characters", "too_few_characters", HAN[:100], HAN[:99] + " \n "),
  (
    "max_characters",
    "too_many_characters",
    HAN[:4000] * 50,
    HAN[:4000] * 50 + "多",
  ),
  ("min_han", "few_han", HAN[:30] + "a" * 70, HAN[:29] + "a" * 71),
  ("min_marks", "few_marks", HAN[:98] + "，。", HAN[:98] + "中。"),
  ("max_marks", "many_marks", HAN[:70] + "！" * 30, HAN[:69] + "！" * 31),
  ("max_symbols", "symbols", HAN[:90] + "★" * 10, HAN[:89] + "★" * 11),
  (
    "max_bullet_lines",
    "bullets",
    lines(*["● 一"] * 9, "二"),
    lines(*["· 一"] * 10),
  ),
  (
    "max_ellipsis_lines",
    "ellipsis_lines",
    ended(3, 10, "……"),
    ended(4, 10, "……"),
  ),
  (
    "min_lines_with_mark",
    "few_lines_with_mark",
    ended(2, 18, "。"),
    ended(1, 10, "。"),
  ),
  (
    "max_short_lines",
    "short_lines",
    lines(*(HAN[11 * i : 11 * i + (10 if i < 67 else 11)] for i in range(100))),
    lines(*(HAN[11 * i : 11 * i + (10 if i < 68 else 11)] for i in range(100))),
  ),
  (
    "max_duplicate_lines",
    "duplicate_lines",
    lines(*"甲乙丙丁戊甲甲"),
    lines(*"甲乙丙丁戊己庚甲甲甲"),
  ),
  (
    "max_duplicate_line_characters",
    "duplicate_line_characters",
    lines(HAN[:20], HAN[:20], HAN[20:80]),
    lines(HAN[:21], HAN[:21], HAN[21:79]),
  ),
  # "一二三四" five times is 20 of 100 characters; of 99.
  (
    "top_ngrams",
    "top_4_gram",
    "".join("一二三四" + HAN[16 * i : 16 * i + 16] for i in range(5)),
    "".join("一二三四" + HAN[16 * i : 16 * i + 16] for i in range(5))[:-1],
  ),
  # Ten characters of 67 were there before; of 66.
  (
    "duplicate_ngrams",
    "duplicate_10_gram",
    HAN[:10] + "中" + HAN[:10] + HAN[100:146],
    HAN[:10] + "中" + HAN[:10] + HAN[100:145],
  ),
  (
    "min_stop_characters",
    "few_stop_characters",
    HAN[:50] + "的了" + HAN[50:90],
    HAN[:50] + "的的" + HAN[50:90],
  ),
]


@pytest.mark.parametrize(
  ("key", "name", "good", "bad"), CASES, ids=[case[0] for case in CASES]
)
def test_a_threshold(key, name, good, bad):
  assert rule(only(key), good) is None
  assert rule(only(key), bad) == name
  assert rule(only(), bad) is None


BODY = (
  "中国古代的诗人在旅途中写下了许多动人的作品，这些作品流传至今。"
  "人们在读这些诗句的时候，可以感受到当时的风景与心情，也能看到社会的变迁。"
  "学者们对其中的地名、人物和事件做了仔细的考证，并且出版了不少著作。"
)


@pytest.mark.parametrize(
  "line",
  [
    "京ICP备12345678号-1 京公网安备 11010802020134号",
    "版权所有 某某网络科技有限公司 未经授权禁止转载",
    "Copyright © 2019 某某网",
    "（责任编辑：张三）".strip("（）"),
    "【责任编辑：张三】",
    "上一篇：昨天的新闻",
    "返回顶部",
    "違法和不良信息舉報電話：010-12345678",
    "您的浏览器不支持JavaScript，请开启后重试",
  ],
)
def test_boilerplate_is_left_out_and_counted(line):
  document, counts = chinese_quality()(
    Document("id", f"{BODY}\n{line}\n{BODY[::-1]}", {"lang": "zh"})
  )
  assert document.text == f"{BODY}\n{BODY[::-1]}"
  assert document.fields == {"lang": "zh"}
  assert counts == {"lines_boilerplate": 1}
  kept = chinese_quality(boilerplate=False)(Document("id", f"{BODY}\n{line}"))
  assert isinstance(kept, Document)


@pytest.mark.parametrize(
  "line",
  [
    "关于我们这一代人的成长经历，作者在书里用了整整三章的篇幅来写，"
    "从童年一直写到工作以后的种种变化。",
    "他在上一篇文章里说过这件事。",
    "法律规定版权所有人" + "可以要求赔偿，" * 30,
  ],
)
def test_a_sentence_that_only_sounds_like_it_stays(line):
  document = Document("id", f"{BODY}\n{line}\n{BODY[::-1]}")
  stage = chinese_quality(top_ngrams=None, duplicate_ngrams=None)
  assert stage(document) is document


def test_a_page_of_nothing_but_boilerplate_is_dropped():
  text = "京ICP备12345678号\n返回顶部"
  assert rule(chinese_quality(), text) == "too_few_characters"
  assert isinstance(only()(Document("id", text)), Counted)


def test_other_languages_pass():
  english = Document("id", "short", {"lang": "en"})
  assert chinese_quality()(english) is english
  assert rule(chinese_quality(languages=None), "short") == "too_few_characters"
  assert rule(chinese_quality(), "short") == "too_few_characters"


@pytest.mark.shared_data
def test_clean_chinese_is_kept(shared_data):
  data = json.loads((shared_data / "qa_xquad" / "xquad.zh.json").read_text())
  stage = pickle.loads(pickle.dumps(chinese_quality()))
  kept = 0
  for article in data["data"]:
    text = "\n".join(p["context"] for p in article["paragraphs"])
    document = Document("id", text)
    kept += stage(document) is document
    # The same article with every line three times is what the rules are for.
    assert isinstance(stage(Document("id", f"{text}\n" * 3)), Dropped)
  assert kept == len(data["data"]) == 48


@pytest.mark.shared_data
def test_english_is_not_chinese(shared_data):
  data = json.loads((shared_data / "qa_xquad" / "xquad.en.json").read_text())
  for article in data["data"]:
    for paragraph in article["paragraphs"]:
      assert rule(chinese_quality(), paragraph["context"]) in (
        "few_han",
        "too_few_characters",
      )
