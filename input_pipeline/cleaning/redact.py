"""Replacement of personal data and secrets by the names of their kinds."""

import bisect
import functools
import importlib.util
import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from input_pipeline.cleaning.parts.phone_numbers import RUN, phone_numbers
from input_pipeline.cleaning.parts.secrets_in_text import secrets_in_text
from input_pipeline.document import Counted, Document, Result, Stage

# In order of precedence where matches overlap.
KINDS = ("secret", "email", "iban", "id_card", "bank_card", "ip", "phone")

_LOCAL = r"[A-Za-z0-9À-ɏ._%+\-]"
_DOMAIN = r"(?:[A-Za-z0-9À-ɏ\-]{1,63}\.){1,8}([A-Za-z]{2,24})"
# Bounded, and begun only where a word begins: linear in the text's length.
_EMAIL = re.compile(
  rf"(?<!{_LOCAL}){_LOCAL}{{1,64}}(?:@| ?[\[(] ?at ?[\])] ?){_DOMAIN}"
  r"(?![A-Za-z0-9_\-]|\.[A-Za-z0-9])",
  re.IGNORECASE,
)
# logo@2x.png is a file name and not an address.
_FILES = frozenset("png jpg jpeg gif webp svg css js json html php".split())
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?=[ A-Z0-9])")
_ID_CARD = re.compile(
  r"(?<![A-Za-z0-9])[1-8][0-9]{5}[ -]?[0-9]{8}[ -]?[0-9]{3}[0-9Xx]"
  r"(?![A-Za-z0-9])"
)
_CARD = re.compile(
  r"(?<![A-Za-z0-9])(?<![0-9][.,\-])(?<![A-Za-z]/)"
  r"[2-9][0-9]{3}(?:[0-9]{9,15}(?![0-9])|([ \-])[0-9]{4}\1[0-9]{4}\1[0-9]{1,4}"
  r"(?:\1[0-9]{1,3})?(?![0-9])|([ \-])[0-9]{6}\2[0-9]{4,5}(?![0-9]))"
  r"(?![A-Za-z_]|[.,][0-9])"
)
_IPV4 = re.compile(
  r"(?<![A-Za-z0-9_.\-])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![A-Za-z0-9_]|\.[0-9])"
)
_IPV6 = re.compile(
  r"(?<![A-Za-z0-9_:.])[0-9A-Fa-f:]{3,39}(?:(?:\.[0-9]{1,3}){3})?"
  r"(?![A-Za-z0-9_])"
)
_VERSION = re.compile(
  r"(?:(?<![a-z])(?:v|ver|version|release|build|firmware|section|chapter"
  r"|clause|oid)|objectidentifier|版本|固件|章节|§)[^0-9\n]{0,4}$",
  re.IGNORECASE,
)
# Section 3.2.2.10 and release 1.4.5.0 are not addresses: only one address in
# 20,000 has no part above 20.
_SMALL_PART = 20
_ADDRESS = re.compile(
  r"(?:(?<![a-z])(?:ip|ipv4|host|server|address|addr|ping|dns)"
  r"|地址|服务器|主机)[^0-9\n]{0,6}$",
  re.IGNORECASE,
)
# IANA's special-purpose registries; these addresses identify nobody.
_NOT_PUBLIC = tuple(
  ipaddress.ip_network(network)
  for network in (
    "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16"
    " 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 192.168.0.0/16 198.18.0.0/15"
    " 198.51.100.0/24 203.0.113.0/24 224.0.0.0/3 2001:db8::/32 3fff::/20"
    " 2001::/23"
  ).split()
)
_PUBLIC_IPV6 = ipaddress.ip_network("2000::/3")
_LOCAL_IPV6 = tuple(
  map(ipaddress.ip_network, ("::1/128", "fc00::/7", "fe80::/10"))
)
# Issuers of payment cards: the first digits and the length. python-stdnum has
# the check digit but no issuers, and one number in ten passes Luhn by chance.
_ISSUERS = re.compile(
  r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
  r"|5[1-5]\d{14}"  # Mastercard
  r"|(?:222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"
  r"|3[47]\d{13}"  # American Express
  r"|(?:30[0-5]|3[689]\d)\d{11,16}"  # Diners Club
  r"|(?:6011|64[4-9]\d|65\d\d)\d{12,15}"  # Discover
  r"|35(?:2[89]|[3-8]\d)\d{12,15}"  # JCB
  r"|(?:62|81)\d{14,17}"  # UnionPay
  r"|955[89]\d{12,15}"  # Chinese debit cards older than UnionPay
  r"|220[0-4]\d{12,15}"  # Mir
  r"|(?:5018|5020|5038|5893|6304|6759|676[1-3])\d{9,15}",  # Maestro
  re.ASCII,
)
# Kinds whose check digits python-stdnum verifies.
_CHECKED = ("iban", "id_card", "bank_card")
# The least number of digits of any kind that consists of digits.
_FEWEST = 7

