"""Quality rules for Chinese, which count characters instead of words.

The rules of Gopher, C4 and FineWeb, with a Chinese word counted as two
characters. Thresholds without a published source were set on clean Chinese
text: all 48 articles of the Chinese part of XQuAD (translated Wikipedia) pass
every rule, and their extreme values are given below.
"""

import functools
import re
from typing import NamedTuple

from input_pipeline.cleaning.parts.words import (
  above,
  below,
  check_languages,
  duplicate_characters,
  ngrams,
  passes_over,
  repeated,
  top_characters,
)
from input_pipeline.document import Counted, Document, Dropped, Result, Stage

_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff]")
_MARK = re.compile(
  "[。！？，、；：“”‘’（）《》〈〉「」『』【】—…·～,.!?;:'\"()\\-]"
)
_SYMBOL = re.compile(r"[^\w\s]|_")
_LINE_ENDS = tuple('。！？…；：”’」』）》】.!?;:")')
# Phrases of the footers and margins of Chinese pages, in both scripts.
_BOILERPLATE = re.compile(
  "ICP[备備证證]|公网安备|版[权權]所有|copyright ?(?:©|\\(c\\))"
  "|(?:增值电信业务|网络视听|互联网新闻信息服务).{0,8}许可证"
  "|(?:未经|未經).{0,12}(?:转载|轉載)|违法和不良信息|[举舉][报報][电電][话話]"
  "|javascript",
  re.IGNORECASE,
)
_MENU = re.compile(
  "^(?:责任编辑|責任編輯|上一[篇页頁]|下一[篇页頁]|分享到|扫一扫|掃一掃|扫码"
  "|长按识别|相关(?:阅读|新闻|推荐|链接|文章)|點擊查看|点击(?:查看|进入|下载)"
  "|返回(?:顶部|首页|頂部|首頁)|网站地图|免责声明|联系我们|聯繫我們|关于我们"
  "|您(?:当前|现在)?的?(?:所在)?位置|当前位置|设为首页|加入收藏|查看更多"
  "|阅读(?:全文|原文|量)|发表评论|[我网]要?评论|热门(?:推荐|文章|标签))"
)
# A longer line with such words is likely to be prose about them.
_BOILERPLATE_LENGTH = 200
_MENU_LENGTH = 40
# With fewer lines, shares of lines carry no information.
_FEW_LINES = 3

_STOP_CHARACTERS = "的了是在不有和人这也就与为及以中被由而等對這與為於"
# Gopher's shares of 2- to 4- and 5- to 10-grams of words. XQuAD: at most 0.06,
# 0.06 and 0.05; 0.03 and less.
_TOP = ((4, 0.20), (6, 0.18), (8, 0.16))
_DUPLICATE = (
  *((10, 0.15), (12, 0.14), (14, 0.13), (16, 0.12), (18, 0.11), (20, 0.10)),
)


class _Settings(NamedTuple):
  languages: tuple[str, ...] | None
  boilerplate: bool
  min_characters: int | None
  max_characters: int | None
  min_han: float | None
  min_marks: float | None
  max_marks: float | None
  max_symbols: float | None
  max_bullet_lines: float | None
  max_ellipsis_lines: float | None
  min_lines_with_mark: float | None
  max_short_lines: float | None
  short_line: int
  max_duplicate_lines: float | None
  max_duplicate_line_characters: float | None
  top_ngrams: tuple[tuple[int, float], ...]
  duplicate_ngrams: tuple[tuple[int, float], ...]
  min_stop_characters: int | None
  stop_characters: frozenset[str]


