"""Streaming detokenization: complete characters only, up to a stop string."""

from collections.abc import Callable, Iterable, Sequence
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
  """Returns how many trailing characters may begin a stop string."""
  longest = max((len(s) - 1 for s in stop), default=0)
  for size in range(min(longest, len(text)), 0, -1):
    if any(s.startswith(text[-size:]) for s in stop):
      return size
  return 0
