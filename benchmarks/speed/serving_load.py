"""Tokens per second and latency of the server under load, on a CPU.

A Llama of 0.9 million parameters (4 layers of 128, random weights, bytes) is
served with --batch=16. A client process keeps 1, 8, 16 and 50 connections
busy; each sends one streamed completion after another, with a prompt of 32
tokens, or, for "50 mixed", of 1 to 128 tokens, and max_tokens of 64. Between
them, the writer that `generate` uses is called directly in a process of its
own, with 1, 8 and 16 rows of the same sizes. Rounds alternate; the medians are
printed, with the 50th and 95th percentile of the time to the first token, and
the server's memory at its start and end. --minutes sets how long the last load
is kept up, for the growth of memory.

  python benchmarks/speed/serving_load.py --rounds=3 --minutes=10
"""

import argparse
import asyncio
import json
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).parents[2]
PROMPT, TOKENS, BATCH = 32, 64, 16
LOADS = {"1": (1, False), "8": (8, False), "16": (16, False)}
LOADS["50 mixed"] = (50, True)
CONFIG = """
from configs.language import lm_shakespeare
def get_config():
  config = lm_shakespeare.get_config("smoke")
  config.total_steps, config.batch_size, config.evals = 1, 8, {}
  config.early_stopping, config.checkpoint = {}, {}
  config.model = dict(name="decoder", layers=4, dim=128, heads=4, max_len=256,
      positions="rotary", norm="rmsnorm", activation="swiglu", bias=False)
  config.data.update(tokenizer="byte", seq_len=32)
  return config
"""


def main() -> None:
  """Prints a table of all loads."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--seconds", type=float, default=10.0)
  parser.add_argument("--minutes", type=float, default=0.0)
  parser.add_argument("--direct", metavar="WORKDIR", help=argparse.SUPPRESS)
  parser.add_argument("--load", nargs=4, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.direct:
    direct(args.direct, args.seconds)
  elif args.load:
    port, clients, mixed, seconds = args.load
    asyncio.run(load(int(port), int(clients), mixed == "True", float(seconds)))
  else:
    with tempfile.TemporaryDirectory() as folder:
      measure(pathlib.Path(folder), args)


def measure(folder: pathlib.Path, args) -> None:
  """Trains, serves and measures."""
  config, workdir = folder / "tiny_llama.py", folder / "run"
  config.write_text(CONFIG)
  python = [sys.executable, "-m"]
  run = [*python, "train.main", f"--config={config}", f"--workdir={workdir}"]
  subprocess.run(run, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
  serve = [*python, "train.serve", f"--workdir={workdir}", "--port=0"]
  serve += [f"--batch={BATCH}", "--requests_per_minute=1000000"]
  log = (folder / "log").open("w")  # a line for each request
  server = subprocess.Popen(
    serve, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True
  )
  try:
    port = server.stdout.readline().split(":")[-1].strip()
    start = resident(server.pid)
    found: dict[str, list] = {}
    for _ in range(args.rounds):
      for rows, rate in child(["--direct", workdir, args.seconds]).items():
        found.setdefault(f"direct, {rows} rows", []).append({"rate": rate})
      for name, (clients, mixed) in LOADS.items():
        one = child(["--load", port, clients, mixed, args.seconds])
        found.setdefault(f"{name} clients", []).append(one)
    if args.minutes:
      one = child(["--load", port, 50, True, 60 * args.minutes])
      found[f"50 mixed clients, {args.minutes:g} min"] = [one]
    end = resident(server.pid)
  finally:
    server.terminate()
    server.wait()
  print(f"{'load':32} tokens/s   first token, s: median   95 %   errors")
  for name, rounds in found.items():
    row = {
      key: statistics.median(each[key] for each in rounds) for key in rounds[0]
    }
    line = f"{name:32} {row['rate']:8,.0f}"
    if "p95" in row:
      line += f" {row['p50']:24.3f} {row['p95']:6.3f} {row['errors']:8.0f}"
    print(line)
  print(f"memory of the server: {start} MB at its start, {end} MB at the end")


def child(arguments: list) -> dict:
  """The JSON that this script prints with these arguments."""
  seconds = [] if arguments[0] == "--load" else ["--seconds", arguments.pop()]
  command = [sys.executable, __file__, *arguments, *seconds]
  done = subprocess.run(
    list(map(str, command)), cwd=ROOT, check=True, stdout=subprocess.PIPE
  )
  return json.loads(done.stdout)


def resident(pid: int) -> int:
  """The memory that a process holds, in MB."""
  for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
    if line.startswith("VmRSS"):
      return int(line.split()[1]) // 1024
  raise SystemExit("the server has ended")


def direct(workdir: str, seconds: float) -> None:
  """Prints the tokens per second of the writer, by rows."""
  sys.path.insert(0, str(ROOT))
  from common import cli

  cli.start_jax()
  from train import trained
  from train.generation import streaming

  found = trained.load(workdir, say=lambda line: None)
  write = streaming.writer(streaming.inference(found))
  rates = {}
  for rows in (1, 8, 16):
    prompts = np.random.default_rng(rows).integers(97, 123, (rows, PROMPT))
    options = [streaming.Options(TOKENS, seed=i) for i in range(rows)]
    list(write(prompts, options))
    count, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds / 3:
      count += sum(len(piece.tokens) for piece in write(prompts, options))
    rates[rows] = count / spent
  print(json.dumps(rates))


async def load(port: int, clients: int, mixed: bool, seconds: float) -> None:
  """Prints what so many clients measured, after two seconds to warm up.

  The rate counts the tokens of the texts that ended within the seconds.
  """
  firsts: list[float] = []
  tokens = errors = 0
  start = time.perf_counter() + 2
  end = start + seconds

  async def client(number: int) -> None:
    nonlocal tokens, errors
    rng = np.random.default_rng(number)
    while time.perf_counter() < end:
      length = int(rng.integers(1, 129)) if mixed else PROMPT
      prompt = bytes(rng.integers(97, 123, length).tolist()).decode()
      asked = time.perf_counter()
      first, used = await answer(port, prompt, int(rng.integers(2**31)))
      errors += used == 0
      if start <= time.perf_counter() <= end:
        tokens += used
      if start <= asked and used:
        firsts.append(first - asked)

  await asyncio.gather(*(client(number) for number in range(clients)))
  p50, p95 = np.percentile(firsts, [50, 95])
  print(
    json.dumps(
      {"rate": tokens / seconds, "p50": p50, "p95": p95, "errors": errors}
    )
  )


async def answer(port: int, prompt: str, seed: int) -> tuple[float, int]:
  """(when the first text came, the tokens of the text or 0 after an error)."""
  body = {"prompt": prompt, "max_tokens": TOKENS, "seed": seed, "stream": True}
  data = json.dumps(body | {"stream_options": {"include_usage": True}}).encode()
  reader, writer = await asyncio.open_connection("127.0.0.1", port)
  writer.write(
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n" % len(data) + data
  )
  content, first = b"", 0.0
  while part := await reader.read(65536):
    content += part
    if not first and b'"text"' in content:
      first = time.perf_counter()
  writer.close()
  used = re.search(rb'"completion_tokens": ?(\d+)', content)
  return first, int(used[1]) if used and first else 0


if __name__ == "__main__":
  main()
