"""Probes that may hang and run in their own process: devices, disk and port.

`python -m train.doctor.probes KIND ARGUMENT` prints one JSON object:
{"facts": {…}, "lines": [[level, text], …]}.
"""

import errno
import json
import os
import pathlib
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

from common import storage

Found = tuple[str, str]  # (level, text)
_GB = 1e9
_BLOCK, _BLOCKS = 4 * 2**20, 8


def devices(argument: str, facts: dict) -> Iterator[Found]:
  """Compares a matrix product on every JAX device with NumPy's result."""
  del argument
  try:
    import jax
    import numpy as np

    there = jax.local_devices()
    facts["platform"] = there[0].platform
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((256, 256), np.float32) for _ in range(2))
    expected, worst = a @ b, {}
    with jax.default_matmul_precision("highest"):
      for device in there:
        found = jax.device_put(a, device) @ jax.device_put(b, device)
        gap = np.abs(np.asarray(found) - expected).max()
        worst[str(device)] = float(gap / np.abs(expected).max())
  except Exception as error:  # a driver may raise anything
    lines = str(error).strip().splitlines() or [repr(error)]
    yield "wrong", f"JAX cannot use its devices: {lines[0]}"
    return
  names = f"{len(there)} x {there[0].device_kind} ({there[0].platform})"
  # The error of a broken device is far larger, or NaN.
  broken = [name for name, gap in worst.items() if not gap < 1e-3]
  for name in broken:
    yield "wrong", f"{name} computes wrong matrix products: do not use it"
  if not broken:
    yield "ok", f"JAX sees {names}; matrix products agree with NumPy's"


def workdir(argument: str, facts: dict) -> Iterator[Found]:
  """Checks whether this folder is suitable for a run."""
  yield from _folder(
    "workdir", argument, facts, [_fsync, _rename, _flock, _speed]
  )


def cache(argument: str, facts: dict) -> Iterator[Found]:
  """Checks whether this folder can hold compiled programs and token files."""
  yield from _folder("cache", argument, facts, [_rename])


def _folder(
  what: str, argument: str, facts: dict, checks: list[Callable]
) -> Iterator[Found]:
  if storage.scheme(argument):
    try:
      storage.check(what, argument)
      yield "note", f"{what} {argument}: a bucket, which was not looked into"
    except ValueError as error:
      yield "wrong", str(error)
    return
  path = pathlib.Path(argument).absolute()
  # Test the nearest existing folder, so that the check creates nothing.
  there = next(p for p in [path, *path.parents] if p.exists())
  facts["folder"] = str(there)
  if not there.is_dir():
    yield "wrong", f"{what} {argument}: {there} is a file, not a folder"
    return
  missing = "" if there == path else f" (does not exist yet; tested {there})"
  try:
    folder = tempfile.mkdtemp(prefix=".doctor-", dir=there)
  except OSError as error:
    reason = error.strerror or error
    yield "wrong", f"{what} {argument} is not writable: {there}: {reason}"
    return
  try:
    free = shutil.disk_usage(there).free
    text = f"{what} {argument} is writable, {free / _GB:.1f} GB free"
    if free < _GB:
      yield "wrong", f"{text}: free some space, or use another disk"
    else:
      yield "ok" if free > 10 * _GB else "note", text + missing
    for check in checks:
      level, text = check(pathlib.Path(folder))
      yield level, f"{what}: {text}"
  except OSError as error:
    yield "wrong", f"{what} {argument}: {error.strerror or error}"
  finally:
    shutil.rmtree(folder, ignore_errors=True)


def _fsync(folder: pathlib.Path) -> Found:
  """Times fsync of a small file and its folder, as runs do after each write."""
  started = time.perf_counter()
  with open(folder / "synced", "wb") as file:
    file.write(b"x")
    file.flush()
    os.fsync(file.fileno())
  handle = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)
  took = 1e3 * (time.perf_counter() - started)
  return "ok" if took < 200 else "note", f"fsync works, {took:.1f} ms"


