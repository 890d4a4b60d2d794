"""Several processes as one run: starts and ends JAX's distributed runtime."""

import contextlib
import ctypes
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from common.errors import CorruptionError, Preempted, UserError
from train.hosts import roll_call, watchdog
from train.hosts.roll_call import Place

# JAX's cluster detectors that fail quietly if there is no such cluster; the
# others print warnings or contact a server.
_CLUSTERS = ("gcetpu", "gketpu", "slurm")
# Seconds for the watchdog to report which process was lost when a collective
# fails.
_GRACE = 5.0


def find(
  coordinator: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
  wait: float = 300,
) -> Place | None:
  """The Place of this process in its run; None for a run of one process.

  Values that are not given are taken from JAX_COORDINATOR_ADDRESS,
  JAX_NUM_PROCESSES and JAX_PROCESS_ID, or else from the TPU VM or Slurm step.

  Args:
    coordinator: HOST:PORT of process 0.
    num_processes: of the run; 1 skips the detection.
    process_id: from 0 to num_processes - 1.
    wait: the seconds to wait until the coordinator's name resolves.

  Raises:
    UserError: the values are incomplete or contradictory.
  """
  coordinator = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
  if num_processes is None:
    num_processes = _number("JAX_NUM_PROCESSES")
  if process_id is None:
    process_id = _number("JAX_PROCESS_ID")
  if num_processes == 1:
    return None
  given = {
    "coordinator": coordinator,
    "num_processes": num_processes,
    "process_id": process_id,
  }
  missing = [f"--{key}" for key, value in given.items() if value is None]
  if len(missing) == len(given):
    return _of_cluster(wait)
  if missing:
    raise UserError(
      f"a run of many processes also needs {' and '.join(missing)}"
    )
  if not re.fullmatch(r".+:\d+", coordinator):
    raise UserError(f"--coordinator={coordinator} is not HOST:PORT")
  if not 0 <= process_id < num_processes:
    raise UserError(
      f"--process_id={process_id} is none of the --num_processes="
      f"{num_processes}: they count from 0"
    )
  return Place(coordinator, num_processes, process_id)


def _number(variable: str) -> int | None:
  text = os.environ.get(variable)
  if text is not None and not text.isdigit():
    raise UserError(f"{variable}={text}: not a whole number")
  return None if text is None else int(text)


def _of_cluster(wait: float) -> Place | None:
  from jax._src.clusters import cluster  # no public name finds without joining

  for kind in cluster.ClusterEnv._cluster_types:
    tpu = kind.name.endswith("tpu")
    if kind.name not in _CLUSTERS or (
      tpu and jax.config.jax_platforms == "cpu"
    ):
      continue
    if not kind.is_env_present():
      continue
    try:
      num_processes = kind.get_process_count()
      if num_processes == 1:
        return None
      port = os.environ.get("JAX_COORDINATOR_PORT")
      return Place(
        kind.get_coordinator_address(int(wait), port),
        num_processes,
        kind.get_process_id(),
        _local_devices(kind.get_local_process_id()),
      )
    except (RuntimeError, ValueError) as error:
      raise UserError(
        f"the processes of this {kind.name} run cannot be found: {error}; give"
        " --coordinator, --num_processes and --process_id"
      ) from error
  return None


def _local_devices(local_id: int | None) -> tuple[int, ...] | None:
  """The device of a Slurm task; None (all) if the node has only one task."""
  tasks = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")
  alone = re.fullmatch(r"1(\(x\d+\))?", tasks)
  return None if local_id is None or alone else (local_id,)


