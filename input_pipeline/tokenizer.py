"""Text -> token ids and back: byte, char, sentencepiece.

A tokenizer is written as a string: "byte"; "char"; "sentencepiece:PATH.model",
which is loaded; "sentencepiece?vocab_size=8000&model_type=unigram", which is
trained on the source's train split; "prepared:DIR", that of a prepared folder.
"""

import functools
import hashlib
import io
import itertools
import json
import os
import re
import urllib.parse
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from input_pipeline import bounded_file, prepared_index
from input_pipeline.bad_records import Policy, identify
from input_pipeline.documents import texts
from input_pipeline.source import open_source

# The files of the largest vocabularies are a fifth of it.
_MOST_BYTES = 2**25
# What a tokenizer is learned from at most: the first lines of the split, or
# of several data sets as many of each.
_MAX_LINES = 2_000_000
_VALID = (
  "byte, char, sentencepiece:PATH.model, sentencepiece?vocab_size=N, "
  "prepared:DIR"
)


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
  """

  spec: str
  encode: Callable[[str | bytes], np.ndarray]
  decode: Callable[[Iterable[int]], str]
  vocab_size: int
  eos: int | None
  byte_lengths: np.ndarray
  file_name: str | None
  content: bytes


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

  What is learned from the data (char, a trained sentencepiece) is kept in
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
  if content is not None:
    pass  # As the prepared folder has it.
  elif spec == "char":
    content = _characters(corpus, policy)
  elif spec.startswith("sentencepiece:"):
    content = _read(spec.partition(":")[2])
  else:
    content = _train(spec, corpus, cache_dir, policy)
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


def _format(spec: str) -> tuple[str | None, Callable[[bytes], Tokenizer]]:
  """(file in a workdir or None, its content -> Tokenizer)."""
  if spec == "byte":
    return None, lambda content: _byte()
  if spec == "char":
    return "tokenizer.json", _char
  if isinstance(spec, str) and re.match(r"sentencepiece([:?]|$)", spec):
    return "tokenizer.model", functools.partial(_sentencepiece, spec)
  raise ValueError(f"tokenizer {spec!r} is unknown; valid: {_VALID}")


def _load(load: Callable[[bytes], Tokenizer], path: str) -> Tokenizer:
  try:
    return load(_read(path))
  except ValueError as error:
    at = "" if path in str(error) else f"{path}: "
    raise ValueError(f"{at}{error}") from None


def _read(path: str) -> bytes:
  try:
    return bounded_file.read(os.path.expanduser(path), _MOST_BYTES)
  except ValueError as error:
    raise ValueError(f"tokenizer {error}") from None


def _utf8(text: str | bytes) -> bytes:
  return text if isinstance(text, bytes) else text.encode("utf-8")


def _byte() -> Tokenizer:
  """Every byte is a token; NUL, which text does not hold, ends a document."""

  def encode(text: str | bytes) -> np.ndarray:
    return np.frombuffer(_utf8(text), np.uint8).astype(np.int32)

  def decode(ids: Iterable[int]) -> str:
    return bytes(int(i) for i in ids).decode("utf-8", errors="replace")

  ones = np.ones(256, np.uint32)
  return Tokenizer("byte", encode, decode, 256, 0, ones, None, b"byte")


def _codepoints(text: str | bytes) -> np.ndarray:
  text = text.decode("utf-8") if isinstance(text, bytes) else text
  return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def _characters(corpus: Corpus, policy: Policy) -> bytes:
  """The JSON of the sorted set of the characters of all of the data."""
  found = np.zeros(0, np.uint32)
  for uri, text_key in corpus:
    source = open_source(uri, "all", policy)
    for text in texts(source, text_key, uri, policy):
      found = np.union1d(found, _codepoints(text))
  characters = "".join(chr(c) for c in found)
  return json.dumps({"characters": characters}, ensure_ascii=False).encode()


def _char(content: bytes) -> Tokenizer:
  """Every character is a token, in the order of code points."""
  try:
    characters = json.loads(content)["characters"]
    vocabulary = _codepoints(characters)
    size = len(vocabulary)
    if not size or (vocabulary[1:] <= vocabulary[:-1]).any():
      raise ValueError("not in order")
  except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
    raise ValueError("tokenizer.json does not hold characters") from None

  def encode(text: str | bytes) -> np.ndarray:
    points = _codepoints(text)
    ids = np.searchsorted(vocabulary, points)
    known = vocabulary[np.minimum(ids, size - 1)] == points
    if not known.all():
      unknown = chr(points[np.flatnonzero(~known)[0]])
      raise ValueError(f"character {unknown!r} is not in the vocabulary")
    return ids.astype(np.int32)

  def decode(ids: Iterable[int]) -> str:
    return "".join(characters[int(i)] for i in ids)

  lengths = np.array([len(c.encode()) for c in characters], np.uint32)
  return Tokenizer(
    "char", encode, decode, size, None, lengths, "tokenizer.json", content
  )


def _import_sentencepiece():
  try:
    import sentencepiece
  except ImportError:
    raise ValueError(
      "tokenizer sentencepiece is not installed: pip install 'tessera[text]'"
    ) from None
  return sentencepiece


def _train(
  spec: str, corpus: Corpus, cache_dir: str | None, policy: Policy
) -> bytes:
  """The trained model, from the cache where it is there."""
  options = {"vocab_size": "8000", "model_type": "unigram"}
  for key, value in urllib.parse.parse_qsl(spec.partition("?")[2]):
    if key not in options:
      raise ValueError(
        f"tokenizer {spec!r}: no option {key!r}; valid: {', '.join(options)}"
      )
    options[key] = value
  if not options["vocab_size"].isdigit():
    raise ValueError(f"tokenizer {spec!r}: vocab_size is not a count")
  if options["model_type"] not in ("unigram", "bpe"):
    raise ValueError(f"tokenizer {spec!r}: model_type is unigram or bpe")
  sources = [open_source(uri, "train", policy) for uri, _ in corpus]
  fingerprints = [source.fingerprint for source in sources]
  identity = [list(corpus), fingerprints, options, *identify(policy)]
  digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
  path = os.path.join(cache_folder(cache_dir), f"{digest}.model")
  if not os.path.exists(path):
    found = [
      texts(source, text_key, uri, policy)
      for source, (uri, text_key) in zip(sources, corpus, strict=True)
    ]
    write_atomically(path, [_fit(spec, found, corpus, options)])
  return _read(path)


def _fit(
  spec: str,
  documents: Sequence[Iterable[str]],
  corpus: Corpus,
  options: dict[str, str],
) -> bytes:
  sentencepiece = _import_sentencepiece()
  model = io.BytesIO()
  most = _MAX_LINES // len(corpus)
  chosen = (itertools.islice(_lines(found), most) for found in documents)
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=itertools.chain.from_iterable(chosen),
      model_writer=model,
      vocab_size=int(options["vocab_size"]),
      model_type=options["model_type"],
      # Text comes back from its ids unchanged, spaces and newlines included.
      byte_fallback=True,
      normalization_rule_name="identity",
      remove_extra_whitespaces=False,
      add_dummy_prefix=False,
      allow_whitespace_only_pieces=True,
      character_coverage=0.9995,
      max_sentence_length=2**20,
      minloglevel=2,
    )
  except (RuntimeError, OSError) as error:
    # What precedes "] " is a place in SentencePiece's own source.
    reason = str(error).strip().splitlines()[-1].rpartition("] ")[2]
    uris = ", ".join(uri for uri, _ in corpus)
    raise ValueError(f"tokenizer {spec!r} on {uris}: {reason}") from None
  return model.getvalue()


def _lines(documents: Iterable[str]) -> Iterator[str]:
  """The lines of texts that are not empty."""
  return (line for text in documents for line in text.splitlines() if line)


def _sentencepiece(spec: str, content: bytes) -> Tokenizer:
  """Kudo and Richardson, "SentencePiece", EMNLP 2018."""
  sentencepiece = _import_sentencepiece()
  try:
    if not content:  # no model, and it would be taken for none given
      raise ValueError("empty")
    model = sentencepiece.SentencePieceProcessor(model_proto=content)
    size = model.vocab_size()
    pieces = [model.id_to_piece(i) for i in range(size)]
  except (RuntimeError, ValueError):  # its error may hold any bytes
    raise ValueError(f"tokenizer {spec!r} is not a model") from None

  def encode(text: str | bytes) -> np.ndarray:
    text = _utf8(text).decode("utf-8")
    return np.array(model.encode(text), np.int32)

  def decode(ids: Iterable[int]) -> str:
    return model.decode([int(i) for i in ids])

  def length(i: int) -> int:
    if model.is_control(i) or model.is_unknown(i):
      return 0
    if model.is_byte(i):
      return 1
    return len(pieces[i].replace("\u2581", " ").encode())

  lengths = np.array([length(i) for i in range(size)], np.uint32)
  eos = model.eos_id() if model.eos_id() >= 0 else None
  return Tokenizer(
    spec, encode, decode, size, eos, lengths, "tokenizer.model", content
  )
