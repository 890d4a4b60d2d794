"""Repair and normalization of text: encoding, width, script, white space."""

import functools
import re
import unicodedata
from typing import NamedTuple

from input_pipeline.document import Counted, Document, Result, Stage

_FORMS = ("NFC", "NFD", "NFKC", "NFKD", None)
_WIDTHS = ("half", "keep")
_PUNCTUATIONS = ("keep", "half", "full")
_SCRIPTS = ("keep", "simplified", "traditional")

# U+FF01..FF5E are ASCII's 21..7E, in the same order.
_TO_HALF = {c: c - 0xFEE0 for c in range(0xFF01, 0xFF5F)}
_LETTERS_TO_HALF = {c: a for c, a in _TO_HALF.items() if chr(a).isalnum()}
_MARKS_TO_HALF = {c: a for c, a in _TO_HALF.items() if not chr(a).isalnum()}
_FULL_WIDTH = re.compile("[\uff01-\uff5e]")
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_HAN_CHARACTER = re.compile(f"[{_HAN}]")
_KANA = re.compile("[\u3041-\u309f\u30a1-\u30fa\u31f0-\u31ff]")
# A mark of a sentence after a Han character or a closing quotation mark.
_MARK_AFTER_HAN = re.compile(rf"(?<=[{_HAN}”’》）】])[,!?;:](?![/\d])")
_STOP_AFTER_HAN = re.compile(rf"(?<=[{_HAN}”’》）】])\.(?![.A-Za-z\d])")

