"""A second source, whose records are mixed into those of the first.

Noise and room responses are such sources. An op finds the fields of the second
record in its example, under names that begin with "second/"; they leave the
example with the last op. Which record an example gets is a function of its
index and its epoch's key alone: the same on every host and after a resume.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from common.names import nearest
from input_pipeline import bad_records, equal_fields
from input_pipeline import ops as ops_lib
from input_pipeline.bad_records import Policy, Rows
from input_pipeline.batching import partners
from input_pipeline.ops.parts.second import PREFIX
from input_pipeline.sources import open_source

_KEYS = ("source", "split", "ops")
# Makes these draws independent of those of partners.
_APART = 0x2545F4914F6CDD1D
# Of the seed, so that its ops draw apart from those of the first source.
_FOLD = 2**20


class Second(NamedTuple):
  """A second source.

  read: (indices, keys) -> the records that the first source's examples of these
    indices get, {"second/FIELD": array [n, ...]}; ValueError for a bad one.
  sample: one record, [1, ...], with these names.
  ragged: how many axes of its ragged fields differ; see sources.Source.
  ops: applied to the record before those of the example, or "".
  """

  read: Callable[[np.ndarray, np.ndarray], Rows]
  sample: Rows
  ragged: Mapping[str, int]
  ops: str


def with_second(
  examples: Any, settings: Mapping[str, Any] | None, ops: str, training: bool
) -> Any:
  """Returns the examples with the second source of a config.

  Args:
    examples: examples.Examples.
    settings: as `opened` takes them, or None.
    ops: of the examples. If none of them takes a second record, that is an
      error in training, and an evaluation reads none.
    training: whether this is training.

  Raises:
    ValueError: the settings are wrong, or exactly one of the settings and an op
      that takes a second record is missing.
  """
  takes = [n for n, t in ops_lib.traits_of(ops).items() if t.takes_second]
  if settings is None:
    if takes:
      raise ValueError(
        f"the op {takes[0]!r} mixes a second source into the examples: set"
        " data.second=dict(source=URI)"
      )
    return examples
  if takes:
    second = opened(settings, examples.tally.policy)
    return examples._replace(second=second)
  if training:
    raise ValueError(f"second is set, but none of the ops {ops!r} reads it")
  return examples


def opened(settings: Mapping[str, Any], policy: Policy) -> Second:
  """Returns the second source of a config.

  Args:
    settings: dict(source=URI, split="train", ops=""); all records of the split
      are equally likely.
    policy: of the run, for bad records.

  Raises:
    ValueError: the settings are wrong; one line that names the key.
  """
  if not isinstance(settings, Mapping) or not settings.get("source"):
    raise ValueError(f"second={settings!r} is not a dict with a source")
  for key in settings:
    if key not in _KEYS:
      raise ValueError(
        f"second.{key}: unknown{nearest(key, _KEYS)}"
        f" (valid: {', '.join(_KEYS)})"
      )
    if not isinstance(settings[key], str):
      raise ValueError(f"second.{key}={settings[key]!r} is not a string")
  split, ops = settings.get("split", "train"), settings.get("ops", "")
  source = open_source(settings["source"], split, policy)
  sample = bad_records.typed(source, policy)
  uniform = [field for field in source.uniform if field in sample]
  free = ops_lib.unsettled(ops, uniform)
  ragged = source.ragged
  source = equal_fields.alike(source, sample, uniform=free, ragged=ragged)
  draw = partners.drawer([source.length], np.ones(1, np.int64), _APART)

  def read(indices: np.ndarray, keys: np.ndarray) -> Rows:
    # There may be few of them, and long ones: each is read once.
    which, back = np.unique(draw(indices, keys), return_inverse=True)
    found = source.read(which)
    return _named({name: leaf[back] for name, leaf in found.items()})

  return Second(read, _named(sample), _named(ragged), ops)


def _named(fields: Mapping[str, Any]) -> dict[str, Any]:
  return {PREFIX + name: leaf for name, leaf in fields.items()}


def transformer(second: Second | None, tf: Any) -> Callable:
  """Returns (example, seed) -> example, its second record after its ops."""
  if second is None or not second.ops:
    return lambda example, seed: example
  apply = ops_lib.compile(second.ops)
  if ops_lib.mixes(second.ops):
    raise ValueError(
      f"second.ops={second.ops!r} mix records, which have no partner"
    )

  def transform(example: dict, seed: Any) -> dict:
    own = {k: v for k, v in example.items() if not k.startswith(PREFIX)}
    other = {
      k.removeprefix(PREFIX): v for k, v in example.items() if k not in own
    }
    folded = tf.random.experimental.stateless_fold_in(seed, _FOLD)
    return own | _named(apply(other, folded))

  return transform
