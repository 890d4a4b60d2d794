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

import functools
import itertools
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from input_pipeline import bounded_file, prepared_index
from input_pipeline.bad_records import Policy

# The files of the largest vocabularies are half of it.
_MOST_BYTES = 2**26
# What a tokenizer is learned from at most: the first lines of the split, or
# of several data sets as many of each.
_MAX_LINES = 2_000_000
_VALID = (
  "byte, char, word?vocab_size=N&min_count=N&lower=1, "
  "sentencepiece:PATH.model, sentencepiece?vocab_size=N, "
  "wordpiece:PATH, tokenizers:PATH.json, prepared:DIR"
)
_WORDS = re.compile(r"word(\?|$)")
# What may follow the path of a tokenizers:PATH.
MARKS = re.compile(r"\?([be]os=\d{1,9}(?:&[be]os=\d{1,9})?)$")
# Those of a file, and what the file is called in a working directory.
_OF_A_FILE = {
  "sentencepiece": "tokenizer.model",
  "wordpiece": "tokenizer.json",
  "tokenizers": "tokenizer.json",
}


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


def cache_folder(cache_dir: str | None = None) -> str:
  """`cache_dir`, else $TESSERA_CACHE, else ~/.cache/tessera."""
  cache_dir = cache_dir or os.environ.get("TESSERA_CACHE")
  return os.path.expanduser(cache_dir or "~/.cache/tessera")


def write_atomically(path: str, chunks: Iterable[bytes]) -> None:
  """Writes a file that is there whole or not at all."""
  folder = os.path.dirname(path)
  os.makedirs(folder, exist_ok=True)
  # Hosts that share the folder may write the same file at once.
  temporary = f"{path}.{uuid.uuid4().hex}.tmp"
  try:
    with open(temporary, "xb") as file:
      for chunk in chunks:
        file.write(chunk)
    os.replace(temporary, path)
  except BaseException:
    os.unlink(temporary)
    raise


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
  name, load = _format(spec)
  if name is None:
    return load(b"")
  path = os.path.join(workdir, name) if workdir else None
  if path and os.path.lexists(path):
    return _load(load, path)
  kind, colon, file = spec.partition(":")
  if content is not None:
    pass  # As the prepared folder has it.
  elif spec == "char":
    from input_pipeline import tokenizer_char

    content = tokenizer_char.learn(corpus, policy)
  elif _WORDS.match(spec):
    from input_pipeline import tokenizer_word

    content = tokenizer_word.learn(spec, corpus, cache_dir, policy)
  elif colon and kind in _OF_A_FILE:
    content = read(MARKS.sub("", file))
  else:
    from input_pipeline import tokenizer_sentencepiece

    content = tokenizer_sentencepiece.train(spec, corpus, cache_dir, policy)
  tokenizer = load(content)
  if path:
    write_atomically(path, [tokenizer.content])
  return tokenizer


def kept(spec: str, workdir: str) -> Tokenizer:
  """The tokenizer of a run, from its workdir alone.

  Raises:
    ValueError: the string is no tokenizer, or its file is missing or damaged.
  """
  name, load = _format(prepared_index.tokenizer(spec, workdir)[0])
  if name is None:
    return load(b"")
  return _load(load, os.path.join(workdir, name))


def rebuild(spec: str, content: bytes) -> Tokenizer:
  """The tokenizer of a spec and the content that it had.

  Raises:
    ValueError: the string is no tokenizer, or the content is not one of it.
  """
  return _format(spec)[1](content)


def _format(spec: str) -> tuple[str | None, Callable[[bytes], Tokenizer]]:
  """(file in a workdir or None, its content -> Tokenizer)."""
  if spec == "byte":
    return None, lambda content: _byte()
  if spec == "char":
    from input_pipeline import tokenizer_char

    return "tokenizer.json", tokenizer_char.load
  if isinstance(spec, str) and _WORDS.match(spec):
    from input_pipeline import tokenizer_word

    return "tokenizer.json", functools.partial(tokenizer_word.load, spec)
  kind = re.match("[a-z]*", spec)[0] if isinstance(spec, str) else ""
  if kind == "sentencepiece" and re.match(r"sentencepiece([:?]|$)", spec):
    from input_pipeline import tokenizer_sentencepiece

    marks = MARKS.search(spec)
    if marks and ":" in spec:
      raise ValueError(
        f"tokenizer {spec!r}: a SentencePiece model says by itself what ends a"
        f" document: leave out {marks[0]!r}"
      )
    return _OF_A_FILE[kind], functools.partial(
      tokenizer_sentencepiece.load, spec
    )
  if kind in _OF_A_FILE and spec.startswith(f"{kind}:"):
    from input_pipeline import tokenizer_huggingface

    return _OF_A_FILE[kind], functools.partial(tokenizer_huggingface.load, spec)
  raise ValueError(f"tokenizer {spec!r} is unknown; valid: {_VALID}")


def _load(load: Callable[[bytes], Tokenizer], path: str) -> Tokenizer:
  try:
    return load(read(path))
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


def _byte() -> Tokenizer:
  """Every byte is a token; NUL, which text does not hold, ends a document."""

  def encode(text: str | bytes) -> np.ndarray:
    return np.frombuffer(utf8(text), np.uint8).astype(np.int32)

  def decode(ids: Iterable[int]) -> str:
    return bytes(int(i) for i in ids).decode("utf-8", errors="replace")

  ones = np.ones(256, np.uint32)
  return Tokenizer("byte", encode, decode, 256, 0, ones, None, b"byte")
