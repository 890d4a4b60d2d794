"""Removal of stop words."""

import functools
import os
import re
from collections.abc import Sequence

from common import bounded_file
from input_pipeline.document import Counted, Document, Result, Stage

_MOST_BYTES = 2**22
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_LETTER = rf"[^\W{_HAN}]"
# A word and the blank after it; "it's" and "well-being" are one.
_WORD = re.compile(rf"({_LETTER}+(?:['’\-]{_LETTER}+)*)([ \t]?)")
_BLANKS = re.compile(r"[ \t]+$", re.MULTILINE)

# The closed word classes of English.
_ENGLISH = """
a an the this that these those some any each every either neither no all both
such what which whose
i me my mine myself we us our ours ourselves you your yours yourself yourselves
he him his himself she her hers herself it its itself they them their theirs
themselves who whom
about above across after against along among around at before behind below
beneath beside between beyond by down during except for from in inside into
near of off on onto out outside over past since through throughout till to
toward towards under until up upon via with within without
and but or nor so yet if because although though while whereas unless than as
whether
am is are was were be been being have has had having do does did doing done
can could may might must shall should will would
not very too also just only then there here when where why how again once
i'm you're he's she's it's we're they're i've you've we've they've i'll you'll
he'll she'll it'll we'll they'll i'd you'd he'd she'd we'd they'd that's there's
don't doesn't didn't isn't aren't wasn't weren't haven't hasn't hadn't can't
cannot couldn't won't wouldn't shouldn't mustn't
"""
# Pronouns, particles, prepositions, conjunctions and adverbs of Chinese.
_CHINESE = """
我 你 您 他 她 它 我们 你们 他们 她们 它们 咱们 自己 大家 这 那 这个 那个 这些
那些
这里 那里 这样 那样 什么 怎么 怎样 哪 哪个 哪里 谁 几
的 地 得 了 着 过 吗 呢 吧 啊 呀 嘛 啦 哦
在 从 向 往 对 对于 关于 由 由于 被 把 将 给 跟 与 和 及 以及 同 为 为了 以 于
按 按照
或 或者 而 而且 并 并且 但 但是 可是 不过 如果 因为 所以 虽然 然而 因此 那么 则
且 即
是 有 也 都 就 才 又 还 再 很 更 最 太 已 已经 正在 一个 一些 一种 之 其 所 等
们
"""
# Words that contain one of those without being made of it.
_CHINESE_WHOLE = """
目的 的确 的士 地方 地址 地点 地区 地铁 地图 地面 土地 当地 各地 外地 基地 得到
获得 取得 觉得 值得 难得 了解 受不了 除了 着急 着手 接着 随着 过去 过程 经过
通过 超过 难过 和平 和谐 温和 暖和 总和 与其 参与 给予 同时 同意 同学 同样 共同
不同 相同 合同 同事 现在 存在 实在 内在 在线 所在 从事 从来 方向 向来 往往 对方
对面 对比 反对 绝对 相对 由来 自由 理由 将来 即将 将军 以为 以前 以后 以上 以下
以来 可以 足以 认为 成为 作为 行为 为止 属于 等于 终于 至于 位于 及时 涉及 普及
按摩 或许 而今 反而 从而 并列 合并 但愿 有的 有效 有趣 没有 所有 拥有 还有 只有
也许 首都 都市 成就 人才 才能 再见 更新 更加 变更 最近 最后 最初 最终 太太 太阳
之前 之后 之间 总之 其他 其中 其实 尤其 所谓 场所 厕所 等级 等待 平等 高等 几乎
几何 他人 其它 是否 于是 就是 不是 是非 很多
"""
_LISTS = {"en": _ENGLISH.split(), "zh": _CHINESE.split()}


def stop_words(
  language: str | None = None,
  words: Sequence[str] | None = None,
  file: str | None = None,
) -> Stage:
  """A stage that removes stop words, for bags of words.

  Words in alphabetic scripts are removed whatever their case, with the blank
  that follows. Chinese words are matched from left to right, the longest first;
  about 150 words that contain a stop word, as 目的 contains 的, are kept. This
  approximates a segmenter. The number of words removed is counted as "removed".

  Args:
    language: "en" or "zh", which have short lists of function words. None takes
      fields["lang"] of the document; documents in other languages do not
      change.
    words: a list of words to remove in any language.
    file: a file with one word per line to remove in any language.

  Raises:
    ValueError: more than one argument is given, the language has no list, or
      the file cannot be read.
  """
  given = [v for v in (language, words, file) if v is not None]
  if len(given) > 1:
    raise ValueError("stop_words: give only one of language, words and file")
  if language is not None and language not in _LISTS:
    raise ValueError(
      f"stop_words: language={language!r} has no list; valid: "
      f"{', '.join(_LISTS)}; or give words or file"
    )
  if file is not None:
    words = _lines(file)
  if words is not None:
    if isinstance(words, str) or not all(
      isinstance(w, str) and w.strip() for w in words
    ):
      raise ValueError(f"stop_words: words={words!r} is not a list of words")
    words = tuple(w.strip() for w in words)
  return functools.partial(_remove, language, words)


def _lines(path: str) -> list[str]:
  content = bounded_file.read(os.path.expanduser(path), _MOST_BYTES)
  try:
    lines = content.decode("utf-8-sig").splitlines()
  except UnicodeDecodeError:
    raise ValueError(f"{path}: is not UTF-8 text") from None
  found = [line for line in lines if line.strip()]
  if not found:
    raise ValueError(f"{path}: contains no word")
  return found


@functools.lru_cache(maxsize=8)
def _compiled(words: tuple[str, ...]) -> tuple[frozenset, re.Pattern | None]:
  """(words of letters in lower case, what finds Chinese ones, and others)."""
  han = {w for w in words if re.search(f"[{_HAN}]", w)}
  others = frozenset(w.lower() for w in words if w not in han)
  if not han:
    return others, None
  passed = set(_CHINESE_WHOLE.split()) - han
  # A regular expression takes the first alternative that matches.
  choices = sorted(han | passed, key=lambda w: (-len(w), w))
  return others, re.compile("|".join(map(re.escape, choices)))


def _remove(
  language: str | None, words: tuple[str, ...] | None, document: Document
) -> Result:
  if words is None:
    words = tuple(_LISTS.get(language or document.fields.get("lang"), ()))
  letters, han = _compiled(words)
  removed = 0

  def without(match: re.Match) -> str:
    nonlocal removed
    if match[1].lower().replace("’", "'") not in letters:
      return match[0]
    removed += 1
    return ""

  def without_han(match: re.Match) -> str:
    nonlocal removed
    if match[0] not in wanted:
      return match[0]
    removed += 1
    return ""

  wanted = frozenset(words)
  text = _WORD.sub(without, document.text) if letters else document.text
  text = han.sub(without_han, text) if han else text
  if not removed:
    return document
  text = _BLANKS.sub("", text)
  return Counted(document._replace(text=text), {"removed": removed})
