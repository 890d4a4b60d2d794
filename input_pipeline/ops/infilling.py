"""GLM's objective on windows of tokens (Du et al., 2022, arXiv:2103.10360).

A row is the text, in which a mask token replaces each blank, followed by the
blanks in random order, each preceded by a start token. The targets are the
tokens of each blank and an end token. Every position attends to the whole text
(the first `prefix` tokens) and to earlier tokens of the blanks. Both ops return

  inputs, targets int32 [R]; mask float32 [R], 1 on predicted tokens
  positions int32 [R], positions in the text; in a blank, that of its mask token
  block_positions int32 [R], 0 in the text, from 1 within a blank
  prefix int32, the number of tokens of the text, including mask tokens

The tokens <mask>, <sop> and <eop> are added if the tokenizer lacks them.
"""

import tensorflow as tf

from input_pipeline.ops import Context, Example, on_example
from input_pipeline.ops.parts import spans
from input_pipeline.ops.text import filled, random_parts, text_of
from input_pipeline.tokenizers.parts import special_tokens


@on_example
def blank_infilling(
  example: Example,
  density: float = 0.15,
  mean_span: float = 3.0,
  long: float = 0.5,
  *,
  seed,
  context: Context,
) -> Example:
  """Replaces spans of a window by blanks; R = T + 2 * (number of spans).

  With probability `long` there is one blank, which starts in the first half of
  the text and extends to its end: the paper's document-level objective. As the
  text continues after the window, this blank has no end token, and its last
  target is that of the window. Otherwise a share `density` of the tokens is in
  blanks of the mean length `mean_span`, which are drawn as in span_corruption;
  the paper draws the lengths from a Poisson distribution.

  Args:
    example: a window of at least two tokens, not a packed row.
    density: the share of the tokens in short blanks.
    mean_span: the mean length of a short blank.
    long: the probability of one long blank.
    seed: int64 [2].
    context: contains the tokenizer.
  """
  spans.check(density, mean_span)
  if not 0 <= long <= 1:
    raise ValueError(f"long={long!r} is not within 0..1")
  tokens, special = _window(example, context)
  size = tokens.shape[0]
  if size < 2:
    raise ValueError("needs windows of at least two tokens")
  full = spans.spans(size, density, mean_span, False)
  width = size + 2 * full.count
  seeds = tf.random.split(seed, 5)
  rows = [(0, 0)] * 2 + [
    spans.spans(n, density, mean_span, False)[:2] for n in range(2, size + 1)
  ]
  n = tf.reduce_sum(tf.cast(example["mask"] > 0, tf.int32))
  noise, count = tf.unstack(tf.gather(tf.constant(rows, tf.int32), n))
  text = random_parts(n - noise, count, size, full.count, seeds[0])
  lengths = random_parts(noise, count, size, full.count, seeds[1])
  draw = tf.random.stateless_uniform([full.count], seeds[2])
  is_span = tf.range(full.count) < count
  draw = tf.where(is_span, draw, 2.0)
  rank = tf.argsort(tf.argsort(draw, stable=True), stable=True)
  short = _short(tokens, n, text, lengths, rank, special, width)
  half = tf.maximum(n // 2, 1)
  prefix = tf.random.stateless_uniform([], seeds[3], 1, half + 1, tf.int32)
  is_long = tf.random.stateless_uniform([], seeds[4]) < long
  trailing = _trailing(example, prefix, special, width)
  found = {
    name: tf.where(is_long, trailing[name], leaf)
    for name, leaf in short.items()
  }
  rest = {k: v for k, v in example.items() if k not in ("bytes", *found)}
  return {**rest, **found}


@on_example
def trailing_blank(example: Example, *, context: Context) -> Example:
  """Makes all tokens of a window after the first one blank; R = T + 2.

  Each target of the window is predicted exactly once, from left to right, so
  the loss and "bytes" are comparable with those of other language models.
  """
  _, special = _window(example, context)
  width = example["inputs"].shape[0] + 2
  return {**example, **_trailing(example, tf.constant(1), special, width)}


def _window(example: Example, context: Context):
  """Returns (tokens, the ids [mask, start, end]) of a window."""
  tokens, _ = text_of(example, context)
  if "block_positions" in example:
    raise ValueError("the window already has blanks; remove one of the two ops")
  if "segments" in example:
    raise ValueError("does not support packed rows; remove packing")
  families = special_tokens.MASK, special_tokens.START, special_tokens.END
  return tokens, [special_tokens.find(context.tokenizer, f) for f in families]


def _trailing(example: Example, prefix, special, width: int) -> Example:
  """Returns a row whose only blank begins at token `prefix`; no end token."""
  mask_id, start, _ = special
  inputs, targets, real = example["inputs"], example["targets"], example["mask"]
  place = tf.range(inputs.shape[0])
  text, blank = place < prefix, place >= prefix
  kept = [
    tf.boolean_mask(inputs, text),
    [mask_id, start],
    tf.boolean_mask(inputs, blank),
  ]
  # The blank's first token is predicted at the start token.
  predicts = place >= prefix - 1
  nothing = tf.zeros([prefix + 1], tf.int32)
  after = tf.range(1, tf.reduce_sum(tf.cast(predicts, tf.int32)) + 1)
  here = tf.fill(tf.shape(after), prefix)
  aim = tf.concat([nothing, tf.boolean_mask(targets, predicts)], 0)
  weight = tf.boolean_mask(real, predicts)
  return {
    "inputs": filled(tf.concat(kept, 0), width),
    "targets": filled(aim, width),
    "mask": filled(tf.concat([tf.cast(nothing, tf.float32), weight], 0), width),
    "positions": filled(tf.concat([tf.range(prefix + 1), here], 0), width),
    "block_positions": filled(tf.concat([nothing, after], 0), width),
    "prefix": prefix + 1,
  }


def _short(tokens, n, text, lengths, rank, special, width: int) -> Example:
  """Returns a row of several blanks.

  Args:
    tokens: int32 [T].
    n: the number of real tokens, int32 scalar.
    text: the length of the text before each blank, int32 [spans].
    lengths: the length of each blank, int32 [spans]; 0 after the last one.
    rank: the position of each blank in the random order, int32 [spans].
    special: the ids of the mask, start and end tokens.
    width: R.
  """
  mask_id, start, end = special
  place = tf.range(tokens.shape[0])
  ends = tf.cumsum(tf.reshape(tf.stack([text, lengths], 1), [-1]))
  part = tf.searchsorted(ends, place, side="right")
  blank = (place < n) & (part % 2 == 1)
  first = ends[::2]  # of each blank, position in the window
  begins = tf.reduce_any(place[:, None] == first[None], 1) & blank
  kept = (place < n) & (~blank | begins)
  masked = tf.boolean_mask(tf.where(blank, mask_id, tokens), kept)
  prefix = tf.size(masked)
  sizes = tf.where(lengths > 0, lengths + 1, 0)
  earlier = tf.cast(rank[None] < rank[:, None], tf.int32)
  opens = prefix + tf.reduce_sum(
    earlier * sizes[None], 1
  )  # position in the row
  real = tf.where(lengths > 0)[:, 0]
  opens, closes = (tf.gather(x, real) for x in (opens, opens + lengths))
  token = tf.boolean_mask(tokens, blank)
  span = tf.boolean_mask(part // 2, blank)
  offset = tf.boolean_mask(place, blank) - tf.gather(first, span)
  aims = tf.gather(opens, span) + offset
  mask_place = tf.cumsum(text) + tf.range(tf.size(text))

  def row(slots, values, ahead=None):
    """Returns [R] with `values` at `slots`, and `ahead` at its beginning."""
    found = tf.scatter_nd(slots[:, None], values, [width])
    return found if ahead is None else found + filled(ahead, width)

  read = tf.concat([opens, aims + 1], 0)
  predicted = tf.concat([aims, closes], 0)
  whose = tf.gather(mask_place, tf.concat([tf.cast(real, tf.int32), span], 0))
  ones = tf.ones_like(opens)
  return {
    "inputs": row(read, tf.concat([start * ones, token], 0), masked),
    "targets": row(predicted, tf.concat([token, end * ones], 0)),
    "mask": row(predicted, tf.ones_like(predicted, tf.float32)),
    "positions": row(read, whose, tf.range(prefix)),
    "block_positions": row(read, tf.concat([ones, offset + 2], 0)),
    "prefix": prefix,
  }
