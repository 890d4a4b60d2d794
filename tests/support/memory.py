"""Memory of a test worker: given back when a test no longer needs it."""

import contextlib
import ctypes
import gc
import os
import pathlib

import jax

# Megabytes that a worker holds before it forgets, and how many more it may hold
# than it did after it last forgot.
_MOST, _MORE = 1500, 300
_KEPT = [0]


def held() -> int:
  """Returns the megabytes that this process holds; 0 where it is not known."""
  with contextlib.suppress(OSError, ValueError):
    pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") // 2**20
  return 0


def forget_if_large() -> None:
  """Forgets if the worker has grown large within a file of tests."""
  if held() > max(_MOST, _KEPT[0] + _MORE):
    forget()
    _KEPT[0] = held()


def forget() -> None:
  """Drops compiled programs and arrays, and returns freed memory.

  A worker that keeps every program it has compiled grows to gigabytes.
  """
  jax.clear_caches()
  gc.collect()
  with contextlib.suppress(AttributeError, OSError):  # glibc alone has it
    ctypes.CDLL(None).malloc_trim(0)
