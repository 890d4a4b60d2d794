"""What the storage libraries say of files that fail, told once, in a line.

TensorStore's errors quote every layer down to the file. Orbax raises them, logs
them with tracebacks from each of its threads, and leaves coroutines behind that
fail when nobody waits for them any more.
"""

import asyncio
import contextlib
import logging
import re
import threading
import warnings
from collections.abc import Coroutine, Iterator
from typing import Any

from common.errors import UserError

_MAX_REASON = 200
_PATIENCE = 60.0  # seconds for what was begun beside what has failed


def one_line(error: BaseException, where: str) -> str:
  """An error as "FILE: reason"; of `where`, if it names no file."""
  # Orbax wraps what names a file in what names none.
  while "local file" not in str(error) and error.__cause__:
    error = error.__cause__
  if isinstance(error, OSError) and error.strerror:
    return f"{error.filename or where}: {error.strerror}"
  text = " ".join(str(error).split())
  if not isinstance(error, (ValueError, OSError)):  # such as KeyError: 'shape'
    text = f"{type(error).__name__}: {text}"
  # What follows in brackets is for those who debug the library.
  text = re.split(r" \[[a-z_ ]+(\[\d+\])?[=:]", text)[0]
  code, _, _ = text.partition(":")
  files = list(re.finditer(r'local file "([^"]*)"', text))
  if not files:
    return f"{where}: {text[:_MAX_REASON]}"
  reason = text[files[-1].end() :].lstrip(": ")
  # Writers go on to name the file that they write first, and then rename.
  reason = re.sub(r'[^:"]*: "[^"]*": ', "", reason)
  return f"{files[-1][1].rstrip('/')}: {reason[:_MAX_REASON] or code}"


@contextlib.contextmanager
def as_os_errors(manager: Any, where: str) -> Iterator[None]:
  """Inside, an error of a save becomes an OSError of one line.

  By then nothing of that save goes on, nor is left for the next one to raise.
  """
  try:
    yield
  except UserError:
    raise
  except Exception as error:  # TensorStore's are ValueErrors
    _finish(manager)
    raise OSError(one_line(error, where)) from error


def _finish(manager) -> None:
  """Waits for all that a failed save has begun.

  Orbax stops to wait at the first error, and raises the others, each once, out
  of whatever comes next.
  """
  for thread in threading.enumerate():
    if type(thread).__module__.startswith("orbax."):
      with contextlib.suppress(Exception):
        thread.join(_PATIENCE)
  for _ in range(100):
    with contextlib.suppress(Exception):
      manager._checkpointer.wait_until_finished()
      return


def hush() -> None:
  """Leaves of an error what is raised; --verbosity=0 shows the logs as well."""
  logging.getLogger("absl").addFilter(_is_not_raised)
  with contextlib.suppress(ImportError):  # private: another release may differ
    from orbax.checkpoint._src import asyncio_utils

    asyncio_utils._run_sync_via_new_loop = _run_to_the_end


@contextlib.contextmanager
def hushed() -> Iterator[None]:
  """Inside, also no warnings of coroutines that fail before they begin."""
  hush()
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)
    yield


def _is_not_raised(record: logging.LogRecord) -> bool:
  """False for Orbax's own log of an exception, which it raises as well."""
  verbose = logging.getLogger("absl").isEnabledFor(logging.INFO)
  return verbose or not (record.exc_info and "orbax" in record.pathname)


def _run_to_the_end(coroutine: Coroutine[Any, Any, Any]) -> Any:
  """What `coroutine` returns; if it fails, once all that it has begun is over.

  Orbax's own closes the loop at once. Then the other arrays of a state, some of
  them still being read or written, complain on stderr, each for itself.
  """
  loop = asyncio.new_event_loop()
  asyncio.set_event_loop(loop)
  try:
    return loop.run_until_complete(coroutine)
  except BaseException:
    while left := asyncio.all_tasks(loop):
      rest = asyncio.gather(*left, return_exceptions=True)
      with contextlib.suppress(TimeoutError):
        loop.run_until_complete(asyncio.wait_for(rest, _PATIENCE))
    raise
  finally:
    asyncio.set_event_loop(None)
    loop.close()
