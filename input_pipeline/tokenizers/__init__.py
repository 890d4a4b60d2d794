"""Text -> token ids and back: byte, char, word, sentencepiece, wordpiece, ids.

A tokenizer is specified by a string: "byte"; "char"; "word?vocab_size=30000",
the most frequent words of the source's train split; "sentencepiece:PATH.model",
which is loaded; "sentencepiece?vocab_size=8000&model_type=unigram", which is
trained on the source's train split; "wordpiece:PATH", a vocab.txt or a
tokenizer.json; "tokenizers:PATH", any tokenizer.json of Hugging Face's library;
"prepared:DIR", the tokenizer of a prepared folder; "ids?vocab_size=50304", for
sources of tokens such as megatron:PREFIX. After the path of
"tokenizers:PATH", "?eos=ID" sets the token that ends a document, if the file
does not define it, and "?bos=ID" or "?eos=ID&bos=ID" the token that begins one.
"?eos=ID,ID" sets further tokens that end a generated text, such as the end of a
turn.
"""

import importlib
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from common import bounded_file, names
from common.files import write_atomically
from input_pipeline.bad_records import Policy
from input_pipeline.reading import prepared_index

# Twice the size of the files of the largest vocabularies.
_MOST_BYTES = 2**26
# The most that a tokenizer is learned from: the first lines of the split, or
# an equal number from each of several data sets.
_MAX_LINES = 2_000_000
# The options that may follow the path in tokenizers:PATH.
_MARK = r"(?:eos=\d{1,9}(?:,\d{1,9}){0,31}|bos=\d{1,9})"
MARKS = re.compile(rf"\?({_MARK}(?:&{_MARK})?)$")


class Tokenizer(NamedTuple):
  """A fixed vocabulary.

  spec: the string that specifies the tokenizer.
  encode: str or UTF-8 bytes -> int32 ids.
  decode: ids -> str; it never fails on ids below vocab_size.
  vocab_size: ids run from 0 to vocab_size - 1.
  eos: the id placed between documents, or None.
  byte_lengths: uint32 [vocab_size], the number of UTF-8 bytes that an id stands
    for.
  file_name: the name of the file with `content` in a working directory, or
    None.
  content: bytes from which the tokenizer can be rebuilt, and which identify it
    in caches.
  counts: int64 [vocab_size], the frequency of each id in the training text, 0
    for an id without text of its own; None if not kept.
  bos: the id that begins each document and each prompt, or None.
  other_ends: ids that end a generated text as eos does, such as the end of a
    turn.
  """

  spec: str
  encode: Callable[[str | bytes], np.ndarray]
  decode: Callable[[Iterable[int]], str]
  vocab_size: int
  eos: int | None
  byte_lengths: np.ndarray
  file_name: str | None
  content: bytes
  counts: np.ndarray | None = None
  bos: int | None = None
  other_ends: tuple[int, ...] = ()

  @property
  def ends(self) -> tuple[int, ...]:
    """The ids that end a generated text."""
    return (() if self.eos is None else (self.eos,)) + self.other_ends

  def begun(self, text: str | bytes) -> np.ndarray:
    """Returns bos, if any, and a text's ids; ValueError as in `encode`."""
    ids = self.encode(text)
    if self.bos is None:
      return ids
    return np.concatenate([np.array([self.bos], np.int32), ids])


Corpus = Sequence[tuple[str, str]]  # (URI, text_key) of each data set


def get_tokenizer(
  spec: str,
  uri: str | Corpus,
  *,
  text_key: str = "text",
  cache_dir: str | None = None,
  workdir: str | None = None,
  policy: Policy = Policy(),
) -> Tokenizer:
  """Returns the tokenizer that a string specifies.

  A tokenizer learned from the data (char, word, sentencepiece) is kept in
  `cache_dir` and in `workdir`; if `workdir` already holds one, it is loaded, so
  that a finished run needs neither the data nor the cache. Records that the
  policy skips are not learned from.

  Args:
    spec: the string.
    uri: of the data, or (URI, text_key) of several data sets, in order.
    text_key: the field that holds the text, for a single URI.
    cache_dir: see `cache_folder`.
    workdir: of the run, or None.
    policy: how bad records are handled.

  Raises:
    ValueError: the string, or the file it names, is not a tokenizer.
  """
  corpus = [(uri, text_key)] if isinstance(uri, str) else uri
  asked = spec
  spec, content = prepared_index.tokenizer(spec, workdir)
  if workdir and spec != asked:
    note, note_content = prepared_index.note_of(spec)
    write_atomically(os.path.join(workdir, note), [note_content])
  kind = _kind(spec)
  if kind.FILE is None:
    return kind.load(spec, b"")
  path = os.path.join(workdir, kind.FILE) if workdir else None
  if path and os.path.lexists(path):
    return _load(kind, spec, path)
  if content is None:  # else read from the prepared folder
    if ":" in spec:
      content = read(kind.path_of(spec))
    else:
      content = kind.learn(spec, corpus, cache_dir, policy)
  tokenizer = kind.load(spec, content)
  if path:
    write_atomically(path, [tokenizer.content])
  return tokenizer


