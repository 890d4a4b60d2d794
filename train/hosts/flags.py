"""The flags of a multi-process run, and a context that joins the run."""

import contextlib
from collections.abc import Iterator
from typing import Any

from absl import flags

from common import cli

# The flags belong to the commands that define them, and appear in their --help.
flags.disclaim_key_flags()


def define() -> None:
  """Defines the flags of a multi-process run; see hosts/distributed.py."""
  flags.DEFINE_string(
    "coordinator",
    None,
    "HOST:PORT of process 0 of a run of several processes. On TPU VMs and in "
    "Slurm steps this flag, --num_processes and --process_id are detected. "
    "Default: a run of one process.",
  )
  flags.DEFINE_integer(
    "num_processes", None, "The number of processes of the run.", 1
  )
  flags.DEFINE_integer(
    "process_id", None, "The number of this process, from 0.", 0
  )
  flags.DEFINE_float(
    "wait_for_hosts",
    300,
    "The number of seconds to wait at the start for all processes; if one is "
    "still missing then, the others end.",
    1,
  )
  flags.DEFINE_float(
    "host_timeout",
    60,
    "The number of seconds without a sign of life after which a process counts "
    "as lost and the others end. A process that dies is noticed immediately.",
    1,
  )
  flags.DEFINE_float(
    "stall_timeout",
    1800,
    "The number of seconds without a training step, counted from the first "
    "step, after which the run ends with a stack trace of every thread; 0 "
    "disables it. Evaluations, saves and compilations in a row must together "
    "take less time.",
    0,
  )


@contextlib.contextmanager
def joined() -> Iterator[Any]:
  """A context in which this process takes part in the run of the flags.

  Yields:
    The watchdog.Watch over the processes.
  """
  from train.hosts import distributed  # which imports JAX: --help must not

  values = flags.FLAGS
  place = distributed.find(
    values.coordinator,
    values.num_processes,
    values.process_id,
    values.wait_for_hosts,
  )
  wait, timeout = values.wait_for_hosts, values.host_timeout
  stall = values.stall_timeout
  with distributed.session(place, wait, timeout, cli.tell, stall) as watcher:
    yield watcher
