"""Functions that all commands share: flags, one-line errors, JAX settings."""

import ctypes
import errno
import glob
import importlib.util
import os
import re
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable

from absl import app, flags, logging
from ml_collections import config_flags

from common import config_keys, files, names, overrides
from common.errors import (
  BucketError,
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
  "missing",
  "run",
  "start_jax",
]

# The flags belong to the commands that define them, and appear in their --help.
flags.disclaim_key_flags()


# Errors whose message suffices; no traceback is printed.
_EXPECTED = (
  UserError,
  HostError,
  SaveError,
  BucketError,
  CorruptionError,
  FloatingPointError,
)
# Writing failed: no space, no permission or no disk.
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
    "The experiment: a file such as configs/language/lm_stdlib.py, or just its "
    "name, lm_stdlib. An appended :smoke makes it tiny, on fake data. "
    "--config.KEY=VALUE overrides a value.",
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


def missing(name: str, argv: list[str], example: str = "") -> UserError:
  """The error of a flag that is required and not given.

  Args:
    name: the name of the flag.
    argv: the program and its arguments that are not flags; the first of them is
      what the user may have meant as the value.
    example: a value to print otherwise.
  """
  hint = f", for example --{name}={example}" if example else ""
  if len(argv) > 1:
    hint = f"; did you mean --{name}={shlex.quote(argv[1])}?"
  return UserError(f"--{name} is missing{hint}")


def start_jax() -> None:
  """Configures JAX: a compilation cache, and no implicit rank promotion.

  JAX's own environment variables for the cache's folder and for the shortest
  compilation that is kept take precedence.
  """
  _keep_freed_memory()
  quiet_libtpu()
  import jax

  jax.config.update("jax_numpy_rank_promotion", "raise")
  if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    folder = os.path.join(files.cache_folder(), "xla")
    jax.config.update("jax_compilation_cache_dir", folder)
  if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def quiet_libtpu(devices: str = "/dev") -> None:
  """Limits what libtpu prints to errors; call it before JAX starts.

  Where libtpu is installed and there is no TPU, it looks for one and prints
  errors at each start. It does not if it is given what it looks for, and then
  JAX finds no TPU as before. Variables that are set are left as they are.

  Args:
    devices: the folder of device files.
  """
  os.environ.setdefault("TPU_MIN_LOG_LEVEL", "2")
  os.environ.setdefault("TPU_STDERR_LOG_LEVEL", "2")
  tpus = [f"{devices}/accel*", f"{devices}/vfio/[0-9]*"]
  if not any(glob.glob(pattern) for pattern in tpus):
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")


