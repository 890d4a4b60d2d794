"""Workdirs in buckets: local folders that are synchronized with a bucket.

Each context manager here yields local paths unchanged, so callers need not
distinguish the two kinds of paths.
"""

import contextlib
import hashlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator

import jax

from common import files, mirror, storage
from common.errors import SaveError, UserError
from train.hosts import distributed
from train.workdir import bucket_lock


@contextlib.contextmanager
def writing(workdir: str, say: Callable[[str], None] = print) -> Iterator[str]:
  """Yields a local folder for a run whose workdir may be in a bucket.

  This locks the folder in the bucket and copies its contents to the local
  folder. Local changes are copied back every few seconds, around each save, and
  at the end.

  Args:
    workdir: a local path, or one such as gs://BUCKET/RUN.
    say: (line) -> None; called when a copy in the background fails.

  Raises:
    UserError: the scheme is not supported, the bucket cannot be reached,
      another run holds the workdir, or this run has several processes.
    SaveError: the last changes cannot be copied to the bucket.
  """
  if not storage.scheme(workdir):
    yield workdir
    return
  url = _checked("--workdir", workdir)
  if jax.process_count() > 1:
    raise UserError(
      f"--workdir={workdir}: a run of several processes needs a folder that all"
      " of them share; mount the bucket (gcsfuse, s3fs-fuse) and give its path"
    )
  with _as_user_errors("--workdir", url):
    lock = bucket_lock.hold(url)
  local = _own_folder(url)
  copy = mirror.Mirror(url, local, lock.check, say)
  try:
    with _as_user_errors("--workdir", url):
      copy.pull(sweep=True)
    copy.start()
    with _named():
      try:
        yield str(local)
      except BaseException:
        with contextlib.suppress(SaveError):
          _push_the_rest(copy, say)
        raise
    _push_the_rest(copy, say)
  finally:
    copy.close()
    lock.release()
    shutil.rmtree(local, ignore_errors=True)


@contextlib.contextmanager
def reading(workdir: str, outputs: bool = False) -> Iterator[str]:
  """Yields a local folder to read a run from, which may be in a bucket.

  Args:
    workdir: a local path, or one such as gs://BUCKET/RUN.
    outputs: whether files written to the folder are copied to the bucket.

  Raises:
    UserError: the scheme is not supported, or the bucket cannot be reached.
  """
  if not storage.scheme(workdir):
    yield workdir
    return
  url = _checked("workdir", workdir)
  with tempfile.TemporaryDirectory(prefix="tessera-") as folder:
    local = pathlib.Path(folder).resolve() / pathlib.PurePosixPath(url).name
    local.mkdir()
    copy = mirror.Mirror(url, local)
    try:
      with _as_user_errors("workdir", url):
        copy.pull()
      with _named():
        yield str(local)
      if outputs and distributed.first():
        with _as_user_errors("workdir", url):
          copy.push()
    finally:
      copy.close()


@contextlib.contextmanager
def creating(where: str, path: str) -> Iterator[str]:
  """Yields a path for a new folder, which is copied to the bucket at the end.

  Args:
    where: the flag that gives it, such as "--to".
    path: a local path, or one such as gs://BUCKET/FOLDER.

  Raises:
    UserError: the scheme is not supported, the bucket cannot be reached, or it
      already has objects below that path.
  """
  if not storage.scheme(path):
    yield path
    return
  url = _checked(where, path)
  with _as_user_errors(where, url):
    if storage.listing(url):
      raise UserError(f"{url} is in use: it is not empty")
  with tempfile.TemporaryDirectory(prefix="tessera-") as folder:
    local = pathlib.Path(folder).resolve() / pathlib.PurePosixPath(url).name
    copy = mirror.Mirror(url, local)
    try:
      with _named():
        yield str(local)
      with _as_user_errors(where, url):
        copy.push()
    finally:
      copy.close()


def _checked(where: str, path: str) -> str:
  storage.check(where, path)
  return path.rstrip("/")


@contextlib.contextmanager
def _as_user_errors(where: str, url: str) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    text = str(error)
    text = text if url in text else f"{url}: {text}"
    raise UserError(f"{where}: {text}") from error


@contextlib.contextmanager
def _named() -> Iterator[None]:
  """Replaces local folders in errors raised inside by those of the bucket."""
  try:
    yield
  except Exception as error:
    error.args = tuple(
      mirror.named(arg) if isinstance(arg, str) else arg for arg in error.args
    )
    raise


def _push_the_rest(copy: mirror.Mirror, say) -> None:
  """Copies the last changes; keeps the folder if this fails."""
  try:
    copy.push()
  except BaseException as error:  # including Ctrl-C
    kept = copy.local.with_name(f"{copy.local.name}-not-copied")
    shutil.rmtree(kept, ignore_errors=True)
    os.replace(copy.local, kept)
    reason = str(error) or type(error).__name__
    line = (
      f"{reason}; files that could not be copied to the bucket are in {kept}"
    )
    say(line)
    if not isinstance(error, OSError):
      raise
    raise SaveError(line) from error


def _own_folder(url: str) -> pathlib.Path:
  """Returns an empty folder of this process in the cache.

  Folders of killed processes are removed.
  """
  root = pathlib.Path(files.cache_folder()).absolute() / "workdirs"
  digest = hashlib.sha256(url.encode()).hexdigest()[:16]
  for old in root.glob(f"{digest}-*"):
    if not _runs(old.name.rpartition("-")[2]):
      shutil.rmtree(old, ignore_errors=True)
  local = root / f"{digest}-{os.getpid()}"
  shutil.rmtree(local, ignore_errors=True)
  local.mkdir(parents=True)
  return local.resolve()


def _runs(pid: str) -> bool:
  if not pid.isdigit() or os.name == "nt":
    return True
  try:
    os.kill(int(pid), 0)
  except ProcessLookupError:
    return False
  except (OSError, OverflowError):
    return True
  return True
