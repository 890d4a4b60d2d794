"""Source -> order -> ops -> batches; a batch is a function of its step.

Besides the examples' own fields, every batch holds "index", int32 [B], the
example's place in its source (-1 on padding), and "mask", float32, 1 on real
entries and 0 on padding. 64-bit integers become int32 and float64 becomes
float32; text is left out.

Language modelling: a source with a tokenizer gives windows of tokens,
{"inputs": int32 [B, T], "targets": int32 [B, T], "mask": float32 [B, T],
"bytes": float32 [B], "index": int32 [B]}, where `targets` is `inputs` shifted
by one token and `bytes` counts the UTF-8 bytes of the window's targets. With
`packing` the examples are rows of whole documents instead, with two more
leaves, "segments" and "positions", int32 [B, T]; see
packing/whole_documents.py.

`ops` apply to these windows and rows as to any example. Some ops add tokens to
the vocabulary; `Data.tokenizer` has them. If an op mixes examples, each example
has a partner; see partners.py.

For other uses of text (with labels, in pairs, in conversations) `rows` names
the kind of rows that is made from it, a file in rows/.

A mixture of several data sets is a single stream of their examples, in an order
of its own; see mixture.py. "index" then counts through the concatenated data
sets.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from common.leaf import MASK_AND_INDEX, Leaf, Spec, described
from input_pipeline import bad_records, equal_fields, order
from input_pipeline.batching import (
  added_tokens,
  numeric_fields,
  padding,
  partners,
  ragged,
  tf_stream,
)
from input_pipeline.batching import buckets as buckets_lib
from input_pipeline.batching import components as components_lib
from input_pipeline.batching import mixture as mixture_lib
from input_pipeline.batching.examples import Examples, of_parts
from input_pipeline.batching.plan import Plan
from input_pipeline.batching.second import with_second
from input_pipeline.batching.unlabeled import Unlabeled
from input_pipeline.tokenizers import Tokenizer

# The number of positions that are ordered at once.
_ORDERED = 1024


class Data(NamedTuple):
  """A stream of batches and its description.

  spec: {name: Leaf} of a batch.
  num_examples: the number in one epoch, of all components; windows or packed
    rows, if there is a tokenizer.
  batches: (first_step) -> this host's rows of each global batch from that step
    on; endless for training, one pass for evaluation.
  batch_size: the size of the global batch.
  note: a line to print, or "".
  skipped: () -> the records that this process has skipped so far.
  news: () -> a line about the first skipped records, returned once; else "".
  texts: (indices, as in a batch) -> {field: [values]} of examples, which
    evaluators need besides the arrays; None if there are none.
  class_names: in the order of the labels, or ().
  record: (index) -> the name of the record that an example is made from.
  unscaled: (predicted "y") -> the same in the unit of the data; or None.
  sizes: {argument of a model or task: size} that no axis of a leaf has.
  share: the mean size of the axis of time in a batch, as a share of the spec's;
    below 1 with buckets.
  lengths: the sizes that the axis of time has in batches, ascending, if there
    are buckets; else ().
  """

  spec: Spec
  num_examples: int
  num_classes: int | None
  tokenizer: Tokenizer | None
  batches: Callable[[int], Iterator[dict[str, np.ndarray]]]
  batch_size: int
  note: str = ""
  skipped: Callable[[], bad_records.Skipped] = bad_records.Tally().skipped
  news: Callable[..., str] = bad_records.Tally().news
  texts: Callable[[np.ndarray], dict[str, Sequence]] | None = None
  class_names: tuple[str, ...] = ()
  record: Callable[[int], str] = str
  unscaled: Callable[[np.ndarray], np.ndarray] | None = None
  sizes: Mapping[str, int] = MappingProxyType({})
  share: float = 1.0
  lengths: tuple[int, ...] = ()


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
  rows: Mapping | None = None,
  second: Mapping | None = None,
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
  service: str | None = None,
  buckets: int | Sequence[int] | None = None,
) -> Data:
  """Returns endless batches for training: batch = f(arguments, step).

  Args:
    source: the URI of the data, such as jsonl:FILES; see
      input_pipeline/sources/__init__.py.
    mixture: takes the place of `source`: [dict(source=URI, weight=2.0), ...]. A
      component may have its own `split` and `text_key`. Without weights the
      shares are the numbers of examples to the power 1 / temperature.
    temperature: of a mixture without weights; None is 1.
    split: which examples, as TFDS writes it: train[:90%].
    ops: the preprocessing; see input_pipeline/ops/__init__.py. "" is none.
    tokenizer: makes the examples windows of tokens; see
      input_pipeline/tokenizers/__init__.py.
    seq_len: T, the number of tokens in a row.
    packing: makes rows of whole documents instead of windows.
    rows: makes rows of another kind: dict(name=KIND, …), where KIND is a file
      of input_pipeline/rows.
    second: dict(source=URI, split="train", ops=""), whose records an op such as
      add_noise mixes into the examples; see second.py.
    text_key: the field of a record that is tokenized.
    cache_dir: the folder where tokens are cached; by default $TESSERA_CACHE or
      ~/.cache/tessera.
    batch_size: the number of examples in a global batch, or "all": each batch
      is the whole split, in the source's order.
    seed: of the order and of the ops.
    shuffle: whether each epoch has a random order; else the source's.
    host_index: which share of each batch is this host's; or several.
    host_count: the number of shares.
    workdir: the folder where a tokenizer learned from the data is kept.
    multiple_of: what the size of a batch "all" is padded to a multiple of.
    on_bad_record: "stop" at the first bad record, or "skip" it and count it.
    max_bad_share: the largest share of bad records among those read, from 0 to
      1; more end the run.
    max_record_bytes: the largest record in bytes; a larger one is bad.
    service: "grpc://HOST:PORT" of a dispatcher (input_pipeline.data_service),
      whose workers then read and apply the ops. The batches stay the same.
    buckets: lengths, such as [32, 64, 128], or their number; see buckets.py.
      Each batch has examples of similar lengths, padded to one of these.

  Raises:
    ValueError: the arguments are wrong; one line that names the problem.
  """
  own = ("ops", "service", "second", "buckets")
  settings = {k: v for k, v in locals().items() if k not in ("own", *own)}
  if service and (second or not ops):
    why = (
      "reads no second source" if second else "applies ops, but ops is empty"
    )
    raise ValueError(f"service {service!r} {why}: leave service out")
  if buckets is not None:
    weighted = temperature or any("weight" in part for part in mixture or ())
    if service or batch_size == "all" or weighted:
      raise ValueError(
        "buckets suit neither a service, nor batch_size 'all', nor the weights"
        " of a mixture: leave one of them out"
      )
  examples, plan, batch_size = training(**settings)
  examples = with_second(examples, second, ops, True)
  if buckets is not None:
    local = order.host_rows(batch_size, host_index, host_count)
    found = buckets_lib.of_examples(
      _data, examples, ops, settings, buckets, batch_size
    )
    plan = buckets_lib.train_plan(found, batch_size, local, seed, shuffle)
    return _data(examples, plan, ops, batch_size, buckets=found)
  given = {"ops": ops, **settings}
  remote = (service, given) if service else None
  return _data(examples, plan, ops, batch_size, remote)


def training(
  *,
  source: str | None,
  mixture: Sequence[Mapping] | None,
  temperature: float | None,
  split: str,
  tokenizer: str | None,
  seq_len: int | None,
  packing: bool,
  rows: Mapping | None,
  text_key: str,
  cache_dir: str | None,
  batch_size: int | str,
  seed: int,
  shuffle: bool,
  host_index: int | Sequence[int],
  host_count: int,
  workdir: str | None,
  multiple_of: int,
  on_bad_record: str,
  max_bad_share: float,
  max_record_bytes: int,
) -> tuple[Examples, Plan, int]:
  """Returns the examples of `train`, the plan of its steps, and the batch size.

  The arguments are those of `train`.
  """
  policy = bad_records.policy(on_bad_record, max_bad_share, max_record_bytes)
  parts = components_lib.parts(source, mixture, split, text_key)
  components = of_parts(
    parts, tokenizer, seq_len, packing, rows, cache_dir, workdir, False, policy
  )
  examples = components_lib.joined(components, [str(part) for part in parts])
  given = [part.weight for part in parts]
  lengths = [each.length for each in components]
  weights = mixture_lib.whole_weights(given, lengths, temperature)
  n = examples.length
  if batch_size == "all":
    if temperature is not None or None not in given:
      raise ValueError(
        "batch_size 'all' takes every example once: leave the weights out"
      )
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

    # Many steps at once, since the overhead of NumPy's calls dominates.
    steps = max(1, _ORDERED // len(local))

    @functools.lru_cache(maxsize=4)
    def block(number: int) -> tuple[np.ndarray, np.ndarray]:
      step_S1 = number * steps + np.arange(steps)[:, None]
      found = ordered((step_S1 * batch_size + local).reshape(-1))
      return tuple(x.reshape(steps, -1) for x in found)

    def rows(step: int) -> tuple[np.ndarray, np.ndarray]:
      indices, keys = block(step // steps)
      return indices[step % steps], keys[step % steps]

  plan = Plan(rows, None, len(local), partners.drawer(lengths, weights))
  return examples, plan, batch_size


def evaluation(
  *,
  source: str | None = None,
  mixture: Sequence[Mapping] | None = None,
  split: str = "validation",
  ops: str = "",
  tokenizer: str | None = None,
  seq_len: int | None = None,
  packing: bool = False,
  rows: Mapping | None = None,
  second: Mapping | None = None,
  text_key: str = "text",
  cache_dir: str | None = None,
  batch_size: int,
  host_index: int | Sequence[int] = 0,
  host_count: int = 1,
  workdir: str | None = None,
  on_bad_record: str = "stop",
  max_bad_share: float = 0.01,
  max_record_bytes: int = 2**28,
  unlabeled: Unlabeled | None = None,
  buckets: int | Sequence[int] | None = None,
) -> Data:
  """Returns one pass in order, each example once, padded to full batches.

  Every host yields the same number of batches. The last window of a text is
  padded, so that each token but the first is predicted exactly once. The
  components of a mixture follow one another, and their weights are ignored. The
  arguments are those of `train`, and `unlabeled`, which is set for a
  prediction, whose records need no labels.
  """
  settings = {**locals()}
  _check_batch_size(batch_size)
  policy = bad_records.policy(on_bad_record, max_bad_share, max_record_bytes)
  policy = policy._replace(labels=unlabeled is None)
  parts = components_lib.parts(source, mixture, split, text_key)
  where = (cache_dir, workdir)
  components = of_parts(
    parts, tokenizer, seq_len, packing, rows, *where, True, policy, unlabeled
  )
  examples = components_lib.joined(components, [str(part) for part in parts])
  examples = with_second(examples, second, ops, False)
  local = order.host_rows(batch_size, host_index, host_count)

  def rows(step: int) -> tuple[np.ndarray, np.ndarray]:
    found = step * batch_size + local
    found = found[found < examples.length]
    return found, order.epoch_key(0, np.zeros(len(found), np.int64))

  steps = -(-examples.length // batch_size)
  plan = Plan(rows, steps, len(local))
  if buckets is not None:
    found = buckets_lib.of_examples(_data, examples, ops, settings, buckets)
    plan = buckets_lib.ordered_plan(found, plan, batch_size)
    return _data(examples, plan, ops, batch_size, buckets=found)
  return _data(examples, plan, ops, batch_size)


def _check_batch_size(batch_size: int) -> None:
  if not isinstance(batch_size, int) or batch_size < 1:
    raise ValueError(f"batch_size {batch_size!r} is not a positive integer")


def _data(
  examples: Examples,
  plan: Plan,
  ops: str,
  batch_size: int,
  service: tuple[str, dict] | None = None,
  buckets: buckets_lib.Buckets | None = None,
) -> Data:
  longest = buckets.bounds[-1] if buckets else None
  if buckets:
    ops = ragged.kept(examples, ops)
  if ops:
    examples = added_tokens.of_examples(examples, ops)
    fields, stream = tf_stream.stream(examples, plan, ops, service, longest)
  else:
    sample = bad_records.typed(examples, examples.tally.policy)
    fields = {
      k: Leaf(v.shape[1:], v.dtype)
      for k, v in equal_fields.numeric(sample).items()
    }
    numeric_fields.check(examples, sample, fields)

    read = bad_records.reader(examples, sample, fields)

    def stream(first_step: int) -> Iterator[dict[str, np.ndarray]]:
      step = first_step
      while True:
        yield equal_fields.numeric(read(plan.rows(step)[0]))
        step += 1

  # A table may have a column "index", which is not the place in the source.
  spec = {**MASK_AND_INDEX, **fields, "index": MASK_AND_INDEX["index"]}
  spec = described(spec, examples.axes, examples.units)

  names, at, share, bounds = padding.timed(spec), plan.length, 1.0, ()
  if at is not None:
    whole = max(spec[name].shape[0] for name in names)
    share = min(1.0, buckets.mean_length() / whole)
    bounds = tuple(sorted({min(bound, whole) for bound in buckets.bounds}))

  def batches(first_step: int = 0) -> Iterator[dict[str, np.ndarray]]:
    reader = stream(first_step)
    step = first_step
    while plan.steps is None or step < plan.steps:
      indices = plan.rows(step)[0]
      # Past the end of a split there is only padding, and nothing to read.
      rows = next(reader) if len(indices) else {}
      batch = padding.padded(rows, indices, spec, plan.local_size)
      yield batch if at is None else padding.cut(batch, names, at(step))
      step += 1

  return Data(
    spec,
    examples.length,
    examples.num_classes,
    examples.tokenizer,
    batches,
    batch_size,
    "; ".join(str(n) for n in (examples.note, buckets or "") if n),
    examples.tally.skipped,
    examples.tally.news,
    examples.texts,
    examples.class_names,
    examples.record or examples.name,
    examples.unscaled,
    examples.sizes,
    share,
    bounds,
  )
