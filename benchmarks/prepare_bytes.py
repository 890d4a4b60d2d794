r"""Whether `prepare` writes the same bytes by one worker, by four, and killed.

  python benchmarks/prepare_bytes.py --data=DATA/web_html_gold/html --kills=10

Prepares the pages with a recipe, three times: by one worker; by four; and by
two that are killed (SIGKILL, all processes at once) at random moments until the
command has come to its end. Says how the times compare, and whether every file
of the three folders is the same to the byte.
"""

import hashlib
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("data", None, "A folder of .html pages.", required=True)
flags.DEFINE_string("config", "configs/data/web_zh_en.py", "The recipe.")
flags.DEFINE_integer("kills", 10, "How often the third run is killed.")
flags.DEFINE_integer("seed", 0, "Of the moments.")


def command(folder: str, workers: int) -> list[str]:
  """What a user would type."""
  return [
    sys.executable,
    "-m",
    "input_pipeline.prepare",
    f"--config={FLAGS.config}",
    f"--config.data.source=html:{FLAGS.data}/*.html",
    f"--config.data.shard_bytes={2**18}",
    f"--config.output.shard_bytes={2**16}",
    "--config.output.tokenizer=byte",
    "--documents",
    f"--workers={workers}",
    f"--output={folder}",
  ]


def timed(folder: str, workers: int) -> float:
  """Seconds that a run takes to its end."""
  start = time.perf_counter()
  subprocess.run(command(folder, workers), check=True, capture_output=True)
  return time.perf_counter() - start


def killed(folder: str, longest: float) -> int:
  """Kills the command at random moments; how often it was in the middle."""
  moments = random.Random(FLAGS.seed)
  count = 0
  while count < FLAGS.kills:
    process = subprocess.Popen(
      command(folder, 2),
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      start_new_session=True,
    )
    try:
      process.wait(moments.uniform(0, longest))
      break
    except subprocess.TimeoutExpired:
      os.killpg(process.pid, signal.SIGKILL)
      process.wait()
      count += 1
  timed(folder, 2)
  return count


def digests(folder: str) -> dict[str, str]:
  """A digest of each file."""
  return {
    str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(pathlib.Path(folder).rglob("*"))
    if path.is_file()
  }


def main(argv) -> None:
  """Compares the three."""
  del argv
  with tempfile.TemporaryDirectory() as folder:
    one, four, cut = (f"{folder}/{name}" for name in ("one", "four", "cut"))
    seconds = timed(one, 1)
    print(f"1 worker: {seconds:.1f} s, {len(digests(one))} files")
    print(f"4 workers: {timed(four, 4):.1f} s")
    count = killed(cut, seconds)
    print(f"2 workers, killed {count} times and gone on with")
    same = digests(one) == digests(four) == digests(cut)
    print("identical bytes" if same else "THEY DIFFER")
    if not same:
      for name in sorted({*digests(one), *digests(four), *digests(cut)}):
        found = [digests(each).get(name, "")[:8] for each in (one, four, cut)]
        if len(set(found)) > 1:
          print(f"  {name}: {found}")
      sys.exit(1)


if __name__ == "__main__":
  app.run(main)
