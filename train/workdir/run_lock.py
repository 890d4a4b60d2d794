"""The lock of a local workdir: refuses a second run and names the first.

A run holds WORKDIR/run.lock from its start to its end. It holds flock on the
file, which the kernel releases when the process ends. On some file systems
(FUSE, some NFS mounts) flock does not reach other hosts or is not supported.
Therefore the file also names its holder, who renews its modification time every
ten seconds: other hosts, and every process where flock is not supported,
respect a file renewed within the last minute. Reading a run takes no lock. For
workdirs in buckets see `bucket_lock`.
"""

import contextlib
import errno
import os
import pathlib
import stat
import threading
import time
from collections.abc import Iterator

from common import storage
from common.errors import UserError
from train.hosts import distributed
from train.workdir import lock_record
from train.workdir.lock_record import Holder

try:
  import fcntl
except ImportError:  # not on Windows
  fcntl = None

_BEAT = lock_record.BEAT
_FRESH = lock_record.FRESH
_MISSING = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK}
_NO_LINKS = _MISSING | {errno.EPERM, errno.EMLINK}
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_held: dict[
  str, "Lock"
] = {}  # locks of this process, by the real path of the workdir
_mutex = threading.Lock()


class Lock:
  """A workdir held by this process; `release` may be called twice."""

  def __init__(
    self, key: str, path: pathlib.Path, fd: int | None, token: str, made: bool
  ):
    """Starts to renew the lock.

    Args:
      key: the key in `_held`.
      path: the path of the file.
      fd: a descriptor that holds flock; None if flock is not supported.
      token: the token in the file, unique to this lock.
      made: whether `release` removes the folder if it is empty.
    """
    self.thread = threading.get_ident()
    self._key, self._path, self._fd, self._token = key, path, fd, token
    self._made, self._pid = made, os.getpid()
    self._over, self._writing = threading.Event(), threading.Lock()
    threading.Thread(target=self._beat, daemon=True).start()

  def release(self) -> None:
    """Releases the lock and removes its file."""
    if self._over.is_set() or os.getpid() != self._pid:
      return
    with self._writing:
      self._over.set()
      with contextlib.suppress(OSError):
        if self._ours():
          self._path.unlink()
      self.close()
    if self._made:
      with contextlib.suppress(OSError):  # the folder is not empty
        self._path.parent.rmdir()
    if _held.get(self._key) is self:
      del _held[self._key]

  def close(self) -> None:
    """Closes the file only, for use in a forked process."""
    if self._fd is not None:
      os.close(self._fd)
      self._fd = None

  def _ours(self) -> bool:
    if self._fd is not None:
      return _same_file(self._fd, self._path)
    found = _read(self._path)
    return found is not None and found.token == self._token

  def _beat(self) -> None:
    while not self._over.wait(_BEAT):
      with self._writing, contextlib.suppress(OSError):
        if not self._over.is_set() and self._ours():
          os.utime(self._path)


@contextlib.contextmanager
def claimed(workdir: str) -> Iterator[None]:
  """Locks `workdir` for the processes of one run inside this context.

  Process 0 takes the lock; the others wait until it has.

  Raises:
    UserError: another run holds it, or it cannot be written.
  """
  lock = hold(workdir) if distributed.first() else None
  try:
    distributed.wait_for_all("the workdir is claimed")
    yield
  finally:
    if lock is not None:
      lock.release()


def hold(workdir: str) -> Lock:
  """Locks `workdir`, creating the folder if needed.

  If this thread already holds the workdir, the old lock is released first,
  since the run that acquired it cannot be active any more.

  Raises:
    UserError: another run holds it, or it cannot be written, or its path has a
      scheme such as gs://.
  """
  storage.check_local("workdir", workdir)
  path = pathlib.Path(workdir)
  try:
    made = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    key = os.path.realpath(path)
    with _mutex:
      before = _held.get(key)
      if before is not None and before.thread == threading.get_ident():
        before.release()
        path.mkdir(parents=True, exist_ok=True)
      lock = _held[key] = _take(workdir, key, path / lock_record.NAME, made)
      return lock
  except FileExistsError as error:
    raise UserError(f"--workdir={workdir} is a file, not a folder") from error
  except OSError as error:
    where = f"{error.filename}: " if error.filename else ""
    raise UserError(
      f"--workdir={workdir} cannot be written: {where}{error.strerror or error}"
    ) from error


