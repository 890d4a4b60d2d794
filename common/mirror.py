"""Mirrors: local folders that are kept in sync with folders in buckets.

A run works in the local folder as in any other. Its files are copied to the
bucket as whole objects, in an order that keeps the bucket consistent:

  Small files are copied before the checkpoints that were complete when copying
  began. Everything that a run wrote before it saved step k is thus in the
  bucket before the checkpoint of step k.

  The file that lists the finished evaluations is read first and copied last,
  after the metrics.jsonl that contains their results.

  `_CHECKPOINT_METADATA` is the last object of a checkpoint to be copied and the
  first to be removed. A checkpoint without it is unfinished and is never read.

Arrays of checkpoints, and the frozen arrays that they share, are copied from
the bucket when they are first needed.
Other code refers to a mirror by the path of a file in it; `fetch` and `push` do
nothing for paths outside of mirrors.
"""

import contextlib
import os
import pathlib
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from common import storage

_LAST = "_CHECKPOINT_METADATA"
_CHECKPOINT = re.compile(r"checkpoints/([0-9]+)/(.+)")
# Temporary names of files that are not complete, and the lock.
_PASSING = re.compile(
  r"(^|/)run\.lock|\.tmp$|\.partial$|\.orbax-checkpoint-tmp"
)
# Files that do not change once they are there.
_CONSTANT = "frozen/"
# The only subfolders, besides checkpoints, that a resumed run needs.
_NEEDED = ("hugging_face",)
_PERIOD = 15.0  # seconds between copies in the background
_RATE = 1e6  # limit in bytes/s of copying growing files again
_RECORD = "evaluated.json"
_AT_ONCE = 8  # objects

_mirrors: dict[str, "Mirror"] = {}


def _of(path: str | os.PathLike) -> "tuple[Mirror, str] | None":
  """Returns (the mirror that contains a path, its name there), or None."""
  path = os.path.abspath(os.fspath(path))
  for local, mirror in list(_mirrors.items()):
    if path == local or path.startswith(local + os.sep):
      return mirror, path[len(local) + 1 :].replace(os.sep, "/")
  return None


def fetch(path: str | os.PathLike) -> None:
  """Copies the objects below `path` from the bucket if they are not here.

  Raises:
    BucketError: the bucket cannot be read.
  """
  found = _of(path)
  if found:
    found[0].fetch(found[1])


def push(path: str | os.PathLike) -> None:
  """Copies the mirror of `path` to the bucket now; BucketError if it fails."""
  found = _of(path)
  if found:
    found[0].push()


def named(text: str | os.PathLike) -> str:
  """Replaces paths of mirrors in a text by those of their buckets."""
  text = os.fspath(text)
  for local, mirror in list(_mirrors.items()):
    text = text.replace(local, mirror.url)
  return text


