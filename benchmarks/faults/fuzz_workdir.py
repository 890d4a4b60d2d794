"""Reads a workdir with thousands of damaged and hostile files.

Trains two tiny runs, then damages one of their files at a time, by bits, bytes,
JSON values and other kinds of files in its place, and reads the run as
`train.evaluate` and a resumed `train.main` do. Each must be read, or refused in
one line; nothing may be written outside the workdir, and little memory used.

  python benchmarks/faults/fuzz_workdir.py --files=10000

Prints a table, and a line for each failure; --only=NUMBER repeats one.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

from common.errors import UserError
from train import build, loop, trained
from train.measuring import goodput, timing
from train.workdir import metrics

READ = ("config.json", "data.json", "tokenizer.json", "tokenizer.model")
ROWS = ("metrics.jsonl", "goodput.jsonl")
OUTCOMES = ("tried", "accepted", "refused", "failed")
MOST_MEMORY = 2**30  # in addition to the memory of the first reads
MOST_SECONDS = 60
HOSTILE = [
  None,
  True,
  -1,
  0,
  1,
  2**31,
  2**63,
  10**400,
  -0.5,
  float("nan"),
  float("inf"),
  "",
  "x",
  "../../../outside",
  "/etc/passwd",
  "line\nline\x1b[2J",
  "\ud800",
  "é" * 5000,
  "__import__",
  "__builtins__",
  "os.system",
  "byte",
  "sentencepiece:../../outside",
  "tfds:../../outside",
  "tfds:huggingface:outside",
  "float64",
  "O",
  [],
  {},
  [[]],
  [1, 2],
  [2**40, 2**40],
  {"": 0},
  {"name": "../x"},
]


def runs(folder: pathlib.Path) -> list[pathlib.Path]:
  """Trains a regression and language models for three steps each."""
  from configs.language import lm_stdlib
  from configs.textbook import linear_regression

  text = folder / "text.txt"
  text.write_text("def question(): to be, or not to be, that is it.\n" * 60)
  configs = {"regression": linear_regression.get_config("smoke")}
  for name in ("char", "sentencepiece?vocab_size=280"):
    config = lm_stdlib.get_config("smoke")
    config.data.source = f"text:{text}"
    config.data.tokenizer = name
    config.data.seq_len = 8
    config.model.update(dim=8, layers=1, heads=2)
    configs[name.partition("?")[0]] = config
  found = []
  for name, config in configs.items():
    config.total_steps = 3
    config.log_every_steps = 1
    config.checkpoint = dict(every_steps=2, keep=2)
    found.append(folder / name)
    made = build.run(config, str(found[-1]), say=lambda line: None)
    list(loop.fit(made))
  return found


def spoiled(rng: random.Random, content: bytes) -> bytes:
  """Returns the content of a file, damaged."""
  if rng.random() < 0.6 and content[:1] == b"{":
    changed = _json(rng, content)
    if changed is not None:
      return changed
  data, at = bytearray(content), rng.randrange(len(content))
  kind = rng.randrange(7)
  if kind == 0:
    return bytes(data[:at])
  if kind == 1:
    data[at] ^= 1 << rng.randrange(8)
  if kind == 2:
    for _ in range(rng.choice([1, 10, 100])):
      data[rng.randrange(len(data))] = rng.randrange(256)
  if kind == 3:
    del data[at : at + rng.randrange(1, 40)]
  if kind == 4:
    data[at:at] = rng.choice(
      [b"\xff\xfe", b"\0", b"\n", b"[" * 100_000, b'{"a":' * 2000, b"9" * 9999]
    )
  if kind == 5:
    data = bytearray(rng.randbytes(rng.randrange(2000)))
  if kind == 6:
    other = rng.randrange(len(data))
    data[at : at + 20] = data[other : other + 20]
  return bytes(data)


def _json(rng: random.Random, content: bytes) -> bytes | None:
  """Returns the object or lines, with one value replaced or removed."""
  lines = content.split(b"\n")
  several = b"\n{" in content
  i = rng.choice([i for i, line in enumerate(lines) if line]) if several else 0
  try:
    root = json.loads(lines[i] if several else content)
  except ValueError:
    return None
  places = [(root, key) for key in root]
  for holder, key in places:
    value = holder[key]
    if isinstance(value, dict):
      places += [(value, k) for k in value]
    if isinstance(value, list):
      places += [(value, k) for k in range(len(value))]
  holder, key = rng.choice(places)
  kind = rng.random()
  if kind < 0.2:
    del holder[key]
  elif kind < 0.3 and isinstance(holder, dict):
    holder[rng.choice(["", "x", "../x", "name", "\n", key + "x"])] = holder.pop(
      key
    )
  else:
    holder[key] = rng.choice(HOSTILE)
  changed = json.dumps(root).encode()
  if not several:
    return changed
  lines[i] = changed
  return b"\n".join(lines)


def replaced(rng: random.Random, path: pathlib.Path, outside: pathlib.Path):
  """Puts another kind of file in its place; returns which."""
  path.unlink()
  kind = rng.choice(["missing", "folder", "pipe", "link", "dangling", "sparse"])
  if kind == "folder":
    path.mkdir()
  if kind == "pipe":
    os.mkfifo(path)
  if kind == "link":
    path.symlink_to(outside)
  if kind == "dangling":
    path.symlink_to(outside.with_name("new"))
  if kind == "sparse":
    with open(path, "wb") as file:
      file.truncate(2**30)
  return kind


def read_run(workdir: pathlib.Path) -> None:
  """Reads a run as train.evaluate does, without the evaluation."""
  found = trained.load(str(workdir))
  build.evaluators(found, str(workdir), say=lambda line: None)
  learned = found.parts.data.tokenizer
  if learned is not None:
    learned.decode(np.arange(learned.vocab_size)[:50])


def read_rows(workdir: pathlib.Path) -> None:
  """Reads the rows as a resumed run does, and its summary."""
  rows = metrics.files(str(workdir))
  rows.start(2)
  rows.write(3, {"train/loss": 1.0})
  rows.close()
  for row in metrics.read_metrics(str(workdir)):
    [f"{value:.4f}" for value in row.values()]
  path = str(workdir / "goodput.jsonl")
  goodput.describe(path)
  with goodput.Ledger(path, timing.Clock({"examples": 1})) as ledger:
    ledger.note("resume", 2)
    ledger.summary()
  assert all(np.isfinite(list(goodput.summary(goodput.read(path)).values())))


class SlowError(Exception):
  """A file took too long."""


def attempt(workdir: pathlib.Path, name: str) -> tuple[str, str]:
  """Returns (outcome, message)."""
  signal.alarm(MOST_SECONDS)
  try:
    if name in ROWS:
      from train.workdir import run_record

      run_record.check_links(str(workdir))
      read_rows(workdir)
    else:
      read_run(workdir)
    return "accepted", ""
  except UserError as error:
    return "refused", str(error)
  except BaseException as error:
    if isinstance(error, KeyboardInterrupt):
      raise
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{last.filename}:{last.lineno}"
    return "failed", f"{type(error).__name__}: {str(error)[:200]} at {where}"
  finally:
    signal.alarm(0)


def listing(folder: pathlib.Path) -> dict[str, bytes]:
  """Returns all names under it, with the files' content."""
  return {
    str(p): p.read_bytes() if p.is_file() and not p.is_symlink() else b""
    for p in folder.rglob("*")
  }


