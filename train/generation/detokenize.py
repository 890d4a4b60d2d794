"""Token ids into text as they come: whole characters, up to a stop string."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

# What a decoder gives for bytes that are no character, or not yet.
_BROKEN = "\ufffd"
# The longest character but its last byte: so many may yet become readable.
_UNFINISHED = 3
# Ids decoded together, so that spaces between words come out right.
_CONTEXT = 8
_MOST = 32


class Reader(NamedTuple):
  """How far a text has been read.

  recent: the last ids, decoded together.
  given: how many characters of theirs have been read.
  held: characters read, not handed out: they may begin a stop string.
  """

  recent: tuple[int, ...] = ()
  given: int = 0
  held: str = ""


Decode = Callable[[Iterable[int]], str]


def begin(decode: Decode, prompt: Sequence[int]) -> Reader:
  """A Reader of what follows a prompt."""
  recent = tuple(prompt[-_CONTEXT:])
  return Reader(recent, len(decode(recent)))


def read(
  decode: Decode, stop: Sequence[str], reader: Reader, token: int
) -> tuple[Reader, str, bool]:
  """(reader, what can be handed out now, whether a stop string has come).

  What is handed out is never half a character, and nothing of a stop string,
  which may begin and end within tokens.

  Args:
    decode: of the tokenizer.
    stop: strings that end the text; none is empty.
    reader: before the token.
    token: the next id.
  """
  recent = (*reader.recent, token)
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
  """How many of the last characters may be the beginning of a stop string."""
  longest = max((len(s) - 1 for s in stop), default=0)
  for size in range(min(longest, len(text)), 0, -1):
    if any(s.startswith(text[-size:]) for s in stop):
      return size
  return 0
