"""Buckets of length: batches of few shapes, with little padding.

Each example belongs to the bucket with the smallest bound that is not below its
length, and each batch holds examples of one bucket, padded to its bound. For
each bound one program is compiled.

The order is a function of (seed, step) and needs no state beside the step. Each
bucket has an endless stream of its examples, epoch by epoch, in an order of its
own, and is cut into batches; the examples that are left of an epoch begin the
first batch of the next. Which bucket a step has is decided as in mixture.py, by
shares that are the numbers of examples, and steps are permuted within an epoch.
So each example is seen once in every epoch of its bucket, and the epochs of all
buckets end within two batches of one another.

A bucket with fewer examples than a batch would repeat them within it, and is
merged with the next longer one.
"""

import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from common import files
from input_pipeline import ops as ops_lib
from input_pipeline import order
from input_pipeline.bad_records import Tally
from input_pipeline.batching import mixture, padding
from input_pipeline.batching.plan import Plan

_FORMAT = 1
_PASS = 256  # the rows of a batch in which lengths are measured
# The most lengths that are tried as bounds.
_MOST_BOUNDS = 512
# A longest list of bounds: each is a program to compile.
_MOST_SHAPES = 64
# How many times the longest example of a bucket may fit into its bound without
# a remark, and at all.
_ROOMY, _ABSURD = 2, 1000


class Buckets(NamedTuple):
  """Bounds in ascending order, and the bucket of each example.

  bounds: the lengths of the batches.
  bucket: int64 [N].
  lengths: int32 [N, leaves], of the examples' leaves; see `measured`.
  """

  bounds: tuple[int, ...]
  bucket: np.ndarray
  lengths: np.ndarray

  def padding(self) -> float:
    """The share of padding in an epoch, from 0 to 1; the mean over leaves."""
    slots = np.asarray(self.bounds)[self.bucket].sum()
    real = self.lengths.sum(0, dtype=np.int64).mean()
    return 1 - float(real) / max(int(slots), 1)

  def mean_length(self) -> float:
    """The mean length of a batch."""
    return float(np.asarray(self.bounds)[self.bucket].mean())

  def __str__(self) -> str:
    if not len(self.bucket):
      return ""
    count, listed = len(self.bounds), ", ".join(map(str, self.bounds))
    longest = int(self.lengths.max())
    roomy = self.bounds[-1] > _ROOMY * longest
    return (
      f"{count} shape{'s are' if count > 1 else ' is'} compiled, one for each"
      f" length: {listed}; {100 * self.padding():.1f} % padding"
    ) + f"; the longest example has a length of {longest} only" * roomy


def checked(wanted: Any) -> int | tuple[int, ...]:
  """Returns `data.buckets` as a number of buckets or ascending bounds.

  Raises:
    ValueError: it is neither.
  """
  if isinstance(wanted, int) and not isinstance(wanted, bool):
    if 1 <= wanted <= _MOST_SHAPES:
      return wanted
  elif isinstance(wanted, Sequence) and 1 <= len(wanted) <= _MOST_SHAPES:
    right = all(type(n) is int and n > 0 for n in wanted)
    if right and all(a < b for a, b in zip(wanted, wanted[1:], strict=False)):
      return tuple(wanted)
  raise ValueError(
    f"buckets={wanted!r} is neither ascending lengths, such as [32, 64, 128],"
    f" nor their number, from 1 to {_MOST_SHAPES}"
  )


def made(lengths: np.ndarray, wanted: Any, least: int = 1) -> Buckets:
  """Sorts examples into buckets.

  Args:
    lengths: int32 [N, leaves].
    wanted: ascending bounds; or their number, and the bounds are those with the
      least padding.
    least: the number of examples below which a bucket is merged.

  Raises:
    ValueError: an example is longer than the last bound, or all are so short
      that the bound must be a mistake.
  """
  wanted, each = checked(wanted), lengths
  lengths = each.max(1)
  if isinstance(wanted, int):
    wanted = fitted(lengths, wanted, least)
  over = int((lengths > wanted[-1]).sum())
  if over:
    raise ValueError(
      f"buckets={list(wanted)}: {over:,} of {len(lengths):,} examples are"
      f" longer than {wanted[-1]}, at most {int(lengths.max())}"
    )
  counts = np.bincount(np.searchsorted(wanted, lengths), minlength=len(wanted))
  bounds, waiting = [], 0
  for bound, count in zip(wanted, counts.tolist(), strict=True):
    waiting += count
    if waiting >= least:
      bounds.append(bound)
      waiting = 0
  if waiting or not bounds:  # the longest examples
    last = max(b for b, n in zip(wanted, counts, strict=True) if n)
    bounds = [*bounds[:-1], last]
  if bounds[-1] > _ABSURD * max(1, int(lengths.max(initial=0))):
    raise ValueError(
      f"buckets={list(wanted)}: the bucket of length {bounds[-1]} is more than"
      f" {_ABSURD:,} times as long as the longest example, {int(lengths.max())}"
    )
  bucket = np.searchsorted(bounds, lengths)
  return Buckets(tuple(map(int, bounds)), bucket.astype(np.int64), each)


