"""Telephone numbers in a stretch of digits, by how their groups are written.

The digits alone do not decide: 13800138000 may be a telephone number or a
count. A library that parses given numbers would not find them in running text,
so these rules are our own; benchmarks/data/redaction.py measures them. The
following are taken for telephone numbers:

- international: + or 00, a country's code, 8 to 15 digits in all (E.164);
- a mobile number of mainland China: 1[3-9] and nine more, written as one or
  as 3-4-4, with or without 86;
- North American: 3-3-4 with hyphens, dots or the area code in parentheses;
- national, as in Europe and on mainland China's landlines: a group that
  begins with a single 0, then more groups, 9 to 12 digits in all;
- 7 to 15 digits after a word that announces them: tel, phone, 电话, ...

Dates, spans of years and 1.234.567 are none of these, nor is what follows
"ISBN", "order", "订单", ...
"""

import re
from collections.abc import Iterator

# Digits with at most two separators between them. Possessive: no way back,
# so that the time is linear.
RUN = re.compile(r"[0-9](?:[ ().\-/（）\u00a0]{0,2}[0-9])*+")
_GROUP = re.compile(r"[0-9]+")
_COUNTRY = re.compile(
  r"[17]|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]"
  r"|2[1-69]\d|3[578]\d|42\d|50\d|59\d|6[7-9]\d|8[05789]\d|9[679]\d",
  re.ASCII,
)
_MOBILE = re.compile(r"1[3-9][0-9]{9}")
_DATE = re.compile(
  r"(?:[0-3]?\d[-./ ][0-3]?\d[-./ ](?:19|20)\d\d"
  r"|(?:19|20)\d\d[-./ ][01]?\d[-./ ][0-3]?\d"
  r"|(?:1[5-9]|20)\d\d ?[-/] ?(?:1[5-9]|20)\d\d"
  r"|\d{1,3}(?:\.\d{3})+(?![ .\-]?\d))(?!\d)",
  re.ASCII,
)
_ANNOUNCED = re.compile(
  r"(?:(?<![a-z])(?:tele)?(?:phone|fon)[oe]?|(?<![a-z])t[eé]l|mobile?"
  r"|handy(?:nummer)?|(?<![a-z])cell|(?<![a-z])(?:fax|call|dial|ring|whatsapp)"
  r"|hotline|wechat"
  r"|电话|電話|手机|手機|座机|热线|熱線|传真|傳真|联系方式|拨打|致电|微信)"
  r".{0,10}$",
  re.IGNORECASE,
)
_OTHERWISE = re.compile(
  r"(?:isbn|issn|doi|order|invoice|serial|sku|version|(?<![a-z])ref|ticket"
  r"|tracking|article|订单|訂單|单号|單號|编号|編號|流水|序列|快递|书号)"
  r".{0,10}$",
  re.IGNORECASE,
)
_NO_WORD = re.compile(r"[0-9\n]")
_LONGEST_GROUPS = 8


def phone_numbers(text: str, start: int, stop: int) -> Iterator[tuple]:
  """Yields (start, stop) of each telephone number in a run of digits."""
  groups = [match.span() for match in _GROUP.finditer(text, start, stop)]
  i = 0
  while i < len(groups):
    count = _groups_of_number(text, groups[i : i + _LONGEST_GROUPS], start)
    if count:
      first = groups[i][0]
      if text[first - 1 : first] == "+":
        first -= 1
      last = groups[i + count - 1][1]
      if text[first - 1 : first] in ("(", "（") and any(
        mark in text[first:last] for mark in ")）"
      ):
        first -= 1
      yield first, last
    i += count or 1


def _groups_of_number(text: str, groups: list[tuple], start: int) -> int:
  """Returns how many groups, from the first, form a number; 0 if none do."""
  first = groups[0][0]
  if _embedded(text, first, start):
    return 0
  digits = [text[a:b] for a, b in groups]
  gaps = [text[a[1] : b[0]] for a, b in zip(groups, groups[1:], strict=False)]
  before = text[first - 1 : first]
  if before == "+":
    count = _international(digits, 0)
  else:
    cue = _NO_WORD.split(text[max(0, first - 24) : first])[-1]
    count = _mobile(digits, gaps) or _north_american(digits, gaps)
    # With digits before it, a leading 0 is within a longer number.
    apart = first == start or before in "/(（"
    if not count and apart and not _DATE.match(text, first):
      count = _by_prefix(digits, gaps) or _announced(digits, cue)
    if count and _OTHERWISE.search(cue):
      return 0
  return 0 if count and _goes_on(text, groups[count - 1][1]) else count


