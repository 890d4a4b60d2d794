"""Ops on windows of tokens: {"inputs", "targets", "mask": [T], "bytes": []}.

`inputs` are the tokens of the text and `targets` the same tokens shifted by
one. `mask` is 1 on real tokens, which precede the padding. `drop_tokens` and
`swap_tokens` change the text, and the next token is still predicted; they also
support packed rows. `mask_tokens` and `span_corruption` change the targets:
they must be the last op and remove "bytes". No op changes the end-of-document
tokens.
"""

import numpy as np
import tensorflow as tf

from input_pipeline.ops import Context, Example, on_example
from input_pipeline.ops.parts import spans
from input_pipeline.tokenizers.parts import special_tokens, word_starts


def text_of(example: Example, context: Context) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns (tokens int32 [T], whether each may be changed bool [T])."""
  for name in ("inputs", "targets", "mask"):
    if name not in example or example[name].shape.rank != 1:
      raise ValueError("needs windows of tokens; set a tokenizer")
  if "bytes" not in example:
    raise ValueError("must come before the op that changes the targets")
  if context.tokenizer is None:
    raise ValueError("needs a tokenizer")
  tokens = example["inputs"]
  free = example["mask"] > 0
  if context.tokenizer.eos is not None:
    free &= tokens != context.tokenizer.eos
  return tokens, free


def _rate(name: str, value: float) -> None:
  if not 0 <= value <= 1:
    raise ValueError(f"{name}={value!r} is not within 0..1")


def _first_of_segment(example: Example) -> tf.Tensor:
  """Returns whether a window or a piece of a packed row begins, bool [T]."""
  size = example["inputs"].shape[0]
  first = tf.range(size) == 0
  if "segments" in example:
    before = tf.roll(example["segments"], 1, 0)
    first |= example["segments"] != before
  return first


def _next_token(example: Example, changed: Example, context: Context):
  """Returns the example with the changed fields and its new "bytes"."""
  lengths = tf.constant(context.tokenizer.byte_lengths.astype(np.float32))
  whole = {**example, **changed}
  count = tf.gather(lengths, whole["targets"]) * whole["mask"]
  return {**whole, "bytes": tf.reduce_sum(count)}


@on_example
def drop_tokens(
  example: Example, p: float = 0.1, *, seed, context: Context
) -> Example:
  """Drops each token of the text with probability `p`.

  The kept tokens move to the front, and the end of the window becomes padding.
  The first token of a window or of a packed piece is always kept. (Wei and Zou,
  EDA, 2019, do this with words.)
  """
  _rate("p", p)
  tokens, free = text_of(example, context)
  size = tokens.shape[0]
  draw = tf.random.stateless_uniform([size], seed)
  real = example["mask"] > 0
  first = _first_of_segment(example)
  kept = real & (first | ~free | (draw >= p))
  place = tf.boolean_mask(tf.range(size), kept)
  # The target of a kept token is at the position before the next kept one. The
  # first token of a piece is kept, so the last target of a piece is as well.
  real_count = tf.reduce_sum(tf.cast(real, tf.int32))
  follower = tf.concat([place[1:], [real_count]], 0) - 1
  changed = {
    "inputs": filled(tf.gather(tokens, place), size),
    "targets": filled(
      tf.gather(example["targets"], tf.maximum(follower[: tf.size(place)], 0)),
      size,
    ),
    "mask": filled(tf.ones_like(place, tf.float32), size),
  }
  if "segments" in example:
    segments = filled(tf.gather(example["segments"], place), size)
    begins = tf.where(segments != tf.roll(segments, 1, 0), tf.range(size), 0)
    within = tf.range(size) - tf.scan(tf.maximum, begins)
    changed["segments"] = segments
    changed["positions"] = tf.where(segments > 0, within, 0)
  return _next_token(example, changed, context)


def filled(values: tf.Tensor, size: int) -> tf.Tensor:
  """Returns `values`, padded by zeros at the end to `size`."""
  filled = tf.pad(values, [[0, size - tf.size(values)]])
  filled.set_shape([size])
  return filled


@on_example
def swap_tokens(
  example: Example, p: float = 0.1, *, seed, context: Context
) -> Example:
  """Swaps pairs of adjacent tokens with probability `p`.

  The text is divided into pairs, starting at the first or the second token, and
  each pair is swapped with probability `p`. Tokens of different documents are
  not swapped, and the last target of a window does not change.
  """
  _rate("p", p)
  tokens, free = text_of(example, context)
  size = tokens.shape[0]
  seeds = tf.random.split(seed, 2)
  place = tf.range(size)
  shift = tf.random.stateless_uniform([], seeds[0], 0, 2, tf.int32)
  pair = (place + shift) // 2
  is_left = (place + shift) % 2 == 0
  draw = tf.random.stateless_uniform([size // 2 + 1], seeds[1])
  other = tf.where(is_left, place + 1, place - 1)
  there = (other >= 0) & (other < size)
  other = tf.clip_by_value(other, 0, size - 1)
  segments = example.get("segments", tf.zeros_like(tokens))
  alike = segments == tf.gather(segments, other)
  swaps = tf.gather(draw, pair) < p
  swaps &= there & alike & free & tf.gather(free, other)
  inputs = tf.gather(tokens, tf.where(swaps, other, place))
  ahead = tf.minimum(place + 1, size - 1)
  follows = (place < size - 1) & (tf.gather(example["mask"], ahead) > 0)
  follows &= ~tf.gather(_first_of_segment(example), ahead)
  targets = tf.where(follows, tf.gather(inputs, ahead), example["targets"])
  changed = {"inputs": inputs, "targets": targets}
  return _next_token(example, changed, context)


@on_example
def mask_tokens(
  example: Example,
  rate: float = 0.15,
  whole_words: bool = False,
  masked: float = 0.8,
  random: float = 0.1,
  *,
  mask_id: int | None = None,
  seed,
  context: Context,
) -> Example:
  """Masks tokens as in BERT (Devlin et al., 2019); targets are the text itself.

  A share `rate` of the tokens is predicted, and `mask` is 1 on these tokens
  only. Of these, the share `masked` is replaced by the mask token and the share
  `random` by random tokens of the vocabulary; the others are unchanged.

  Args:
    example: a window or a packed row.
    rate: the probability that a token, or a word, is predicted.
    whole_words: predict either all tokens of a word or none; see
      word_starts.py. The replacement is still drawn for each token.
    masked: the share of the predicted tokens that is masked.
    random: the share of the predicted tokens that becomes random.
    mask_id: the id of the mask token. Default: that of the tokenizer, to which
      one is added if necessary.
    seed: int64 [2].
    context: contains the tokenizer.
  """
  for name, value in dict(rate=rate, masked=masked, random=random).items():
    _rate(name, value)
  if masked + random > 1 + 1e-9:
    raise ValueError(
      f"the sum of masked={masked} and random={random} exceeds 1"
    )
  tokens, free = text_of(example, context)
  tokenizer = context.tokenizer
  mask_id = special_tokens.mask_id(tokenizer) if mask_id is None else mask_id
  _in_vocabulary("mask_id", mask_id, tokenizer)
  size = tokens.shape[0]
  seeds = tf.random.split(seed, 3)
  draw = tf.random.stateless_uniform([size], seeds[0])
  if whole_words:
    begins = _word_starts(example, tokens, free, tokenizer)
    draw = tf.gather(draw, tf.cumsum(tf.cast(begins, tf.int32)) - 1)
  chosen = free & (draw < rate)
  kind = tf.random.stateless_uniform([size], seeds[1])
  words = np.flatnonzero(tokenizer.byte_lengths).astype(np.int32)
  words = words[(words != tokenizer.eos) & (words != mask_id)]
  place = tf.random.stateless_uniform([size], seeds[2], 0, len(words), tf.int32)
  becomes = tf.where(kind < masked + random, tf.gather(words, place), tokens)
  becomes = tf.where(kind < masked, mask_id, becomes)
  rest = {name: leaf for name, leaf in example.items() if name != "bytes"}
  return {
    **rest,
    "inputs": tf.where(chosen, becomes, tokens),
    "targets": tokens,
    "mask": tf.cast(chosen, tf.float32),
  }


def _in_vocabulary(name: str, value: int, tokenizer) -> None:
  if not isinstance(value, int) or not 0 <= value < tokenizer.vocab_size:
    raise ValueError(
      f"{name}={value!r} is not within 0..{tokenizer.vocab_size - 1}"
    )


def _word_starts(example, tokens, free, tokenizer) -> tf.Tensor:
  found = word_starts.words(tokenizer)
  opens, joins, leaves_open = (
    tf.gather(tf.constant(table), tokens) for table in found
  )
  goes_on = joins & tf.roll(leaves_open & free, 1, 0)
  return opens | ~goes_on | _first_of_segment(example)


@on_example
def span_corruption(
  example: Example,
  density: float = 0.15,
  mean_span: float = 3.0,
  *,
  sentinel_id: int | None = None,
  seed,
  context: Context,
) -> Example:
  """T5's objective (Raffel et al., 2020): replaced spans are predicted.

  Returns "inputs" and "inputs_mask", the text with a sentinel in place of each
  span, and "targets" and "mask", the spans, each preceded by its sentinel. Both
  end with the end-of-document token of the tokenizer if it has one. Their
  lengths follow from seq_len, see spans.py, and a full window has no padding:
  seq_len 568 gives 512 inputs and 114 targets. The ids of the sentinels
  decrease from `sentinel_id`.

  Args:
    example: a window, not a packed row.
    density: the share of the tokens that is in spans.
    mean_span: the mean length of a span, in tokens.
    sentinel_id: the id of the first sentinel. Default: that of the tokenizer,
      to which sentinels are added if necessary.
    seed: int64 [2].
    context: contains the tokenizer.
  """
  spans.check(density, mean_span)
  tokens, _ = text_of(example, context)
  if "segments" in example:
    raise ValueError("does not support packed rows; remove packing")
  size, tokenizer = tokens.shape[0], context.tokenizer
  if size < 2:
    raise ValueError("needs windows of at least two tokens")
  eos = tokenizer.eos
  full = spans.spans(size, density, mean_span, eos is not None)
  sentinel_id = _sentinels(sentinel_id, full.count, tokenizer)
  # Indexed by the number of real tokens; only the last window has padding.
  rows = [(0, 0)] * 2 + [
    spans.spans(n, density, mean_span, False)[:2] for n in range(2, size + 1)
  ]
  n = tf.reduce_sum(tf.cast(example["mask"] > 0, tf.int32))
  noise, count = tf.unstack(tf.gather(tf.constant(rows, tf.int32), n))
  seeds = tf.random.split(seed, 2)
  lengths = tf.stack(
    [
      random_parts(n - noise, count, size, full.count, seeds[0]),
      random_parts(noise, count, size, full.count, seeds[1]),
    ],
    axis=1,
  )
  ends = tf.cumsum(tf.reshape(lengths, [-1]))
  place = tf.range(size)
  part = tf.searchsorted(ends, place, side="right")
  real = place < n
  is_noise = real & (part % 2 == 1) & (noise > 0)
  begins = (place == 0) | (part != tf.roll(part, 1, 0))
  with_sentinel = tf.where(begins, sentinel_id - part // 2, tokens)
  inputs, inputs_mask = _ended(
    tf.where(is_noise, with_sentinel, tokens),
    real & (~is_noise | begins),
    eos,
    full.inputs,
  )
  targets, mask = _ended(
    tf.where(is_noise, tokens, with_sentinel),
    real & (is_noise | begins) & (noise > 0),
    eos,
    full.targets,
  )
  mask *= tf.cast(noise > 0, tf.float32)
  rest = {name: leaf for name, leaf in example.items() if name != "bytes"}
  return {
    **rest,
    "inputs": inputs,
    "inputs_mask": inputs_mask,
    "targets": targets,
    "mask": mask,
  }


def _sentinels(first: int | None, count: int, tokenizer) -> int:
  """Returns the id of the first sentinel; ValueError if there are too few."""
  most = special_tokens.SENTINELS
  if first is None:
    first = special_tokens.sentinel_id(tokenizer)
  else:
    _in_vocabulary("sentinel_id", first, tokenizer)
    most = first + 1
  if count > most:
    raise ValueError(
      f"a window has {count} spans, but there are only {most} sentinels"
    )
  return first


def random_parts(total, count, size: int, most: int, seed) -> tf.Tensor:
  """Divides `total` at random into `count` positive parts; int32 [most].

  All divisions are equally likely: count - 1 of the places between two tokens
  are drawn. `total` is at most `size`; parts after the first `count` are 0.
  """
  place = tf.range(size)
  draw = tf.random.stateless_uniform([size], seed)
  # The first part begins at place 0; no part begins at `total` or later.
  draw = tf.where(place == 0, -1.0, tf.where(place < total, draw, 2.0))
  rank = tf.argsort(tf.argsort(draw, stable=True), stable=True)
  part = tf.cumsum(tf.cast(rank < count, tf.int32)) - 1
  counted = tf.cast((place < total) & (count > 0), tf.int32)
  return tf.math.unsorted_segment_sum(counted, part, most)


def _ended(values, kept, eos: int | None, size: int):
  """Returns (kept values, then `eos`, then zeros; 1 where not padding)."""
  found = tf.boolean_mask(values, kept)
  if eos is not None:
    found = tf.concat([found, [eos]], 0)
  return filled(found, size), filled(tf.ones_like(found, tf.float32), size)
