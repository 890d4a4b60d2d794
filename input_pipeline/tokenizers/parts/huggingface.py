"""WordPiece, and whatever else is in a tokenizer.json of Hugging Face's.

WordPiece (Wu et al., 2016; Devlin et al., 2019) is no code that gives the text
back: white space is lost, and by the file's own settings case and accents; a
word that no pieces spell is one [UNK].
"""

import collections
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from input_pipeline.tokenizers import MARKS, Tokenizer, utf8

_UNKNOWN = "[UNK]"
_SPECIAL = ("[PAD]", _UNKNOWN, "[CLS]", "[SEP]", "[MASK]")
# A tokenizer.json does not say what ends a document: the first of these.
_ENDS = (
  "</s>",
  "<|endoftext|>",
  "<|end_of_text|>",
  "<eos>",
  "<|im_end|>",
  "[SEP]",
)
# No vocabulary has more; an id beyond would be paid for in memory.
_MOST_IDS = 2**22
# What share of the letters a vocabulary learned here has; as SentencePiece's.
_COVERAGE = 0.9995
_AT_ONCE = 10_000
_EMPTY = np.zeros(0, np.int32)


def _import_tokenizers():
  try:
    import tokenizers
  except ImportError:
    raise ValueError(
      "tokenizer library tokenizers is not installed: pip install -e '.[text]'"
    ) from None
  return tokenizers


def _guarded(function: Callable, *args) -> Any:
  """The call's result; ValueError where the library fails or panics."""
  try:
    return function(*args)
  except KeyboardInterrupt:
    raise
  except BaseException as error:
    # What Rust panics with derives from BaseException alone.
    known = isinstance(error, Exception)
    if not known and type(error).__name__ != "PanicException":
      raise
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    raise ValueError(reason[:200]) from None


def path_of(spec: str) -> str:
  """The file of a spec, without what it says of ends and beginnings."""
  return MARKS.sub("", spec.partition(":")[2])


def load(spec: str, content: bytes) -> Tokenizer:
  """The tokenizer of a tokenizer.json's bytes, or of a vocab.txt's.

  Special tokens are never read out of the text: "[SEP]" in it is spelled like
  any other text. Nothing is added, cut or padded. A spec that ends in
  "?eos=7&bos=1" says what ends a document and what begins one; else the first
  of _ENDS that there is ends it, and nothing begins it.

  Raises:
    ValueError: it is neither, or for "wordpiece:" no WordPiece; or it has no
      such id.
  """
  tokenizers = _import_tokenizers()
  told = _marks(spec)
  try:
    found = _tokenizer(tokenizers, spec, content)
    pieces = found.get_vocab(with_added_tokens=True)
    if not pieces:
      raise ValueError("it has no vocabulary")
    size = max(pieces.values()) + 1
    if size > _MOST_IDS:
      raise ValueError(
        f"it has the id {size - 1}; at most {_MOST_IDS} are held"
      )
    for name, verb in (("eos", "end"), ("bos", "begin")):
      if name in told and told[name] not in pieces.values():
        raise ValueError(f"it has no id {told[name]} to {verb} a document")
    # A model whose own parts do not fit together fails when it is used.
    for sample in ("a", "猫 \U0001f408", "\x00"):
      _guarded(found.encode, sample)
  except ValueError as error:
    raise ValueError(f"tokenizer {spec!r} is not a model: {error}") from None

  def encode(text: str | bytes) -> np.ndarray:
    text = utf8(text).decode("utf-8")
    ids = _guarded(lambda: found.encode(text, add_special_tokens=False).ids)
    return np.array(ids, np.int32) if ids else _EMPTY

  def decode(ids: Iterable[int]) -> str:
    ids = [int(i) for i in ids]
    return found.decode(ids, skip_special_tokens=False)

  ends = (pieces[end] for end in _ENDS if end in pieces)
  return Tokenizer(
    spec,
    encode,
    decode,
    size,
    told.get("eos", next(ends, None)),
    _byte_lengths(found, pieces, size),
    "tokenizer.json",
    content,
    bos=told.get("bos"),
  )


def _marks(spec: str) -> dict[str, int]:
  """The "eos" and "bos" that a spec says."""
  told = MARKS.search(spec)
  pairs = [pair.split("=") for pair in told[1].split("&")] if told else []
  return {name: int(value) for name, value in pairs}


def added_before(content: bytes) -> int | None:
  """The id that a tokenizer.json's own rules put before a text, or None.

  Raises:
    ValueError: it is no tokenizer.json.
  """
  found = _tokenizer(_import_tokenizers(), "tokenizers:", content)
  plain = _guarded(lambda: found.encode("a", add_special_tokens=False).ids)
  ruled = _guarded(lambda: found.encode("a").ids)
  before = len(ruled) > len(plain) and ruled[1 : 1 + len(plain)] == plain
  return ruled[0] if before else None


def _tokenizer(tokenizers, spec: str, content: bytes):
  try:
    text = content.decode("utf-8")
  except UnicodeDecodeError:
    raise ValueError("it is no text") from None
  if text.lstrip()[:1] == "{":
    try:
      model = json.loads(text).get("model")
    except (ValueError, RecursionError):
      raise ValueError("it is damaged JSON") from None
    kind = model.get("type") if isinstance(model, dict) else None
    if spec.startswith("wordpiece:") and kind != "WordPiece":
      raise ValueError(f"its type is {kind!r}, not 'WordPiece'")
    found = _guarded(tokenizers.Tokenizer.from_str, text)
  elif spec.startswith("wordpiece:"):
    found = _of_vocabulary(tokenizers, text)
  else:
    raise ValueError("it is no tokenizer.json")
  found.no_padding()
  found.no_truncation()
  found.encode_special_tokens = True
  return found


