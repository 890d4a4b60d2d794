"""The cost of restores and digests, and the time to data far into a run.

On the CPU, for AdamW's state of random float32 weights:

  - restoring it, including digests, compared to reading the bytes of the same
    files into memory: with a warm page cache, and with a cold one;
  - saving it with digests and without, until it is committed;
  - the first batch at position 10^12 of a language model's data.

Compared measurements alternate. The median of --times is printed; for saves
also the fastest, since on a shared machine and its disk they vary by more than
the cost of digests.

  python benchmarks/speed/restore_speed.py --directory=LOCAL_DISK
"""

import argparse
import math
import os
import pathlib
import statistics
import sys
import tempfile
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import jax  # noqa: E402  (the path above must come first)

from common import cli  # noqa: E402
from configs.language import lm_stdlib  # noqa: E402
from train import assembly, sharding  # noqa: E402
from train.checkpointing import checkpoint, digests  # noqa: E402

LEAVES = 50
FAR = 10**12
MIXTURE = [
  {"source": "fake:text?documents=90&length=21", "weight": 3.0},
  {"source": "fake:text?documents=9&length=99&seed=1", "weight": 0.7},
]


def state_of(parameters: int):
  """Returns weights and two moments, each of LEAVES matrices."""
  side = math.isqrt(parameters // LEAVES)

  @jax.jit
  def make(key):
    x = jax.random.normal(key, (LEAVES, side, side))
    return {f"{i}": x[i] for i in range(LEAVES)}

  parts = ("params", "mu", "nu")
  return {part: make(jax.random.key(i)) for i, part in enumerate(parts)}


def seconds(call) -> float:
  """Returns the seconds of `call`."""
  start = time.perf_counter()
  call()
  return time.perf_counter() - start


def alternately(
  times: int, *calls, before=lambda: None, of=statistics.median
) -> list[float]:
  """Returns the seconds of each; a first warm-up round is not included."""
  found = []
  for _ in range(times + 1):
    found.append([])
    for call in calls:
      before()
      found[-1].append(seconds(call))
  return [of(column) for column in zip(*found[1:], strict=True)]


def files_of(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns all files below `folder`."""
  return [path for path in folder.rglob("*") if path.is_file()]


def forget(folder: pathlib.Path) -> None:
  """Makes the kernel drop its cache of the files."""
  for path in files_of(folder):
    with path.open("rb") as file:
      os.fsync(file.fileno())
      os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def saves(state, directory: str, times: int):
  """Returns [(median, least)] seconds: digests, saves with and without them."""
  manager, step = checkpoint.open_manager(directory, keep=1), 0
  computed = digests.of

  def save(of):
    nonlocal step
    step, digests.of = step + 1, of
    checkpoint.save(manager, step, state, {"position": step})
    checkpoint.check(manager, wait=True)

  known = computed(state)
  found = alternately(
    times,
    lambda: computed(state),
    lambda: save(computed),
    lambda: save(lambda tree: known),
    of=lambda column: (statistics.median(column), min(column)),
  )
  digests.of = computed
  return found


def restores(state, directory: str, times: int):
  """Returns (bytes, median seconds of {cache: (a restore, reading)})."""
  manager = checkpoint.open_manager(directory, keep=1)
  record = {"position": 0, "evaluated": True, "health": {}, "rollbacks": 0}
  checkpoint.save(manager, 0, state, record)
  checkpoint.check(manager, wait=True)
  shardings = jax.tree.map(lambda x: x.sharding, state)
  shapes = sharding.abstract(state, shardings)
  folder = pathlib.Path(directory) / "0"

  def restore():
    jax.block_until_ready(checkpoint.restore(manager, shapes, 0).state)

  def read():
    return [path.read_bytes() for path in files_of(folder)]

  size = sum(map(len, read()))
  return size, {
    "warm": alternately(times, restore, read),
    "cold": alternately(times, restore, read, before=lambda: forget(folder)),
  }


def seeks() -> dict[str, float]:
  """Returns seconds to the first batch at position FAR, by kind of data."""
  found = {}
  for kind in ("windows", "packed mixture"):
    config = lm_stdlib.get_config("smoke")
    if kind == "packed mixture":
      config.data.source, config.data.mixture = "", MIXTURE
      config.data.packing = True
    data = assembly.experiment(config).data
    next(data.batches(0))  # part of the start of any run

    def begin(data=data):
      return next(data.batches(FAR // data.batch_size))

    found[kind] = seconds(begin)
  return found


def main():
  """Prints the figures."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--directory", help="on a local disk")
  parser.add_argument("--parameters", type=int, default=100_000_000)
  parser.add_argument("--times", type=int, default=5)
  args = parser.parse_args()
  cli.start_jax()
  for kind, found in seeks().items():
    print(f"first batch at position 10^12, {kind}: {found:.3f} s", flush=True)
  state = jax.block_until_ready(state_of(args.parameters))
  with tempfile.TemporaryDirectory(dir=args.directory) as root:
    size, found = restores(state, f"{root}/a", args.times)
    for cache, (restore, read) in found.items():
      print(
        f"restore of {size / 1e9:.2f} GB {restore:.3f} s, reading its bytes"
        f" {read:.3f} s: {restore / read:.2f}x, with a {cache} page cache",
        flush=True,
      )
    found = saves(state, f"{root}/b", args.times)
  for which, digest, with_them, without in zip(
    ("median", "fastest"), *found, strict=True
  ):
    print(
      f"save, {which}: with digests {with_them:.3f} s, without {without:.3f} s:"
      f" {with_them / without - 1:+.1%}; digests alone {digest:.3f} s,"
      f" {digest / without:.1%} of a save"
    )


if __name__ == "__main__":
  main()
