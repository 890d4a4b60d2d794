"""The stream of real rows through ops, by tf.data."""

import os
import re
from collections.abc import Callable, Iterator

import numpy as np

from input_pipeline import ops as ops_lib
from input_pipeline.pipeline import Examples, Plan, Spec

# Every training step lies below it.
_ENDLESS = 2**62
_SEED = "seed"


def stream(
  examples: Examples, plan: Plan, ops: str
) -> tuple[Spec, Callable[[int], Iterator[dict[str, np.ndarray]]]]:
  """The spec after ops, and (first_step) -> the real rows of each step.

  Steps without a real row on this host are passed over.

  Raises:
    ValueError: the ops do not fit the examples, or, from the iterator, an
      example fails: one line that names it.
  """
  tf = ops_lib.import_tensorflow()
  apply = ops_lib.compile(ops)
  sample = _readable(examples.read(np.zeros(1, np.int64)))
  signature = {
    name: tf.TensorSpec(
      leaf.shape[1:], tf.string if leaf.dtype == object else leaf.dtype
    )
    for name, leaf in sample.items()
  }

  @tf.autograph.experimental.do_not_convert
  def transform(example):
    example = dict(example)
    seed = example.pop(_SEED)
    return _numbers(apply(example, seed), tf)

  def mapped(first_step: int):
    last = _ENDLESS if plan.steps is None else plan.steps
    steps = tf.data.Dataset.range(first_step, last)
    read = _reader(examples, plan, signature, tf)
    rows = steps.map(read, num_parallel_calls=2, deterministic=True)
    return rows.unbatch().map(
      transform, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )

  spec = _spec(mapped(0).element_spec, ops)

  def rows(first_step: int) -> Iterator[dict[str, np.ndarray]]:
    size = len(plan.rows(first_step)[0])
    batches = mapped(first_step).batch(size).prefetch(2)
    iterator = batches.with_options(_options(tf)).as_numpy_iterator()
    step = first_step
    while True:
      try:
        batch = next(iterator, None)
      except tf.errors.OpError as error:
        _blame(examples, plan.rows(step), transform, signature, tf)
        raise ValueError(f"ops {ops!r}: {_reason(error)}") from None
      if batch is None:
        return
      yield batch
      step += 1

  return spec, rows


def _readable(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The fields that TensorFlow can hold: numbers and strings."""
  return {
    name: leaf
    for name, leaf in rows.items()
    if leaf.dtype.kind in "biuf"
    or (leaf.dtype == object and isinstance(leaf[0], (str, bytes)))
  }


def _seeds(indices: np.ndarray, keys: np.ndarray) -> np.ndarray:
  """An int64 [n, 2] from (seed, epoch) and the example's index."""
  return np.stack([keys.astype(np.int64), indices.astype(np.int64)], axis=1)


def _reader(examples: Examples, plan: Plan, signature: dict, tf) -> Callable:
  """(step) -> the step's real rows, as tensors."""

  def read(step: np.ndarray) -> list[np.ndarray]:
    indices, keys = plan.rows(int(step))
    rows = examples.read(indices)
    return [_seeds(indices, keys), *(rows[name] for name in signature)]

  types = [tf.int64, *(spec.dtype for spec in signature.values())]

  @tf.autograph.experimental.do_not_convert
  def read_tensors(step) -> dict:
    seeds, *leaves = tf.numpy_function(read, [step], types, stateful=False)
    seeds.set_shape([None, 2])
    for leaf, spec in zip(leaves, signature.values(), strict=True):
      leaf.set_shape([None, *spec.shape])
    return {_SEED: seeds, **dict(zip(signature, leaves, strict=True))}

  return read_tensors


def _numbers(example: dict, tf) -> dict:
  """The fields that form a batch, in the types of a batch."""
  narrow = {tf.int64: tf.int32, tf.uint64: tf.int32, tf.float64: tf.float32}
  if "image" in example and example["image"].dtype == tf.string:
    raise ValueError("the images are not decoded; add the op 'decode'")
  return {
    name: tf.cast(leaf, narrow.get(leaf.dtype, leaf.dtype))
    for name, leaf in example.items()
    if leaf.dtype != tf.string
  }


def _spec(element_spec: dict, ops: str) -> Spec:
  if not element_spec:
    raise ValueError(f"ops {ops!r} leave no number to make a batch of")
  for name, leaf in element_spec.items():
    if leaf.shape.rank is None or None in leaf.shape.as_list():
      raise ValueError(
        f"ops {ops!r} leave the size of {name!r} open, {leaf.shape}; "
        "add the op resize(...)"
      )
  return {
    name: (tuple(leaf.shape.as_list()), np.dtype(leaf.dtype.as_numpy_dtype))
    for name, leaf in element_spec.items()
  }


def _options(tf):
  options = tf.data.Options()
  options.deterministic = True
  # Half of the cores: XLA computes on the others.
  cores = os.cpu_count() or 2
  options.threading.private_threadpool_size = max(2, cores // 2)
  return options


def _reason(error: Exception) -> str:
  """What TensorFlow says, without the names of its nodes."""
  text = re.sub(r"\{\{.*?\}\}|\[Op:.*", "", getattr(error, "message", ""))
  lines = (text or str(error) or type(error).__name__).strip().splitlines()
  return lines[0].strip().rstrip(".")


def _blame(
  examples: Examples,
  rows: tuple[np.ndarray, np.ndarray],
  transform: Callable,
  signature: dict,
  tf,
) -> None:
  """Runs a batch example by example; ValueError names the first that fails."""
  for index, key in zip(*rows, strict=True):
    one = np.array([index])
    try:
      example = examples.read(one)
      tensors = {
        k: tf.constant(example[k][0], s.dtype) for k, s in signature.items()
      }
      seed = tf.constant(_seeds(one, np.array([key]))[0])
      transform({**tensors, _SEED: seed})
    except Exception as error:  # Whatever it is, it is this example's.
      where = examples.name(int(index))
      reason = _reason(error)
      line = reason if where in reason else f"{where}: {reason}"
      raise ValueError(line) from None
