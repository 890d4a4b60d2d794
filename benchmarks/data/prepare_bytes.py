r"""Checks that `prepare` writes equal bytes with any workers and when killed.

  python benchmarks/data/prepare_bytes.py --data=DATA/web_html_gold/html \
      --kills=10

Prepares the pages with a recipe by one worker, by four, and by one or two that
are killed (SIGKILL, all processes at once) at random moments and restarted.
Reports whether every file of every output is the same to the byte.
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
flags.DEFINE_integer(
  "kills", 10, "Number of times that the third run is killed."
)
flags.DEFINE_integer("seed", 0, "Of the moments.")


def command(folder: str, workers: int) -> list[str]:
  """Returns the command that a user would type."""
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
  """Returns the seconds that a complete run takes."""
  start = time.perf_counter()
  subprocess.run(command(folder, workers), check=True, capture_output=True)
  return time.perf_counter() - start


def killed(folder: str, longest: tuple[float, float]) -> list[str]:
  """Kills the command at random moments, the given number of times.

  Args:
    folder: where outputs are written; a complete one is followed by another.
    longest: seconds that a run takes with one worker, and with several.

  Returns:
    The outputs, all complete.
  """
  moments = random.Random(FLAGS.seed)
  count, outputs = 0, [f"{folder}/0"]
  while count < FLAGS.kills:
    many = moments.random() < 0.5
    process = subprocess.Popen(
      command(outputs[-1], 1 + many),
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      start_new_session=True,
    )
    try:
      process.wait(moments.uniform(0, longest[many]))
      outputs.append(f"{folder}/{len(outputs)}")
    except subprocess.TimeoutExpired:
      os.killpg(process.pid, signal.SIGKILL)
      process.wait()
      count += 1
  timed(outputs[-1], 2)
  return outputs


def digests(folder: str) -> dict[str, str]:
  """Returns a digest of each file."""
  return {
    str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(pathlib.Path(folder).rglob("*"))
    if path.is_file()
  }


def main(argv) -> None:
  """Compares the three."""
  del argv
  with tempfile.TemporaryDirectory() as folder:
    one, four = (f"{folder}/{name}" for name in ("one", "four"))
    seconds = timed(one, 1)
    expected = digests(one)
    print(f"1 worker: {seconds:.1f} s, {len(expected)} files")
    many = timed(four, 4)
    print(f"4 workers: {many:.1f} s")
    cut = killed(f"{folder}/killed", (seconds, many))
    print(
      f"1 or 2 workers, killed {FLAGS.kills} times and restarted, "
      f"to {len(cut)} outputs"
    )
    wrong = {
      f"{path}/{name}"
      for path in (four, *cut)
      for name in expected.keys() | digests(path).keys()
      if expected.get(name) != digests(path).get(name)
    }
    print(
      "\n".join(["THEY DIFFER", *sorted(wrong)]) if wrong else "identical bytes"
    )
    sys.exit(bool(wrong))


if __name__ == "__main__":
  app.run(main)