class Mirror:
  """A local folder and the folder in a bucket that it mirrors."""

  def __init__(
    self,
    url: str,
    local: str | os.PathLike,
    check: Callable[[], None] = lambda: None,
    say: Callable[[str], None] = lambda line: None,
  ):
    """Copies nothing yet.

    Args:
      url: the URL of the folder in the bucket.
      local: an empty folder.
      check: raises BucketError if this process may no longer write there.
      say: (line) -> None; called when a copy in the background fails.
    """
    self.url, self.local = url.rstrip("/"), pathlib.Path(local).absolute()
    self._check, self._say = check, say
    # name -> (size, mtime_ns) of the file that was last copied.
    self._same: dict[str, tuple[int, int]] = {}
    self._absent: set[str] = set()  # in the bucket, but not local
    self._copied: dict[str, float] = {}  # name -> when it was last written
    self._mutex = threading.RLock()
    self._over = threading.Event()
    self._thread: threading.Thread | None = None
    self._failed = False
    _mirrors[str(self.local)] = self

  def pull(self, sweep: bool = False) -> None:
    """Copies the files that every reader of a run needs from the bucket.

    Args:
      sweep: removes unfinished objects of a killed process from the bucket;
        only for the process that writes there.

    Raises:
      BucketError: the bucket cannot be read.
    """
    with self._mutex:
      there = storage.listing(self.url)
      steps = {m[1] for m in map(_CHECKPOINT.fullmatch, there) if m}
      whole = {s for s in steps if f"checkpoints/{s}/{_LAST}" in there}
      now, litter = [], []
      for name in there:
        step = _CHECKPOINT.fullmatch(name)
        if _PASSING.search(name) or (step and step[1] not in whole):
          if "run.lock" not in name:
            litter.append(name)
        elif step:
          later = step[2].startswith("state/")
          self._absent.add(name) if later else now.append(name)
        elif "/" not in name or name.split("/")[0] in _NEEDED:
          later = name.startswith("events.out.")
          self._absent.add(name) if later else now.append(name)
        else:
          self._absent.add(name)
      self._download(now)
      for name in self._absent:  # so that the folder is listed
        if name.startswith(("checkpoints/", "damaged/")):
          (self.local / name).parent.mkdir(parents=True, exist_ok=True)
      for step in whole:
        self._date(f"checkpoints/{step}")
      if sweep:
        self._remove(litter)

  def _date(self, folder: str) -> None:
    """Sets the time of a local checkpoint to that at which it was uploaded."""
    with contextlib.suppress(OSError):
      saved = storage.modified(f"{self.url}/{folder}/{_LAST}")
      if saved is not None:
        os.utime(self.local / folder, (saved, saved))

  def fetch(self, name: str) -> None:
    """Copies the objects below `name` that do not exist locally."""
    with self._mutex:
      below = name.rstrip("/") + "/"
      self._download(
        [n for n in self._absent if n == name or n.startswith(below)]
      )

  def push(self) -> None:
    """Copies changed files to the bucket, and removes deleted ones there.

    Raises:
      BucketError: the bucket cannot be written, or another run has taken it
        over.
    """
    with self._mutex:
      self._check()
      # Listed first: see the head of this file.
      steps = self._steps()
      self._upload_files(list(self._files()))
      for step in steps:
        self._upload_checkpoint(step)
      self._remove(self._gone())

  def start(self) -> None:
    """Copies to the bucket every few seconds, in a thread, until `close`."""
    self._thread = threading.Thread(target=self._run, daemon=True)
    self._thread.start()

  def close(self) -> None:
    """Stops the thread; nothing is copied afterwards."""
    self._over.set()
    if self._thread is not None:
      self._thread.join()
    _mirrors.pop(str(self.local), None)

  def _run(self) -> None:
    while not self._over.wait(_PERIOD):
      try:
        with self._mutex:
          self._check()
          steps = self._steps()
          names = list(self._files())
          if not self._is_changed(_RECORD):
            names = [n for n in names if self._is_due(n)]
          self._upload_files(names)
          for step in filter(self._is_new, steps):
            self._upload_files(list(self._files()))  # all that came before it
            self._upload_checkpoint(step)
        self._failed = False
      except OSError as error:  # errors of the bucket or the local disk
        if not self._failed:
          self._say(f"could not copy to the bucket, will try again: {error}")
        self._failed = True

  def _is_due(self, name: str) -> bool:
    """Returns whether a growing file may be copied again."""
    with contextlib.suppress(FileNotFoundError):
      size = (self.local / name).stat().st_size
      return time.monotonic() - self._copied.get(name, 0.0) > size / _RATE
    return False

  def _steps(self) -> list[str]:
    """Returns the steps of the complete local checkpoints."""
    folder = self.local / "checkpoints"
    if not folder.is_dir():
      return []
    return sorted(
      (p.name for p in folder.iterdir() if re.fullmatch("[0-9]+", p.name)),
      key=int,
    )

  def _files(self) -> Iterator[str]:
    """Returns the names of all local files except those of checkpoints."""
    for at, folders, names in os.walk(self.local):
      base = os.path.relpath(at, self.local).replace(os.sep, "/")
      base = "" if base == "." else f"{base}/"
      if not base and "checkpoints" in folders:
        folders.remove("checkpoints")
      for name in names:
        if not _PASSING.search(f"{base}{name}"):
          yield f"{base}{name}"

  def _upload_files(self, names: list[str]) -> None:
    """Copies the current contents of files, which may be growing."""
    names = [n for n in sorted(names) if n != _RECORD]
    record = self._frozen(_RECORD)
    try:
      for name in names:
        if name.startswith(_CONSTANT):  # large, and complete from the start
          if self._is_changed(name):
            self._upload_array(name)
          continue
        frozen = self._frozen(name)
        if frozen:
          self._upload_frozen(name, *frozen)
      if record:
        self._upload_frozen(_RECORD, *record)
    finally:
      if record:
        record[0].unlink(missing_ok=True)

  def _is_changed(self, name: str) -> bool:
    """Returns whether a local file differs from that in the bucket."""
    try:
      stat = (self.local / name).stat()
    except FileNotFoundError:
      return False
    return self._same.get(name) != (stat.st_size, stat.st_mtime_ns)

  def _frozen(self, name: str) -> tuple[pathlib.Path, tuple[int, int]] | None:
    """Returns (a copy, its size and time) of a changed file, else None."""
    if not self._is_changed(name):
      return None
    path = self.local / name
    copy = path.with_name(f"{path.name[:100]}.upload.tmp")
    try:
      stat = path.stat()
      shutil.copyfile(path, copy)
    except FileNotFoundError:
      return None  # it has been removed
    return copy, (stat.st_size, stat.st_mtime_ns)

  def _upload_frozen(self, name, copy: pathlib.Path, facts) -> None:
    try:
      storage.upload(copy, f"{self.url}/{name}")
    finally:
      copy.unlink(missing_ok=True)
    self._same[name] = facts
    self._absent.discard(name)
    self._copied[name] = time.monotonic()

  def _upload_checkpoint(self, step: str) -> None:
    """Copies a checkpoint, whose files no longer change, if it is new."""
    if not self._is_new(step):
      return
    prefix = f"checkpoints/{step}/"
    folder, last = self.local / prefix, f"{prefix}{_LAST}"
    names = {
      f"{prefix}{p.relative_to(folder).as_posix()}"
      for p in folder.rglob("*")
      if p.is_file()
    }
    # A run that rolled back has removed it and saved it again.
    there = [n for n in {*self._same, *self._absent} if n.startswith(prefix)]
    before = [n for n in there if n == last or n not in names]
    self._remove(sorted(before, key=lambda name: name != last))
    rest = [n for n in names if n != last and self._is_changed(n)]
    try:
      with ThreadPoolExecutor(_AT_ONCE) as threads:
        list(threads.map(self._upload_array, rest))
      self._upload_array(last)
    except FileNotFoundError:
      if folder.is_dir():  # otherwise it has been removed in the meantime
        raise

  def _is_new(self, step: str) -> bool:
    """Returns whether a local checkpoint differs from that in the bucket."""
    return self._is_changed(f"checkpoints/{step}/{_LAST}")

  def _upload_array(self, name: str) -> None:
    stat = (self.local / name).stat()
    storage.upload(self.local / name, f"{self.url}/{name}")
    self._same[name] = (stat.st_size, stat.st_mtime_ns)

  def _gone(self) -> list[str]:
    """Returns the objects without a local file, in order of removal."""
    steps = {
      m[1]
      for m in map(_CHECKPOINT.fullmatch, [*self._same, *self._absent])
      if m and not (self.local / "checkpoints" / m[1]).is_dir()
    }
    found = []
    for name in [*self._same, *self._absent]:
      step = _CHECKPOINT.fullmatch(name)
      if step:
        gone = step[1] in steps
      else:
        gone = name in self._same and not (self.local / name).exists()
      if gone:
        found.append(name)
    return sorted(found, key=lambda name: not name.endswith(_LAST))

  def _download(self, names: list[str]) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as threads:
      list(threads.map(self._download_one, names))

  def _download_one(self, name: str) -> None:
    path = self.local / name
    storage.download(f"{self.url}/{name}", path)
    stat = path.stat()
    self._same[name] = (stat.st_size, stat.st_mtime_ns)
    self._absent.discard(name)

  def _remove(self, names: list[str]) -> None:
    for name in names:
      storage.remove(f"{self.url}/{name}")
      self._same.pop(name, None)
      self._absent.discard(name)
