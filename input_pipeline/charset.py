"""Decodes web pages and texts in the encoding that they were written in.

Labels have the meaning that browsers give them (https://encoding.spec.whatwg.org,
section 4.2), not that of the standard of the same name: "iso-8859-1" is
windows-1252, "gb2312" is GB 18030, "shift_jis" is windows-31j.
"""

import codecs
import re

_BOMS = (
  (codecs.BOM_UTF8, "utf-8"),
  (codecs.BOM_UTF32_LE, "utf-32-le"),
  (codecs.BOM_UTF32_BE, "utf-32-be"),
  (codecs.BOM_UTF16_LE, "utf-16-le"),
  (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_ALIASES = {
  "utf-8": "unicode-1-1-utf-8 unicode11utf8 unicode20utf8 utf-8 utf8 utf_8 "
  "x-unicode20utf8",
  "cp1252": "ansi_x3.4-1968 ascii us-ascii csisolatin1 iso-ir-100 l1 latin1 "
  "latin-1 x-user-defined",
  "iso8859-2": "csisolatin2 iso-ir-101 l2 latin2",
  "iso8859-3": "csisolatin3 iso-ir-109 l3 latin3",
  "iso8859-4": "csisolatin4 iso-ir-110 l4 latin4",
  "iso8859-5": "csisolatincyrillic cyrillic iso-ir-144",
  "iso8859-6": "arabic asmo-708 csiso88596e csiso88596i csisolatinarabic "
  "ecma-114 iso-ir-127",
  "iso8859-7": "csisolatingreek ecma-118 elot_928 greek greek8 iso-ir-126 "
  "sun_eu_greek",
  "iso8859-8": "csiso88598e csiso88598i csisolatinhebrew hebrew iso-ir-138 "
  "logical visual",
  "cp1254": "csisolatin5 iso-ir-148 l5 latin5",
  "iso8859-10": "csisolatin6 iso-ir-157 l6 latin6",
  "iso8859-15": "csisolatin9 l9 latin9 latin-9",
  "cp874": "dos-874 tis-620 tis620",
  "koi8-r": "cskoi8r koi koi8 koi8-r koi8_r",
  "koi8-u": "koi8-ru koi8-u",
  "mac-roman": "csmacintosh mac macintosh x-mac-roman",
  "mac-cyrillic": "x-mac-cyrillic x-mac-ukrainian",
  "gb18030": "chinese csgb2312 csiso58gb231280 gb2312 gb_2312 gb_2312-80 gbk "
  "x-gbk iso-ir-58 gb18030 euc-cn euccn gb-2312",
  "big5hkscs": "big5 big5-hkscs cn-big5 csbig5 x-x-big5 x-big5",
  "euc_jp": "cseucpkdfmtjapanese euc-jp x-euc-jp eucjp ujis",
  "iso2022_jp_ext": "csiso2022jp iso-2022-jp",
  "cp932": "csshiftjis ms932 ms_kanji shift-jis shift_jis sjis windows-31j "
  "x-sjis cswindows31j x-ms-cp932",
  "cp949": "cseuckr csksc56011987 euc-kr euckr iso-ir-149 korean ksc5601 "
  "ks_c_5601-1987 ks_c_5601-1989 ksc_5601 uhc x-windows-949",
  "hz": "hz hz-gb-2312",
  "iso2022_kr": "csiso2022kr iso-2022-kr",
  "utf-16-le": "csunicode iso-10646-ucs-2 ucs-2 unicode unicodefeff utf-16 "
  "utf-16le utf16 utf16le",
  "utf-16-be": "unicodefffe utf-16be utf16be",
}
_CODECS = {
  label: codec for codec, labels in _ALIASES.items() for label in labels.split()
}
_ISO_8859 = re.compile(r"iso[-_ ]?8859[-_]?(\d{1,2})(?:-[ei])?(?::\d{4})?")
_CODE_PAGE = re.compile(
  r"(?:x-)?(?:windows|win|cp|ibm|csibm|ms)?[-_]?(\d{3,5})"
)
# Parts of ISO 8859, and code pages, that are read as a larger encoding.
_PARTS = {1: "cp1252", 9: "cp1254", 11: "cp874"}
_PAGES = {
  819: "cp1252",
  936: "gb18030",
  950: "big5hkscs",
  51932: "euc_jp",
  51949: "cp949",
  54936: "gb18030",
  65001: "utf-8",
}
# The declaration may follow long scripts.
_SEARCHED = 2**16
_META = re.compile(
  rb"""<(?:meta|\?xml)\b[^>]{0,400}?(?:charset|encoding)\s*=\s*["']?\s*"""
  rb"""([A-Za-z0-9_:.-]{1,40})""",
  re.IGNORECASE,
)
_PARAMETER = re.compile(
  r"""charset\s*=\s*(?:\\?["'])?\s*([A-Za-z0-9_:.-]{1,40})""", re.IGNORECASE
)
# Encodings of two bytes a character, and Thai, in which a few characters can
# be UTF-8 by accident; so many others are not.
_AMBIGUOUS = ("gb18030", "big5hkscs", "euc_jp", "cp932", "cp949", "cp874")
_ACCIDENT = 12
# What a text in such an encoding cannot do without.
_SIGNS = {
  "iso2022_jp_ext": b"\x1b",
  "iso2022_kr": b"\x0e",
  "hz": b"~{",
  "utf-16-le": b"\0",
  "utf-16-be": b"\0",
}
_BROKEN = "\ufffd"
_MOST_BROKEN = 2**16


def codec(label: str) -> str:
  """Python's codec for a label, as browsers take it; "" for an unknown one."""
  label = label.strip(" \t\r\n\f\"'").lower()
  if label in _CODECS:
    return _CODECS[label]
  match = _ISO_8859.fullmatch(label)
  if match:
    number = int(match[1])
    return _known(_PARTS.get(number, f"iso8859-{number}"))
  match = _CODE_PAGE.fullmatch(label)
  if match:
    number = int(match[1])
    return _known(_PAGES.get(number, f"cp{number}"))
  return ""


def _known(name: str) -> str:
  try:
    return codecs.lookup(name).name
  except LookupError:
    return ""


def of_content_type(value: str) -> str:
  """The label of the charset that a Content-Type declares, or ""."""
  match = _PARAMETER.search(value)
  return match[1] if match else ""


def page(html: bytes, charset: str = "") -> str | None:
  """The text of a page; None if nothing says what its encoding is.

  The first of these decides: the byte order mark, the charset of HTTP, that
  of the page's <meta> or XML declaration, valid UTF-8. A charset in which the
  page cannot be decoded is not believed, nor is one that contradicts a page
  that is valid UTF-8 and could hardly be so by accident.

  Args:
    html: the page.
    charset: the label in the Content-Type of HTTP; "" if there is none.
  """
  found = codec(_declared(html))
  if found.startswith("utf-16"):
    found = "utf-8"  # It was found by reading ASCII.
  return _decode(html, [codec(charset), found], tolerant=True)


def text(content: bytes, charset: str = "") -> str | None:
  """The text of a plain text, by the same rules; None if it is broken."""
  return _decode(content, [codec(charset)], tolerant=False)


def _declared(html: bytes) -> str:
  match = _META.search(_without_comments(html[:_SEARCHED]))
  return match[1].decode() if match else ""


def _without_comments(html: bytes) -> bytes:
  parts, at = [], 0
  while (start := html.find(b"<!--", at)) >= 0:
    parts.append(html[at:start])
    end = html.find(b"-->", start + 2)
    if end < 0:
      return b"".join(parts)
    at = end + 3
  return b"".join([*parts, html[at:]])


def _decode(content: bytes, names: list[str], tolerant: bool) -> str | None:
  for mark, name in _BOMS:
    if content.startswith(mark):
      return content[len(mark) :].decode(name, "replace")
  names = [name for name in names if name and _SIGNS.get(name, b"") in content]
  if content[:2] in (b"<\0", b"\0<"):
    names = ["utf-16-le" if content[0] else "utf-16-be"]
  try:
    valid = content.decode()
  except UnicodeDecodeError:
    valid = None
  if valid is not None and not _doubtful(len(content) - len(valid), names):
    return valid
  decoded = []
  for name in names:
    decoded.append(_decoded(content, name))
    if _BROKEN not in decoded[-1]:
      return decoded[-1]
  if valid is not None:
    return valid
  for each in decoded if tolerant else ():
    # A page may have a few broken bytes in its own encoding.
    if each.count(_BROKEN) * 200 <= len(each):
      return each
  return None


def _decoded(content: bytes, name: str) -> str:
  """What can be decoded, and U+FFFD for what cannot."""
  plain = content.decode(name, "replace")
  broken = plain.count(_BROKEN)
  # To handle each error in Python takes long where everything is one.
  if not broken or broken > _MOST_BROKEN:
    return plain
  return content.decode(name, _HANDLER)


def _doubtful(extra: int, names: list[str]) -> bool:
  """Whether valid UTF-8 may be text in the encoding that is declared first.

  extra: how many more bytes than characters it has.
  """
  if not names:
    return False
  if names[0] in _SIGNS:
    return True
  return names[0] in _AMBIGUOUS and 0 < extra < _ACCIDENT


def _replacement(error: UnicodeError) -> tuple[str, int]:
  """Decodes what browsers do and Python's codec does not; else U+FFFD."""
  if not isinstance(error, UnicodeDecodeError):
    raise error
  start = error.start
  two = error.object[start : start + 2]
  if error.encoding == "charmap" and 0x80 <= two[0] < 0xA0:
    return chr(two[0]), start + 1  # Code pages of Windows have holes here.
  if error.encoding == "gb18030" and two[:1] == b"\x80":
    return "€", start + 1
  other, bytes_ = "", two
  if error.encoding == "euc_jp":
    other, bytes_ = "cp932", _shift_jis(bytes(each & 0x7F for each in two))
  elif error.encoding.startswith("iso2022_jp"):
    other, bytes_ = "cp932", _shift_jis(two)
  elif error.encoding == "big5hkscs":
    other = "cp950"
  if other:
    try:
      return bytes_.decode(other), start + 2
    except UnicodeDecodeError:
      pass
  return _BROKEN, error.end


def _shift_jis(two: bytes) -> bytes:
  """Shift JIS of a character in JIS X 0208, of which NEC filled row 13."""
  if len(two) < 2 or not all(0x21 <= each <= 0x7E for each in two):
    return b"\xff"
  row, cell = two
  first = (row - 0x21) // 2 + 0x81
  second = cell + (0x1F if row % 2 else 0x7E)
  return bytes(
    [first + 0x40 * (first > 0x9F), second + (row % 2 and second >= 0x7F)]
  )


_HANDLER = "input_pipeline.charset"
codecs.register_error(_HANDLER, _replacement)
