"""Real processes of train.main, and threads that stand for processes."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time

import forkserver

from common import config_keys
from common.errors import HostError, UserError
from train.hosts import roll_call
from train.measuring import timing

ROOT = pathlib.Path(__file__).parents[2]

# train.main on data that takes SECONDS a batch, and whose batch HANG_AT never
# comes to process HANG_IN.
HINDERED = (
  "-c",
  """
import os, runpy, sys, threading, time
from input_pipeline.batching import device
place, placed = device.place, 0
def hindered(*args):
  global placed
  placed += 1
  here = "--process_id=" + os.environ.get("HANG_IN", "") in sys.argv
  if here and placed == int(os.environ["HANG_AT"]):
    threading.Event().wait()
  time.sleep(float(os.environ.get("SECONDS", 0)))
  return place(*args)
device.place = hindered
runpy.run_module("train.main", run_name="__main__", alter_sys=True)
""",
)


def free_address() -> str:
  with socket.create_server(("localhost", 0)) as server:
    return f"localhost:{server.getsockname()[1]}"


def flag_of(config, tmp_path) -> str:
  """--config=… of a file that holds `config`."""
  text = json.dumps(config_keys.plain(config))
  path = tmp_path / f"experiment_{abs(hash(text))}.py"
  path.write_text(
    "import json\nfrom ml_collections import ConfigDict\n"
    f"def get_config():\n  return ConfigDict(json.loads({text!r}))\n"
  )
  return f"--config={path}"


def start(
  processes: int,
  workdir,
  *flags,
  only=None,
  extra=None,
  xla="",
  devices=8,
  main=("-m", "train.main"),
  popen=forkserver.Popen,
  **variables,
):
  """Processes of train.main with so many devices between them.

  They are forked; with popen=subprocess.Popen they start cold.
  """
  address = free_address()
  count = devices // processes
  env = {
    **os.environ,
    **variables,
    "PYTHONPATH": str(ROOT),
    "XLA_FLAGS": f"--xla_force_host_platform_device_count={count} {xla}",
  }
  return [
    popen(
      [
        sys.executable,
        *main,
        f"--coordinator={address}",
        f"--num_processes={processes}",
        f"--process_id={i}",
        f"--workdir={workdir}",
        *flags,
        *(extra or {}).get(i, ()),
      ],
      cwd=ROOT,
      env=env,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for i in range(processes)
    if only is None or i in only
  ]


def end(processes) -> list[tuple[int, str]]:
  """(exit code, what was said) of each."""
  try:
    said = [p.communicate(timeout=300)[0] for p in processes]
  finally:
    for p in processes:
      p.kill()
  return [(p.returncode, s) for p, s in zip(processes, said, strict=True)]


def rows(workdir) -> list[dict]:
  """metrics.jsonl without what depends on the clock."""
  return [
    {k: v for k, v in json.loads(line).items() if k not in timing.CLOCK_KEYS}
    for line in (workdir / "metrics.jsonl").read_text().splitlines()
  ]


def meet(count: int, wait=5.0, place_of=None):
  """gather() of `count` processes, as threads: what each returns or raises."""
  address = free_address()
  found = {}

  def one(i):
    place = roll_call.Place(address, count, i)
    place = place_of(place) if place_of else place
    try:
      found[i] = roll_call.gather(place, wait, lambda: {"service": "here"})
    except (HostError, UserError) as error:
      found[i] = error

  threads = [threading.Thread(target=one, args=(i,)) for i in range(count)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(timeout=30)
  return found


def part(*rolls):
  for roll in rolls:
    for peer in roll.peers:
      peer.socket.close()


def wait_until(condition, seconds=10):
  deadline = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.02)
