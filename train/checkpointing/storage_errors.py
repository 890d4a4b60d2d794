"""Reports errors of the storage libraries once, in one line.

TensorStore's errors quote every layer down to the file. Orbax raises them, logs
them with tracebacks from each of its threads, and leaves coroutines behind that
fail later without being awaited.
"""

import asyncio
import contextlib
import gc
import logging
import re
import threading
import warnings
from collections.abc import Coroutine, Iterator
from typing import Any

from common.errors import UserError

_MAX_REASON = 200
_PATIENCE = 60.0  # seconds to wait for concurrent operations


def one_line(error: BaseException, where: str) -> str:
  """Formats an error as "FILE: reason"; `where` replaces a missing FILE."""
  # Orbax wraps errors that name a file in others that do not.
  while "local file" not in str(error) and error.__cause__:
    error = error.__cause__
  if isinstance(error, OSError) and error.strerror:
    return f"{error.filename or where}: {error.strerror}"
  text = " ".join(str(error).split())
  if not isinstance(error, (ValueError, OSError)):  # such as KeyError: 'shape'
    text = f"{type(error).__name__}: {text}"
  # The text in brackets is for debugging the library.
  text = re.split(r" \[[a-z_ ]+(\[\d+\])?[=:]", text)[0]
  code, _, _ = text.partition(":")
  files = list(re.finditer(r'local file "([^"]*)"', text))
  if not files:
    return f"{where}: {text[:_MAX_REASON]}"
  reason = text[files[-1].end() :].lstrip(": ")
  # An error of writing also names the temporary file.
  reason = re.sub(r'[^:"]*: "[^"]*": ', "", reason)
  return f"{files[-1][1].rstrip('/')}: {reason[:_MAX_REASON] or code}"


@contextlib.contextmanager
def as_os_errors(manager: Any, where: str) -> Iterator[None]:
  """Turns errors of a save inside this context into one-line OSErrors.

  When the error is raised, all work of that save has ended, and none of its
  errors remains to be raised by the next save.
  """
  try:
    yield
  except UserError:
    raise
  except Exception as error:  # TensorStore's are ValueErrors
    _finish(manager)
    raise OSError(one_line(error, where)) from error


def _finish(manager) -> None:
  """Waits for all work that a failed save has started.

  Orbax stops waiting at the first error and raises the other errors in later
  calls.
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
  """Silences logs of errors that are also raised, unless --verbosity=0."""
  logging.getLogger("absl").addFilter(_is_not_raised)
  logging.getLogger("asyncio").addFilter(_is_not_of_orbax)
  with contextlib.suppress(
    ImportError
  ):  # private, and may differ in another release
    from orbax.checkpoint._src import asyncio_utils

    asyncio_utils._run_sync_via_new_loop = _run_to_the_end


@contextlib.contextmanager
def hushed() -> Iterator[None]:
  """In this context, also silences warnings of coroutines that never ran."""
  hush()
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)
    yield


def collect() -> None:
  """Collects the coroutines of a failed read, without their warnings.

  Those that never ran would otherwise warn at some later time.
  """
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)
    gc.collect()


def _is_not_raised(record: logging.LogRecord) -> bool:
  """Returns whether to log a record; False for errors that are also raised."""
  verbose = logging.getLogger("absl").isEnabledFor(logging.INFO)
  return verbose or not (record.exc_info and "orbax" in record.pathname)


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
  """As `_is_not_raised`, of tasks that failed beside the one that is raised."""
  verbose = logging.getLogger("absl").isEnabledFor(logging.INFO)
  return verbose or "orbax" not in record.getMessage()


def _run_to_the_end(coroutine: Coroutine[Any, Any, Any]) -> Any:
  """Runs a coroutine; if it fails, waits for all tasks that it has started.

  Orbax's own function closes the loop at once. Tasks of other arrays, which may
  still be in progress, then print an error each to stderr.
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
