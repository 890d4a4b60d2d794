"""Checks whether this machine can run Tessera: `python -m train.doctor`.

Prints one line per check: "ok"; "note" for something that only makes runs
slower or is good to know; "wrong" with a way to fix it. Checks that may hang
(devices, disks, host names) run in their own processes, with a timeout.

  python -m train.doctor --workdir=runs/a --config=configs/language/gpt2_124m.py
  python -m train.doctor --coordinator=HOST:PORT   # for runs on several hosts

Exit codes: 0 nothing is wrong, 1 something is wrong, 2 bad arguments.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036
  sys.exit("wrong Python is older than 3.11: install a newer version")

import concurrent.futures
import json
import os
import pathlib

try:
  from absl import flags

  from common import cli, files
  from train.doctor import checks
  from train.doctor.checks import Line
except ImportError as error:
  sys.exit(f"wrong {error.name} is not installed: pip install -e .")

FLAGS = flags.FLAGS
cli.define_config()
flags.declare_key_flag("config")
flags.DEFINE_string("workdir", "runs", "The folder of the runs to check.")
flags.DEFINE_string(
  "coordinator",
  None,
  "HOST:PORT of the coordinator of a run on several hosts. Default: not "
  "checked.",
)
flags.DEFINE_float(
  "wait", 12, "Seconds to wait for the devices to respond.", 0.1
)

_DISK_SECONDS = 10.0
_PORT_SECONDS = 6.0


def main(argv) -> int:
  """Prints the lines and returns 1 if one of them is "wrong", else 0."""
  del argv
  found = []
  for line in _lines():
    print(f"{line.level:<5} {line.text}", flush=True)
    found.append(line.level)
  return 1 if "wrong" in found else 0


def _lines():
  """Yields all lines in order; checks that may hang run concurrently."""
  with concurrent.futures.ThreadPoolExecutor() as threads:
    accelerators = threads.submit(checks.accelerators)
    devices = threads.submit(_ask, "devices", "", FLAGS.wait)
    workdir = threads.submit(_ask, "workdir", FLAGS.workdir, _DISK_SECONDS)
    cache = threads.submit(_ask, "cache", files.cache_folder(), _DISK_SECONDS)
    port = None
    if FLAGS.coordinator is not None:
      port = threads.submit(_ask, "port", FLAGS.coordinator, _PORT_SECONDS)
    yield checks.python()
    yield from checks.packages()
    yield from checks.extras(FLAGS.config)
    yield checks.memory()
    yield checks.open_files()
    yield from checks.shared_memory()
    seen, lines = accelerators.result()
    yield from lines
    yield from _devices(*devices.result(), seen)
    yield from workdir.result()[1]
    yield from cache.result()[1]
    if port is not None:
      yield from port.result()[1]


def _ask(kind: str, argument: str, seconds: float):
  """Runs a probe; returns (facts, lines), with one line if it failed."""
  root = str(pathlib.Path(__file__).absolute().parents[2])
  path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
  code, output, wrong = checks.answer(
    [sys.executable, "-m", "train.doctor.probes", kind, argument],
    seconds,
    # Do not allocate the memory of a GPU that may be in use.
    {"PYTHONPATH": path, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
  )
  name = f"{kind} {argument}".strip()
  if code is None:
    return {}, [Line("wrong", f"{name}: no response within {seconds:g} s")]
  try:
    found = json.loads(output.strip().splitlines()[-1])
    return found["facts"], [Line(*line) for line in found["lines"]]
  except (ValueError, LookupError, TypeError):
    last = (wrong.strip().splitlines() or [f"exit code {code}"])[-1]
    return {}, [Line("wrong", f"{name}: {last.strip()}")]


def _devices(facts, lines, seen: str | None):
  """Compares the devices that JAX sees with those that seem to be present."""
  yield from lines
  if seen is None or facts.get("platform") != "cpu":
    return
  extra = "tpu" if seen == "TPU" else "cuda"
  if os.environ.get("JAX_PLATFORMS") == "cpu":
    yield Line("note", f"JAX_PLATFORMS=cpu hides the {seen} from JAX")
    return
  yield Line(
    "wrong",
    f"this machine seems to have a {seen}, but JAX sees only the CPU:"
    f" pip install -U -e '.[{extra}]'",
  )


if __name__ == "__main__":
  sys.exit(cli.run(main))