# Printable ASCII without "&" needs no repair by ftfy.
_SOUND = re.compile("[\t\n -%'-~]*")
_NEWLINES = re.compile("\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
# Controls, soft hyphens, directional marks, zero-width blanks, tags and
# noncharacters. Some scripts and emoji need the joiners.
_INVISIBLE = re.compile(
  "[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\xad\u180e\u200b\u200e\u200f"
  "\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufdd0-\ufdef\ufeff\ufff9-\ufffb"
  "\ufffe\uffff\U000e0000-\U000e007f]"
  "|(?<![\u0590-\u109f\u1780-\u18af\ufe0f\U0001f000-\U0001faff\u2600-\u27bf])"
  "[\u200c\u200d]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_BLANKS = re.compile("[ \t\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]+")
_BLANKS_AT_ENDS = re.compile("^ | $", re.MULTILINE)


class _Settings(NamedTuple):
  repair: bool
  straight_quotes: bool
  form: str | None
  width: str
  punctuation: str
  script: str
  spaces: bool
  max_newlines: int | None


def normalize(
  repair: bool = True,
  straight_quotes: bool = False,
  form: str | None = "NFC",
  width: str = "half",
  punctuation: str = "keep",
  script: str = "keep",
  spaces: bool = True,
  max_newlines: int | None = 2,
) -> Stage:
  """A stage that repairs and normalizes text; it drops no document.

  The steps in order: ftfy's repair, removal of control and zero-width
  characters, Unicode normal form, width, script, white space. Counts the
  documents that each step changed as
  "repaired", "invisible_removed", "composed", "width_changed",
  "script_changed", "spaces_changed".

  Args:
    repair: fix mojibake, HTML entities, terminal escapes and ligatures with
      ftfy, which does not change the width of characters here.
    straight_quotes: replace “ ” ‘ ’ by " and '; not for Chinese text.
    form: a Unicode normal form, or None.
    width: "half" converts full-width letters and digits to ASCII; or "keep".
    punctuation: "half" converts full-width marks to ASCII; "full" converts
      , . ! ? ; : after a Han character to full width, as in printed Chinese; or
      "keep".
    script: "simplified" or "traditional" converts Chinese with OpenCC; or
      "keep". Text with more than one kana to ten Han characters is taken for
      Japanese and does not change.
    spaces: replace runs of blanks by one, and remove blanks at the ends of
      lines and white space at both ends of the text.
    max_newlines: the greatest number of consecutive line breaks; None keeps
      all.

  Raises:
    ValueError: a setting is wrong, or ftfy or OpenCC is needed but not
      installed.
  """
  for key, value, valid in (
    ("form", form, _FORMS),
    ("width", width, _WIDTHS),
    ("punctuation", punctuation, _PUNCTUATIONS),
    ("script", script, _SCRIPTS),
  ):
    if value not in valid:
      names = ", ".join(map(repr, valid))
      raise ValueError(f"normalize: {key}={value!r} is none of {names}")
  if max_newlines is not None and max_newlines < 1:
    raise ValueError(f"normalize: max_newlines={max_newlines!r} is less than 1")
  if repair:
    _ftfy(straight_quotes)
  if script != "keep":
    _converter(script)
  return functools.partial(
    _normalize,
    _Settings(
      repair,
      straight_quotes,
      form,
      width,
      punctuation,
      script,
      spaces,
      max_newlines,
    ),
  )


def _missing(name: str) -> ValueError:
  return ValueError(
    f"normalize needs {name}, which is not installed: pip install -e '.[clean]'"
  )


@functools.cache
def _ftfy(straight_quotes: bool):
  """(ftfy.fix_text, its configuration)."""
  try:
    import ftfy
  except ImportError as error:
    raise _missing("ftfy") from error
  config = ftfy.TextFixerConfig(
    fix_character_width=False,
    uncurl_quotes=straight_quotes,
    normalization=None,
    explain=False,
  )
  return ftfy.fix_text, config


@functools.cache
def _converter(script: str):
  """The OpenCC converter to a script, one a process."""
  try:
    import opencc
  except ImportError as error:
    raise _missing("opencc") from error
  return opencc.OpenCC({"simplified": "t2s", "traditional": "s2t"}[script])


def _repaired(s: _Settings, text: str) -> str:
  if not s.repair or _SOUND.fullmatch(text):
    return text
  fix, config = _ftfy(s.straight_quotes)
  return fix(text, config)


def _visible(s: _Settings, text: str) -> str:
  text = _NEWLINES.sub("\n", text)
  text = _INVISIBLE.sub("", text)
  return _SURROGATE.sub("\ufffd", text)


def _composed(s: _Settings, text: str) -> str:
  return unicodedata.normalize(s.form, text) if s.form else text


def _in_width(s: _Settings, text: str) -> str:
  if _FULL_WIDTH.search(text):
    if s.width == "half":
      text = text.translate(_LETTERS_TO_HALF)
    if s.punctuation == "half":
      text = text.translate(_MARKS_TO_HALF)
  if s.punctuation == "full":
    text = _MARK_AFTER_HAN.sub(lambda m: chr(ord(m[0]) + 0xFEE0), text)
    text = _STOP_AFTER_HAN.sub("。", text)
  elif s.punctuation == "half":
    text = text.replace("。", ".").replace("、", ",")
  return text


def _in_script(s: _Settings, text: str) -> str:
  if s.script == "keep" or not _HAN_CHARACTER.search(text):
    return text
  kana = len(_KANA.findall(text))
  if kana and kana * 10 > len(_HAN_CHARACTER.findall(text)):
    return text
  return _converter(s.script).convert(text)


@functools.cache
def _too_many_newlines(most: int) -> re.Pattern:
  return re.compile("\n" * (most + 1) + "+")


def _spaced(s: _Settings, text: str) -> str:
  if s.spaces:
    text = _BLANKS.sub(" ", text)
    text = _BLANKS_AT_ENDS.sub("", text).strip()
  if s.max_newlines is not None:
    text = _too_many_newlines(s.max_newlines).sub("\n" * s.max_newlines, text)
  return text


_STEPS = (
  ("repaired", _repaired),
  ("invisible_removed", _visible),
  ("composed", _composed),
  ("width_changed", _in_width),
  ("script_changed", _in_script),
  ("spaces_changed", _spaced),
)


def _normalize(settings: _Settings, document: Document) -> Result:
  text, counts = document.text, {}
  for name, step in _STEPS:
    changed = step(settings, text)
    if changed != text:
      text, counts[name] = changed, 1
  return Counted(document._replace(text=text), counts) if counts else document
