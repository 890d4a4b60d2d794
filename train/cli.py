"""What every entrypoint shares: flags, one-line errors, JAX's start."""

import contextlib
import ctypes
import errno
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from train.errors import (
  CorruptionError,
  HostError,
  Preempted,
  SaveError,
  UserError,
)

__all__ = [
  "UserError",
  "config_stem",
  "define_config",
  "define_hosts",
  "hosts",
  "run",
  "start_jax",
]


# Errors whose message is all that there is to say.
_TOLD = (UserError, HostError, SaveError, CorruptionError, FloatingPointError)

# What writing meets where there is no room, or no leave.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def define_config() -> None:
  """--config=FILE[:arg] and --config.key=value."""
  config_flags.DEFINE_config_file(
    "config",
    None,
    "The experiment, e.g. configs/lm_stdlib.py, or configs/lm_stdlib.py:smoke "
    "for a tiny one. --config.KEY=VALUE overrides one value.",
    lock_config=False,
    accept_new_attributes=True,
  )


def define_hosts() -> None:
  """The flags of a run of many processes; see train/distributed.py."""
  flags.DEFINE_string(
    "coordinator",
    None,
    "HOST:PORT of process 0, where a run is spread over many. On a TPU VM and "
    "in a Slurm step this and the two below are found.",
  )
  flags.DEFINE_integer("num_processes", None, "How many processes.", 1)
  flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.", 0)
  flags.DEFINE_float(
    "wait_for_hosts",
    300,
    "Seconds until a process that has not appeared ends the others.",
    1,
  )
  flags.DEFINE_float(
    "host_timeout",
    60,
    "Seconds of silence after which a process counts as lost and ends the "
    "others; one that dies is noticed at once.",
    1,
  )
  flags.DEFINE_float(
    "stall_timeout",
    1800,
    "Seconds without a step of any process, counted from the first one on, "
    "after which all end; 0 is never. An evaluation, a save and a compilation "
    "must each take less, also where one follows another.",
    0,
  )


@contextlib.contextmanager
def hosts() -> Iterator[Any]:
  """Inside, this process is one of those that the flags tell of.

  Yields:
    The watch.Watch over them.
  """
  from train import distributed

  values = flags.FLAGS
  place = distributed.find(
    values.coordinator,
    values.num_processes,
    values.process_id,
    values.wait_for_hosts,
  )
  wait, timeout = values.wait_for_hosts, values.host_timeout
  stall = values.stall_timeout
  with distributed.session(place, wait, timeout, tell, stall) as watcher:
    yield watcher


def config_stem() -> str:
  """The config's file name without its ending."""
  flag = flags.FLAGS["config"]
  path = getattr(flag, "config_filename", None) or "run"
  return os.path.splitext(os.path.basename(path))[0]


def cache_dir() -> str:
  """Where compiled programs and token files are kept between runs."""
  default = os.path.join(os.path.expanduser("~"), ".cache", "tessera")
  return os.environ.get("TESSERA_CACHE", default)


def start_jax() -> None:
  """Settings of every run: compiled programs are kept, ranks must match."""
  _keep_freed_memory()
  import jax

  jax.config.update("jax_numpy_rank_promotion", "raise")
  jax.config.update(
    "jax_compilation_cache_dir", os.path.join(cache_dir(), "xla")
  )
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _keep_freed_memory() -> None:
  """Tells glibc to keep what is freed, in one arena, for the next step.

  By default the buffers of every step on a CPU go back to the kernel, to be
  mapped and zeroed again: a third of the time of a small model's step.
  """
  if not sys.platform.startswith("linux"):
    return
  trim_threshold, top_pad, mmap_max, arena_max = -1, -2, -4, -8
  libc = ctypes.CDLL(None)
  if not hasattr(libc, "mallopt"):  # musl has none
    return
  libc.mallopt(mmap_max, 0)
  libc.mallopt(trim_threshold, 2**31 - 1)
  libc.mallopt(top_pad, 64 * 2**20)
  libc.mallopt(arena_max, 1)


def run(main: Callable) -> int:
  """Runs `main`; what a user can mend becomes one line and exit code 2."""
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  warnings.filterwarnings("ignore", category=DeprecationWarning)
  try:
    app.run(main, flags_parser=_parse)
  except (*_TOLD, Preempted, KeyboardInterrupt) as error:
    return tell(error)
  return 0


def tell(error: BaseException) -> int:
  """Prints an error, in one line where it is known; returns the exit code."""
  sys.stdout.flush()
  if isinstance(error, Preempted):
    print(error, file=sys.stderr)
    return error.code
  if isinstance(error, KeyboardInterrupt):
    error, code = (
      "interrupted; the same command goes on from the last save",
      130,
    )
  elif isinstance(error, _TOLD):
    code = getattr(error, "code", 1)
  elif isinstance(error, OSError) and error.errno in _NO_ROOM:
    where = f"{error.filename}: " if error.filename else ""
    error, code = f"{where}{error.strerror}", SaveError.code
  else:
    traceback.print_exception(error)
    return 1
  print(f"error: {error}", file=sys.stderr)
  return code


def _parse(argv):
  """Absl's parser, every complaint of which becomes a UserError."""
  try:
    left = flags.FLAGS(argv)
    if "config" in flags.FLAGS:
      hasattr(flags.FLAGS.config, "task")  # a missing file is told on access
  except OSError as error:
    path = getattr(error, "filename", None) or _given(argv, "--config=")
    raise UserError(f"--config={path}: there is no such file") from error
  except Exception as error:  # a config file may raise anything
    raise UserError(_one_line(argv, error)) from error
  if not flags.FLAGS["verbosity"].present:
    # Libraries tell every step of a save; --verbosity=0 shows it.
    logging.set_verbosity(logging.WARNING)
  return left


def _given(argv, start: str) -> str:
  """What follows `start` on the command line, or ""."""
  return next((a[len(start) :] for a in argv if a.startswith(start)), "")


def _one_line(argv, error: Exception) -> str:
  text = str(error.args[0] if isinstance(error, KeyError) else error)
  typo = re.search(r'Did you mean "(.*?)" instead of "(.*?)"', text)
  if typo:
    right, wrong = typo.groups()
    path = next((a for a in argv if re.search(rf"\.{wrong}\b", a)), wrong)
    return f'{path.split("=")[0]}: unknown {wrong!r}; did you mean "{right}"?'
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  # A traceback begins with what was parsed and ends with what went wrong.
  return lines[0] if len(lines) == 1 else f"{lines[0]} {lines[-1]}"
