"""Bad records: the run stops at the first one, or skips them.

A record is bad if it cannot be read, does not decode, has other fields, shapes
or types than the first one, or is larger than `max_record_bytes`. Under "stop"
the first one ends the run with a line that names it. Under "skip" its row of
the batch is left as padding: zeros, mask 0, index -1. So no other row moves, on
any host or after a resume; which rows are bad depends on the records alone.
"""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from input_pipeline import equal_fields

# This many bad records are always allowed, even among the first rows.
_HANDFUL = 5
# The number of names that are kept.
_FEW = 5
# The number of bad records whose lines are kept.
_MOST_LINES = 1000
# The number of records, spread over the data, one of which must be readable.
_TRIED = 1000
# The number of records that are read to find the types of the fields.
_TYPED = 50

# The field that marks the good rows in a batch with bad ones.
KEPT = "_kept"

Rows = dict[str, np.ndarray]
Read = Callable[[np.ndarray], Rows]


class Policy(NamedTuple):
  """How bad records are handled.

  skip: they are left out, instead of ending the run.
  max_bad_share: the largest share of bad records among those read so far.
  max_record_bytes: of a record or file, or of an image when it is decoded.
  labels: whether a record must have its label; False for a prediction.
  hollow: whether a sound without samples is no bad record, for checks that
    count them.
  """

  skip: bool = False
  max_bad_share: float = 0.01
  max_record_bytes: int = 2**28
  labels: bool = True
  hollow: bool = False


class Skipped(NamedTuple):
  """The records that this process has skipped so far.

  count: the number of skipped records; a record counts once in each epoch.
  read: the number of records read, including those; 0 under "stop".
  names: of the first few, each once.
  """

  count: int
  read: int
  names: tuple[str, ...]

  def __str__(self) -> str:
    more = ", …" if self.count > len(self.names) else ""
    return (
      f"{self.count:,} of {self.read:,} records skipped: "
      f"{', '.join(self.names)}{more}"
    )


def policy(
  on_bad_record: str = "stop",
  max_bad_share: float = 0.01,
  max_record_bytes: int = 2**28,
) -> Policy:
  """Returns the Policy of a config's keys.

  Raises:
    ValueError: a key has an invalid value.
  """
  if on_bad_record not in ("stop", "skip"):
    raise ValueError(f'on_bad_record {on_bad_record!r} is not "stop" or "skip"')
  number = isinstance(max_bad_share, (int, float))
  if not number or not 0 <= max_bad_share <= 1:
    raise ValueError(f"max_bad_share {max_bad_share!r} is not within 0 to 1")
  if not isinstance(max_record_bytes, int) or max_record_bytes < 1:
    raise ValueError(
      f"max_record_bytes {max_record_bytes!r} is not a positive integer"
    )
  return Policy(on_bad_record == "skip", max_bad_share, max_record_bytes)


def identify(policy: Policy) -> list:
  """Returns the part of the policy on which a cached file depends."""
  return ["skip", policy.max_record_bytes] if policy.skip else []


def check_size(size: int, name: str, policy: Policy, what: str = "") -> None:
  """Raises ValueError for a record larger than the policy's limit."""
  if size > policy.max_record_bytes:
    raise ValueError(
      f"{name}: {what}{size:,} bytes are more than "
      f"max_record_bytes={policy.max_record_bytes:,}"
    )


def error_line(name: str, reason: str) -> str:
  """Returns one line that names a record and says what is wrong with it."""
  reason = (reason.strip().splitlines() or ["bad"])[0]
  return reason if name in reason else f"{name}: {reason}"


class Tally:
  """Counts records read and skipped, from any thread; refuses too many."""

  def __init__(self, policy: Policy = Policy()):
    self.policy = policy
    self._lock = threading.Lock()
    self._skipped = Skipped(0, 0, ())
    self._first = ""
    self._said = False
    self._lines: list[str] = []

  def add(self, read: int, bad: Iterable[tuple[str, str]] = ()) -> None:
    """Counts records that were read, and (name, reason) of the bad ones.

    Raises:
      ValueError: too many are bad; it gives their number and names the first.
    """
    with self._lock:
      count, total, names = self._skipped
      for name, reason in bad:
        self._first = self._first or error_line(name, reason)
        if len(self._lines) < _MOST_LINES:
          self._lines.append(error_line(name, reason))
        count += 1
        if len(names) < _FEW and name not in names:
          names = (*names, name)
      self._skipped = Skipped(count, total + read, names)
    self._check()

  def load(self, skipped: Skipped, first: str) -> None:
    """Adds earlier counts; raises as `add` does."""
    with self._lock:
      count, read, names = self._skipped
      names = tuple(dict.fromkeys((*names, *skipped.names)))[:_FEW]
      self._skipped = Skipped(count + skipped.count, read + skipped.read, names)
      self._first = self._first or first
    self._check()

  def skipped(self) -> Skipped:
    """Returns the counts so far."""
    with self._lock:
      return self._skipped

  def first(self) -> str:
    """Returns the line that describes the first bad record, or ""."""
    with self._lock:
      return self._first

  def news(self, every: bool = False) -> str:
    """Returns that line on the first call after it is set; else "".

    With `every`, it returns a line for each bad record since the last call, of
    the first 1,000.
    """
    with self._lock:
      if every:
        lines, self._lines = self._lines, []
        return "\n".join(f"skipped {line}" for line in lines)
      new = self._first and not self._said
      self._said = self._said or bool(new)
      return f"skipped {self._first}" if new else ""

  def _check(self) -> None:
    count, read, names = self.skipped()
    share = self.policy.max_bad_share
    if count > max(_HANDFUL, share * read):
      few = "; ".join([self.first(), *names[1:]])
      raise ValueError(
        f"{count:,} of {read:,} records are bad, more than "
        f"max_bad_share={share:g}: {few}"
      )


