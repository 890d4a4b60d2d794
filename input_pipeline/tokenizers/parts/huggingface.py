"""WordPiece, and any other model in a Hugging Face tokenizer.json.

WordPiece (Wu et al., 2016; Devlin et al., 2019) is not reversible: white space
is lost, as are case and accents depending on the file's settings; a word that
no pieces spell becomes one [UNK].
"""

import collections
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from input_pipeline.tokenizers import MARKS, Tokenizer, marks, utf8

_UNKNOWN = "[UNK]"
_SPECIAL = ("[PAD]", _UNKNOWN, "[CLS]", "[SEP]", "[MASK]")
# A tokenizer.json does not define the token that ends a document: the first
# existing one of these does.
_ENDS = (
  "</s>",
  "<|endoftext|>",
  "<|end_of_text|>",
  "<eos>",
  "<|im_end|>",
  "[SEP]",
)
# No real vocabulary has more; this bounds the memory of a hostile file.
_MOST_IDS = 2**22
# The share of letters that a learned vocabulary covers; as in SentencePiece.
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
  """Returns the call's result; ValueError if the library fails or panics."""
  try:
    return function(*args)
  except KeyboardInterrupt:
    raise
  except BaseException as error:
    # A Rust panic raises a class that derives from BaseException alone.
    known = isinstance(error, Exception)
    if not known and type(error).__name__ != "PanicException":
      raise
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    raise ValueError(reason[:200]) from None


def path_of(spec: str) -> str:
  """Returns the file of a spec, without the options eos and bos."""
  return MARKS.sub("", spec.partition(":")[2])


def load(spec: str, content: bytes) -> Tokenizer:
  """Returns the tokenizer of the bytes of a tokenizer.json or a vocab.txt.

  Special tokens are never read out of the text: "[SEP]" in it is encoded like
  any other text. Nothing is added, truncated or padded. A spec that ends in
  "?eos=7&bos=1" sets the tokens that end and begin a document; otherwise the
  first existing token of _ENDS ends it, and nothing begins it. "?eos=7,9" sets
  other tokens that end a generated text.

  Raises:
    ValueError: the bytes are neither, or not WordPiece for "wordpiece:"; or an
      id of the spec does not exist.
  """
  tokenizers = _import_tokenizers()
  given = marks(spec)
  try:
    found = _tokenizer(tokenizers, spec, content)
    pieces = found.get_vocab(with_added_tokens=True)
    if not pieces:
      raise ValueError("it has no vocabulary")
    size = max(pieces.values()) + 1
    if size > _MOST_IDS:
      raise ValueError(
        f"it has the id {size - 1}; at most {_MOST_IDS} ids are supported"
      )
    for name, verb in (("eos", "end"), ("bos", "begin")):
      missing = set(given.get(name, ())).difference(pieces.values())
      if missing:
        raise ValueError(f"it has no id {min(missing)} to {verb} a document")
    # A model with inconsistent parts fails only when it is used.
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
    given.get("eos", (next(ends, None),))[0],
    _byte_lengths(found, pieces, size),
    "tokenizer.json",
    content,
    bos=given.get("bos", (None,))[0],
    other_ends=given.get("eos", ())[1:],
  )


def special(content: bytes) -> dict[str, int]:
  """Returns {spelling: id} of the special tokens of a tokenizer's file."""
  found = _tokenizer(_import_tokenizers(), "tokenizers:", content)
  added = json.loads(found.to_str())["added_tokens"]
  return {t["content"]: t["id"] for t in added if t.get("special")}


def encoder_of_special(
  spec: str, content: bytes
) -> Callable[[str], np.ndarray]:
  """Returns (text) -> ids that reads special tokens out of the text."""
  found = _tokenizer(_import_tokenizers(), spec, content)
  found.encode_special_tokens = False

  def encode(text: str) -> np.ndarray:
    text = utf8(text).decode("utf-8")
    ids = _guarded(lambda: found.encode(text, add_special_tokens=False).ids)
    return np.array(ids, np.int32)

  return encode


def added_before(content: bytes) -> int | None:
  """Returns the id that a tokenizer.json's rules put before a text, or None.

  Raises:
    ValueError: the content is not a tokenizer.json.
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
  """Builds BERT's tokenizer from a vocab.txt: the line numbers are the ids.

  If no piece outside brackets has a capital letter, text is lower-cased and its
  accents are removed, as in BERT's own tokenizer.
  """
  pieces = text.removesuffix("\n").split("\n")
  pieces = [piece.rstrip("\r") for piece in pieces]
  if _UNKNOWN not in pieces or len(set(pieces)) < len(pieces):
    raise ValueError(
      f"a vocab.txt must contain {_UNKNOWN}, and each piece once"
    )
  special = [p for p in pieces if p.startswith("[") and p.endswith("]")]
  uncased = all(p == p.lower() for p in set(pieces).difference(special))
  vocabulary = {piece: i for i, piece in enumerate(pieces)}
  found = _bert(tokenizers, vocabulary, uncased)
  found.add_special_tokens([p for p in _SPECIAL if p in vocabulary])
  return found


def _bert(tokenizers, vocabulary: dict[str, int], lowercase: bool):
  """BERT's: white space, punctuation and Chinese characters separate words."""
  model = tokenizers.models.WordPiece(vocab=vocabulary, unk_token=_UNKNOWN)
  found = tokenizers.Tokenizer(model)
  found.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=lowercase)
  found.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
  found.decoder = tokenizers.decoders.WordPiece()
  return found


def fit_wordpiece(
  title: str, lines: Iterable[str], vocab_size: int, lowercase: bool = True
) -> bytes:
  """Learns a WordPiece vocabulary for BERT, as a tokenizer.json.

  Args:
    title: its name in error messages.
    lines: of text.
    vocab_size: the largest size, including [PAD], [UNK], [CLS], [SEP] and
      [MASK].
    lowercase: as in "uncased" BERT, which also removes accents.

  Raises:
    ValueError: no vocabulary can be learned from these lines.
  """
  tokenizers = _import_tokenizers()
  found = _bert(tokenizers, {_UNKNOWN: 0}, lowercase)
  words = _alphabetic(_words(found, lines))
  # The library numbers letters in the order of its hash table, and breaks ties
  # by number. Declared as special, they are numbered in this order.
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
  """Counts the words; each distinct run of text is split only once."""
  groups: collections.Counter = collections.Counter()
  for line in lines:
    groups.update(found.normalizer.normalize_str(line).split())
  words: collections.Counter = collections.Counter()
  for group, count in groups.items():
    for word, _ in found.pre_tokenizer.pre_tokenize_str(group):
      words[word] += count
  return words


def _alphabetic(words: collections.Counter) -> dict[str, int]:
  """Returns the words made of the most frequent letters, in order."""
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
  """Yields text that contains each word as often as counted."""
  for word, count in words.items():
    for start in range(0, count, _AT_ONCE):
      yield " ".join([word] * min(_AT_ONCE, count - start))


def _byte_lengths(found, pieces: dict[str, int], size: int) -> np.ndarray:
  """Returns the byte length of each id; 0 for a special or unknown one.

  White space that a piece does not contain is not counted.
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
    if '"ByteLevel"' in parts:  # each character encodes a byte
      lengths[i] = len(piece)
    elif model.get("byte_fallback") and _is_byte(piece):
      lengths[i] = 1
    else:
      text = piece.removeprefix(prefix).replace("\u2581", " ")
      lengths[i] = len(text.encode("utf-8", "replace"))
  return lengths


def _is_byte(piece: str) -> bool:
  return len(piece) == 6 and piece.startswith("<0x") and piece[-1] == ">"