Span = tuple[int, int]


def redact(
  kinds: Sequence[str] = KINDS,
  placeholder: str | Mapping[str, str] = "<{kind}>",
  keep_private_ips: bool = True,
) -> Stage:
  """A stage that replaces personal data by placeholders and counts each kind.

  The kinds are email (addresses, also written with (at)), phone (see
  phone_numbers), ip (IPv4 and IPv6), id_card (Chinese residents' numbers), iban
  and bank_card (the last three with valid check digits), and secret (keys,
  tokens, passwords and private keys). The time is linear in the length of any
  text.

  Args:
    kinds: the kinds to replace, of KINDS.
    placeholder: the replacement, in which {kind} is the name of the kind; or
      {kind: replacement}.
    keep_private_ips: do not replace addresses of private, local and
      documentation networks.

  Raises:
    ValueError: a kind does not exist or has no placeholder, or python-stdnum
      is not installed and a kind needs it.
  """
  unknown = [kind for kind in kinds if kind not in KINDS]
  if unknown:
    raise ValueError(
      f"redact: kinds has {unknown[0]!r}; valid: {', '.join(KINDS)}"
    )
  if isinstance(placeholder, str):
    texts = {k: placeholder.replace("{kind}", k) for k in kinds}
  else:
    texts = dict(placeholder)
    for kind in kinds:
      if kind not in texts:
        raise ValueError(f"redact: placeholder has no text for {kind!r}")
  needing = [kind for kind in _CHECKED if kind in kinds]
  if needing and importlib.util.find_spec("stdnum") is None:
    raise ValueError(
      f"redact: {needing[0]} needs python-stdnum, which is not installed: "
      "pip install -e '.[clean]'"
    )
  chosen = tuple(kind for kind in KINDS if kind in kinds)
  return functools.partial(_redact, chosen, texts, keep_private_ips)


def _redact(
  kinds: tuple[str, ...],
  texts: Mapping[str, str],
  keep_private_ips: bool,
  document: Document,
) -> Result:
  found = find(document.text, kinds, keep_private_ips)
  if not found:
    return document
  parts, position = [], 0
  for start, stop, kind in found:
    parts += document.text[position:start], texts[kind]
    position = stop
  parts.append(document.text[position:])
  counts = Counter(kind for _, _, kind in found)
  return Counted(document._replace(text="".join(parts)), dict(counts))


def find(
  text: str,
  kinds: Sequence[str] = KINDS,
  keep_private_ips: bool = True,
) -> list[tuple[int, int, str]]:
  """(start, stop, kind) of personal data, in order and without overlap."""
  runs = [
    match.span()
    for match in RUN.finditer(text)
    if match.end() - match.start() >= _FEWEST
  ]
  finders: dict[str, Callable[[], Iterator[Span]]] = {
    "secret": lambda: secrets_in_text(text),
    "email": lambda: _emails(text),
    "iban": lambda: _ibans(text),
    "id_card": lambda: _id_cards(text) if runs else iter(()),
    "bank_card": lambda: _bank_cards(text) if runs else iter(()),
    "ip": lambda: _ips(text, keep_private_ips),
    "phone": lambda: (s for run in runs for s in phone_numbers(text, *run)),
  }
  found: list[tuple[int, int, str]] = []
  for kind in kinds:
    fresh = []
    for start, stop in sorted(finders[kind]()):
      after = bisect.bisect(found, (start, stop))
      taken = after and found[after - 1][1] > start
      taken = taken or (after < len(found) and found[after][0] < stop)
      if not taken and not (fresh and fresh[-1][1] > start):
        fresh.append((start, stop, kind))
    found = sorted(found + fresh)
  return found


def _emails(text: str) -> Iterator[Span]:
  if "@" not in text and "at" not in text:
    return
  for match in _EMAIL.finditer(text):
    name, _, _ = match[0].partition("@")
    remote = name == "git" and text[match.end() : match.end() + 1] in (":", "/")
    if match[1].lower() not in _FILES and not remote:
      yield match.start() + len(name) - len(name.lstrip(".-%")), match.end()


