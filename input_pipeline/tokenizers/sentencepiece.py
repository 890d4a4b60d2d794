"""SentencePiece models (Kudo and Richardson, EMNLP 2018): trained or loaded."""

import hashlib
import io
import json
import os
import urllib.parse
from collections.abc import Iterable

import numpy as np

from common.files import cache_folder, write_atomically
from input_pipeline.bad_records import Policy, identify
from input_pipeline.sources import open_source
from input_pipeline.sources.parts.documents import texts
from input_pipeline.tokenizers import (
  MARKS,
  Corpus,
  Tokenizer,
  lines_to_learn,
  marks,
  read,
  utf8,
)

FORMS = (
  "sentencepiece:PATH.model",
  "sentencepiece?vocab_size=N",
  "sentencepiece",
)
FILE = "tokenizer.model"
# Longer lines, in bytes, are not learned from.
_LONGEST = 2**20


def _import_sentencepiece():
  try:
    import sentencepiece
  except ImportError:
    raise ValueError(
      "tokenizer sentencepiece is not installed: pip install -e '.[text]'"
    ) from None
  return sentencepiece


def path_of(spec: str) -> str:
  """Returns a spec's file; ValueError for options that the model defines."""
  found = MARKS.search(spec)
  if found and ("bos" in found[0] or "," not in found[0]):
    raise ValueError(
      f"tokenizer {spec!r}: a SentencePiece model defines its own end of a"
      f" document: leave out {found[0]!r}"
    )
  return MARKS.sub("", spec.partition(":")[2])


def learn(
  spec: str, corpus: Corpus, cache_dir: str | None, policy: Policy
) -> bytes:
  """Returns the trained model, from the cache if it is there."""
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
    title = f"tokenizer {spec!r} on {', '.join(uri for uri, _ in corpus)}"
    size, model_type = int(options["vocab_size"]), options["model_type"]
    model = fit(title, lines_to_learn(found), size, model_type)
    write_atomically(path, [model])
  return read(path)


def fit(
  title: str, lines: Iterable[str], vocab_size: int, model_type: str
) -> bytes:
  """Trains a model on lines of text, with byte fallback.

  Args:
    title: its name in error messages.
    lines: of text.
    vocab_size: the exact size, including the 256 bytes.
    model_type: "unigram" (Kudo, ACL 2018) or "bpe" (Sennrich et al., 2016).

  Raises:
    ValueError: no model can be trained on these lines.
  """
  sentencepiece = _import_sentencepiece()
  model = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(lines),
      model_writer=model,
      vocab_size=vocab_size,
      model_type=model_type,
      # Decoding returns the text unchanged, including spaces and newlines.
      byte_fallback=True,
      normalization_rule_name="identity",
      remove_extra_whitespaces=False,
      add_dummy_prefix=False,
      allow_whitespace_only_pieces=True,
      character_coverage=0.9995,
      max_sentence_length=_LONGEST,
      minloglevel=2,
    )
  except (RuntimeError, OSError) as error:
    # The part before "] " is a location in SentencePiece's source code.
    reason = str(error).strip().splitlines()[-1].rpartition("] ")[2]
    if "!sentences_.empty()" in str(error):
      reason = (
        f"no line of the text has 1 to {_LONGEST:,} bytes, the lengths that a"
        " vocabulary is learned from; break the text into shorter lines"
      )
    raise ValueError(f"{title}: {reason}") from None
  return model.getvalue()


def load(spec: str, content: bytes) -> Tokenizer:
  """Returns the tokenizer of a model's bytes; ValueError if malformed.

  A spec that ends in "?eos=1,5" sets other ids than the model's own that end a
  generated text.
  """
  sentencepiece = _import_sentencepiece()
  try:
    if (
      not content
    ):  # not a model, and SentencePiece would treat it as not given
      raise ValueError("empty")
    model = sentencepiece.SentencePieceProcessor(model_proto=content)
    size = model.vocab_size()
    pieces = [model.id_to_piece(i) for i in range(size)]
  except (
    RuntimeError,
    ValueError,
  ):  # its error message may contain arbitrary bytes
    raise ValueError(f"tokenizer {spec!r} is not a model") from None

  def encode(text: str | bytes) -> np.ndarray:
    text = utf8(text).decode("utf-8")
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
  others = tuple(i for i in marks(spec).get("eos", ()) if i != eos)
  if others and max(others) >= size:
    raise ValueError(f"tokenizer {spec!r} has no id {max(others)}")
  found = Tokenizer(
    spec, encode, decode, size, eos, lengths, "tokenizer.model", content
  )
  return found._replace(other_ends=others)


def special(content: bytes) -> dict[str, int]:
  """Returns {spelling: id} of a model's control symbols."""
  model = _import_sentencepiece().SentencePieceProcessor(model_proto=content)
  ids = filter(model.is_control, range(model.vocab_size()))
  return {model.id_to_piece(i): i for i in ids}
