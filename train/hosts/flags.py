"""The flags of a run of many processes, and the run itself as a context."""

import contextlib
from collections.abc import Iterator
from typing import Any

from absl import flags

from common import cli


def define() -> None:
  """The flags of a run of many processes; see train/hosts/distributed.py."""
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
def joined() -> Iterator[Any]:
  """Inside, this process is one of those that the flags tell of.

  Yields:
    The watch.Watch over them.
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
