"""Text -> token ids and back: byte, char, word, sentencepiece, wordpiece.

A tokenizer is written as a string: "byte"; "char"; "word?vocab_size=30000", the
most frequent words of the source's train split; "sentencepiece:PATH.model",
which is loaded; "sentencepiece?vocab_size=8000&model_type=unigram", which is
trained on the source's train split; "wordpiece:PATH", a vocab.txt or a
tokenizer.json; "tokenizers:PATH", any tokenizer.json of Hugging Face's library,
where "?eos=ID" after the path says what ends a document if it does not, and
"?bos=ID" or "?eos=ID&bos=ID" what begins one; "prepared:DIR", that of a
prepared folder.
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

# The files of the largest vocabularies are half of it.
_MOST_BYTES = 2**26
# What a tokenizer is learned from at most: the first lines of the split, or
# of several data sets as many of each.
_MAX_LINES = 2_000_000
# What may follow the path of a tokenizers:PATH.
MARKS = re.compile(r"\?([be]os=\d{1,9}(?:&[be]os=\d{1,9})?)$")


class Tokenizer(NamedTuple):
  """A fixed vocabulary.

  spec: the string that asked for it.
  encode: str or UTF-8 bytes -> int32 ids.
  decode: ids -> str; it never fails on ids below vocab_size.
  vocab_size: ids run from 0 to vocab_size - 1.
  eos: the id placed between documents, or None.
  byte_lengths: uint32 [vocab_size], the UTF-8 bytes that an id stands for.
  file_name: what `content` is called in a working directory, or None.
  content: bytes that rebuild the tokenizer, and name it in caches.
  counts: int64 [vocab_size], how often each id was in what it was learned from,
    0 for one that stands for no text of its own; None where that is not kept.
  bos: the id that begins each document, and each prompt; or None.
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

  def begun(self, text: str | bytes) -> np.ndarray:
    """The ids of a text, after what begins one; ValueError as of `encode`."""
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
  """The tokenizer that a string names.

  What is learned from the data (char, word, a sentencepiece) is kept in
  `cache_dir` and in `workdir`; where `workdir` already holds one, that is
  loaded, so that a finished run needs neither the data nor the cache. Records
  that the policy skips are not learned from.

  Args:
    spec: the string.
    uri: of the data, or (URI, text_key) of several data sets, in order.
    text_key: the field that holds the text of a lone URI.
    cache_dir: see `cache_folder`.
    workdir: of the run, or None.
    policy: of bad records.

  Raises:
    ValueError: the string, or the file it names, is not a tokenizer.
  """
  corpus = [(uri, text_key)] if isinstance(uri, str) else uri
  asked = spec
  spec, content = prepared_index.tokenizer(spec, workdir)
  if workdir and spec != asked:
    note, told = prepared_index.note_of(spec)
    write_atomically(os.path.join(workdir, note), [told])
  kind = _kind(spec)
  if kind.FILE is None:
    return kind.load(spec, b"")
  path = os.path.join(workdir, kind.FILE) if workdir else None
  if path and os.path.lexists(path):
    return _load(kind, spec, path)
  if content is None:  # else it is as the prepared folder has it
    if ":" in spec:
      content = read(kind.path_of(spec))
    else:
      content = kind.learn(spec, corpus, cache_dir, policy)
  tokenizer = kind.load(spec, content)
  if path:
    write_atomically(path, [tokenizer.content])
  return tokenizer


def kept(spec: str, workdir: str) -> Tokenizer:
  """The tokenizer of a run, from its workdir alone.

  Raises:
    ValueError: the string is no tokenizer, or its file is missing or damaged.
  """
  spec, _ = prepared_index.tokenizer(spec, workdir)
  kind = _kind(spec)
  if kind.FILE is None:
    return kind.load(spec, b"")
  return _load(kind, spec, os.path.join(workdir, kind.FILE))


def rebuild(spec: str, content: bytes) -> Tokenizer:
  """The tokenizer of a spec and the content that it had.

  Raises:
    ValueError: the string is no tokenizer, or the content is not one of it.
  """
  return _kind(spec).load(spec, content)


def _kind(spec: str) -> Any:
  """The module of the kind that a string names.

  Raises:
    ValueError: there is no such kind, or it is not written so.
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


def read(path: str) -> bytes:
  """The content of a tokenizer's file, or ValueError."""
  try:
    return bounded_file.read(os.path.expanduser(path), _MOST_BYTES)
  except ValueError as error:
    raise ValueError(f"tokenizer {error}") from None


def lines_to_learn(documents: Sequence[Iterable[str]]) -> Iterator[str]:
  """The lines that are not empty of the texts of each data set."""
  most = _MAX_LINES // len(documents)
  for found in documents:
    lines = (line for text in found for line in text.splitlines() if line)
    yield from itertools.islice(lines, most)


def utf8(text: str | bytes) -> bytes:
  """The text's bytes."""
  return text if isinstance(text, bytes) else text.encode("utf-8")
