"""Source -> order -> ops -> batches; a batch is a function of its step.

Every batch holds, beside the examples' own fields, "index", int32 [B], the
example's place in its source (-1 on padding), and "mask", float32, 1 on what
is real. Integers of 64 bits become int32 and float64 becomes float32; text is
left out.

Language modelling: a source with a tokenizer gives windows of tokens,
{"inputs": int32 [B, T], "targets": int32 [B, T], "mask": float32 [B, T],
"bytes": float32 [B], "index": int32 [B]}, where `targets` is `inputs` one
token on and `bytes` counts the UTF-8 bytes of the window's targets.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from input_pipeline import bad_records, order
from input_pipeline.source import Source, open_source
from input_pipeline.token_file import token_file
from input_pipeline.tokenizer import Tokenizer, get_tokenizer

Spec = dict[str, tuple[tuple[int, ...], np.dtype]]

_MASK_AND_INDEX: Spec = {
  "mask": ((), np.dtype(np.float32)),
  "index": ((), np.dtype(np.int32)),
}


class Data(NamedTuple):
  """A stream of batches and what is known of it.

  spec: {leaf: (shape without the batch axis, dtype)}.
  num_examples: in one epoch; windows, where there is a tokenizer.
  batches: (first_step) -> this host's rows of each global batch from that
    step on; endless for training, one pass for evaluation.
  batch_size: of the global batch.
  note: a line worth telling, or "".
  skipped: () -> the records that this process has skipped so far.
  news: () -> a line on the first of them, told once, or "".
  """

  spec: Spec
  num_examples: int
  num_classes: int | None
  tokenizer: Tokenizer | None
  batches: Callable[[int], Iterator[dict[str, np.ndarray]]]
  batch_size: int
  note: str = ""
  skipped: Callable[[], bad_records.Skipped] = bad_records.Tally().skipped
  news: Callable[[], str] = bad_records.Tally().news


class Examples(NamedTuple):
  """What batches are gathered from.

  read: (int64 [n]) -> {field: array [n, ...]}; ValueError for a bad record.
  tally: counts bad records, and holds the policy.
  """

  length: int
  read: Callable[[np.ndarray], dict[str, np.ndarray]]
  name: Callable[[int], str]
  num_classes: int | None = None
  tokenizer: Tokenizer | None = None
  note: str = ""
  tally: bad_records.Tally = bad_records.Tally()


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
  source: str,
  split: str = "train",
  ops: str = "",
  tokenizer: str | None = None,
  seq_len: int | None = None,
  text_key: str = "text",
  cache_dir: str | None = None,
  batch_size: int | str,
  seed: int = 0,
  shuffle: bool = True,
  host_index: int | Sequence[int] = 0,
  host_count: int = 1,
  workdir: str | None = None,
  multiple_of: int = 1,
  on_bad_record: str = "stop",
  max_bad_share: float = 0.01,
  max_record_bytes: int = 2**28,
) -> Data:
  """Endless batches: batch = f(arguments, step).

  Args:
    source: URI; see source.py.
    split: TFDS's language.
    ops: see ops.py; "" for none.
    tokenizer: see tokenizer.py; with it the examples are windows of tokens.
    seq_len: T, the tokens of a window.
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
    on_bad_record: "stop" at the first, or "skip"; see bad_records.py.
    max_bad_share: of the records read so far; more are refused.
    max_record_bytes: what is larger is a bad record.

  Raises:
    ValueError: one line that names what is wrong.
  """
  policy = bad_records.policy(on_bad_record, max_bad_share, max_record_bytes)
  examples = _examples(
    source,
    split,
    tokenizer,
    seq_len,
    text_key,
    cache_dir,
    workdir,
    False,
    policy,
  )
  n = examples.length
  if batch_size == "all":
    batch_size = -(-n // multiple_of) * multiple_of
    local = order.host_rows(batch_size, host_index, host_count)
    whole = local[local < n]

    def rows(step: int) -> tuple[np.ndarray, np.ndarray]:
      epoch = np.full(len(whole), step)
      return whole, order.epoch_key(seed, epoch)

  else:
    _check_batch_size(batch_size)
    local = order.host_rows(batch_size, host_index, host_count)

    @functools.lru_cache(maxsize=4)  # asked for twice a batch
    def rows(step: int) -> tuple[np.ndarray, np.ndarray]:
      position = step * batch_size + local
      found = order.indices(seed, n, position, shuffle)
      return found, order.epoch_key(seed, position // n)

  plan = Plan(rows, None, len(local))
  return _data(examples, plan, ops, batch_size)


def evaluation(
  *,
  source: str,
  split: str = "validation",
  ops: str = "",
  tokenizer: str | None = None,
  seq_len: int | None = None,
  text_key: str = "text",
  cache_dir: str | None = None,
  batch_size: int,
  host_index: int | Sequence[int] = 0,
  host_count: int = 1,
  workdir: str | None = None,
  on_bad_record: str = "stop",
  max_bad_share: float = 0.01,
  max_record_bytes: int = 2**28,
) -> Data:
  """One pass in order, each example once, padded to whole batches.

  Every host yields the same number of batches. The last window of a text is
  padded, so that each token but the first is predicted exactly once. The
  arguments are those of `train`.
  """
  _check_batch_size(batch_size)
  policy = bad_records.policy(on_bad_record, max_bad_share, max_record_bytes)
  examples = _examples(
    source,
    split,
    tokenizer,
    seq_len,
    text_key,
    cache_dir,
    workdir,
    True,
    policy,
  )
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
  uri, split, tokenizer, seq_len, text_key, cache_dir, workdir, partial, policy
) -> Examples:
  source = open_source(uri, split, policy)
  tally = bad_records.Tally(policy)
  if tokenizer is None:
    return Examples(
      source.length,
      source.read,
      source.name,
      source.num_classes,
      note=source.note,
      tally=tally,
    )
  if not isinstance(seq_len, int) or seq_len < 1:
    raise ValueError(f"seq_len {seq_len!r} is not a positive integer")
  learned = get_tokenizer(
    tokenizer,
    uri,
    text_key=text_key,
    cache_dir=cache_dir,
    workdir=workdir,
    policy=policy,
  )
  tokens = token_file(
    source,
    learned,
    uri=uri,
    split=split,
    text_key=text_key,
    cache_dir=cache_dir,
    tally=tally,
  )
  title = f"{uri} {split}"
  windows = _windows(source, tokens, learned, seq_len, partial, title)
  return windows._replace(tally=tally)


def _windows(
  source: Source,
  tokens_N: np.ndarray,
  tokenizer: Tokenizer,
  seq_len: int,
  partial: bool,
  title: str,
) -> Examples:
  """Windows of seq_len targets; the last one may be short if `partial`."""
  predicted = len(tokens_N) - 1
  if predicted < seq_len:
    raise ValueError(
      f"{title} has {len(tokens_N)} tokens; seq_len {seq_len} needs "
      f"{seq_len + 1}"
    )
  byte_lengths_V = tokenizer.byte_lengths.astype(np.float32)

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    place_BT = indices[:, None] * seq_len + np.arange(seq_len)
    mask_BT = place_BT < predicted
    place_BT = np.minimum(place_BT, predicted - 1)
    inputs_BT = np.where(mask_BT, tokens_N[place_BT], 0).astype(np.int32)
    targets_BT = np.where(mask_BT, tokens_N[place_BT + 1], 0).astype(np.int32)
    return {
      "inputs": inputs_BT,
      "targets": targets_BT,
      "mask": mask_BT.astype(np.float32),
      "bytes": np.sum(byte_lengths_V[targets_BT] * mask_BT, 1, np.float32),
    }

  windows = -(-predicted // seq_len) if partial else predicted // seq_len
  return Examples(
    windows,
    read,
    lambda index: f"{title} window {index}",
    tokenizer=tokenizer,
    note=source.note,
  )


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
    sample = bad_records.first_readable(examples, examples.tally.policy)
    fields = {k: (v.shape[1:], v.dtype) for k, v in numeric(sample).items()}
    encoded = sample.get("image", np.zeros(0)).dtype == object
    if not fields or encoded:
      raise ValueError(
        f"{examples.name(0)}: its images are not decoded; add the op 'decode'"
        if encoded
        else f"{examples.name(0)} has no number to make a batch of; "
        "set a tokenizer or ops"
      )

    read = bad_records.reader(examples, sample, fields)

    def stream(first_step: int) -> Iterator[dict[str, np.ndarray]]:
      step = first_step
      while True:
        yield numeric(read(plan.rows(step)[0]))
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
    examples.tally.skipped,
    examples.tally.news,
  )


def _padded(
  rows: dict[str, np.ndarray], indices: np.ndarray, spec: Spec, size: int
) -> dict[str, np.ndarray]:
  real = len(indices)
  kept = rows.pop(bad_records.KEPT, True)
  rows = {"mask": np.ones(real, np.float32), **rows}
  rows["index"] = np.where(kept, indices, -1).astype(np.int32)
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
