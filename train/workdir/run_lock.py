"""One run a workdir: a second one is refused, and told of the first.

WORKDIR/run.lock is there while a run is. Its holder has flock on it, which the
kernel gives back at any death of the process. Flock may reach no further than
one host (FUSE, some mounts of NFS) or be missing (then OSError), so the file
also tells who holds it, and its time is renewed every ten seconds: another
host, and every process where flock is missing, honours a file renewed in the
last minute. Those who only read a run take no lock.
"""

import contextlib
import datetime
import errno
import json
import os
import pathlib
import socket
import stat
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

from common.errors import UserError
from train.hosts import distributed

try:
  import fcntl
except ImportError:  # Windows has none
  fcntl = None

_NAME = "run.lock"
_BEAT = 10.0
_FRESH = 60.0
_MISSING = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK}
_NO_LINKS = _MISSING | {errno.EPERM, errno.EMLINK}
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_held: dict[str, "Lock"] = {}  # of this process, by the workdir's real path
_mutex = threading.Lock()


class _Holder(NamedTuple):
  """What the file tells. `age`: seconds since it was renewed."""

  host: str
  boot: str
  pids: str
  pid: int
  started: float
  token: str
  age: float = 0.0


class Lock:
  """A workdir that is held; `release` may be called twice."""

  def __init__(
    self, key: str, path: pathlib.Path, fd: int | None, token: str, made: bool
  ):
    """`fd`: has flock, or None; `made`: the folder goes with the lock."""
    self.thread = threading.get_ident()
    self._key, self._path, self._fd, self._token = key, path, fd, token
    self._made, self._pid = made, os.getpid()
    self._over, self._writing = threading.Event(), threading.Lock()
    threading.Thread(target=self._beat, daemon=True).start()

  def release(self) -> None:
    """Lets another run have the workdir; leaves no file."""
    if self._over.is_set() or os.getpid() != self._pid:
      return
    with self._writing:
      self._over.set()
      with contextlib.suppress(OSError):
        if self._ours():
          self._path.unlink()
      self.close()
    if self._made:
      with contextlib.suppress(OSError):  # a run has left something in it
        self._path.parent.rmdir()
    if _held.get(self._key) is self:
      del _held[self._key]

  def close(self) -> None:
    """Closes the file alone, as a forked process must."""
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
  """Inside, the processes of one run have `workdir` to themselves.

  Process 0 holds it; the others wait until it does.

  Raises:
    UserError: another run has it; or it cannot be written.
  """
  lock = hold(workdir) if distributed.first() else None
  try:
    distributed.wait_for_all("the workdir is claimed")
    yield
  finally:
    if lock is not None:
      lock.release()


def hold(workdir: str) -> Lock:
  """Takes `workdir`, which is made where it is missing.

  A thread that holds it already gives it up by asking again: the run that it
  built before cannot be going on.

  Raises:
    UserError: another run has it; or it cannot be written.
  """
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
      lock = _held[key] = _take(workdir, key, path / _NAME, made)
      return lock
  except FileExistsError as error:
    raise UserError(f"--workdir={workdir} is a file, not a folder") from error
  except OSError as error:
    where = f"{error.filename}: " if error.filename else ""
    raise UserError(
      f"--workdir={workdir} cannot be written: {where}{error.strerror or error}"
    ) from error


def _take(workdir: str, key: str, path: pathlib.Path, made: bool) -> Lock:
  me = _Holder(
    host=socket.gethostname(),
    boot=_told("/proc/sys/kernel/random/boot_id"),
    pids=_namespace(),
    pid=os.getpid(),
    started=time.time(),
    token=uuid.uuid4().hex,
  )
  mine = path.with_name(f"{_NAME}.{me.token}")
  try:
    fd = os.open(mine, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, 0o644)
    try:
      _write(fd, me)
      # The file system's own clock: those of two hosts differ.
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


def _take_by_flock(workdir, path, mine, me: _Holder, now: float) -> int:
  """The file descriptor that has flock."""
  del mine
  while True:
    try:
      fd = os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o644)
    except OSError as error:
      if error.errno != errno.ELOOP:
        raise
      path.unlink()  # a symbolic link: no run made it
      continue
    try:
      if _foreign(fd):
        path.unlink()
        os.close(fd)
        continue
      if not _flock(fd):
        raise _refusal(workdir, _named(path))
      if not _same_file(fd, path):  # its holder has just gone, with the file
        os.close(fd)
        continue
      other = _read(path, now)
      if other and not _same_host(other, me) and abs(other.age) < _FRESH:
        raise _refusal(workdir, other, waits=True)
      _write(fd, me)
      return fd
    except BaseException:
      os.close(fd)
      raise