def _of_vocabulary(tokenizers, text: str):
  """BERT's tokenizer of a vocab.txt: a piece a line, its number the id.

  A vocabulary without a capital letter outside brackets could spell none, so
  that its text is lower-cased, and its accents are dropped, as BERT's own.
  """
  pieces = text.removesuffix("\n").split("\n")
  pieces = [piece.rstrip("\r") for piece in pieces]
  if _UNKNOWN not in pieces or len(set(pieces)) < len(pieces):
    raise ValueError(f"a vocab.txt has {_UNKNOWN} and each piece once")
  special = [p for p in pieces if p.startswith("[") and p.endswith("]")]
  uncased = all(p == p.lower() for p in set(pieces).difference(special))
  vocabulary = {piece: i for i, piece in enumerate(pieces)}
  found = _bert(tokenizers, vocabulary, uncased)
  found.add_special_tokens([p for p in _SPECIAL if p in vocabulary])
  return found


def _bert(tokenizers, vocabulary: dict[str, int], lowercase: bool):
  """BERT's: white space, punctuation and Chinese characters part words."""
  model = tokenizers.models.WordPiece(vocab=vocabulary, unk_token=_UNKNOWN)
  found = tokenizers.Tokenizer(model)
  found.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=lowercase)
  found.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
  found.decoder = tokenizers.decoders.WordPiece()
  return found


def fit_wordpiece(
  title: str, lines: Iterable[str], vocab_size: int, lowercase: bool = True
) -> bytes:
  """A WordPiece vocabulary for BERT, as a tokenizer.json.

  Args:
    title: what to call it in an error.
    lines: of text.
    vocab_size: at most, [PAD], [UNK], [CLS], [SEP] and [MASK] included.
    lowercase: as BERT "uncased": accents are dropped, too.

  Raises:
    ValueError: it cannot be learned from these lines.
  """
  tokenizers = _import_tokenizers()
  found = _bert(tokenizers, {_UNKNOWN: 0}, lowercase)
  words = _alphabetic(_words(found, lines))
  # The library numbers letters as its hash table yields words, and breaks ties
  # by number: named as special, they are numbered in this order.
  first = sorted({word[0] for word in words})
  others = sorted({"##" + letter for word in words for letter in word[1:]})
  fixed = [*_SPECIAL, *first, *others]
  if not words:
    raise ValueError(f"{title}: no word to learn from")
  if len(fixed) > vocab_size:
    raise ValueError(
      f"{title}: vocab_size {vocab_size} is less than the {len(fixed)} of the "
      "special tokens and the alphabet"
    )
  trainer = tokenizers.trainers.WordPieceTrainer(
    vocab_size=vocab_size,
    min_frequency=2,
    special_tokens=fixed,
    show_progress=False,
  )
  try:
    _guarded(found.train_from_iterator, _repeated(words), trainer)
  except ValueError as error:
    raise ValueError(f"{title}: {error}") from None
  pieces = found.get_vocab(with_added_tokens=False)
  learned = _bert(tokenizers, pieces, lowercase)
  learned.add_special_tokens(list(_SPECIAL))
  return learned.to_str().encode()


def _words(found, lines: Iterable[str]) -> collections.Counter:
  """How often each word is; each group of them is parted only once."""
  groups: collections.Counter = collections.Counter()
  for line in lines:
    groups.update(found.normalizer.normalize_str(line).split())
  words: collections.Counter = collections.Counter()
  for group, count in groups.items():
    for word, _ in found.pre_tokenizer.pre_tokenize_str(group):
      words[word] += count
  return words


def _alphabetic(words: collections.Counter) -> dict[str, int]:
  """The words of the most frequent letters, in order."""
  letters: collections.Counter = collections.Counter()
  for word, count in words.items():
    for letter in word:
      letters[letter] += count
  wanted, kept = _COVERAGE * letters.total(), set()
  for letter in sorted(letters, key=lambda each: (-letters[each], each)):
    if wanted <= 0:
      break
    kept.add(letter)
    wanted -= letters[letter]
  return {word: words[word] for word in sorted(words) if kept.issuperset(word)}


def _repeated(words: dict[str, int]) -> Iterator[str]:
  """Text in which each word is as often as it was."""
  for word, count in words.items():
    for start in range(0, count, _AT_ONCE):
      yield " ".join([word] * min(_AT_ONCE, count - start))


def _byte_lengths(found, pieces: dict[str, int], size: int) -> np.ndarray:
  """Of each id; 0 for a special or unknown one.

  White space that a piece does not hold counts for none.
  """
  described = json.loads(found.to_str())
  special = {
    t["content"] for t in described["added_tokens"] if t.get("special")
  }
  model = described["model"]
  special.add(model.get("unk_token"))
  if isinstance(model.get("unk_id"), int):
    special |= {p for p, i in pieces.items() if i == model["unk_id"]}
  parts = json.dumps([described["pre_tokenizer"], described["decoder"]])
  prefix = model.get("continuing_subword_prefix") or ""
  lengths = np.zeros(size, np.uint32)
  for piece, i in pieces.items():
    if piece in special:
      continue
    if '"ByteLevel"' in parts:  # each character is a byte in disguise
      lengths[i] = len(piece)
    elif model.get("byte_fallback") and _is_byte(piece):
      lengths[i] = 1
    else:
      text = piece.removeprefix(prefix).replace("\u2581", " ")
      lengths[i] = len(text.encode("utf-8", "replace"))
  return lengths


def _is_byte(piece: str) -> bool:
  return len(piece) == 6 and piece.startswith("<0x") and piece[-1] == ">"
