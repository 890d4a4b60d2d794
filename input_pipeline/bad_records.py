"""Records that cannot be used: the run stops, or goes on without them.

A record is bad when it cannot be read, does not decode, is unlike the first
one, or is larger than `max_record_bytes`. Under "stop" the first one that is
met ends the run with a line that names it. Under "skip" its row of the batch
is left as padding: zeros, mask 0, index -1. So no other row moves, on any host
or after a resume; which rows are bad depends on the records alone.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

# So few bad records are never too many, whatever share of the first rows.
_HANDFUL = 5
# How many names are kept.
_FEW = 5
# Of how many records, spread over the data, one must be readable.
_TRIED = 1000

# Beside the fields of a batch with bad rows: which ones are not.
KEPT = "_kept"

Rows = dict[str, np.ndarray]
Read = Callable[[np.ndarray], Rows]


class Policy(NamedTuple):
  """What becomes of bad records.

  skip: they are left out, rather than ending the run.
  max_bad_share: of the records read so far; more of them are refused.
  max_record_bytes: of a record or file, or of an image when it is decoded.
  """

  skip: bool = False
  max_bad_share: float = 0.01
  max_record_bytes: int = 2**28


class Skipped(NamedTuple):
  """What this process has skipped so far.

  count: records that were skipped; one counts in each epoch anew.
  read: records that were read, those included; 0 under "stop".
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
  """The Policy of a config's keys.

  Raises:
    ValueError: a key has no such value.
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
  """What a cached file that was made under the policy depends on."""
  return ["skip", policy.max_record_bytes] if policy.skip else []


def check_size(size: int, name: str, policy: Policy, what: str = "") -> None:
  """Raises ValueError for a record that is larger than the policy's limit."""
  if size > policy.max_record_bytes:
    raise ValueError(
      f"{name}: {what}{size:,} bytes are more than "
      f"max_record_bytes={policy.max_record_bytes:,}"
    )


def told(name: str, reason: str) -> str:
  """One line that names a record and says what is wrong with it."""
  reason = (reason.strip().splitlines() or ["bad"])[0]
  return reason if name in reason else f"{name}: {reason}"