def fitted(lengths: np.ndarray, count: int, least: int = 1) -> tuple[int, ...]:
  """Returns at most `count` bounds, those that need the least padding.

  Args:
    lengths: int32 [N].
    count: of the bounds.
    least: the number of examples that each bucket has; fewer if there are none.
  """
  values, counts = np.unique(np.maximum(lengths, 1), return_counts=True)
  if len(values) > _MOST_BOUNDS:
    at = np.linspace(0, len(lengths) - 1, _MOST_BOUNDS).round().astype(np.int64)
    values = np.unique(np.sort(np.maximum(lengths, 1))[at])
    places = np.searchsorted(values, np.maximum(lengths, 1))
    counts = np.bincount(places, minlength=len(values))
  n = len(values)
  before = np.concatenate([[0], np.cumsum(counts)]).astype(np.float64)
  # [first value of a bucket, its last value]: the examples in it.
  held = before[None, 1:] - before[:-1, None]
  held = np.where(held >= max(1, min(least, before[-1])), held, np.inf)
  # cost[j]: of the first j values, in as many buckets as rounds so far.
  cost = np.concatenate([[0.0], np.full(n, np.inf)])
  choices, costs = [], []
  for _ in range(min(count, n)):
    total = cost[:-1, None] + held * values[None]
    choices.append(total.argmin(0))
    cost = np.concatenate([[np.inf], total.min(0)])
    costs.append(cost[-1])
  bounds, last = [], n
  for choice in reversed(choices[: int(np.argmin(costs)) + 1]):
    bounds.append(int(values[last - 1]))
    last = int(choice[last - 1])
  return tuple(reversed(bounds))


def of_examples(
  make: Callable[..., Any],
  examples: Any,
  ops: str,
  settings: Mapping[str, Any],
  wanted: Any,
  least: int = 1,
) -> Buckets:
  """Returns the buckets of all examples, whose lengths one pass measures.

  The pass applies the ops; it is made once, and its result kept in the cache
  if the source has a fingerprint.

  Args:
    make: pipeline's function (examples, plan, ops, batch_size, buckets=None)
      -> Data.
    examples: see examples.py.
    ops: see input_pipeline/ops/__init__.py.
    settings: the arguments of pipeline.train, on which lengths depend.
    wanted: see `made`.
    least: see `made`.

  Raises:
    ValueError: ops mix examples, an example is too long, or no leaf has an
      axis of time.
  """
  wanted = checked(wanted)
  if ops and ops_lib.mixes(ops):
    raise ValueError(f"ops {ops!r} mix examples, which buckets do not")
  # The records of this pass do not count.
  aside = examples._replace(tally=Tally(examples.tally.policy))
  plan = whole_plan(examples.length)
  unknown = Buckets((0,), *np.zeros((2, 0), np.int64))
  whole = make(aside, plan, ops, plan.local_size, buckets=unknown)
  names = padding.timed(whole.spec)
  if not names:
    raise ValueError(
      "buckets need fields whose first axis is time, and the data have none"
    )
  keys = ("source", "mixture", "split", "tokenizer", "seq_len", "rows")
  keys += ("text_key", "on_bad_record", "max_record_bytes")
  spelled = examples.tokenizer and examples.tokenizer.content.hex()
  identity = [examples.fingerprint, ops, names, spelled]
  identity += [str(settings[key]) for key in keys]
  lengths = measured(
    whole.batches(0),
    names,
    examples.length,
    identity if examples.fingerprint else None,
    settings["cache_dir"],
  )
  return made(lengths, wanted, least)


