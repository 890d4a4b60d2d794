"""Rows of two pieces of text, the second of which may be a random one.

They are BERT's pre-training data, with the op mask_tokens after them: `inputs`
is the row, `targets` is the same, and `mask` is 1 on the text alone, so that
"[CLS]" and "[SEP]" are never masked.
"""

import functools
from collections.abc import Callable

import numpy as np

from input_pipeline.packing.token_file import token_file
from input_pipeline.rows import Given, Rows
from input_pipeline.tokenizers import Tokenizer
from input_pipeline.tokenizers.parts import special_tokens

SPECIAL_TOKENS = special_tokens.BERT
AXES = dict.fromkeys(
  ("inputs", "targets", "segments", "types", "mask"), ("time",)
)
UNITS = {"targets": "tokens"}
_ENDS = tuple(".!?。！？…")
# How far back the beginning of a sentence is searched, in tokens.
_BACK = 512


def sentence_pairs(
  given: Given, *, next_sentence: bool = True, random: float = 0.5
) -> Rows:
  """Rows of "[CLS] A [SEP] B [SEP]" for BERT's two tasks (arXiv:1810.04805).

  A row is {"inputs", "targets", "segments", "types": int32 [T], "mask": float32
  [T], "bytes", "label": []}. A document is cut into pieces that fill a row, and
  a piece into A and B, between two sentences if possible; a sentence ends where
  a token ends in a full stop or a similar mark. In a share `random` of the
  rows, whose label is 1, B is the same number of tokens from another document
  (fewer if that is shorter), starting at the beginning of a sentence. The
  choice is a function of the row's number, the same in every epoch. The other
  document is sampled in proportion to its number of pieces.

  Args:
    given: of the data.
    next_sentence: False for rows of "[CLS] text [SEP]" without a label.
    random: share of rows whose B does not follow A.

  Raises:
    ValueError: the documents are too few or too short.
  """
  if not 0 <= random <= 1:
    raise ValueError(f"rows.random={random!r} is not within 0..1")
  marks = 3 if next_sentence else 2
  width, least = given.seq_len - marks, marks - 1
  if width < least:
    raise ValueError(f"seq_len {given.seq_len} leaves no room for the text")
  file = token_file(
    given.source,
    given.tokenizer,
    uri=given.uri,
    split=given.split,
    text_key=given.text_key,
    cache_dir=given.cache_dir,
    tally=given.tally,
  )
  between = given.tokenizer.eos is not None
  starts = np.concatenate([[0], file.ends + between])[:-1].astype(np.int64)
  sizes = file.ends - starts
  counts = sizes // width + (sizes % width >= least)
  stops = np.cumsum(counts)
  length = int(stops[-1]) if len(stops) else 0
  if not length:
    raise ValueError(f"{given.title} has no document of {least} tokens")
  if next_sentence and random and np.count_nonzero(counts) < 2:
    raise ValueError(f"{given.title} has only one document: set random=0")
  tokens = file.tokens
  sentences = functools.partial(_begins, ends=sentence_ends(given.tokenizer))

  def piece(index: int) -> tuple[int, np.ndarray]:
    """Returns (number of its document, tokens) of a piece."""
    document = int(np.searchsorted(stops, index, side="right"))
    number = index - (stops[document] - counts[document])
    start = starts[document] + number * width
    return document, tokens[start : min(start + width, file.ends[document])]

  def other(document: int, size: int, rng) -> np.ndarray:
    """Returns up to `size` tokens of another document."""
    before = stops[document] - counts[document]
    drawn = int(rng.integers(length - counts[document]))
    drawn += int(counts[document]) if drawn >= before else 0
    found = int(np.searchsorted(stops, drawn, side="right"))
    start, end = int(starts[found]), int(file.ends[found])
    place = start + int(rng.integers(max(end - size - start, 0) + 1))
    back = max(start, place - _BACK)
    begins = back + np.flatnonzero(sentences(tokens[back : place + 1]))
    if back > start:
      begins = begins[begins > back]
    place = int(begins[-1]) if len(begins) else place
    return tokens[place : min(place + size, end)]

  def texts(index: int) -> tuple[list[np.ndarray], int]:
    document, found = piece(index)
    if not next_sentence:
      return [found], 0
    rng = np.random.default_rng([index, 1])
    begins = np.flatnonzero(sentences(found))[1:]
    if not len(begins):
      begins = np.arange(1, len(found))
    cut = int(begins[rng.integers(len(begins))])
    label = int(rng.random() < random)
    second = other(document, len(found) - cut, rng) if label else found[cut:]
    return [found[:cut], second], label

  read = _reader(given.tokenizer, given.seq_len, texts, next_sentence)
  classes = 2 if next_sentence else None
  return Rows(length, read, num_classes=classes, planned=True)


def leaves(seq_len: int, next_sentence: bool = True, **other):
  """Returns ({leaf: (shape, dtype)}, classes or None) of such rows."""
  del other
  names = ("inputs", "targets", "segments", "types")
  found = dict.fromkeys(names, ((seq_len,), np.int32))
  found |= {"mask": ((seq_len,), np.float32), "bytes": ((), np.float32)}
  if not next_sentence:
    return found, None
  return {**found, "label": ((), np.int32)}, 2


def sentence_ends(tokenizer: Tokenizer) -> np.ndarray:
  """Returns which tokens of the vocabulary end a sentence, bool [V]."""
  found = np.zeros(tokenizer.vocab_size, bool)
  for i in np.flatnonzero(tokenizer.byte_lengths):
    text = tokenizer.decode([int(i)])
    found[i] = text.rstrip().endswith(_ENDS) or "\n" in text
  return found


def _begins(tokens: np.ndarray, ends: np.ndarray) -> np.ndarray:
  """Returns where sentences begin; the first token always begins one."""
  ended = ends[tokens]
  begins = np.ones(len(tokens), bool)
  # Of several consecutive ends, as in "?!", the last one counts.
  begins[1:] = ended[:-1] & ~ended[1:]
  return begins


def _reader(
  tokenizer: Tokenizer,
  seq_len: int,
  texts: Callable[[int], tuple[list[np.ndarray], int]],
  labeled: bool,
):
  """Returns a reader of rows; `texts` gives (its texts, its label) of each."""
  cls = special_tokens.find(tokenizer, special_tokens.CLS)
  sep = special_tokens.find(tokenizer, special_tokens.SEP)
  byte_lengths = tokenizer.byte_lengths.astype(np.float32)

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    shape = (len(indices), seq_len)
    names = ("inputs", "segments", "types")
    rows = {name: np.zeros(shape, np.int32) for name in names}
    rows["mask"] = np.zeros(shape, np.float32)
    rows["bytes"] = np.zeros(len(indices), np.float32)
    label = np.zeros(len(indices), np.int32)
    for i, index in enumerate(indices):
      parts, label[i] = texts(int(index))
      rows["inputs"][i, 0] = cls
      end = 1
      for kind, part in enumerate(parts):
        start, end = end, end + len(part) + 1
        rows["inputs"][i, start : end - 1] = part
        rows["inputs"][i, end - 1] = sep
        rows["types"][i, start:end] = kind
        rows["mask"][i, start : end - 1] = 1
        rows["bytes"][i] += byte_lengths[part].sum()
      rows["segments"][i, :end] = 1
    rows["targets"] = rows["inputs"].copy()
    return {**rows, "label": label} if labeled else rows

  return read