def _keep_freed_memory() -> None:
  """Makes glibc keep freed memory, in one arena, for the next step.

  By default the buffers of every step on a CPU are returned to the kernel and
  mapped and zeroed again, which takes a third of the time of a small step.
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


def run(main: Callable, positional: bool = False) -> int:
  """Runs `main`; reports an error of the user in one line, with exit code 2.

  Args:
    main: called with the arguments that are no flags.
    positional: whether there may be such arguments.
  """
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  warnings.filterwarnings("ignore", category=DeprecationWarning)
  sys.unraisablehook = _unless_late

  def parse(argv):
    left = _parse(argv)
    if left[1:] and not positional:
      raise UserError(_unexpected(left[1]))
    return left

  try:
    app.run(main, flags_parser=parse)
  except (*_EXPECTED, Preempted, KeyboardInterrupt) as error:
    return tell(error)
  except OSError as error:
    if error.errno not in _NO_ROOM:
      raise
    return tell(error)
  return 0


def _unless_late(unraisable) -> None:
  """The default hook, except for errors that follow a failed read.

  When one array of a checkpoint cannot be read, Orbax closes its event loop,
  and the readers of the other arrays print an error about the closed loop.
  """
  if str(unraisable.exc_value) != "Event loop is closed":
    sys.__unraisablehook__(unraisable)


def tell(error: BaseException) -> int:
  """Prints an error, in one line if it is expected; returns the exit code."""
  sys.stdout.flush()
  if isinstance(error, Preempted):
    print(error, file=sys.stderr)
    return error.code
  if isinstance(error, KeyboardInterrupt):
    error, code = (
      "interrupted; the same command resumes from the last checkpoint",
      130,
    )
  elif isinstance(error, _EXPECTED):
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
  """`text` as one line, without control characters that a file may hold."""
  return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _parse(argv):
  """Parses the flags with absl; its errors become UserErrors."""
  argv = [
    _config_found(a) if a.startswith("--config=") else a for a in _joined(argv)
  ]
  try:
    given, items = overrides.lists(argv)
    sys.argv = overrides.complete(given)  # ml_collections reads overrides there
    left = flags.FLAGS(sys.argv)
    if "config" in flags.FLAGS:
      hasattr(flags.FLAGS.config, "task")  # access reports a missing file
      overrides.set_items(flags.FLAGS.config, items)
  except OSError as error:
    path = getattr(error, "filename", None) or _given(argv, "--config=")
    raise UserError(f"--config={path}: there is no such file") from error
  except Exception as error:  # a config file may raise anything
    absent = re.match(r"flag --(\w+)=None: .* other than None", str(error))
    if absent and isinstance(error, flags.IllegalFlagValueError):
      raise missing(absent[1], _without_flags(argv)) from error
    raise UserError(_one_line(argv, error)) from error
  if not flags.FLAGS["verbosity"].present:
    # Libraries log every step of a save; --verbosity=0 shows it.
    logging.set_verbosity(logging.WARNING)
  return left


def _unexpected(argument: str) -> str:
  name = argument.partition("=")[0].partition(".")[0]
  hint = f"; did you mean --{argument}?" if name in flags.FLAGS else ""
  return f"unexpected argument {argument!r}{hint}"


def _without_flags(argv):
  """Returns the program and its arguments that are not flags or their values.

  absl returns them only if all flags are valid.
  """
  found, is_value = [], False
  for argument in argv:
    if argument.startswith("-"):
      name = argument.lstrip("-")  # with its value after =, no name of a flag
      is_value = name in flags.FLAGS and not flags.FLAGS[name].boolean
    elif is_value:
      is_value = False
    else:
      found.append(argument)
  return found


def _joined(argv):
  """Returns the arguments, with `--config FILE` as --config=FILE."""
  found = []
  for argument in argv:
    if found and found[-1] in ("--config", "-config"):
      found[-1] = f"--config={argument}"
    else:
      found.append(re.sub("^-config=", "--config=", argument))
  return found


def _config_found(flag: str) -> str:
  """Returns --config=NAME[:arg] as --config=FILE[:arg].

  A file at the given path takes precedence. A bare NAME, or a path below a
  folder configs/ that does not exist here or is that of this package, is looked
  up by its last part among the experiments of the configs package.
  """
  path, colon, arg = flag.removeprefix("--config=").partition(":")
  if os.path.isfile(path) or not _is_ours(path):
    return flag
  stem = os.path.basename(path).removesuffix(".py")
  if not stem:
    raise UserError(f"--config={path}: give a file, or the name of a config")
  modules = {**names.discover("configs.data"), **names.discover("configs")}
  if stem not in modules:
    hint = names.nearest(stem, modules)
    raise UserError(f"--config={path}: there is no such file{hint}")
  found = importlib.util.find_spec(modules[stem]).origin
  return f"--config={found}{colon}{arg}"


def _is_ours(path: str) -> bool:
  """Whether a path may mean an experiment of the configs package."""
  folder = os.path.dirname(os.path.normpath(path))
  if not folder or folder.split(os.sep)[0] == "configs":
    return True
  spec = importlib.util.find_spec("configs")
  ours = os.path.realpath(os.path.dirname(spec.origin))
  return os.path.join(os.path.realpath(folder), "").startswith(
    f"{ours}{os.sep}"
  )


def _given(argv, start: str) -> str:
  """The part of the argument that begins with `start`, or ""."""
  return next((a[len(start) :] for a in argv if a.startswith(start)), "")


def _one_line(argv, error: Exception) -> str:
  text = str(error.args[0] if isinstance(error, KeyError) else error)
  typo = re.search(r'Did you mean "(.*?)" instead of "(.*?)"', text)
  if typo:
    right, wrong = typo.groups()
    path = next((a for a in argv if re.search(rf"\.{wrong}\b", a)), wrong)
    return f'{path.split("=")[0]}: unknown {wrong!r}; did you mean "{right}"?'
  typo = re.match(r"Unknown command line flag '(\w+)([^']*)'", text)
  if typo:
    name, rest = typo.groups()
    hint = names.nearest(name, list(flags.FLAGS))
    return f"unknown flag --{name}{rest}{hint}"
  if "invalid literal for int()" in text:
    return re.sub(r"invalid literal for int\(\).*", "not a whole number", text)
  if isinstance(error, KeyError):
    name = text.strip("'")
    keys = [*config_keys.REQUIRED, *config_keys.DEFAULTS]
    path = next((a for a in argv if f".{name}" in a), name).split("=")[0]
    return f"{path}: unknown {name!r}{names.nearest(name, keys)}"
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  # The first line names what was parsed, the last one what went wrong.
  return lines[0] if len(lines) == 1 else f"{lines[0]} {lines[-1]}"