def train_plan(
  buckets: Buckets,
  batch_size: int,
  local: np.ndarray,
  seed: int,
  shuffle: bool,
) -> Plan:
  """Returns the plan of training; see the module.

  Args:
    buckets: of the examples.
    batch_size: B, of the global batch.
    local: int64, this host's rows of each batch.
    seed: of the order.
    shuffle: whether to permute; else each bucket is in the source's order.
  """
  members = [
    np.flatnonzero(buckets.bucket == j) for j in range(len(buckets.bounds))
  ]
  counts = [len(each) for each in members]
  choice = mixture.tree(mixture.whole_weights([None] * len(counts), counts))
  steps = -(-sum(counts) // batch_size)

  @functools.lru_cache(maxsize=64)
  def bucket_of(step: int) -> tuple[int, int]:
    """The bucket of a step, and the number of its batch."""
    epoch, place = divmod(step, steps)
    if shuffle:
      key = order.epoch_key(~seed, np.array([epoch]))
      place = int(order.permute(np.array([place]), steps, key)[0])
    bucket, nth = mixture.choose(choice, np.array([epoch * steps + place]))
    return int(bucket[0]), int(nth[0])

  def rows(step: int) -> tuple[np.ndarray, np.ndarray]:
    bucket, nth = bucket_of(step)
    position = nth * batch_size + local
    n = counts[bucket]
    found = order.indices(seed, n, position, shuffle)
    return members[bucket][found], order.epoch_key(seed, position // n)

  def length(step: int) -> int:
    return buckets.bounds[bucket_of(step)[0]]

  return Plan(rows, None, len(local), None, length)


def whole_plan(count: int) -> Plan:
  """Returns the plan of one pass over all examples, in order."""

  def rows(step: int) -> tuple[np.ndarray, np.ndarray]:
    found = np.arange(step * _PASS, min((step + 1) * _PASS, count))
    return found, order.epoch_key(0, np.zeros(len(found), np.int64))

  return Plan(rows, -(-count // _PASS), min(_PASS, count))


def ordered_plan(buckets: Buckets, plan: Plan, batch_size: int) -> Plan:
  """Returns the plan of an evaluation, whose order buckets do not change.

  A batch has the bound of its longest example.
  """

  def length(step: int) -> int:
    own = buckets.bucket[step * batch_size : (step + 1) * batch_size]
    return buckets.bounds[int(own.max(initial=0))]

  return plan._replace(length=length)


def measured(
  batches: Iterator[dict[str, np.ndarray]],
  names: Sequence[str],
  count: int,
  identity: Sequence | None,
  cache_dir: str | None,
) -> np.ndarray:
  """Returns the lengths of all examples, int32 [N, leaves].

  They are kept in a file after the first call. The leaves are those of `names`
  but for any that is always as long as another or shorter by one, as positions
  are, which count from 0.

  Args:
    batches: one pass over the examples.
    names: the leaves whose first axis is time.
    count: N.
    identity: what the lengths depend on; None keeps nothing.
    cache_dir: see common.files.cache_folder.
  """
  path, width = None, len(names)
  if identity is not None:
    content = json.dumps([_FORMAT, count, *identity], default=str)
    digest = hashlib.sha256(content.encode()).hexdigest()[:32]
    path = os.path.join(files.cache_folder(cache_dir), f"{digest}.lengths")
  if path and os.path.exists(path):
    found = np.fromfile(path, np.int32)
    if len(found) == count * width:
      return _distinct(found.reshape(count, width))
  parts = [padding.lengths(batch, names) for batch in batches]
  found = np.concatenate([np.zeros((0, width), np.int32), *parts])[:count]
  if path:
    files.write_atomically(path, [found.tobytes()])
  return _distinct(found)


def _distinct(lengths: np.ndarray) -> np.ndarray:
  """Returns the columns that do not follow from another one."""
  kept: list[int] = []
  for i in np.argsort(-lengths.sum(0, dtype=np.int64), kind="stable"):
    apart = [lengths[:, k] - lengths[:, i] for k in kept]
    if not any(((d >= 0) & (d <= 1)).all() for d in apart):
      kept.append(int(i))
  return lengths[:, kept]
