"""The stream of rows transformed by the ops in tf.data."""

import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from common.leaf import Leaf, Spec
from input_pipeline import bad_records, equal_fields
from input_pipeline import ops as ops_lib
from input_pipeline.batching import (
  bad_records_tf,
  numeric_fields,
  ragged,
  service_stream,
)
from input_pipeline.batching import second as second_lib
from input_pipeline.batching.bad_records_tf import Steps
from input_pipeline.batching.examples import Examples
from input_pipeline.batching.plan import Plan
from input_pipeline.ops.parts.second import PREFIX
from input_pipeline.reading import image_size
from input_pipeline.tensorflow_cpu import import_tensorflow

# An upper bound of every training step.
_ENDLESS = 2**62
_SEED = "_seed"
# Prefixes the field names of the examples that a row is mixed with, by number.
_PARTNER = "_partner{}/"

# (indices, keys) -> the indices of the partners of rows.
Partner = Callable[[np.ndarray, np.ndarray], np.ndarray]


def steps(
  examples: Examples, plan: Plan, ops: str, longest: int | None = None
) -> Steps:
  """Returns the rows of each step, before and after the ops.

  Args:
    examples: the examples to read.
    plan: which examples each step has.
    ops: not empty; see ops/.
    longest: what fields that are ragged after the ops are padded to, as buckets
      need; see ragged.padded. None if such fields are an error.

  Raises:
    ValueError: the ops do not fit the examples.
  """
  tf = import_tensorflow()
  context = ops_lib.Context(examples.num_classes, examples.tokenizer)
  apply = ops_lib.compile(ops, context)
  count = ops_lib.partners(ops)
  if count and plan.partner is None:
    raise ValueError(
      f"ops {ops!r} mix training examples; set other ops for the evaluation"
    )
  sample = bad_records.typed(examples, examples.tally.policy)
  numeric_fields.check_nested(examples.name(0), sample, ops)
  sample = _readable(sample)
  uniform = [field for field in examples.uniform if field in sample]
  free, axes = ops_lib.unsettled(ops, uniform), examples.ragged
  examples = equal_fields.alike(examples, sample, uniform=free, ragged=axes)
  if examples.second is not None:
    sample = {**sample, **_readable(examples.second.sample)}
    axes = {**axes, **examples.second.ragged}
  prepare = second_lib.transformer(examples.second, tf)
  lengthy = ragged.found(sample, axes)
  encoded = {name for name, leaf in sample.items() if _holds_images(leaf)}
  signature = {
    name: tf.TensorSpec(
      leaf.shape[1:], tf.string if leaf.dtype == object else leaf.dtype
    )
    for name, leaf in sample.items()
  } | ragged.signature(lengthy, tf)

  lengthened: set[str] = set()

  @tf.autograph.experimental.do_not_convert
  def transform(example):
    both = [
      ragged.unpacked(part, lengthy, tf) if isinstance(part, dict) else part
      for part in _parted(example, count)
    ]
    for i in range(0, len(both), 2):
      both[i] = prepare(both[i], both[i + 1])
    found = _numbers(apply(*both), encoded, tf)
    return ragged.padded(found, longest, lengthened, tf)

  drawn = [functools.partial(plan.partner, nth=i) for i in range(count)]
  read = functools.partial(_read, examples, lengthy, drawn)
  own = {_SEED: tf.TensorSpec([2], tf.int64), **signature}
  signature = dict(own)
  for i in range(count):
    signature |= {_PARTNER.format(i) + name: s for name, s in own.items()}
  name = examples.name
  alone = functools.partial(_alone, read, name, transform, signature, tf)
  mapped = functools.partial(_mapped, plan, tf)

  def of_step(step: int) -> dict[str, np.ndarray]:
    return read(*plan.rows(step))

  spec = _spec(mapped(of_step, transform, signature, 0).element_spec, ops)
  for name in lengthened:
    others = ("",) * max(len(spec[name].shape) - 1, 0)
    spec[name] = spec[name]._replace(axes=("time", *others))
  parts = bad_records_tf.Parts(read, transform, signature, mapped, alone, spec)
  if examples.tally.policy.skip:
    return bad_records_tf.placed(examples, plan, parts, tf)
  return Steps(of_step, transform, signature, parts)