def one(number: int, seed: int, made, folder: pathlib.Path):
  """Returns (file's name, outcome, message) of the number-th file."""
  rng = random.Random(f"{seed} {number}")
  source = rng.choice(made)
  names = [n for n in (*READ, *ROWS) if (source / n).exists()]
  name = rng.choice(names)
  inside = folder / "inside"
  workdir, outside = inside / "run", folder / "outside"
  shutil.rmtree(inside, ignore_errors=True)
  inside.mkdir()
  # Checkpoints are only read, so one copy suffices.
  shutil.copytree(
    source, workdir, ignore=lambda at, names: {"checkpoints", "samples"}
  )
  (workdir / "checkpoints").symlink_to(source / "checkpoints")
  path = workdir / name
  what = ""
  if rng.random() < 0.06:
    what = replaced(rng, path, outside / "file")
  else:
    path.write_bytes(spoiled(rng, path.read_bytes()))
  before = listing(outside)
  outcome, message = attempt(workdir, name)
  if listing(outside) != before or set(os.listdir(inside)) != {"run"}:
    outcome, message = "failed", "something was written outside the workdir"
  return name, outcome, f"{what} {message}".strip()


def main() -> int:
  """Prints the table; returns 1 if something failed."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--files", type=int, default=10_000)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--only", type=int, help="the number of one file")
  parser.add_argument("--show", action="store_true", help="print each message")
  flags = parser.parse_args()
  table = collections.defaultdict(collections.Counter)

  def slow(*_):
    raise SlowError(f"more than {MOST_SECONDS} s")

  signal.signal(signal.SIGALRM, slow)
  started, failures = time.monotonic(), 0
  with tempfile.TemporaryDirectory() as root:
    folder = pathlib.Path(root)
    os.environ["TESSERA_CACHE"] = str(folder / "cache")
    made = runs(folder)
    (folder / "outside").mkdir()
    (folder / "outside" / "file").write_text("precious")
    for workdir in made:  # the memory used if nothing is wrong
      read_run(workdir)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    numbers = range(flags.files) if flags.only is None else [flags.only]
    for number in numbers:
      name, outcome, message = one(number, flags.seed, made, folder)
      used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base
      if 1024 * used > MOST_MEMORY:
        outcome, message = "failed", f"{used / 1024:.0f} MiB used; {message}"
        base += used
      if any(not c.isprintable() for c in message) and outcome == "refused":
        message = repr(message)  # common.cli escapes it too
      table[name].update(["tried", outcome])
      if outcome == "failed" or flags.show or flags.only is not None:
        print(f"{number} {name}: {outcome} {message}", flush=True)
      failures += outcome == "failed"
  print(f"{'file':<16}" + "".join(f"{o:>10}" for o in OUTCOMES))
  for name in sorted(table):
    print(f"{name:<16}" + "".join(f"{table[name][o]:>10}" for o in OUTCOMES))
  print(f"{time.monotonic() - started:.0f} s")
  return 1 if failures else 0


if __name__ == "__main__":
  sys.exit(main())
