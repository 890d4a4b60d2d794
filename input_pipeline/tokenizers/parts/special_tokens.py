"""Tokens that ops and rows add to a vocabulary: a mask, sentinels, marks.

Their ids follow the tokenizer's own, in the order of the ops. "<mask>" is one
id; the sentinels count down, as T5's do, so that the first, "<extra_id_0>", has
the highest id. The tokens of the rows precede those of the ops. If a tokenizer
already has a token of such a name, or BERT's "[MASK]", none is added.
"""

from collections.abc import Iterable

import numpy as np

from input_pipeline.tokenizers import Tokenizer

# Families of spellings; the first one is added if none exists.
MASK = ("<mask>", "[MASK]")
CLS = ("<cls>", "[CLS]")
SEP = ("<sep>", "[SEP]")
# Added for every kind of rows that a BERT reads, masked or not, so that its
# vocabulary is the same in pre-training and fine-tuning.
BERT = (CLS, SEP, MASK)
BOS = ("<s>", "<bos>", "[BOS]", "<|begin_of_text|>")
EOS = ("</s>", "<eos>", "[EOS]", "<|end_of_text|>", "<|endoftext|>")
# The beginning and end of a blank to fill in; the second spelling is GLM's.
START = ("<sop>", "<|startofpiece|>")
END = ("<eop>", "<|endofpiece|>")
# As many as in T5's vocabulary.
SENTINELS = 100


def sentinel(number: int) -> str:
  """Returns T5's name of a sentinel."""
  return f"<extra_id_{number}>"


def added(tokenizer: Tokenizer, names: list[str]) -> Tokenizer:
  """Returns the tokenizer with these tokens added after its own."""
  if not names:
    return tokenizer
  first = tokenizer.vocab_size
  name_of = {first + i: name for i, name in enumerate(names)}

  def decode(ids: Iterable[int]) -> str:
    parts: list[str] = []
    run: list[int] = []
    for i in map(int, ids):
      if i in name_of:
        parts += [tokenizer.decode(run) if run else "", name_of[i]]
        run = []
      else:
        run.append(i)
    return "".join([*parts, tokenizer.decode(run) if run else ""])

  def with_zeros(per_id: np.ndarray) -> np.ndarray:
    return np.pad(per_id, (0, len(names)))

  counts = tokenizer.counts
  return tokenizer._replace(
    decode=decode,
    vocab_size=first + len(names),
    byte_lengths=with_zeros(tokenizer.byte_lengths),
    counts=None if counts is None else with_zeros(counts),
  )


def find(tokenizer: Tokenizer, family: Iterable[str]) -> int:
  """Returns the id of the first token of a family that the tokenizer has.

  Raises:
    ValueError: it has none.
  """
  token = lookup(tokenizer, family)
  if token is None:
    raise ValueError(f"the tokenizer has none of {', '.join(family)}")
  return token


def lookup(tokenizer: Tokenizer, family: Iterable[str]) -> int | None:
  """Returns the id of the first of a family, for EOS the tokenizer's eos."""
  if family == EOS and tokenizer.eos is not None:
    return tokenizer.eos
  ids = (piece(tokenizer, name) for name in family)
  return next((i for i in ids if i is not None), None)


def end(tokenizer: Tokenizer) -> int | None:
  """Returns the id that ends a text: the first of the family EOS, or None."""
  return lookup(tokenizer, EOS)


def piece(tokenizer: Tokenizer, name: str) -> int | None:
  """Returns the id of a token by its name, or None if there is no such token.

  Special tokens, which represent no text, are recognized by their decoding.
  """
  for i in np.flatnonzero(tokenizer.byte_lengths == 0):
    if tokenizer.decode([int(i)]).strip() == name:
      return int(i)
  try:
    ids = tokenizer.encode(name)
  except ValueError:  # the vocabulary lacks a character
    return None
  # A tokenizer that omits characters finds some token in any text.
  named = len(ids) == 1 and tokenizer.decode(ids).strip() == name
  return int(ids[0]) if named else None


def mask_id(tokenizer: Tokenizer) -> int:
  """Returns the mask of an extended tokenizer.

  Raises:
    ValueError: it has none.
  """
  found = (piece(tokenizer, name) for name in MASK)
  return _first(found, "mask_id")


def sentinel_id(tokenizer: Tokenizer) -> int:
  """Returns the first sentinel of an extended tokenizer; the others count down.

  Raises:
    ValueError: it has none, or they do not count down.
  """
  highest = _first([piece(tokenizer, sentinel(0))], "sentinel_id")
  if piece(tokenizer, sentinel(1)) != highest - 1:
    raise ValueError(
      f"{sentinel(1)} of the tokenizer is not the id below {sentinel(0)}; "
      "set sentinel_id"
    )
  return highest


def _first(found: Iterable[int | None], argument: str) -> int:
  for i in found:
    if i is not None:
      return i
  raise ValueError(f"the tokenizer has no such token; set {argument}")