def stream(
  examples: Examples,
  plan: Plan,
  ops: str,
  service: tuple[str, dict] | None = None,
  longest: int | None = None,
) -> tuple[Spec, Callable[[int], Iterator[dict[str, np.ndarray]]]]:
  """Returns the spec after ops, and (first_step) -> each step's real rows.

  Steps without a real row on this host are omitted.

  Args:
    examples: the examples to read.
    plan: which examples each step has.
    ops: see input_pipeline/ops/__init__.py.
    service: its address, and the arguments of pipeline.training and the ops,
      if its workers prepare the rows; see service_stream.py.
    longest: see `steps`.

  Raises:
    ValueError: the ops do not fit the examples, or, from the iterator, an
      example fails: one line that names it.
  """
  tf = import_tensorflow()
  known = ops_lib.traits_of(ops)
  in_python = [name for name, each in known.items() if each.in_python]
  if service and in_python:
    raise ValueError(
      f"the op {in_python[0]!r} runs in Python, which the workers of a data"
      " service cannot: leave out service, or prepare the files beforehand"
    )
  found = steps(examples, plan, ops, longest)
  skip = examples.tally.policy.skip
  if skip:
    local = bad_records_tf.stream(examples, plan, found)
  else:
    local = functools.partial(_strict, plan, found, ops, tf)
  if service is None:
    return found.parts.spec, local
  completed = bad_records_tf.completer(examples, plan, found) if skip else None
  address, settings = service
  seen = {"examples": examples.length, "tokens": content_of(examples)}
  settings = {**seen, **settings}
  distributed = service_stream.stream(
    address, settings, plan, found, completed, local
  )
  return found.parts.spec, distributed


def content_of(examples: Examples) -> str | None:
  """Returns a hash of the examples' tokenizer, or None without one."""
  if examples.tokenizer is None:
    return None
  return hashlib.sha256(examples.tokenizer.content).hexdigest()


def _strict(
  plan: Plan, found: Steps, ops: str, tf: Any, first_step: int
) -> Iterator[dict[str, np.ndarray]]:
  """Yields the real rows of each step; raises at the first bad one."""
  size = len(plan.rows(first_step)[0])
  mapped = found.parts.mapped(
    found.read, found.transform, found.signature, first_step
  )
  batched = mapped.batch(size).prefetch(2)
  iterator = bad_records_tf.iterator(batched, f"ops {ops!r}")
  step = first_step
  while True:
    try:
      batch = next(iterator, None)
    except tf.errors.OpError as error:
      try:
        for index, key in zip(*plan.rows(step), strict=True):
          found.parts.alone(int(index), int(key))  # Raises, naming the bad one.
      except ValueError as bad:
        raise ValueError(f"{bad}; {bad_records_tf.WAY_OUT}") from None
      raise ValueError(f"ops {ops!r}: {bad_records_tf.reason(error)}") from None
    if batch is None:
      return
    yield batch
    step += 1


def _mapped(
  plan: Plan,
  tf,
  read: Callable,
  transform: Callable,
  signature: dict,
  step: int,
):
  """Returns the dataset of transformed rows, one by one, from a step on.

  Args:
    plan: its `steps` is the number of steps.
    tf: TensorFlow.
    read: (step) -> {field: array [n, ...]}, with all fields of the signature.
    transform: tensors of one row -> tensors.
    signature: {field: TensorSpec of one row}.
    step: the first step.
  """
  types = [spec.dtype for spec in signature.values()]

  def leaves(step: np.ndarray) -> list[np.ndarray]:
    rows = read(int(step))
    return [rows[name] for name in signature]

  @tf.autograph.experimental.do_not_convert
  def tensors(step) -> dict:
    found = tf.numpy_function(leaves, [step], types, stateful=False)
    for leaf, spec in zip(found, signature.values(), strict=True):
      leaf.set_shape([None, *spec.shape])
    return dict(zip(signature, found, strict=True))

  steps = tf.data.Dataset.range(
    step, _ENDLESS if plan.steps is None else plan.steps
  )
  rows = steps.map(tensors, num_parallel_calls=2, deterministic=True)
  mapped = rows.unbatch().map(
    transform, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
  )
  return mapped.with_options(_options(tf))


