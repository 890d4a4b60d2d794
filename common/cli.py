"""What every entrypoint shares: flags, one-line errors, JAX's start."""

import ctypes
import errno
import importlib.util
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable

from absl import app, flags, logging
from ml_collections import config_flags

from common import files, names
from common.errors import (
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
  "define_step",
  "run",
  "start_jax",
]


# Errors whose message is all that there is to say.
_TOLD = (UserError, HostError, SaveError, CorruptionError, FloatingPointError)
# What writing meets where there is no room, no leave or no disk.
_NO_ROOM = (
  errno.ENOSPC,
  errno.EDQUOT,
  errno.EFBIG,
  errno.EROFS,
  errno.EACCES,
  errno.EPERM,
  errno.EIO,
  errno.ESTALE,
)


def define_config() -> None:
  """--config=FILE[:arg] and --config.key=value."""
  config_flags.DEFINE_config_file(
    "config",
    None,
    "The experiment: a file such as configs/language/lm_stdlib.py, or its "
    "name, lm_stdlib. With :smoke behind it, the same experiment made tiny. "
    "--config.KEY=VALUE overrides one value.",
    lock_config=False,
    accept_new_attributes=True,
  )


class _StepParser(flags.ArgumentParser):
  """A whole number, or "best"."""

  def parse(self, argument):
    """An int or "best"; ValueError for anything else."""
    if argument == "best" or isinstance(argument, int):
      return argument
    if not re.fullmatch(r"\d{1,18}", argument):
      raise ValueError("expected the step of a checkpoint, or best")
    return int(argument)


def define_step() -> None:
  """--step=N or --step=best: which checkpoint of a workdir is read."""
  flags.DEFINE(
    _StepParser(),
    "step",
    None,
    "Which checkpoint to read: its step; or best, the one that "
    "config.checkpoint.keep_best has kept. Default: the last one.",
  )


def config_stem() -> str:
  """The config's file name without its ending."""
  flag = flags.FLAGS["config"]
  path = getattr(flag, "config_filename", None) or "run"
  return os.path.splitext(os.path.basename(path))[0]


def start_jax() -> None:
  """Settings of every run: compiled programs are kept, ranks must match.

  JAX's own environment variables for the folder and for the shortest
  compilation that is kept come first.
  """
  _keep_freed_memory()
  import jax

  jax.config.update("jax_numpy_rank_promotion", "raise")
  if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    folder = os.path.join(files.cache_folder(), "xla")
    jax.config.update("jax_compilation_cache_dir", folder)
  if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
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
  sys.unraisablehook = _unless_late
  try:
    app.run(main, flags_parser=_parse)
  except (*_TOLD, Preempted, KeyboardInterrupt) as error:
    return tell(error)
  except OSError as error:
    if error.errno not in _NO_ROOM:
      raise
    return tell(error)
  return 0


def _unless_late(unraisable) -> None:
  """The usual hook, but for what comes after a read that has failed.

  When one array of a checkpoint cannot be read, Orbax ends its event loop, and
  the readers of the others print that they cannot reach it.
  """
  if str(unraisable.exc_value) != "Event loop is closed":
    sys.__unraisablehook__(unraisable)


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
  print(f"error: {printable(str(error).strip())}", file=sys.stderr)
  return code


def printable(text: str) -> str:
  """One line: a file may have put newlines or a terminal's commands into it."""
  return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _parse(argv):
  """Absl's parser, every complaint of which becomes a UserError."""
  argv = [_config_found(a) if a.startswith("--config=") else a for a in argv]
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


def _config_found(flag: str) -> str:
  """--config=NAME[:arg] as --config=FILE[:arg], for a NAME of ours.

  What lies at the path that is given comes first; a path below configs/ that
  is not there, as seen from another folder, is found by its last part.
  """
  path, colon, arg = flag.removeprefix("--config=").partition(":")
  ours = "/" not in path or path.startswith("configs/")
  if not ours or os.path.exists(path):
    return flag
  stem = os.path.basename(path).removesuffix(".py")
  modules = {**names.discover("configs.data"), **names.discover("configs")}
  if stem not in modules:
    hint = names.nearest(stem, modules)
    raise UserError(f"--config={path}: there is no such file{hint}")
  found = importlib.util.find_spec(modules[stem]).origin
  return f"--config={found}{colon}{arg}"


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