def _take(workdir: str, key: str, path: pathlib.Path, made: bool) -> Lock:
  me = lock_record.current()
  mine = path.with_name(f"{lock_record.NAME}.{me.token}")
  try:
    fd = os.open(mine, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, 0o644)
    try:
      _write(fd, me)
      # Uses the clock of the file system, since clocks of hosts differ.
      now, shuts = os.fstat(fd).st_mtime, _flock(fd) is not None
    finally:
      os.close(fd)
    take = _take_by_flock if shuts else _take_by_name
    held = take(workdir, path, mine, me, now)
  except BaseException:
    if made:
      with contextlib.suppress(OSError):
        mine.unlink()
        path.parent.rmdir()
    raise
  finally:
    with contextlib.suppress(OSError):
      mine.unlink()
  return Lock(key, path, held, me.token, made)


def _take_by_flock(workdir, path, mine, me: Holder, now: float) -> int:
  """Takes the lock by flock; returns the descriptor that holds it."""
  del mine
  while True:
    try:
      fd = os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o644)
    except OSError as error:
      if error.errno != errno.ELOOP:
        raise
      path.unlink()  # a symbolic link, which no run creates
      continue
    try:
      if _foreign(fd):
        path.unlink()
        os.close(fd)
        continue
      if not _flock(fd):
        raise lock_record.refusal(workdir, _named(path))
      if not _same_file(fd, path):  # just removed by its holder
        os.close(fd)
        continue
      other = _read(path, now)
      if (
        other
        and not lock_record.same_host(other, me)
        and abs(other.age) < _FRESH
      ):
        raise lock_record.refusal(workdir, other, expires=True)
      _write(fd, me)
      return fd
    except BaseException:
      os.close(fd)
      raise


def _take_by_name(workdir, path, mine, me: Holder, now: float) -> None:
  """Takes the lock where flock is not supported, by the age of the file."""
  while not _put(mine, path, me):
    other = _read(path, now)
    age = other.age if other else _age(path, now)
    if abs(age) < _FRESH and not (other and lock_record.is_dead(other, me)):
      near = other is not None and lock_record.same_host(other, me)
      raise lock_record.refusal(workdir, _named(path), expires=not near)
    old = path.with_name(f"{mine.name}.old")
    with contextlib.suppress(FileNotFoundError):  # another process was faster
      os.rename(path, old)
      moved = _read(old)
      if moved and (other is None or moved.token != other.token):
        os.rename(old, path)  # replaced by that of another process
      else:
        old.unlink()


def _put(mine: pathlib.Path, path: pathlib.Path, me: Holder) -> bool:
  """Creates the lock with this process's record; False if it exists."""
  try:
    os.link(mine, path)
    return True
  except FileExistsError:
    return False
  except OSError as error:
    if error.errno not in _NO_LINKS:
      raise
  try:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o644)
  except FileExistsError:
    return False
  try:
    _write(fd, me)
  finally:
    os.close(fd)
  return True


def _flock(fd: int) -> bool | None:
  """Returns whether flock was taken; None if it is not supported."""
  if fcntl is None:
    return None
  try:
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return True
  except (BlockingIOError, PermissionError):
    return False
  except OSError as error:
    if error.errno in _MISSING:
      return None
    raise


def _write(fd: int, me: Holder) -> None:
  os.ftruncate(fd, 0)
  os.pwrite(fd, lock_record.encode(me), 0)


def _read(path: pathlib.Path, now: float = 0.0) -> Holder | None:
  """Returns the holder that a file names; None if missing or damaged."""
  try:
    fd = os.open(path, os.O_RDONLY | _FLAGS | getattr(os, "O_NONBLOCK", 0))
  except OSError:
    return None
  try:
    content = os.read(fd, lock_record.MAX_BYTES)
    return lock_record.decode(content, now - os.fstat(fd).st_mtime)
  except OSError:
    return None
  finally:
    os.close(fd)


def _named(path: pathlib.Path) -> Holder | None:
  """Returns the holder; waits a second if it is still writing its record."""
  for _ in range(20):
    found = _read(path, time.time())
    if found is not None:
      return found
    time.sleep(0.05)
  return None


def _foreign(fd: int) -> bool:
  """Returns whether the file has other hard links, which no run creates."""
  found = os.fstat(fd)
  return stat.S_ISREG(found.st_mode) and found.st_nlink > 1


def _same_file(fd: int, path: pathlib.Path) -> bool:
  try:
    return os.path.samestat(os.fstat(fd), os.lstat(path))
  except FileNotFoundError:
    return False


def _age(path: pathlib.Path, now: float) -> float:
  try:
    return now - os.lstat(path).st_mtime
  except FileNotFoundError:
    return _FRESH


def _forked() -> None:
  """Drops all locks in a forked child, which would otherwise keep flock."""
  global _mutex
  _mutex = threading.Lock()
  for lock in _held.values():
    lock.close()
  _held.clear()


if hasattr(os, "register_at_fork"):
  os.register_at_fork(after_in_child=_forked)