def _take_by_name(workdir, path, mine, me: _Holder, now: float) -> None:
  """Where flock is missing: whose file it is, and how fresh."""
  while not _put(mine, path, me):
    other = _read(path, now)
    age = other.age if other else _age(path, now)
    if abs(age) < _FRESH and not (other and _dead(other, me)):
      near = other is not None and _same_host(other, me)
      raise _refusal(workdir, _named(path), waits=not near)
    old = path.with_name(f"{mine.name}.old")
    with contextlib.suppress(FileNotFoundError):  # another was faster
      os.rename(path, old)
      moved = _read(old)
      if moved and (other is None or moved.token != other.token):
        os.rename(old, path)  # another had put its own there meanwhile
      else:
        old.unlink()


def _put(mine: pathlib.Path, path: pathlib.Path, me: _Holder) -> bool:
  """Gives the lock this process's record; False where there is one."""
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
  """Whether it was free; None where there is no flock."""
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


def _write(fd: int, me: _Holder) -> None:
  os.ftruncate(fd, 0)
  fields = {k: v for k, v in me._asdict().items() if k != "age"}
  os.pwrite(fd, json.dumps(fields).encode() + b"\n", 0)


def _read(path: pathlib.Path, now: float = 0.0) -> _Holder | None:
  """What the file tells, or None where it is missing or no such record."""
  try:
    fd = os.open(path, os.O_RDONLY | _FLAGS | getattr(os, "O_NONBLOCK", 0))
  except OSError:
    return None
  try:
    found: Any = json.loads(os.read(fd, 4096))
    kinds = (str, str, str, int, float, str)
    fields = [found[name] for name in _Holder._fields[:-1]]
    right = all(map(isinstance, fields, kinds)) and 0 < fields[3] < 2**31
    return _Holder(*fields, now - os.fstat(fd).st_mtime) if right else None
  except (OSError, ValueError, KeyError, TypeError, RecursionError):
    return None
  finally:
    os.close(fd)


def _named(path: pathlib.Path) -> _Holder | None:
  """The holder; one that has just taken it is given time to write."""
  for _ in range(20):
    found = _read(path, time.time())
    if found is not None:
      return found
    time.sleep(0.05)
  return None


def _refusal(workdir, other: _Holder | None, waits: bool = False) -> UserError:
  who, since = "another process", ""
  if other is not None:
    try:
      when = datetime.datetime.fromtimestamp(other.started)
      since = f", started {when:%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError, OSError):
      pass
    host = "".join(c for c in other.host if c.isprintable())[:80]
    who = f"process {other.pid} on host {host}"
  hint = ""
  if waits:
    hint = f" (if it was killed, wait until {_FRESH:.0f} s after)"
  return UserError(
    f"{workdir} is in use: {who}{since}; stop it, or take another --workdir"
    f"{hint}"
  )


def _foreign(fd: int) -> bool:
  """Whether it has another name too: no run made it, writing would reach it."""
  found = os.fstat(fd)
  return stat.S_ISREG(found.st_mode) and found.st_nlink > 1


def _same_file(fd: int, path: pathlib.Path) -> bool:
  try:
    return os.path.samestat(os.fstat(fd), os.lstat(path))
  except FileNotFoundError:
    return False


def _same_host(other: _Holder, me: _Holder) -> bool:
  """A container's name changes with every start: the kernel's does not."""
  return other.host == me.host or (me.boot != "" and other.boot == me.boot)


def _dead(other: _Holder, me: _Holder) -> bool:
  """Whether it is known to be gone; other hosts' processes are not seen."""
  if not _same_host(other, me) or other.pids != me.pids or fcntl is None:
    return False
  try:
    os.kill(other.pid, 0)
  except ProcessLookupError:
    return True
  except OSError:
    return False
  return False


def _age(path: pathlib.Path, now: float) -> float:
  try:
    return now - os.lstat(path).st_mtime
  except FileNotFoundError:
    return _FRESH


def _told(path: str) -> str:
  try:
    return pathlib.Path(path).read_text().strip()
  except OSError:
    return ""


def _namespace() -> str:
  """Of process ids: in two containers one number is two processes."""
  try:
    return os.readlink("/proc/self/ns/pid")
  except OSError:
    return ""


def _forked() -> None:
  """A child holds nothing: else it would outlive the run and its lock."""
  global _mutex
  _mutex = threading.Lock()
  for lock in _held.values():
    lock.close()
  _held.clear()


if hasattr(os, "register_at_fork"):
  os.register_at_fork(after_in_child=_forked)
