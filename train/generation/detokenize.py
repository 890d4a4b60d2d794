"""Streaming detokenization: complete characters only, up to a stop string."""

import itertools
from collections.abc import Callable, Container, Iterable, Sequence
from typing import NamedTuple

# The replacement character, which stands for incomplete or invalid bytes.
_BROKEN = "\ufffd"
# How many trailing replacement characters further bytes may still complete: the
# bytes of the longest UTF-8 character, less its last one.
_UNFINISHED = 3
# Ids that are decoded together, so that the spaces between words are right.
_CONTEXT = 8
_MOST = 32


class Reader(NamedTuple):
  """The state of detokenizing one text.

  recent: the last ids, which are decoded together.
  given: how many characters of their text have been consumed.
  held: characters consumed but not yet returned, because they may be the
    beginning of a stop string.
  """

  recent: tuple[int, ...] = ()
  given: int = 0
  held: str = ""


Decode = Callable[[Iterable[int]], str]


def begin(decode: Decode, prompt: Sequence[int]) -> Reader:
  """Returns a Reader for the text that follows a prompt."""
  recent = tuple(prompt[-_CONTEXT:])
  return Reader(recent, len(decode(recent)))


def read(
  decode: Decode, stop: Sequence[str], reader: Reader, token: int
) -> tuple[Reader, str, bool]:
  """Reads one token and returns the text that it completes.

  The text contains only complete characters and no part of a stop string,
  which may begin and end in the middle of a token.

  Args:
    decode: the tokenizer's decode function.
    stop: non-empty strings that end the text.
    reader: the state before the token.
    token: the next id.

  Returns:
    (reader, new text, whether a stop string was found).
  """
  return _read(decode, stop, reader, (token,))


class Part(NamedTuple):
  """The next part of a text.

  reader: the state after it.
  tokens: its ids, including those that end the text.
  text: its characters, as `read` returns them.
  finish: None while the text is unfinished, then "stop" or "length".
  """

  reader: Reader
  tokens: list[int]
  text: str
  finish: str | None


def read_part(
  decode: Decode,
  ends: Container[int | None],
  stop: Sequence[str],
  most: int,
  reader: Reader,
  tokens: Iterable[int],
) -> Part:
  """Reads tokens up to the end of the text; the rest is ignored.

  Without stop strings, the tokens are decoded together, which takes a fraction
  of the time and gives the same text.

  Args:
    decode: see `read`.
    ends: ids that end the text, of which they are no part.
    stop: see `read`.
    most: the text ends after so many tokens.
    reader: the state before the tokens.
    tokens: the next ids.
  """
  found = list(itertools.islice(map(int, tokens), most))
  plain = list(itertools.takewhile(lambda token: token not in ends, found))
  finish = "length" if len(plain) == most else None
  if len(plain) < len(found):
    found, finish = found[: len(plain) + 1], "stop"
  if not stop:
    text = ""
    if plain:
      reader, text, _ = _read(decode, stop, reader, plain)
  else:
    parts = []
    for place, token in enumerate(plain, 1):
      reader, part, stopped = read(decode, stop, reader, token)
      parts.append(part)
      if stopped:
        found, finish = plain[:place], "stop"
        break
    text = "".join(parts)
  return Part(reader, found, text + reader.held if finish else text, finish)


def _read(decode, stop, reader, tokens):
  recent = (*reader.recent, *tokens)
  text = decode(recent)
  unfinished = min(_UNFINISHED, len(text) - len(text.rstrip(_BROKEN)))
  end = max(reader.given, len(text) - unfinished)
  fresh = reader.held + text[reader.given : end]
  if len(recent) > (2 * _MOST if unfinished else _MOST):
    recent = recent[-_CONTEXT:]
    end = max(0, len(decode(recent)) - unfinished)
  found = [place for s in stop if (place := fresh.find(s)) >= 0]
  if found:
    return Reader(recent, end), fresh[: min(found)], True
  kept = len(fresh) - _begins(fresh, stop)
  return Reader(recent, end, fresh[kept:]), fresh[:kept], False


def _begins(text: str, stop: Sequence[str]) -> int:
  """Returns how many trailing characters may begin a stop string."""
  longest = max((len(s) - 1 for s in stop), default=0)
  for size in range(min(longest, len(text)), 0, -1):
    if any(s.startswith(text[-size:]) for s in stop):
      return size
  return 0
