"""Guesses the encoding of a text that is not UTF-8, for error messages."""

import codecs
from collections.abc import Callable

# The part of a text that is looked at.
_BYTES = 2**16
# The share of plausible characters from which a guess is given.
_LIKELY = 0.7
_BOMS = (
  (codecs.BOM_UTF32_LE, "utf-32"),
  (codecs.BOM_UTF32_BE, "utf-32"),
  (codecs.BOM_UTF16_LE, "utf-16"),
  (codecs.BOM_UTF16_BE, "utf-16"),
)
_WESTERN = set("àáâãäåæçèéêëìíîïðñòóôõöøùúûüýþÿßœ‘’“”–—…€£«»°")
_CENTRAL = set("ąćęłńóśźżáčďéěíňřšťúůýžőűöüäăâîșțđ‘’“”„–—…")
_CYRILLIC = set("абвгдежзийклмнопрстуфхцчшщъыьэюяёіїєґ–—«»")
# Letters of these do not occur in a word with letters of ASCII.
_UNMIXED = ("cp1251", "koi8_r")
_WIDE_MARKS = set("，。、！？：；（）「」『』“”　")


def _first_byte(char: str, encoding: str) -> int:
  """The first of a character's two bytes in an encoding, or 0."""
  try:
    found = char.encode(encoding)
  except UnicodeEncodeError:
    return 0
  return found[0] if len(found) == 2 else 0


def _chinese(char: str) -> bool:
  # The first level of GB 2312: the more frequent characters.
  first = _first_byte(char, "gb2312")
  return char in _WIDE_MARKS or 0xB0 <= first <= 0xD7


def _taiwanese(char: str) -> bool:
  return char in _WIDE_MARKS or 0xA4 <= _first_byte(char, "big5") <= 0xC6


def _japanese(char: str) -> bool:
  kana = "\u3041" <= char <= "\u30fe"
  return (
    kana or char in _WIDE_MARKS or 0x88 <= _first_byte(char, "cp932") <= 0x97
  )


# (encoding, is a character plausible in it); the first of equal ones is taken.
_CANDIDATES = (
  ("cp949", lambda char: "\uac00" <= char <= "\ud7a3"),
  ("gb18030", _chinese),
  ("big5", _taiwanese),
  ("cp932", _japanese),
  ("euc_jp", _japanese),
  ("cp1251", _CYRILLIC.__contains__),
  ("koi8_r", _CYRILLIC.__contains__),
  ("cp1252", _WESTERN.__contains__),
  ("cp1250", _CENTRAL.__contains__),
)


def guess(content: bytes) -> str:
  """The name of the encoding that a text seems to have; "" if none is likely.

  It is judged by which characters are frequent in texts of each encoding, and
  may be wrong for a few words.
  """
  content = content[:_BYTES]
  for mark, name in _BOMS:
    if content.startswith(mark):
      return name
  zeros = [content[i::2].count(0) for i in range(2)]
  if max(zeros) > len(content) // 5:
    return "utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"
  scores = {name: _score(content, name, of) for name, of in _CANDIDATES}
  best = max(scores, key=scores.__getitem__)
  return best if scores[best] >= _LIKELY else ""


def _score(
  content: bytes, name: str, plausible: Callable[[str], bool]
) -> float:
  """The share of plausible characters among those beyond ASCII."""
  decoder = codecs.getincrementaldecoder(name)()
  try:
    text = decoder.decode(content)  # its end may be cut
  except UnicodeDecodeError:
    return 0.0
  good, count = 0.0, 0
  for i, char in enumerate(text):
    if char.isascii():
      continue
    count += 1
    around = text[max(0, i - 1) : i + 2].replace(char, "")
    if name in _UNMIXED and any(c.isascii() and c.isalpha() for c in around):
      continue
    # Capitals begin words, so that they are less frequent.
    good += 1.0 if plausible(char) else 0.6 * plausible(char.lower())
  return good / count if count else 0.0


def said(content: bytes) -> str:
  """What to add to an error: what the text looks like, and what to do."""
  found = guess(content)
  if not found:
    return "; the setting ?encoding=NAME of the source reads other encodings"
  return f"; it looks like {found}: add ?encoding={found} to the source"
