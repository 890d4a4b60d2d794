"""Pairs of texts, one generated from the other: translation, summaries.

A row has "inputs", "input_segments" and "input_positions", int32 [S], and
"targets", "segments" and "positions", int32 [T], with "mask", float32 [T], and
"bytes", float32 [], the byte length of the targets. Segments are equal where
the two sides belong to one pair. Each text ends with the end-of-text token; a
source that is too long is truncated before it, and a target that is too long
loses its end token as well.
"""

from collections.abc import Sequence

import numpy as np

from input_pipeline.packing import paired_texts
from input_pipeline.rows import Given, Rows
from input_pipeline.rows.parts.record_texts import texts_of
from input_pipeline.tokenizers.parts import special_tokens

SPECIAL_TOKENS = (special_tokens.EOS,)
AXES = dict.fromkeys(
  (
    *("inputs", "input_segments", "input_positions"),
    *("targets", "segments", "positions", "mask"),
  ),
  ("time",),
)
UNITS = {"targets": "tokens"}


def translation(
  given: Given,
  *,
  source_key: str = "source",
  target_key: str = "target",
  prefix: str = "",
  target_len: int | None = None,
  packing: bool = True,
) -> Rows:
  """Rows of pairs: several per row in training, one per row in evaluation.

  A tokenizer learned from the data is learned from both texts.

  Args:
    given: of the data; its seq_len is S.
    source_key: the field of the source text.
    target_key: the field of the target text.
    prefix: before each source, such as T5's "summarize: ".
    target_len: T; S if None.
    packing: False for one pair per row in training, too.

  Raises:
    ValueError: a field is missing or is not text.
  """
  rooms = (given.seq_len, target_len or given.seq_len)
  if not all(isinstance(room, int) and room > 0 for room in rooms):
    raise ValueError(
      f"rows.target_len={target_len!r} is not a positive integer"
    )
  keys = (source_key, target_key)
  if packing and given.training:
    return _packed(given, keys, prefix, rooms)
  eos = special_tokens.find(given.tokenizer, special_tokens.EOS)

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    texts = texts_of(given.source, keys, given.title, indices)
    sources = [
      [*given.tokenizer.encode(prefix + text)[: rooms[0] - 1], eos]
      for text in texts[0]
    ]
    targets = [[*given.tokenizer.encode(text), eos] for text in texts[1]]
    return _leaves(
      _padded(sources, rooms[0]), _padded(targets, rooms[1]), given
    )

  return Rows(given.source.length, read, texts=given.source.read)


def text_keys(
  text_key: str, source_key: str = "source", target_key: str = "target", **other
) -> tuple[str, ...]:
  """Returns the fields from which a tokenizer is learned."""
  del text_key, other
  return source_key, target_key


def leaves(seq_len: int, target_len: int | None = None, **other):
  """Returns ({leaf: (shape, dtype)}, None) of such rows."""
  del other
  T = target_len or seq_len
  sources = ("inputs", "input_segments", "input_positions")
  found = dict.fromkeys(sources, ((seq_len,), np.int32))
  found |= dict.fromkeys(("targets", "segments", "positions"), ((T,), np.int32))
  return {**found, "mask": ((T,), np.float32), "bytes": ((), np.float32)}, None


def _packed(given: Given, keys, prefix: str, rooms: tuple[int, int]) -> Rows:
  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    pairs = [
      f"{prefix}{source}{paired_texts.BETWEEN}{target}"
      for source, target in zip(
        *texts_of(given.source, keys, given.title, indices), strict=True
      )
    ]
    column = np.empty(len(pairs), object)
    column[:] = pairs
    return {"pair": column}

  # The fields are part of the identity of the tokens in the cache.
  fingerprint = f"{given.source.fingerprint} {keys} {prefix}"
  joined = given.source._replace(
    read=read, fingerprint=fingerprint, tokens=None
  )
  file = paired_texts.tokenized(
    joined,
    given.tokenizer,
    uri=given.uri,
    split=given.split,
    cache_dir=given.cache_dir,
    tally=given.tally,
  )
  pairs = paired_texts.rows_of(file, given.tokenizer.vocab_size, rooms)
  if not len(pairs.ends):
    raise ValueError(f"{given.title} has no pair of texts")
  eos = special_tokens.find(given.tokenizer, special_tokens.EOS)
  read_sides = paired_texts.reader(pairs, eos, rooms)
  return Rows(
    len(pairs.ends),
    lambda indices: _leaves(*read_sides(indices), given),
    planned=True,
  )


def _padded(ids: Sequence[Sequence[int]], room: int) -> paired_texts.Leaves:
  """Returns the leaves of one side, one text per row."""
  names = ("tokens", "segments", "positions")
  found = {name: np.zeros((len(ids), room), np.int32) for name in names}
  for i, each in enumerate(ids):
    n = min(len(each), room)
    found["tokens"][i, :n] = each[:n]
    found["segments"][i, :n] = 1
    found["positions"][i, :n] = np.arange(n)
  return found


def _leaves(source, target, given: Given) -> dict[str, np.ndarray]:
  mask = target["segments"] > 0
  byte_lengths = given.tokenizer.byte_lengths.astype(np.float32)
  return {
    "inputs": source["tokens"],
    "input_segments": source["segments"],
    "input_positions": source["positions"],
    "targets": target["tokens"],
    "segments": target["segments"],
    "positions": target["positions"],
    "mask": mask.astype(np.float32),
    "bytes": np.sum(byte_lengths[target["tokens"]] * mask, 1, np.float32),
  }