def iban_length(country: str) -> int:
  """Characters of an IBAN of that country, or 0 if the country has none."""
  from stdnum import numdb

  (_, found), *_ = numdb.get("iban").info(country)
  fields = re.findall(r"[0-9]+(?=!)", found.get("bban", ""))
  return 4 + sum(map(int, fields)) if fields else 0


def iban(number: str) -> bool:
  """Whether a number without spaces is an IBAN by ISO 13616.

  The length, the structure of the country's account numbers, and the check
  digits of ISO 7064 MOD 97-10 must be right.
  """
  from stdnum import iban as checker

  if not (number.isascii() and number.isalnum() and number.isupper()):
    return False
  # National check digits inside the account number are not verified: they are
  # implemented for few countries.
  return checker.is_valid(number, check_country=False)


def resident_id(number: str) -> bool:
  """Whether 18 characters are a Chinese resident's number by GB 11643-1999.

  The province, the date of birth and the check character of ISO 7064 MOD 11-2
  must be right; a lower-case x is accepted.
  """
  from stdnum import exceptions, numdb
  from stdnum.cn import ric
  from stdnum.iso7064 import mod_11_2

  number = number.upper()
  if len(number) != 18 or not (number.isascii() and number[:17].isdigit()):
    return False
  if not mod_11_2.is_valid(number) or not "18" <= number[6:8] <= "20":
    return False
  # `ric.validate` also rejects counties that were founded after the date of
  # birth, which real numbers have, and 83, used for residents from Taiwan.
  (_, place), *_ = numdb.get("cn/loc").info(number[:2])
  try:
    ric.get_birth_date(number)
  except exceptions.ValidationError:
    return False
  return bool(place) or number.startswith("83")


def bank_card(number: str) -> bool:
  """Whether digits are a payment card's: issuer, length, and Luhn check."""
  from stdnum import luhn

  return bool(_ISSUERS.fullmatch(number)) and luhn.is_valid(number)


def _ibans(text: str) -> Iterator[Span]:
  for match in _IBAN.finditer(text):
    length, found, stop = iban_length(match[0][:2]), "", match.start()
    while len(found) < length and stop < len(text):
      if text[stop] != " ":
        found += text[stop]
      elif text[stop - 1] == " ":
        break
      stop += 1
    alone = not (
      text[stop : stop + 1].isascii() and text[stop : stop + 1].isalnum()
    )
    if alone and iban(found):
      yield match.start(), stop


def _id_cards(text: str) -> Iterator[Span]:
  for match in _ID_CARD.finditer(text):
    if resident_id(match[0].replace(" ", "").replace("-", "")):
      yield match.span()


def _bank_cards(text: str) -> Iterator[Span]:
  for match in _CARD.finditer(text):
    number = match[0]
    # A group behind the card, its CVC perhaps, may look like a part of it;
    # not so where 19 digits are common.
    while len(number) >= 13:
      if bank_card(number.replace(" ", "").replace("-", "")):
        yield match.start(), match.start() + len(number)
        break
      mark = match[1] or match[2]
      if not mark or mark not in number or number.startswith("62"):
        break
      number = number.rpartition(mark)[0]


def _ips(text: str, keep_private: bool) -> Iterator[Span]:
  for match in _IPV4.finditer(text):
    cue = text[max(0, match.start() - 16) : match.start()]
    try:
      address = ipaddress.IPv4Address(match[0])
    except ValueError:
      continue
    if _VERSION.search(cue) or (keep_private and _private(address)):
      continue
    small = max(address.packed) <= _SMALL_PART and not _private(address)
    if not small or _ADDRESS.search(cue):
      yield match.span()
  if text.count(":") < 2:
    return
  for match in _IPV6.finditer(text):
    number = match[0]
    if number.endswith(":") and not number.endswith("::"):
      number = number[:-1]
    if number.count(":") < 2:
      continue
    try:
      address = ipaddress.IPv6Address(number)
    except ValueError:
      continue
    # Only 2000::/3 is given out; "a::b" is a name in a program.
    public = address in _PUBLIC_IPV6 and not _private(address)
    known = public or address in _PUBLIC_IPV6
    known = known or any(address in network for network in _LOCAL_IPV6)
    if public or (known and not keep_private):
      yield match.start(), match.start() + len(number)


def _private(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
  return any(
    address in network
    for network in _NOT_PUBLIC
    if network.version == address.version
  )
