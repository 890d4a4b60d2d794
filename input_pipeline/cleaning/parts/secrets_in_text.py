"""Keys, tokens and passwords in a text, found by the formats of their issuers.

Scanners for source code exist as programs that read files and report lines.
`redact` needs spans of a string in linear time, so the formats are listed here;
benchmarks/data/redaction.py measures them.
"""

import bisect
import math
import re
from collections import Counter
from collections.abc import Iterator

_FORMATS = re.compile(
  r"(?<![A-Za-z0-9_-])(?:"
  r"(?:AKIA|ASIA)[A-Z2-7]{16}"  # Amazon Web Services
  r"|gh[pousr]_[A-Za-z0-9]{36,255}"  # GitHub
  r"|github_pat_[A-Za-z0-9_]{60,255}"
  r"|glpat-[A-Za-z0-9_-]{20,64}"  # GitLab
  r"|xox[abeoprs]-[A-Za-z0-9-]{10,255}"  # Slack
  r"|AIza[A-Za-z0-9_-]{35}"  # Google
  r"|[sr]k_(?:live|test)_[A-Za-z0-9]{16,128}"  # Stripe
  r"|sk-[A-Za-z0-9_-]{32,200}"  # OpenAI and those who took up its form
  r"|eyJ[A-Za-z0-9_-]{8,4096}\.eyJ[A-Za-z0-9_-]{8,4096}\.[A-Za-z0-9_-]{8,1024}"
  r")(?![A-Za-z0-9_])"
)
_MARKS = ("AKIA", "ASIA", "gh", "glpat-", "xox", "AIza", "k_", "sk-", "eyJ")
_NAMED = re.compile(
  r"(?:api[_ -]?key|secret(?:[_ -]?key)?|access[_ -]?key(?:[_ -]?id)?|token"
  r"|passwd|password|private[_ -]?key|密钥|密码|令牌)"
  r"[\"']?[ \t]{0,3}(?::=|=>|=|:|：|是)[ \t]{0,3}(?:bearer[ \t])?[\"']?"
  r"([A-Za-z0-9_\-./+=!@$%^*]{12,200})",
  re.IGNORECASE,
)
# A program's: base64.b16encode.
_ATTRIBUTE = re.compile(r"[A-Za-z_]\w{0,99}(?:\.[A-Za-z_]\w{0,99}){1,9}")
_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----")
_PEM_END = re.compile(r"-----END [A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----")
_PEM_BODY = re.compile(r"[A-Za-z0-9+/=\s]{0,16384}")
_PEM_LONGEST = 16_384
# Bits a character, of the characters' own frequencies. Words and identifiers
# of 16 to 40 letters lie at 2.5 to 3.8, but carry few digits.
_LEAST_ENTROPY = 3.0


def secrets_in_text(text: str) -> Iterator[tuple[int, int]]:
  """Yields (start, stop) of each secret, unsorted; some may overlap."""
  if any(mark in text for mark in _MARKS):
    for match in _FORMATS.finditer(text):
      yield match.span()
  for match in _NAMED.finditer(text):
    if _looks_random(match[1]):
      yield match.span(1)
  if "PRIVATE KEY" in text:
    yield from _private_keys(text)


def _looks_random(value: str) -> bool:
  if _ATTRIBUTE.fullmatch(value):
    return False
  letters = sum(c.isalpha() for c in value)
  numerals = sum(c.isdigit() for c in value)
  if letters < 2 or numerals < 2:
    return False
  counts = Counter(value).values()
  entropy = -sum(n / len(value) * math.log2(n / len(value)) for n in counts)
  return entropy >= _LEAST_ENTROPY


def _private_keys(text: str) -> Iterator[tuple[int, int]]:
  """Yields private keys, BEGIN to END; of a truncated one, its likely body."""
  ends = [match.end() for match in _PEM_END.finditer(text)]
  position = 0
  while match := _PEM.search(text, position):
    after = bisect.bisect(ends, match.end())
    if after < len(ends) and ends[after] - match.end() <= _PEM_LONGEST:
      position = ends[after]
    else:
      position = _PEM_BODY.match(text, match.end()).end()
    yield match.start(), position