def kept(spec: str, workdir: str) -> Tokenizer:
  """Returns the tokenizer of a run, from its workdir alone.

  Raises:
    ValueError: the string is not a tokenizer, or its file is missing or
      damaged.
  """
  spec, _ = prepared_index.tokenizer(spec, workdir)
  kind = _kind(spec)
  if kind.FILE is None:
    return kind.load(spec, b"")
  return _load(kind, spec, os.path.join(workdir, kind.FILE))


def rebuild(spec: str, content: bytes) -> Tokenizer:
  """Rebuilds a tokenizer from its spec and content.

  Raises:
    ValueError: the string is not a tokenizer, or the content does not fit it.
  """
  return _kind(spec).load(spec, content)


def _kind(spec: str) -> Any:
  """Returns the module of the kind of tokenizer that a string names.

  Raises:
    ValueError: there is no such kind, or the string is malformed.
  """
  modules = names.discover(__name__)
  kinds = {n: importlib.import_module(m) for n, m in sorted(modules.items())}
  name, mark = re.match("([a-z]*)(.?)", str(spec)).groups()
  valid = [form for kind in kinds.values() for form in kind.FORMS]
  if any(re.match("([a-z]*)(.?)", f).groups() == (name, mark) for f in valid):
    return kinds[name]
  raise ValueError(
    f"tokenizer {spec!r} is unknown; valid: {', '.join(valid)}, prepared:DIR"
  )


def _load(kind: Any, spec: str, path: str) -> Tokenizer:
  try:
    return kind.load(spec, read(path))
  except ValueError as error:
    at = "" if path in str(error) else f"{path}: "
    raise ValueError(f"{at}{error}") from None


def marks(spec: str) -> dict[str, tuple[int, ...]]:
  """Returns the ids of "eos" and "bos" that a spec sets."""
  found = MARKS.search(spec)
  pairs = [pair.split("=") for pair in found[1].split("&")] if found else []
  return {name: tuple(map(int, ids.split(","))) for name, ids in pairs}


def special(tokenizer: Tokenizer) -> dict[str, int]:
  """Returns {spelling: id} of the special tokens of a tokenizer's file."""
  function = getattr(_kind(tokenizer.spec), "special", lambda content: {})
  return function(tokenizer.content)


def encoder_of_special(
  tokenizer: Tokenizer,
) -> Callable[[str], np.ndarray] | None:
  """Returns (text) -> ids that reads special tokens out of the text, or None.

  For texts that the program writes: a user's text must not be encoded so.
  """
  kind = _kind(tokenizer.spec)
  if not hasattr(kind, "encoder_of_special"):
    return None
  return kind.encoder_of_special(tokenizer.spec, tokenizer.content)


def read(path: str) -> bytes:
  """Returns the content of a tokenizer's file; ValueError if unreadable."""
  try:
    return bounded_file.read(os.path.expanduser(path), _MOST_BYTES)
  except ValueError as error:
    raise ValueError(f"tokenizer {error}") from None


def lines_to_learn(documents: Sequence[Iterable[str]]) -> Iterator[str]:
  """Yields the non-empty lines of the texts of each data set."""
  most = _MAX_LINES // len(documents)
  for found in documents:
    lines = (line for text in found for line in text.splitlines() if line)
    yield from itertools.islice(lines, most)


def utf8(text: str | bytes) -> bytes:
  """Returns the text's UTF-8 bytes."""
  return text if isinstance(text, bytes) else text.encode("utf-8")