def _readable(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns the fields that TensorFlow can hold.

  These are numbers, strings, and arrays of numbers of any length. TensorFlow
  crashes when it takes a batch of arrays without elements apart.
  """
  return {
    name: leaf
    for name, leaf in rows.items()
    if (leaf.dtype.kind in "biuf" and 0 not in leaf.shape[1:])
    or (leaf.dtype == object and isinstance(leaf[0], (str, bytes, np.ndarray)))
  }


def _read(
  examples: Examples,
  lengthy: dict[str, ragged.Ragged],
  partners: Sequence[Partner],
  indices: np.ndarray,
  keys: np.ndarray,
) -> dict[str, np.ndarray]:
  """Returns rows with the seed of each: (epoch's key, the example's index).

  If rows have partners, the partners' fields are included, each partner with a
  seed of the same key.
  """
  seeds = np.stack([keys.astype(np.int64), indices.astype(np.int64)], axis=1)
  rows = examples.read(indices)
  if examples.second is not None:
    rows = rows | examples.second.read(indices, keys)
  rows = {_SEED: seeds, **ragged.packed(rows, lengthy)}
  whole = dict(rows)
  for i, partner in enumerate(partners):
    others = _read(examples, lengthy, (), partner(indices, keys), keys)
    whole |= {_PARTNER.format(i) + name: v for name, v in others.items()}
  return whole


def _parted(row: dict, count: int) -> list:
  """Returns [example, its seed], followed by those of its partners, if any."""
  row, found = dict(row), []
  for i in range(count):
    prefix = _PARTNER.format(i)
    names = [name for name in row if name.startswith(prefix)]
    other = {name.removeprefix(prefix): row.pop(name) for name in names}
    found += [other, other.pop(_SEED)]
  return [row, row.pop(_SEED), *found]


def _holds_images(leaf: np.ndarray) -> bool:
  """Returns whether a field of the sample is an encoded image."""
  first = leaf[0] if leaf.dtype == object else None
  return isinstance(first, bytes) and image_size.is_image(first)


def _numbers(example: dict, encoded: set[str], tf) -> dict:
  """Returns the numeric fields, cast to the types that a batch has.

  Raises:
    ValueError: a field of `encoded` still has the bytes of images.
  """
  example = {k: v for k, v in example.items() if not k.startswith(PREFIX)}
  for name in sorted(encoded & set(example)):
    if example[name].dtype == tf.string:
      raise ValueError(
        f"the images of the field {name!r} are not decoded; add the op"
        " 'decode', or 'decode_mask' for the classes of pixels"
      )
  return {
    name: _narrowed(name, leaf, tf)
    for name, leaf in example.items()
    if leaf.dtype != tf.string
  }


def _narrowed(name: str, leaf, tf):
  """Returns a field in the type that a batch has; an error if it cannot."""
  kept = equal_fields.NARROW.get(leaf.dtype.name)
  if kept is None:
    return leaf
  if tf.executing_eagerly():  # The error is then part of a line.
    equal_fields.check_range(name, leaf.numpy())
  found = tf.cast(leaf, kept)
  if leaf.dtype.is_integer:
    held = tf.cast(found, leaf.dtype) == leaf
    what = "integers"
  else:
    held = tf.math.is_finite(found) | ~tf.math.is_finite(leaf)
    what = "numbers"
  said = f"the field {name!r} holds {what} beyond {kept.__name__}"
  held = tf.debugging.Assert(tf.reduce_all(held), [said])
  with tf.control_dependencies([] if held is None else [held]):
    return tf.identity(found)


def _spec(element_spec: dict, ops: str) -> Spec:
  if not element_spec:
    raise ValueError(f"ops {ops!r} leave no numeric field for a batch")
  for name, leaf in element_spec.items():
    if leaf.shape.rank is None or None in leaf.shape.as_list():
      shape = f"[{', '.join('?' if n is None else str(n) for n in leaf.shape)}]"
      raise ValueError(
        f"ops {ops!r} leave the field {name!r} with the shape {shape}, which"
        " differs between records; the op resize(…) gives images one shape,"
        f' pad(…, inkey="{name}") gives any field one, and keep(…) leaves'
        " fields out"
      )
  return {
    name: Leaf(tuple(leaf.shape.as_list()), np.dtype(leaf.dtype.as_numpy_dtype))
    for name, leaf in element_spec.items()
  }


def _options(tf):
  options = tf.data.Options()
  options.deterministic = True
  # Half of the cores; the others are left to XLA.
  cores = os.cpu_count() or 2
  options.threading.private_threadpool_size = max(2, cores // 2)
  return options


def _alone(
  read: Callable,
  name: Callable[[int], str],
  transform: Callable,
  signature: dict,
  tf,
  index,
  key,
) -> dict[str, np.ndarray]:
  """Applies the ops to one example eagerly; ValueError names it if it fails."""
  try:
    rows = read(np.array([index]), np.array([key], np.uint64))
    row = {k: tf.constant(rows[k][0], s.dtype) for k, s in signature.items()}
    return {name: leaf.numpy() for name, leaf in transform(row).items()}
  except Exception as error:  # Any error is due to this example.
    raise ValueError(
      bad_records.error_line(name(index), bad_records_tf.reason(error))
    ) from None
