"""The lock of a workdir in a bucket: an object that its holder keeps renewing.

WORKDIR/run.lock holds the same record as the file of `run_lock`. Its holder
writes it anew every ten seconds. A run that finds a record renewed within the
last minute, by the clock of the bucket, is refused. An older record, or one of
a process on this host that has ended, is removed and replaced.

Two runs may find the same old record at once. Both replace it, wait a moment
and read it again; the one whose record is no longer there is refused. This is
not a guarantee: a run that pauses for longer than that moment between reading
the old record and writing its own overwrites the record of a run that has
started in the meantime. The other run detects this when it next reads the
record, every ten seconds and before each copy to the bucket, and then stops
with an error. Until then both runs may have written complete objects.
"""

import contextlib
import threading
import time

from common import storage
from common.errors import BucketError, UserError
from train.workdir import lock_record
from train.workdir.lock_record import Holder

_BEAT = lock_record.BEAT
_SETTLE = 2.0  # seconds from writing the record to reading it again
_TRIES = 10


class Lock:
  """The lock of a folder in a bucket, held by this process."""

  def __init__(self, url: str, me: Holder):
    """Starts to renew the record, which contains `me`."""
    self._url, self._me = url, me
    self._path = f"{url}/{lock_record.NAME}"
    self._lost: Holder | None = None
    self._over, self._writing = threading.Event(), threading.Lock()
    threading.Thread(target=self._beat, daemon=True).start()

  def check(self) -> None:
    """Raises BucketError if another run has taken over the workdir."""
    other = self._lost
    if other is None:
      other, _ = _read(self._path)
      if other is not None and other.token == self._me.token:
        return
    if other is None:  # removed, but not held by another run
      with self._writing:
        storage.write(self._path, lock_record.encode(self._me))
      return
    self._lost = other
    raise BucketError(
      f"{self._url} was taken over by process {other.pid} on host {other.host}"
    )

  def release(self) -> None:
    """Removes the record, if it is still this process's."""
    self._over.set()
    with self._writing, contextlib.suppress(OSError):
      other, _ = _read(self._path)
      if other is not None and other.token == self._me.token:
        storage.remove(self._path)

  def _beat(self) -> None:
    while not self._over.wait(_BEAT):
      # A run does not stop if the bucket is temporarily unreachable.
      with self._writing, contextlib.suppress(OSError):
        if self._over.is_set() or self._lost:
          return
        other, _ = _read(self._path)
        if other is None or other.token == self._me.token:
          storage.write(self._path, lock_record.encode(self._me))
        else:
          self._lost = other


def hold(url: str) -> Lock:
  """Locks a folder in a bucket.

  Raises:
    UserError: another run holds it.
    BucketError: the bucket cannot be read or written.
  """
  me = lock_record.current()
  path = f"{url}/{lock_record.NAME}"
  for _ in range(_TRIES):
    if storage.create(path, lock_record.encode(me)):
      break
    now = _now(f"{path}.{me.token}", me)
    other, written = _read(path)
    if written is None:
      continue  # it has just been removed
    is_dead = other is not None and lock_record.is_dead(other, me)
    if abs(now - written) < lock_record.FRESH and not is_dead:
      raise lock_record.refusal(url, other, expires=True)
    storage.remove(path)
  else:
    raise UserError(f"{url}: other runs keep taking its lock; try again")
  time.sleep(_SETTLE)
  other, _ = _read(path)
  if other is None or other.token != me.token:
    raise lock_record.refusal(url, other, expires=True)
  return Lock(url, me)


def _read(path: str) -> tuple[Holder | None, float | None]:
  """Returns (holder, time of the record), both None if there is no record."""
  try:
    content = storage.read(path, lock_record.MAX_BYTES)
    written = storage.modified(path)
  except FileNotFoundError:
    return None, None
  if written is None:  # the bucket has no times: use the holder's clock
    written = lock_record.renewed(content)
  return lock_record.decode(content, 0.0), written


def _now(probe: str, me: Holder) -> float:
  """Returns the time of the bucket's clock, from a newly written object."""
  storage.write(probe, lock_record.encode(me))
  try:
    found = storage.modified(probe)
  finally:
    storage.remove(probe)
  return time.time() if found is None else found
