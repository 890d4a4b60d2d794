"""Source -> order -> ops -> batches; a batch is a function of its step.

Every batch holds, beside the examples' own fields, "index", int32 [B], the
example's place in its source (-1 on padding), and "mask", float32, 1 on what
is real. Integers of 64 bits become int32 and float64 becomes float32; text is
left out.

Language modelling: a source with a tokenizer gives windows of tokens,
{"inputs": int32 [B, T], "targets": int32 [B, T], "mask": float32 [B, T],
"bytes": float32 [B], "index": int32 [B]}, where `targets` is `inputs` one
token on and `bytes` counts the UTF-8 bytes of the window's targets. With
`packing` they are rows of whole documents instead, with two leaves more,
"segments" and "positions", int32 [B, T]; see packing.py.

A mixture of several data sets is one of their examples, in an order of its
own; see mixture.py. "index" then counts through them, one after another.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from input_pipeline import components as components_lib
from input_pipeline import mixture as mixture_lib
from input_pipeline import order
from input_pipeline.packing import packed
from input_pipeline.source import Source, open_source
from input_pipeline.token_file import token_file
from input_pipeline.tokenizer import Tokenizer, get_tokenizer
from input_pipeline.windows import windows

Spec = dict[str, tuple[tuple[int, ...], np.dtype]]

_MASK_AND_INDEX: Spec = {
  "mask": ((), np.dtype(np.float32)),
  "index": ((), np.dtype(np.int32)),
}
# Positions that are ordered at once.
_ORDERED = 1024


class Data(NamedTuple):
  """A stream of batches and what is known of it.

  spec: {leaf: (shape without the batch axis, dtype)}.
  num_examples: in one epoch, of all components; windows or packed rows, where
    there is a tokenizer.
  batches: (first_step) -> this host's rows of each global batch from that
    step on; endless for training, one pass for evaluation.
  batch_size: of the global batch.
  note: a line worth telling, or "".
  """

  spec: Spec
  num_examples: int
  num_classes: int | None
  tokenizer: Tokenizer | None
  batches: Callable[[int], Iterator[dict[str, np.ndarray]]]
  batch_size: int
  note: str = ""


class Examples(NamedTuple):
  """What batches are gathered from.

  read: (int64 [n]) -> {field: array [n, ...]}.
  """

  length: int
  read: Callable[[np.ndarray], dict[str, np.ndarray]]
  name: Callable[[int], str]
  num_classes: int | None = None
  tokenizer: Tokenizer | None = None
  note: str = ""


class Plan(NamedTuple):
  """Which examples are this host's rows, by step.

  rows: (step) -> (indices of the real rows, key of each row's randomness);
    padding comes after the real rows.
  steps: how many, or None where training never ends.
  local_size: rows of this host in each batch, padding included.
  """

  rows: Callable[[int], tuple[np.ndarray, np.ndarray]]
  steps: int | None
  local_size: int


def train(
  *,
  source: str | None = None,
  mixture: Sequence[Mapping] | None = None,
  temperature: float | None = None,
  split: str = "train",
  ops: str = "",
  tokenizer: str | None = None,
  seq_len: int | None = None,
  packing: bool = False,
  text_key: str = "text",
  cache_dir: str | None = None,
  batch_size: int | str,
  seed: int = 0,
  shuffle: bool = True,
  host_index: int | Sequence[int] = 0,
  host_count: int = 1,
  workdir: str | None = None,
  multiple_of: int = 1,
) -> Data:
  """Endless batches: batch = f(arguments, step).

  Args:
    source: URI; see source.py.
    mixture: in its place, [dict(source=URI, weight=2.0), ...]; a component may
      have a `split` and a `text_key` of its own. See mixture.whole_weights
      for the shares without weights.
    temperature: of the shares of a mixture without weights.
    split: TFDS's language.
    ops: see ops.py; "" for none.
    tokenizer: see tokenizer.py; with it the examples are windows of tokens.
    seq_len: T, the tokens of a window.
    packing: rows of whole documents in place of windows.
    text_key: the field that is tokenized.
    cache_dir: of tokens; by default $TESSERA_CACHE or ~/.cache/tessera.
    batch_size: of the global batch, or "all": each batch is the whole split,
      in the source's order.
    seed: of the order and of the ops.
    shuffle: without it every epoch is in the source's order.
    host_index: which share of each batch is this host's; or several.
    host_count: how many shares there are.
    workdir: where a tokenizer learned from the data is kept.
    multiple_of: "all" is padded to a multiple of it.

  Raises:
    ValueError: one line that names what is wrong.
  """
  parts = components_lib.parts(source, mixture, split, text_key)
  components = _examples(
    parts, tokenizer, seq_len, packing, cache_dir, workdir, False
  )
  examples = components_lib.joined(components, [str(part) for part in parts])
  given = [part.weight for part in parts]
  lengths = [each.length for each in components]
  weights = mixture_lib.whole_weights(given, lengths, temperature)
  n = examples.length
  if batch_size == "all":
    if temperature is not None or None not in given:
      raise ValueError("batch_size 'all' has every example once: no weights")
    batch_size = -(-n // multiple_of) * multiple_of
    local = order.host_rows(batch_size, host_index, host_count)
    whole = local[local < n]

    def rows(step: int) -> tuple[np.ndarray, np.ndarray]:
      epoch = np.full(len(whole), step)
      return whole, order.epoch_key(seed, epoch)

  else:
    _check_batch_size(batch_size)
    local = order.host_rows(batch_size, host_index, host_count)
    ordered = mixture_lib.orderer(lengths, weights, seed, shuffle)

    # Many steps at once: NumPy's calls cost more than the work in them.
    steps = max(1, _ORDERED // len(local))

    @functools.lru_cache(maxsize=4)
    def block(number: int) -> tuple[np.ndarray, np.ndarray]:
      step_S1 = number * steps + np.arange(steps)[:, None]
      found = ordered((step_S1 * batch_size + local).reshape(-1))
      return tuple(x.reshape(steps, -1) for x in found)

    def rows(step: int) -> tuple[np.ndarray, np.ndarray]:
      indices, keys = block(step // steps)
      return indices[step % steps], keys[step % steps]

  plan = Plan(rows, None, len(local))
  return _data(examples, plan, ops, batch_size)


def evaluation(
  *,
  source: str | None = None,
  mixture: Sequence[Mapping] | None = None,
  split: str = "validation",
  ops: str = "",
  tokenizer: str | None = None,
  seq_len: int | None = None,
  packing: bool = False,
  text_key: str = "text",
  cache_dir: str | None = None,
  batch_size: int,
  host_index: int | Sequence[int] = 0,
  host_count: int = 1,
  workdir: str | None = None,
) -> Data:
  """One pass in order, each example once, padded to whole batches.

  Every host yields the same number of batches. The last window of a text is
  padded, so that each token but the first is predicted exactly once. A
  mixture's components follow one another; their weights do not matter. The
  arguments are those of `train`.
  """
  _check_batch_size(batch_size)
  parts = components_lib.parts(source, mixture, split, text_key)
  components = _examples(
    parts, tokenizer, seq_len, packing, cache_dir, workdir, True
  )
  examples = components_lib.joined(components, [str(part) for part in parts])
  local = order.host_rows(batch_size, host_index, host_count)

  def rows(step: int) -> tuple[np.ndarray, np.ndarray]:
    found = step * batch_size + local
    found = found[found < examples.length]
    return found, order.epoch_key(0, np.zeros(len(found), np.int64))

  steps = -(-examples.length // batch_size)
  plan = Plan(rows, steps, len(local))
  return _data(examples, plan, ops, batch_size)


def _check_batch_size(batch_size: int) -> None:
  if not isinstance(batch_size, int) or batch_size < 1:
    raise ValueError(f"batch_size {batch_size!r} is not a positive integer")


def _examples(
  parts: list[components_lib.Part],
  tokenizer: str | None,
  seq_len: int | None,
  packing: bool,
  cache_dir: str | None,
  workdir: str | None,
  partial: bool,
) -> list[Examples]:
  """The examples of each part; windows may be short if `partial`."""
  if not isinstance(packing, bool):
    raise ValueError(f"packing={packing!r} is neither True nor False")
  if packing and tokenizer is None:
    raise ValueError("packing=True packs tokens; set a tokenizer")
  sources = [open_source(part.source, part.split) for part in parts]
  if tokenizer is None:
    return [
      Examples(s.length, s.read, s.name, s.num_classes, note=s.note)
      for s in sources
    ]
  if not isinstance(seq_len, int) or seq_len < 1:
    raise ValueError(f"seq_len {seq_len!r} is not a positive integer")
  corpus = [(part.source, part.text_key) for part in parts]
  learned = get_tokenizer(
    tokenizer, corpus, cache_dir=cache_dir, workdir=workdir
  )

  def of_tokens(part: components_lib.Part, source: Source) -> Examples:
    file = token_file(
      source,
      learned,
      uri=part.source,
      split=part.split,
      text_key=part.text_key,
      cache_dir=cache_dir,
    )
    title = str(part)
    if packing:
      length, read = packed(file, learned, seq_len, title)
    else:
      length, read = windows(file.tokens, learned, seq_len, partial, title)
    kind = "row" if packing else "window"
    return Examples(
      length,
      read,
      lambda index: f"{title} {kind} {index}",
      tokenizer=learned,
      note=source.note,
    )

  return [of_tokens(*each) for each in zip(parts, sources, strict=True)]


def numeric(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The fields that form a batch, in the types of a batch."""
  narrow = {"int64": np.int32, "uint64": np.int32, "float64": np.float32}
  return {
    name: leaf.astype(narrow.get(leaf.dtype.name, leaf.dtype), copy=False)
    for name, leaf in rows.items()
    if leaf.dtype.kind in "biuf"
  }


def _data(examples: Examples, plan: Plan, ops: str, batch_size: int) -> Data:
  if ops and examples.tokenizer:
    raise ValueError(f"ops {ops!r} do not apply to windows of tokens")
  if ops:
    from input_pipeline import pipeline_tf

    fields, stream = pipeline_tf.stream(examples, plan, ops)
  else:
    sample = examples.read(np.zeros(1, np.int64))
    fields = {k: (v.shape[1:], v.dtype) for k, v in numeric(sample).items()}
    encoded = sample.get("image", np.zeros(0)).dtype == object
    if not fields or encoded:
      raise ValueError(
        f"{examples.name(0)}: its images are not decoded; add the op 'decode'"
        if encoded
        else f"{examples.name(0)} has no number to make a batch of; "
        "set a tokenizer or ops"
      )

    def stream(first_step: int) -> Iterator[dict[str, np.ndarray]]:
      step = first_step
      while True:
        yield numeric(examples.read(plan.rows(step)[0]))
        step += 1

  spec = {**_MASK_AND_INDEX, **fields}

  def batches(first_step: int = 0) -> Iterator[dict[str, np.ndarray]]:
    reader = stream(first_step)
    step = first_step
    while plan.steps is None or step < plan.steps:
      indices = plan.rows(step)[0]
      # Past the end of a split there is padding alone, and nothing to read.
      rows = next(reader) if len(indices) else {}
      yield _padded(rows, indices, spec, plan.local_size)
      step += 1

  return Data(
    spec,
    examples.length,
    examples.num_classes,
    examples.tokenizer,
    batches,
    batch_size,
    examples.note,
  )


def _padded(
  rows: dict[str, np.ndarray], indices: np.ndarray, spec: Spec, size: int
) -> dict[str, np.ndarray]:
  real = len(indices)
  rows = {"mask": np.ones(real, np.float32), **rows}
  rows["index"] = indices.astype(np.int32)
  batch = {}
  for name, (shape, dtype) in spec.items():
    if real == size:
      batch[name] = rows[name]
      continue
    batch[name] = np.zeros((size, *shape), dtype)
    if name == "index":
      batch[name][:] = -1
    if real:
      batch[name][:real] = rows[name]
  return batch
