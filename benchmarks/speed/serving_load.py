"""Tokens per second and latency of the server under load, on a CPU.

A Llama of 0.9 million parameters (4 layers of 128, random weights, bytes) is
served with --batch=16. A client process keeps 1, 8, 16 and 50 connections
busy; each sends one streamed completion after another, with a prompt of 32
tokens, or, for "50 mixed", of 1 to 128 tokens, and max_tokens of 64. Between
them, the writer that `generate` uses is called directly in a process of its
own, with 1, 8 and 16 rows of the same sizes. Rounds alternate; the medians are
printed, with the best round, the 50th and 95th percentile of the time to the
first token, the CPU time of the server or writer per token, and the server's
memory at its start and end. --minutes sets how long the last load is kept up,
for the growth of memory.

  python benchmarks/speed/serving_load.py --rounds=3 --minutes=10

--transformers=PYTHON measures `transformers serve` beside it, with the same
weights (by `train.convert --to`) and the same clients. PYTHON is that of an
environment with transformers[serving] and torch; an empty value is this one.
It is left out, with a line that gives the reason, if it does not start.
"""

import argparse
import asyncio
import json
import os
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from typing import NamedTuple

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
  parser.add_argument("--transformers", metavar="PYTHON")
  parser.add_argument("--load", nargs=5, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.direct:
    direct(args.direct, args.seconds)
  elif args.load:
    port, name, clients, mixed, seconds = args.load
    about = (int(port), name, int(clients), mixed == "True", float(seconds))
    asyncio.run(load(*about))
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
  servers = {"": serve(workdir, folder)}
  try:
    if args.transformers is not None:
      other = transformers(workdir, folder, args.transformers or sys.executable)
      if other:
        servers["transformers, "] = other
    start = resident(servers[""].process.pid)
    found: dict[str, list] = {}
    for _ in range(args.rounds):
      for rows, one in child(["--direct", workdir, args.seconds]).items():
        print(f"direct, {rows}:", one, file=sys.stderr, flush=True)
        found.setdefault(f"direct, {rows} rows", []).append(one)
      for name, (clients, mixed) in LOADS.items():
        for who, server in servers.items():
          one = loaded(server, clients, mixed, args.seconds)
          print(f"{who}{name}:", one, file=sys.stderr, flush=True)
          found.setdefault(f"{who}{name} clients", []).append(one)
    if args.minutes:
      one = loaded(servers[""], 50, True, 60 * args.minutes)
      found[f"50 mixed clients, {args.minutes:g} min"] = [one]
    end = resident(servers[""].process.pid)
  finally:
    for server in servers.values():
      server.process.terminate()
      server.process.wait()
  show(found)
  print(f"memory of the server: {start} MB at its start, {end} MB at the end")


def show(found: dict[str, list]) -> None:
  """Prints the medians of each load's rounds, and its best round."""
  print(
    f"{'load':32} tokens/s   best  CPU, us/token"
    "   first token, s: median   95 %   errors"
  )
  for name, rounds in found.items():
    row = {
      key: statistics.median(each[key] for each in rounds) for key in rounds[0]
    }
    best = max(each["rate"] for each in rounds)
    line = f"{name:32} {row['rate']:8,.0f} {best:6,.0f} {row['cpu']:14,.0f}"
    if "p95" in row:
      line += f" {row['p50']:24.3f} {row['p95']:6.3f} {row['errors']:8.0f}"
    print(line)


class Server(NamedTuple):
  """A server: its process, its port, and the name of its model."""

  process: subprocess.Popen
  port: int
  model: str


def serve(workdir: pathlib.Path, folder: pathlib.Path) -> Server:
  """Starts our server; returns once it listens."""
  command = [sys.executable, "-m", "train.serve", f"--workdir={workdir}"]
  command += ["--port=0", f"--batch={BATCH}", "--requests_per_minute=1000000"]
  log = (folder / "log").open("w")  # a line for each request
  process = subprocess.Popen(
    command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True
  )
  port = int(process.stdout.readline().split(":")[-1])
  for line in (folder / "log").read_text().splitlines():
    print(line)
  return Server(process, port, workdir.name)


def transformers(
  workdir: pathlib.Path, folder: pathlib.Path, python: str
) -> Server | None:
  """Starts `transformers serve`; None, and a line, if it does not start."""
  target, log = folder / "hf", folder / "transformers"
  convert = [sys.executable, "-m", "train.convert", f"--workdir={workdir}"]
  run = [*convert, f"--to={target}"]
  subprocess.run(run, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
  write_byte_tokenizer(target)
  with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
  main = "from transformers.cli.transformers import main; main()"
  command = [python, "-c", main, "serve", str(target), f"--port={port}"]
  process = subprocess.Popen(
    [*command, "--device=cpu", "--log-level=error"],
    stdout=log.open("w"),
    stderr=subprocess.STDOUT,
    env={**os.environ, "HF_HUB_OFFLINE": "1"},
  )
  health = f"http://127.0.0.1:{port}/health"
  for _ in range(240):
    if process.poll() is not None:
      break
    try:
      with urllib.request.urlopen(health, timeout=5):
        found = Server(process, port, str(target))
        # Its first request loads the model.
        asyncio.run(answer(port, found.model, "a", 0))
        return found
    except OSError:
      time.sleep(0.5)
  process.kill()
  process.wait()
  lines = log.read_text().splitlines() or ["it did not listen in two minutes"]
  print(f"transformers serve does not start: {lines[-1]}")
  return None


def write_byte_tokenizer(folder: pathlib.Path) -> None:
  """Writes a tokenizer.json whose ids are bytes, which convert does not."""
  shown = {*range(33, 127), *range(161, 173), *range(174, 256)}
  others = iter(range(256, 512))
  vocab = {chr(b if b in shown else next(others)): b for b in range(256)}
  level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
  level["trim_offsets"] = True
  model = {"type": "BPE", "vocab": vocab, "merges": []}
  tokenizer = {"version": "1.0", "added_tokens": [], "model": model}
  tokenizer |= {"pre_tokenizer": level, "decoder": level}
  (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
  how = {"tokenizer_class": "PreTrainedTokenizerFast"}
  (folder / "tokenizer_config.json").write_text(json.dumps(how))


def loaded(server: Server, clients: int, mixed: bool, seconds: float) -> dict:
  """What so many clients of a server measured, with its CPU time."""
  before = cpu_seconds(server.process.pid)
  one = child(["--load", server.port, server.model, clients, mixed, seconds])
  spent = cpu_seconds(server.process.pid) - before
  return one | {"cpu": 1e6 * spent / max(one["total"], 1)}


def cpu_seconds(pid: int) -> float:
  """The CPU time that a process has used, in seconds."""
  fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
  user, system = fields.split()[11:13]
  return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


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
    count, start, before = 0, time.perf_counter(), time.process_time()
    while (spent := time.perf_counter() - start) < seconds / 3:
      count += sum(len(piece.tokens) for piece in write(prompts, options))
    cpu = 1e6 * (time.process_time() - before) / count
    rates[rows] = {"rate": count / spent, "cpu": cpu}
  print(json.dumps(rates))


async def load(
  port: int, model: str, clients: int, mixed: bool, seconds: float
) -> None:
  """Prints what so many clients measured, after two seconds to warm up.

  The rate counts the tokens of the texts that ended within the seconds.
  """
  firsts: list[float] = []
  tokens = total = errors = 0
  start = time.perf_counter() + 2
  end = start + seconds

  async def client(number: int) -> None:
    nonlocal tokens, total, errors
    rng = np.random.default_rng(number)
    while time.perf_counter() < end:
      length = int(rng.integers(1, 129)) if mixed else PROMPT
      prompt = bytes(rng.integers(97, 123, length).tolist()).decode()
      asked = time.perf_counter()
      first, used = await answer(port, model, prompt, int(rng.integers(2**31)))
      errors += used == 0
      total += used
      if start <= time.perf_counter() <= end:
        tokens += used
      if start <= asked and used:
        firsts.append(first - asked)

  await asyncio.gather(*(client(number) for number in range(clients)))
  p50, p95 = np.percentile(firsts or [np.nan], [50, 95])
  found = {"rate": tokens / seconds, "p50": p50, "p95": p95}
  print(json.dumps(found | {"errors": errors, "total": total}))


async def answer(
  port: int, model: str, prompt: str, seed: int
) -> tuple[float, int]:
  """(when the first text came, the tokens of the text or 0 after an error)."""
  body = {"model": model, "prompt": prompt, "max_tokens": TOKENS, "seed": seed}
  body |= {"stream": True, "temperature": 1}
  if "/" not in model:  # transformers sends its counts in any case
    body["stream_options"] = {"include_usage": True}
  data = json.dumps(body).encode()
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