@contextlib.contextmanager
def session(
  place: Place | None,
  wait: float,
  timeout: float,
  report: Callable[[BaseException], int],
  stall_timeout: float = 0.0,
) -> Iterator[watchdog.Watch]:
  """A context in which this process belongs to a run of several processes.

  Inside, every process sees the devices of all. If one raises, it notifies the
  others and all end; so they do if one is lost or the run stalls.

  Args:
    place: from `find`; None is a process alone.
    wait: seconds until a process that has not appeared is given up.
    timeout: seconds of silence after which a process counts as lost.
    report: prints an error and returns the exit code.
    stall_timeout: seconds without a step after which all end; 0 is never.

  Yields:
    The watch; its agreement says when all of them stop.

  Raises:
    HostError: a process did not appear.
    UserError: the processes contradict each other.
  """
  if place is None:
    watcher = watchdog.alone(stall_timeout)
    try:
      yield watcher
    finally:
      watcher.finish()
    return
  host = place.coordinator.rsplit(":", 1)[0]
  roll, announced = roll_call.gather(
    place, wait, lambda: {"service": f"{host}:{_free_port()}"}
  )
  watcher = watchdog.Watch(roll, timeout, stall_timeout)
  preempted = None
  try:
    _connect(place, announced["service"], timeout)
    yield watcher
  except Preempted as stop:
    preempted = stop  # so are all others, at the same step
  except BaseException as error:
    of_this_process = (
      UserError,
      CorruptionError,
      FloatingPointError,
      KeyboardInterrupt,
      SystemExit,
    )
    if not isinstance(error, of_this_process):
      # A collective, or a save, fails on all when one is lost: the watch knows
      # better.
      time.sleep(_GRACE)
    code = report(error)
    watcher.fail(str(error).strip().split("\n")[0] or repr(error), code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # leaving in order would wait for the others
  watcher.finish()
  jax.distributed.shutdown()
  if preempted is not None:
    raise preempted


def _connect(place: Place, service: str, timeout: float) -> None:
  # It handles SIGTERM itself, knows no other reason to stop, and waits until
  # all processes ask; see preemption.py.
  jax.config.update("jax_enable_preemption_service", False)
  _delay_aborts()
  jax.distributed.initialize(
    service,
    place.num_processes,
    place.process_id,
    local_device_ids=place.local_device_ids,
    cluster_detection_method="deactivate",
    # The watchdog acts first, and names the process.
    heartbeat_timeout_seconds=int(2 * timeout) + 60,
    shutdown_timeout_seconds=int(timeout) + 1,
  )


def _delay_aborts() -> None:
  """Gives the watchdog time to report before JAX aborts the process.

  When process 0 dies, JAX's client aborts the others within milliseconds. The
  handler of SIGABRT becomes the C library's sleep(), which is allowed in a
  handler and is called with the signal's number, 6, as its seconds; then the
  abort continues.
  """
  if sys.platform.startswith(("linux", "darwin")):
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))


def _free_port() -> int:
  with socket.create_server(("", 0)) as server:
    return server.getsockname()[1]


def first() -> bool:
  """Whether this is process 0, which writes files and prints."""
  return jax.process_index() == 0


def wait_for_all(what: str) -> None:
  """Returns once every process has called it; `what` names the barrier."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(what)


def all_agree(yes: bool) -> bool:
  """Whether `yes` holds on every process; all of them must call it."""
  if jax.process_count() == 1:
    return yes
  return bool(multihost_utils.process_allgather(np.array(yes)).all())


def said_by_first(value: Any) -> Any:
  """Process 0's `value`, which JSON can hold, on every process.

  All of them must call it; what the others pass is not read.
  """
  if jax.process_count() == 1:
    return value
  text = np.frombuffer(json.dumps(value).encode(), np.uint8)
  size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
  text = text if first() else np.zeros(size, np.uint8)
  return json.loads(bytes(multihost_utils.broadcast_one_to_all(text)))


def fetch(tree: Any) -> Any:
  """Complete arrays as NumPy on every process; all of them must call it."""

  def whole(x):
    if not isinstance(x, jax.Array):
      return x
    if x.is_fully_addressable or x.is_fully_replicated:
      return x
    return multihost_utils.process_allgather(x, tiled=True)

  return jax.device_get(jax.tree.map(whole, tree))


def one_at_a_time() -> bool:
  """Whether each step must finish before the next one is dispatched.

  On CPUs connected by gloo, several programs in flight deadlock (seen with
  jax 0.10 and two devices per process).
  """
  return jax.process_count() > 1 and jax.default_backend() == "cpu"