def _embedded(text: str, first: int, start: int) -> bool:
  """Returns whether the text before makes it part of a price, path or word."""
  if not first:
    return False
  before = text[first - 1]
  if before.isascii() and before.isalnum() or before in "_=#&$€£¥":
    return True
  if before in ".-" and first > start:
    return True  # The middle of a longer number.
  # 3,138.. and /item/138.., but not 电话/138...
  return (
    before in ",./-"
    and first > 1
    and text[first - 2 : first - 1] < "\x7f"
    and text[first - 2].isalnum()
  )


def _goes_on(text: str, stop: int) -> bool:
  """Returns whether the text after a number makes it part of another token."""
  after = text[stop : stop + 2]
  if not after:
    return False
  if after[0].isascii() and after[0].isalnum() or after[0] in "_%@":
    return True
  return after[0] in ".," and after[1:].isdigit()


def _longest(digits: list[str], least: int, most: int) -> int:
  """Returns the most groups with `least` to `most` digits in all; or 0."""
  found, total = 0, 0
  for count, group in enumerate(digits, 1):
    total += len(group)
    if total > most:
      break
    if total >= least:
      found = count
  return found


def _international(digits: list[str], prefix: int) -> int:
  number = "".join(digits)[prefix:]
  if not _COUNTRY.match(number):
    return 0
  exact = 0
  if number.startswith("86") and _MOBILE.match(number, 2):
    exact = _longest(digits, 13 + prefix, 13 + prefix)
  elif number.startswith("1"):
    exact = _longest(digits, 11 + prefix, 11 + prefix)
  return exact or _longest(digits, 8 + prefix, 15 + prefix)


def _mobile(digits: list[str], gaps: list[str]) -> int:
  if _MOBILE.fullmatch(digits[0]):
    return 1
  if len(digits[0]) == 13 and digits[0].startswith("86"):
    return int(bool(_MOBILE.fullmatch(digits[0], 2)))
  skip = int(digits[0] == "86")
  rest = digits[skip : skip + 3]
  if skip and rest and _MOBILE.fullmatch(rest[0]):
    return 2
  if [len(d) for d in rest] == [3, 4, 4] and _MOBILE.match("".join(rest)):
    inner = gaps[skip : skip + 2]
    return skip + 3 if inner[0] == inner[1] and inner[0] in "- " else 0
  return 0


def _north_american(digits: list[str], gaps: list[str]) -> int:
  skip = int(digits[0] == "1")
  area, *rest = digits[skip : skip + 3] or [""]
  if [len(area), *map(len, rest)] != [3, 3, 4]:
    return 0
  if area[0] in "01" or area[1] == "9" or rest[0][0] in "01":
    return 0
  first, second = gaps[skip : skip + 2]
  if first in (") ", ")") and second in ("-", ".", " "):
    return skip + 3
  return skip + 3 if first == second and first in ("-", ".") else 0


def _by_prefix(digits: list[str], gaps: list[str]) -> int:
  """Returns the groups of a national (0…) or international (00…) number."""
  number = digits[0]
  if number.startswith("0086") and _MOBILE.fullmatch(number, 4):
    return 1
  if not gaps:
    return 0
  if number.startswith("00"):
    count = _international(digits, 2) if len(number) <= 6 else 0
    return count if count > 1 else 0
  if number[0] != "0" or not 2 <= len(number) <= 5:
    return 0
  end = next((i for i, d in enumerate(digits) if not 2 <= len(d) <= 8), None)
  count = _longest(digits[:end], 9, 12)
  if count == 2:
    # 02110-1301 is an American ZIP code; no subscriber's number begins with 0.
    zip_code = len(number) == 5 and len(digits[1]) == 4 and gaps[0] == "-"
    return 0 if zip_code or digits[1][0] == "0" else count
  return count if count > 1 else 0


def _announced(digits: list[str], cue: str) -> int:
  count = _longest(digits, 7, 15) if digits[0] != "0" else 0
  # Single digits with spaces between are a count, or a table.
  if count and sum(map(len, digits[:count])) >= 2 * count:
    return count if _ANNOUNCED.search(cue) else 0
  return 0