def _rename(folder: pathlib.Path) -> Found:
  """Checks that a reader sees either the old or the new file in a replace."""
  path, other = folder / "named", folder / "other"
  contents = [bytes([i]) * 10_000 for i in range(2)]
  path.write_bytes(contents[0])
  over, seen = threading.Event(), set()

  def read():
    while not over.is_set():
      try:
        seen.add(path.read_bytes())
      except FileNotFoundError:
        seen.add(b"")

  reader = threading.Thread(target=read)
  reader.start()
  until = time.monotonic() + 0.5
  for i in range(200):
    other.write_bytes(contents[i % 2])
    os.replace(other, path)
    if time.monotonic() > until:
      break
  over.set()
  reader.join()
  if seen <= set(contents):
    return "ok", "files are replaced atomically"
  return "wrong", (
    "replacing a file is not atomic (readers miss it): use another disk"
  )


def _flock(folder: pathlib.Path) -> Found:
  """Checks whether flock prevents a second run in the same workdir."""
  instead = "run.lock's age blocks a second run, for a minute after a kill"
  try:
    import fcntl
  except ImportError:
    return "note", f"no flock on this system: {instead}"
  with open(folder / "locked", "w") as one, open(folder / "locked", "w") as two:
    how = fcntl.LOCK_EX | fcntl.LOCK_NB
    try:
      fcntl.flock(one, how)
    except OSError as error:
      return "note", f"no flock here ({error.strerror}): {instead}"
    try:
      fcntl.flock(two, how)
    except BlockingIOError:
      return "ok", "flock blocks a second run"
  return "note", f"flock does not exclude others here: {instead}"


def _speed(folder: pathlib.Path) -> Found:
  """Measures the write speed in MB/s, with fsync and incompressible data."""
  block, written = os.urandom(_BLOCK), 0
  started = time.perf_counter()
  with open(folder / "written", "wb") as file:
    for _ in range(_BLOCKS):
      file.write(block)
      file.flush()
      os.fsync(file.fileno())
      written += len(block)
      if time.perf_counter() - started > 3:
        break
  speed = written / 1e6 / (time.perf_counter() - started)
  level = "ok" if speed > 50 else "note"
  return level, f"write speed {speed:,.0f} MB/s ({written / 1e6:.0f} MB)"


def port(argument: str, facts: dict) -> Iterator[Found]:
  """Checks that the port is free on this host, or reachable on another."""
  host, _, number = argument.rpartition(":")
  if not (host and number.isdigit() and 0 < int(number) < 65536):
    yield "wrong", f"--coordinator={argument} is not HOST:PORT"
    return
  number = int(number)
  try:
    found = socket.getaddrinfo(host.strip("[]"), number, 0, socket.SOCK_STREAM)
  except OSError as error:
    yield "wrong", f"coordinator {host}: {error.strerror or error}"
    return
  facts["here"] = any(_is_here(family, at[0]) for family, *_, at in found)
  yield _listens(number) if facts["here"] else _reaches(argument, host, number)


def _is_here(family: int, address: str) -> bool:
  with socket.socket(family, socket.SOCK_DGRAM) as own:
    try:
      own.bind((address, 0))
    except OSError:
      return False
  return True


def _listens(number: int) -> Found:
  try:
    socket.create_server(("", number)).close()
  except OSError as error:
    if error.errno == errno.EADDRINUSE:
      return "wrong", (
        f"port {number} of this host is in use: stop the program that listens"
        " there, or use another port in --coordinator"
      )
    return "wrong", f"port {number} of this host: {error.strerror or error}"
  return "ok", f"port {number} of this host is free for the coordinator"


def _reaches(argument: str, host: str, number: int) -> Found:
  try:
    socket.create_connection((host.strip("[]"), number), timeout=4).close()
  except ConnectionRefusedError:
    return "note", (
      f"coordinator {argument}: host responds, but nothing listens there yet"
    )
  except OSError as error:
    return "wrong", (
      f"coordinator {argument} is not reachable:"
      f" {error.strerror or error}: open the port in the firewall"
    )
  return "ok", f"coordinator {argument} is reachable"


def main(kind: str, argument: str) -> None:
  """Runs one probe and prints its result as JSON."""
  probe = {"devices": devices, "workdir": workdir, "cache": cache, "port": port}
  facts: dict = {}
  lines = list(probe[kind](argument, facts))
  print(json.dumps({"facts": facts, "lines": lines}))


if __name__ == "__main__":
  main(*sys.argv[1:])