def chinese_quality(
  languages: tuple[str, ...] | None = ("zh",),
  boilerplate: bool = True,
  min_characters: int | None = 100,
  max_characters: int | None = 200_000,
  min_han: float | None = 0.3,
  min_marks: float | None = 0.02,
  max_marks: float | None = 0.3,
  max_symbols: float | None = 0.1,
  max_bullet_lines: float | None = 0.9,
  max_ellipsis_lines: float | None = 0.3,
  min_lines_with_mark: float | None = 0.106,
  max_short_lines: float | None = 0.67,
  short_line: int = 10,
  max_duplicate_lines: float | None = 0.287,
  max_duplicate_line_characters: float | None = 0.2,
  top_ngrams: tuple[tuple[int, float], ...] | None = _TOP,
  duplicate_ngrams: tuple[tuple[int, float], ...] | None = _DUPLICATE,
  min_stop_characters: int | None = 2,
  stop_characters: str = _STOP_CHARACTERS,
) -> Stage:
  """Rules for Chinese prose, applied after lines of boilerplate are removed.

  Characters are counted without white space. None disables a rule.

  Args:
    languages: the values of fields["lang"] to judge; other documents pass
      unchanged. None judges all.
    boilerplate: removes lines such as ICP numbers, "版权所有" or "责任编辑",
      counted as "lines_boilerplate".
    min_characters: drops shorter documents as "too_few_characters"; Gopher's
      50 words.
    max_characters: drops longer documents as "too_many_characters"; Gopher's
      100,000 words.
    min_han: least share of Han characters ("few_han"). XQuAD has at least
      0.63, in one paragraph of names 0.40.
    min_marks: least share of punctuation ("few_marks"). XQuAD has at least
      0.06; lists of keywords have none.
    max_marks: greatest share of punctuation ("many_marks"). XQuAD has at most
      0.14, verse 0.25.
    max_symbols: greatest share of other symbols ("symbols"), as in Gopher.
      XQuAD has at most 0.014.
    max_bullet_lines: greatest share of lines that begin with a bullet
      ("bullets"), as in Gopher.
    max_ellipsis_lines: greatest share of lines that end in "…" or "...", for
      three lines or more ("ellipsis_lines"), as in Gopher.
    min_lines_with_mark: least share of lines that end in a mark, including
      closing quotation marks and colons, for three lines or more
      ("few_lines_with_mark"), as in FineWeb-2 for Chinese.
    max_short_lines: greatest share of lines of at most `short_line` characters
      ("short_lines"), as in FineWeb.
    short_line: in characters; FineWeb's 30 letters are about five words.
    max_duplicate_lines: greatest share of lines that repeat an earlier one
      ("duplicate_lines"), as in FineWeb-2 for Chinese.
    max_duplicate_line_characters: the same by characters
      ("duplicate_line_characters"), as in Gopher.
    top_ngrams: pairs of n and the greatest share of the most frequent n-gram
      of characters that occurs more than once ("top_N_gram").
    duplicate_ngrams: pairs of n and the greatest share of n-grams of
      characters that repeat an earlier one ("duplicate_N_gram").
    min_stop_characters: least number of different stop characters
      ("few_stop_characters"); Gopher's two. Classical verse has fewer, so use
      None for it.
    stop_characters: the most frequent function characters, in both scripts.
  """
  check_languages("chinese_quality", languages)
  settings = _Settings(
    languages and tuple(languages),
    boilerplate,
    min_characters,
    max_characters,
    min_han,
    min_marks,
    max_marks,
    max_symbols,
    max_bullet_lines,
    max_ellipsis_lines,
    min_lines_with_mark,
    max_short_lines,
    short_line,
    max_duplicate_lines,
    max_duplicate_line_characters,
    tuple(map(tuple, top_ngrams or ())),
    tuple(sorted(map(tuple, duplicate_ngrams or ()))),
    min_stop_characters,
    frozenset(stop_characters),
  )
  return functools.partial(_judge, settings)


def _is_boilerplate(line: str) -> bool:
  if len(line) <= _MENU_LENGTH and _MENU.match(line.strip(" 　\t【[<>》«»|·")):
    return True
  return len(line) <= _BOILERPLATE_LENGTH and bool(_BOILERPLATE.search(line))


def _broken_by_characters(s: _Settings, text: str) -> str | None:
  """The rule on the characters that is broken; `text` has no white space."""
  count = len(text)
  if below(count, s.min_characters, 1):
    return "too_few_characters"
  if above(count, s.max_characters, 1):
    return "too_many_characters"
  if below(len(_HAN.findall(text)), s.min_han, count):
    return "few_han"
  marks = len(_MARK.findall(text))
  if below(marks, s.min_marks, count):
    return "few_marks"
  if above(marks, s.max_marks, count):
    return "many_marks"
  symbols = len(_SYMBOL.findall(_MARK.sub("", text)))
  if above(symbols, s.max_symbols, count):
    return "symbols"
  found = len(s.stop_characters.intersection(text))
  if below(found, s.min_stop_characters, 1):
    return "few_stop_characters"
  return None


def _broken_by_lines(s: _Settings, lines: list[str]) -> str | None:
  """The rule on the lines that is broken; they are stripped, none is empty."""
  count = len(lines)
  bullets = sum(line.startswith(tuple("•·●■◆★-*")) for line in lines)
  if above(bullets, s.max_bullet_lines, count):
    return "bullets"
  if count >= _FEW_LINES:
    ellipses = sum(line.endswith(("…", "...")) for line in lines)
    if above(ellipses, s.max_ellipsis_lines, count):
      return "ellipsis_lines"
    ended = sum(line.endswith(_LINE_ENDS) for line in lines)
    if below(ended, s.min_lines_with_mark, count):
      return "few_lines_with_mark"
  short = sum(len(line) <= s.short_line for line in lines)
  if above(short, s.max_short_lines, count):
    return "short_lines"
  again, characters = repeated(lines)
  if above(again, s.max_duplicate_lines, count):
    return "duplicate_lines"
  whole = sum(map(len, lines))
  if above(characters, s.max_duplicate_line_characters, whole):
    return "duplicate_line_characters"
  return None


def _broken_by_ngrams(s: _Settings, text: str) -> str | None:
  """The rule of repetition that is broken; `text` has no white space."""
  for n, most in s.top_ngrams:
    characters = top_characters(ngrams(text, n))
    if characters > n and above(characters, most, len(text)):
      return f"top_{n}_gram"
  for n, most in s.duplicate_ngrams:
    characters = duplicate_characters(ngrams(text, n), n)
    if characters < 0:
      break
    if above(characters, most, len(text)):
      return f"duplicate_{n}_gram"
  return None


def _judge(settings: _Settings, document: Document) -> Result:
  if passes_over(document, settings.languages):
    return document
  text, removed = document.text, 0
  if settings.boilerplate:
    lines = text.split("\n")
    kept = [line for line in lines if not _is_boilerplate(line)]
    removed = len(lines) - len(kept)
    text = "\n".join(kept) if removed else text
  dense = "".join(text.split())
  lines = [line for line in map(str.strip, text.splitlines()) if line]
  rule = (
    _broken_by_characters(settings, dense)
    or (lines and _broken_by_lines(settings, lines))
    or _broken_by_ngrams(settings, dense)
  )
  if rule:
    return Dropped(rule)
  if not removed:
    return document
  document = document._replace(text=text)
  return Counted(document, {"lines_boilerplate": removed})