class Tally:
  """Counts what is read and skipped, from any thread, and refuses too much."""

  def __init__(self, policy: Policy = Policy()):
    self.policy = policy
    self._lock = threading.Lock()
    self._skipped = Skipped(0, 0, ())
    self._first = ""
    self._said = False

  def add(self, read: int, bad: Iterable[tuple[str, str]] = ()) -> None:
    """Counts records that were read, and (name, reason) of the bad ones.

    Raises:
      ValueError: too many are bad; it tells how many, and names the first.
    """
    with self._lock:
      count, total, names = self._skipped
      for name, reason in bad:
        self._first = self._first or told(name, reason)
        count += 1
        if len(names) < _FEW and name not in names:
          names = (*names, name)
      self._skipped = Skipped(count, total + read, names)
    self._check()

  def load(self, skipped: Skipped, first: str) -> None:
    """Adds what was counted at another time; raises as `add` does."""
    with self._lock:
      count, read, names = self._skipped
      names = tuple(dict.fromkeys((*names, *skipped.names)))[:_FEW]
      self._skipped = Skipped(count + skipped.count, read + skipped.read, names)
      self._first = self._first or first
    self._check()

  def skipped(self) -> Skipped:
    """What has been counted so far."""
    with self._lock:
      return self._skipped

  def first(self) -> str:
    """The line that tells of the first bad record, or ""."""
    with self._lock:
      return self._first

  def news(self) -> str:
    """That line, at the first call that finds it; else ""."""
    with self._lock:
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
  """The first record alone, [1, ...]; under "skip", the first readable one.

  Args:
    examples: anything with `length` and `read`.
    policy: under "skip" records all over the data are tried.

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


def spread(length: int) -> np.ndarray:
  """The places at which a readable record is looked for, the first one 0."""
  tried = min(length, _TRIED)
  return np.unique(np.linspace(0, length - 1, tried).astype(np.int64))


def alike(examples: Any, sample: Rows) -> Any:
  """The examples, read with the fields, shapes and types of a sample.

  Args:
    examples: a NamedTuple with `read` and `name`.
    sample: one record; its fields alone are kept.

  Returns:
    The same, whose `read` raises ValueError for the record that lacks a field,
    has another shape or type, or holds a number that is not finite.
  """

  def read(indices: np.ndarray) -> Rows:
    indices = np.asarray(indices, np.int64)
    if not len(indices):
      return {
        k: np.zeros((0, *v.shape[1:]), v.dtype) for k, v in sample.items()
      }
    rows = examples.read(indices)
    try:
      return {k: _like(k, rows, like) for k, like in sample.items()}
    except ValueError as error:
      if len(indices) > 1:
        for i in range(len(indices)):
          read(indices[i : i + 1])
      name = examples.name(int(indices[0]))
      raise ValueError(f"{name}: {error}") from None

  return examples._replace(read=read)


def _like(field: str, rows: Rows, like: np.ndarray) -> np.ndarray:
  if field not in rows:
    raise ValueError(f"no field {field!r}")
  leaf = rows[field]
  if like.dtype == object:
    kind = type(like[0])
    if not all(isinstance(value, kind) for value in leaf):
      raise ValueError(f"the field {field!r} is not {kind.__name__}")
    return leaf
  if leaf.dtype == object or leaf.shape[1:] != like.shape[1:]:
    raise ValueError(
      f"the field {field!r} is not of the first record's shape "
      f"{like.shape[1:]} and type {like.dtype}"
    )
  if not np.can_cast(leaf.dtype, like.dtype, "safe"):
    raise ValueError(f"the field {field!r} is {leaf.dtype}, not {like.dtype}")
  if leaf.dtype.kind == "f":
    with np.errstate(over="ignore"):
      finite = np.isfinite(leaf.astype(np.float32, copy=False)).all()
    if not finite:
      raise ValueError(f"the field {field!r} is not finite in float32")
  return leaf.astype(like.dtype, copy=False)


def surviving(
  read: Read, indices: np.ndarray
) -> tuple[Rows, np.ndarray, dict[int, str]]:
  """What can be read of some records.

  Returns:
    rows: of those that can be read; {} where none can.
    found: int64, their places among `indices`.
    errors: {place among `indices`: what is wrong} of the others.
  """
  try:
    return read(indices), np.arange(len(indices)), {}
  except ValueError:
    pass  # It does not tell how many they are.
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
  """A batch's real rows, zeros and mask 0 where one is bad.

  Args:
    size: n, of the good and the bad together.
    rows: the good ones.
    found: int64, their places among the n.
    fields: {name: (shape, dtype)} of the batch.

  Returns:
    The fields [n, ...], and under KEPT a bool [n] that tells the good ones.
  """
  kept = np.zeros(size, bool)
  kept[found] = True
  whole = {KEPT: kept, "mask": kept.astype(np.float32)}
  for name, (shape, dtype) in fields.items():
    whole[name] = np.zeros((size, *shape), dtype)
    if len(found):
      whole[name][found] = rows[name]
  return whole


def reader(examples: Any, sample: Rows, fields: dict) -> Read:
  """(indices) -> a batch's real rows, with padding for the bad ones.

  Args:
    examples: with `length`, `read`, `name`, `tokenizer` and `tally`.
    sample: one readable record, that the others must be like.
    fields: {name: (shape, dtype)} of the batch.
  """
  if examples.tokenizer is not None:
    return examples.read  # Bad documents have left no tokens.
  examples = alike(examples, {name: sample[name] for name in fields})
  if not examples.tally.policy.skip:
    return examples.read

  def read(indices: np.ndarray) -> Rows:
    rows, found, errors = surviving(examples.read, indices)
    bad = [(examples.name(int(indices[i])), e) for i, e in errors.items()]
    examples.tally.add(len(indices), bad)
    return padded(len(indices), rows, found, fields)

  return read


def telling(
  data: Any, first_step: int, say: Callable[[str], None], title: str = ""
) -> Iterator[Rows]:
  """The batches of a pipeline.Data; it says what is skipped, at last in sum."""
  said = False
  # Held until all is said: ending a stream of tf.data can take its time.
  batches = data.batches(first_step)
  try:
    for batch in batches:
      news = data.news()
      if news:
        say(title + news)
        said = True
      yield batch
  finally:
    # The first pass of an evaluation tells; the later ones skip the same.
    if said:
      say(title + str(data.skipped()))
