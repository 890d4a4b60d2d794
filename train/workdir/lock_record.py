"""Who holds a workdir: the content of run.lock, in a folder or a bucket."""

import contextlib
import datetime
import json
import os
import pathlib
import socket
import time
import uuid
from typing import NamedTuple

from common.errors import UserError

NAME = "run.lock"
BEAT = 10.0  # seconds between renewals of a lock
FRESH = 60.0  # seconds after which a lock that was not renewed expires
MAX_BYTES = 4096
_KINDS = (str, str, str, int, float, str)


class Holder(NamedTuple):
  """A process that holds a workdir.

  boot: the boot id of the kernel. pids: the namespace of process ids.
  started: Unix time. token: unique to this lock.
  age: seconds since the record was renewed.
  """

  host: str
  boot: str
  pids: str
  pid: int
  started: float
  token: str
  age: float = 0.0


def current() -> Holder:
  """Returns the Holder of the current process, with a new token."""
  return Holder(
    host=socket.gethostname(),
    boot=_boot_id(),
    pids=_namespace(),
    pid=os.getpid(),
    started=time.time(),
    token=uuid.uuid4().hex,
  )


def encode(holder: Holder) -> bytes:
  """Returns the record as a line of JSON, with the current time."""
  fields = {k: v for k, v in holder._asdict().items() if k != "age"}
  fields["renewed"] = time.time()
  return json.dumps(fields).encode() + b"\n"


def decode(content: bytes, age: float) -> Holder | None:
  """Returns the Holder that a record names; None if it is not a record."""
  try:
    found = json.loads(content)
    fields = [found[name] for name in Holder._fields[:-1]]
  except (ValueError, KeyError, TypeError, RecursionError):
    return None
  right = all(map(isinstance, fields, _KINDS)) and 0 < fields[3] < 2**31
  return Holder(*fields, age) if right else None


def renewed(content: bytes) -> float:
  """Returns the Unix time in a record, by its holder's clock; 0 if missing."""
  try:
    return float(json.loads(content)["renewed"])
  except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
    return 0.0


def refusal(
  workdir: str, other: Holder | None, expires: bool = False
) -> UserError:
  """Returns the error for a second run.

  Args:
    workdir: the path given by the user.
    other: the holder, or None if it is not known.
    expires: whether the lock of a killed process remains valid until it
      expires, which the message then explains.
  """
  who, since = "another process", ""
  if other is not None:
    with contextlib.suppress(ValueError, OverflowError, OSError):
      when = datetime.datetime.fromtimestamp(other.started)
      since = f", started {when:%Y-%m-%d %H:%M}"
    host = "".join(c for c in other.host if c.isprintable())[:80]
    who = f"process {other.pid} on host {host}"
  hint = f" (if it was killed, wait {FRESH:.0f} s)" if expires else ""
  return UserError(
    f"{workdir} is in use by {who}{since}; stop that process or choose another"
    f" --workdir{hint}"
  )


def same_host(other: Holder, me: Holder) -> bool:
  """Returns whether both run on the same kernel.

  The host name of a container changes at every start; the boot id does not.
  """
  return other.host == me.host or (me.boot != "" and other.boot == me.boot)


def is_dead(other: Holder, me: Holder) -> bool:
  """Returns whether the process has ended; False if it is on another host."""
  if not same_host(other, me) or other.pids != me.pids or os.name == "nt":
    return False
  try:
    os.kill(other.pid, 0)
  except ProcessLookupError:
    return True
  except OSError:
    return False
  return False


def _boot_id() -> str:
  try:
    path = pathlib.Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip()
  except OSError:
    return ""


def _namespace() -> str:
  """Returns the namespace of process ids; containers have their own."""
  try:
    return os.readlink("/proc/self/ns/pid")
  except OSError:
    return ""