def first_readable(examples: Any, policy: Policy) -> Rows:
  """Returns the first record, or under "skip" the first readable, [1, ...].

  Args:
    examples: anything with `length` and `read`.
    policy: under "skip" records throughout the data are tried.

  Raises:
    ValueError: there is none.
  """
  if not policy.skip:
    return examples.read(np.zeros(1, np.int64))
  first = None
  for place in spread(examples.length):
    try:
      return examples.read(np.array([place]))
    except ValueError as error:
      first = first or error
  raise ValueError(f"no record can be read: {first}") from None


def typed(examples: Any, policy: Policy) -> Rows:
  """Returns a record that has the fields and types of the others, [1, ...].

  It is the first readable one. Values that it lacks are those of other records;
  a field that most of the tried records lack is left out.
  """
  first = first_readable(examples, policy)
  if not any(map(equal_fields.lacks, first.values())):
    return first
  tried = [first]
  for place in spread(examples.length, _TYPED):
    with contextlib.suppress(ValueError):
      tried.append(examples.read(np.array([place])))
  found = {}
  for field in first:
    there = [
      rows[field] for rows in tried if not equal_fields.lacks(rows[field])
    ]
    if 2 * len(there) > len(tried):
      found[field] = there[0]
  return found


def spread(length: int, most: int = _TRIED) -> np.ndarray:
  """Returns the indices at which a readable record is sought, the first 0."""
  tried = min(length, most)
  return np.unique(np.linspace(0, length - 1, tried).astype(np.int64))


def surviving(
  read: Read, indices: np.ndarray
) -> tuple[Rows, np.ndarray, dict[int, str]]:
  """Reads some records, and returns those that can be read.

  Returns:
    rows: of those that can be read; {} if there are none.
    found: int64, their places among `indices`.
    errors: {place among `indices`: what is wrong} of the others.
  """
  try:
    return read(indices), np.arange(len(indices)), {}
  except ValueError:
    pass  # The error does not say which records are bad.
  parts, found, errors = [], [], {}
  for i in range(len(indices)):
    try:
      parts.append(read(indices[i : i + 1]))
      found.append(i)
    except ValueError as error:
      errors[i] = str(error)
  fields = parts[0] if parts else ()
  rows = {k: np.concatenate([part[k] for part in parts]) for k in fields}
  return rows, np.array(found, np.int64), errors


def padded(size: int, rows: Rows, found: np.ndarray, fields: dict) -> Rows:
  """Returns a batch's real rows, with zeros and mask 0 for the bad ones.

  Args:
    size: n, the number of good and bad rows together.
    rows: the good ones.
    found: int64, their places among the n.
    fields: {name: Leaf} of the batch.

  Returns:
    The fields [n, ...], and under KEPT a bool [n], True for the good ones.
  """
  kept = np.zeros(size, bool)
  kept[found] = True
  whole = {KEPT: kept, "mask": kept.astype(np.float32)}
  for name, leaf in fields.items():
    whole[name] = np.zeros((size, *leaf.shape), leaf.dtype)
    if len(found):
      whole[name][found] = rows[name]
  return whole


def reader(examples: Any, sample: Rows, fields: dict) -> Read:
  """Returns (indices) -> a batch's real rows, with padding for bad ones.

  Args:
    examples: with `length`, `read`, `name`, `planned` and `tally`.
    sample: a readable record, whose fields and types the others must have.
    fields: {name: Leaf} of the batch.
  """
  skip = examples.tally.policy.skip
  if examples.tokenizer is not None and not skip:
    return examples.read  # Tokens have one shape and type.
  wanted = {name: sample[name] for name in fields}
  examples = equal_fields.alike(examples, wanted, narrow=True)
  if not skip:
    return examples.read

  def read(indices: np.ndarray) -> Rows:
    rows, found, errors = surviving(examples.read, indices)
    bad = [(examples.name(int(indices[i])), e) for i, e in errors.items()]
    # The records of planned rows were counted when the rows were planned.
    examples.tally.add(0 if examples.planned else len(indices), bad)
    return padded(len(indices), rows, found, fields)

  return read


def telling(
  data: Any,
  first_step: int,
  say: Callable[[str], None],
  title: str = "",
  every: bool = False,
) -> Iterator[Rows]:
  """Yields the batches of a pipeline.Data, and reports skipped records.

  The first skipped records are reported at once, their total at the end. With
  `every`, each has a line of its own.
  """
  said = False
  # Kept until the report is printed: closing a tf.data stream can be slow.
  batches = data.batches(first_step)
  try:
    for batch in batches:
      news = data.news(every)
      if news:
        say(title + news)
        said = True
      yield batch
  finally:
    # Only the first pass of an evaluation reports; later ones skip the same.
    if said:
      say(title + str(data.skipped()))
