"""Checks of a machine that neither start JAX nor access a disk."""

import contextlib
import glob
import importlib.metadata
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from typing import Any, NamedTuple

from packaging.requirements import Requirement

_GIB = 2**30
_ROOT = pathlib.Path(__file__).absolute().parents[2]
# Extras for a platform or for tests, which are not checked.
_NOT_ASKED = ("cuda", "parity", "test", "tpu")
# Either package provides the module.
_INSTEAD = {"tensorflow-cpu": "tensorflow", "tensorflow": "tensorflow-cpu"}


class Line(NamedTuple):
  """A line of the report.

  level: "ok", "note" or "wrong".
  text: one line.
  """

  level: str
  text: str


def python() -> Line:
  """Reports the version of Python; __main__ rejects one that is too old."""
  return Line("ok", f"Python {platform.python_version()}")


def requirements() -> dict[str, list[Requirement]]:
  """Returns pyproject.toml's requirements by extra; "" has the common ones."""
  try:
    text = (_ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    groups = {
      "": project["dependencies"],
      **project["optional-dependencies"],
    }
    if project["name"] == "tessera":
      return {name: _asked(texts) for name, texts in groups.items()}
  except (OSError, ValueError, KeyError):
    pass  # installed without the source tree
  try:
    found = importlib.metadata.metadata("tessera")
  except importlib.metadata.PackageNotFoundError:
    return {"": []}
  texts = found.get_all("Requires-Dist") or []
  names = ["", *(found.get_all("Provides-Extra") or [])]
  common = {str(r) for r in _asked(texts)}
  return {
    name: [r for r in _asked(texts, name) if not name or str(r) not in common]
    for name in names
  }


def _asked(texts, extra: str = "") -> list[Requirement]:
  """Parses requirements and keeps those for this platform."""
  found = [Requirement(text) for text in texts]
  here = {"extra": extra}
  return [r for r in found if r.marker is None or r.marker.evaluate(here)]


def packages() -> Iterator[Line]:
  """Checks the versions of all dependencies, and of jaxlib against jax."""
  right = []
  for requirement in requirements()[""]:
    complaint = _complaint(requirement)
    if complaint:
      yield Line("wrong", complaint)
    else:
      right.append(f"{requirement.name} {_version(requirement.name)}")
  yield Line("ok", ", ".join(right))
  if _version("jax") is None:
    return
  for text in importlib.metadata.requires("jax") or ():
    jaxlib = Requirement(text)
    if jaxlib.name == "jaxlib" and jaxlib.marker is None:
      complaint = _complaint(jaxlib)
      matches = f"jaxlib {_version('jaxlib')} matches jax"
      yield Line("wrong", complaint) if complaint else Line("ok", matches)


def _version(name: str) -> str | None:
  try:
    return importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return None


def _complaint(requirement: Requirement) -> str | None:
  name, asked = requirement.name, requirement.specifier
  found = _version(name) or _version(_INSTEAD.get(name, name))
  # Without the quotes, a shell would treat ">" as a redirection.
  fix = f"pip install -U '{name}{asked}'"
  if found is None:
    return f"{name} is not installed: {fix}"
  if asked.contains(found, prereleases=True):
    return None
  least = next((s.version for s in asked if s.operator == ">="), None)
  if least and not Requirement(f"x>={least}").specifier.contains(
    found, prereleases=True
  ):
    return f"{name} {found} is older than {least}: {fix}"
  return f"{name} {found} is not {asked}: {fix}"


def extras(config: Any) -> Iterator[Line]:
  """Reports the installed extras, and whether `config` (or None) needs more."""
  complaints = {
    name: next(filter(None, map(_complaint, asked)), None)
    for name, asked in requirements().items()
    if name and name not in _NOT_ASKED
  }
  there = [name for name, complaint in complaints.items() if not complaint]
  without = [name for name, complaint in complaints.items() if complaint]
  text = f"extras installed: {', '.join(there) or 'none'}"
  if without:
    text += f"; not installed: {', '.join(without)}"
  yield Line("ok", text)
  for name, why in (needs(config) if config else {}).items():
    if complaints.get(name):
      yield Line(
        "wrong",
        f"{why} needs the extra {name}: pip install -e '.[{name}]'"
        f" ({complaints[name].partition(':')[0]})",
      )
    else:
      yield Line("ok", f"{why} needs the extra {name}, which is installed")


def needs(config: Any) -> dict[str, str]:
  """Returns {extra: the key of the config that needs it}."""
  found: dict[str, str] = {}
  sections = {"data": config.get("data")}
  evals = config.get("evals") or {}
  for key in evals if hasattr(evals, "get") else ():
    sections[f"evals.{key}"] = evals.get(key)
  for where, section in sections.items():
    if not hasattr(section, "get"):
      continue
    for key, start, extra in (
      ("source", "tfds:", "data"),
      ("ops", "", "data"),  # ops run in tf.data
      ("tokenizer", "sentencepiece", "text"),
      ("tokenizer", "wordpiece", "text"),
      ("tokenizer", "tokenizers", "text"),
    ):
      value = section.get(key)
      if isinstance(value, str) and value and value.startswith(start):
        found.setdefault(extra, f"config.{where}.{key}")
  model = config.get("model")
  if hasattr(model, "get") and model.get("matmul") in ("int8", "fp8"):
    found["quantization"] = "config.model.matmul"
  writers = config.get("writers")
  for i, each in enumerate(
    writers if isinstance(writers, list | tuple) else ()
  ):
    name = each.get("name") if hasattr(each, "get") else None
    if name in ("wandb", "mlflow"):
      found[name] = f"config.writers[{i}].name"
  return found


def memory() -> Line:
  """Checks the free memory of the host, or of the container if limited."""
  try:
    text = pathlib.Path("/proc/meminfo").read_text()
    fields = dict(line.split(":") for line in text.splitlines())
    total, free = (
      1024 * int(fields[key].split()[0]) for key in ("MemTotal", "MemAvailable")
    )
  except (OSError, ValueError, KeyError):
    return Line("note", "memory: not reported by this system")
  for limit, used in (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
  ):
    most, taken = (_number(f"/sys/fs/cgroup/{name}") for name in (limit, used))
    if most is not None and taken is not None and most < total:
      total, free = most, min(free, most - taken)
  text = f"memory {free / _GIB:.1f} GiB free of {total / _GIB:.1f}"
  if free < _GIB:
    return Line(
      "wrong", f"{text}: close other programs, or use a larger machine"
    )
  return Line("ok" if free > 4 * _GIB else "note", text)


def _number(path: str) -> int | None:
  try:
    return int(pathlib.Path(path).read_text())
  except (OSError, ValueError):
    return None


def open_files() -> Line:
  """Checks the limit on open files; a checkpoint opens hundreds."""
  try:
    import resource
  except ImportError:
    return Line("note", "open files: limit not reported by this system")
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  if soft == resource.RLIM_INFINITY:
    return Line("ok", "open files: no limit")
  fix = f"ulimit -n {4096 if hard < 0 else min(4096, hard)}"
  if soft < 256:
    return Line("wrong", f"open files: at most {soft}: {fix}")
  if soft < 1024:
    return Line("note", f"open files: at most {soft}; better: {fix}")
  return Line("ok", f"open files: at most {soft}")


def shared_memory(path: str = "/dev/shm") -> Iterator[Line]:
  """Yields a note if shared memory is small, as in containers by default."""
  try:
    size = shutil.disk_usage(path).total
  except OSError:
    return
  if size < _GIB:
    yield Line(
      "note",
      f"{path} has {size / 2**20:.0f} MiB: several GPUs in one machine may need"
      " more (docker run --shm-size=8g)",
    )


def accelerators(devices: str = "/dev") -> tuple[str | None, list[Line]]:
  """Returns ("GPU", "TPU" or None, as found on this machine; problems)."""
  if shutil.which("nvidia-smi"):
    code, output, wrong = answer(["nvidia-smi", "-L"], 5)
    if code == 0 and "GPU" in output:
      return "GPU", []
    first = (output + wrong).strip().splitlines()
    reason = "no response within 5 s" if code is None else "".join(first[:1])
    return None, [
      Line("wrong", f"nvidia-smi: {reason or 'no GPU'}: check the driver")
    ]
  if glob.glob(f"{devices}/nvidia[0-9]*"):
    return "GPU", []
  if glob.glob(f"{devices}/accel*") or glob.glob(f"{devices}/vfio/[0-9]*"):
    return "TPU", []
  return None, []


def answer(
  command: list[str], seconds: float, env: dict[str, str] | None = None
) -> tuple[int | None, str, str]:
  """Runs a command and returns (exit code, stdout, stderr).

  Args:
    command: the command and its arguments.
    seconds: a timeout, after which the command and its children are killed and
      the exit code is None.
    env: variables in addition to those of this process.
  """
  try:
    process = subprocess.Popen(
      command,
      env={**os.environ, **(env or {})},
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      errors="replace",
      start_new_session=True,
    )
  except OSError as error:
    return 127, "", str(error)
  try:
    output, wrong = process.communicate(timeout=seconds)
    return process.returncode, output, wrong
  except subprocess.TimeoutExpired:
    if sys.platform == "win32":
      process.kill()
    else:
      os.killpg(process.pid, signal.SIGKILL)
  # A process that is blocked on a device or a disk cannot even be killed.
  with contextlib.suppress(subprocess.TimeoutExpired):
    process.communicate(timeout=1)
  return None, "", ""
