"""The tf.data service with two workers here, beside the run without it."""

import contextlib
import json
import os
import pathlib
import select
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from tiers import slow_but

from input_pipeline.batching import pipeline, service_stream

pytest.importorskip("tensorflow")

ROOT = pathlib.Path(__file__).parents[3]
VERB = [sys.executable, "-m", "input_pipeline.data_service"]


def start(*flags):
  environment = {
    **os.environ,
    "PYTHONPATH": str(ROOT),
    "CUDA_VISIBLE_DEVICES": "",
  }
  return subprocess.Popen(
    [*VERB, *flags],
    cwd=ROOT,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def port_of(process, seconds=60):
  """The port that it tells when it is there."""
  assert select.select([process.stdout], [], [], seconds)[0], "it says nothing"
  line = process.stdout.readline()
  assert " on 127.0.0.1:" in line, process.stderr.read()
  return int(line.rpartition(":")[2])


@contextlib.contextmanager
def service(workers):
  """(address, the workers' processes)."""
  with contextlib.ExitStack() as stack:

    def stopped(process):
      process.kill()
      process.communicate()

    dispatcher = start("--role=dispatcher")
    stack.callback(stopped, dispatcher)
    at = port_of(dispatcher)
    found = [
      start("--role=worker", f"--dispatcher=127.0.0.1:{at}")
      for _ in range(workers)
    ]
    for process in found:
      stack.callback(stopped, process)
    for process in found:
      port_of(process)
    yield f"grpc://127.0.0.1:{at}", found, dispatcher


@pytest.fixture(scope="module")
def two():
  """Two workers, and a third that a test may kill."""
  with service(3) as found:
    yield found


OPS = "random_crop(6, pad=2)|flip|scale(-1, 1)"
SETTINGS = dict(
  source="fake:image?n=60&size=8&channels=3&dtype=uint8",
  split="all",
  ops=OPS,
  batch_size=10,
  seed=5,
)


def some(data, first, count):
  batches = data.batches(first)
  found = [next(batches) for _ in range(count)]
  batches.close()
  return found


def same(ours, theirs):
  assert len(ours) == len(theirs)
  for a, b in zip(ours, theirs, strict=True):
    assert set(a) == set(b)
    for leaf in a:
      assert a[leaf].dtype == b[leaf].dtype
      np.testing.assert_array_equal(a[leaf], b[leaf], err_msg=leaf)


@pytest.mark.parametrize("first", slow_but([7], [0, 7, 10**9]))
def test_batches_are_those_of_a_run_without_it(two, first):
  ours = pipeline.train(**SETTINGS, service=two[0])
  theirs = pipeline.train(**SETTINGS)
  assert ours.spec == theirs.spec
  # Two epochs of six batches, wherever they begin.
  found = some(ours, first, 12)
  same(found, some(theirs, first, 12))


def test_each_example_exactly_once_an_epoch(two):
  data = pipeline.train(**SETTINGS, service=two[0])
  for epoch in (0, 3):
    index = [b["index"] for b in some(data, 6 * epoch, 6)]
    assert sorted(np.concatenate(index)) == list(range(60))


def test_the_workers_do_nearly_all(two, monkeypatch):
  """One that is held up by the machine may lose a few of its steps."""
  local = []
  rows = service_stream._Alone.rows

  def counted(self, step):
    local.append(step)
    return rows(self, step)

  monkeypatch.setattr(service_stream._Alone, "rows", counted)
  data = pipeline.train(**SETTINGS, service=two[0])
  some(data, 0, 200)
  assert len(local) < 50


def test_a_hosts_share_and_a_mixture(two):
  mixture = [
    dict(source=SETTINGS["source"], weight=3),
    dict(source=SETTINGS["source"] + "&seed=1", weight=1, split="all"),
  ]
  settings = {
    **SETTINGS,
    "source": None,
    "mixture": mixture,
    "host_index": [1],
    "host_count": 2,
  }
  ours = pipeline.train(**settings, service=two[0])
  same(some(ours, 3, 9), some(pipeline.train(**settings), 3, 9))


@pytest.mark.parametrize(
  "settings",
  [
    dict(
      source="fake:text?documents=30&length=90",
      tokenizer="byte",
      seq_len=16,
      ops="drop_tokens(0.1)|mask_tokens",
    ),
    dict(source=SETTINGS["source"], ops="scale(-1, 1)|mixup(0.4)|flip"),
  ],
  ids=["tokens", "pairs"],
)
def test_ops_on_tokens_and_on_pairs(two, settings):
  settings |= dict(batch_size=10, seed=5)
  ours = pipeline.train(**settings, service=two[0])
  same(some(ours, 3, 9), some(pipeline.train(**settings), 3, 9))


def test_a_tokenizer_learned_of_other_text_is_told(two, tmp_path):
  """On the worker's machine the same path holds another text."""
  path = tmp_path / "a.jsonl"
  path.write_text(json.dumps({"text": "abcd" * 50}))
  data = pipeline.train(
    source=f"jsonl:{path}",
    tokenizer="char",
    split="all",
    seq_len=8,
    ops="drop_tokens(0.1)",
    batch_size=4,
    service=two[0],
  )
  path.write_text(json.dumps({"text": "abce" * 50}))
  with pytest.raises(ValueError, match="the tokenizer here differs"):
    next(data.batches(0))


def folder_of(tmp_path, bad=()):
  import tensorflow as tf

  for i in range(24):
    path = tmp_path / "images" / f"c{i % 2}" / f"{i:02}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(i).integers(0, 256, (5, 5, 3), np.uint8)
    content = tf.io.encode_png(image).numpy()
    path.write_bytes(content[: len(content) // 2] if i in bad else content)
  return dict(
    source=f"folder:{tmp_path / 'images'}",
    split="all",
    ops="decode(3)|flip|scale(0, 1)|resize(5)",
    batch_size=6,
  )


def test_bad_records_are_skipped_alike(two, tmp_path):
  settings = folder_of(tmp_path, bad=(3, 14, 15))
  settings |= dict(on_bad_record="skip", max_bad_share=0.5)
  ours = pipeline.train(**settings, service=two[0])
  theirs = pipeline.train(**settings)
  same(some(ours, 2, 8), some(theirs, 2, 8))
  assert ours.skipped() == theirs.skipped()
  assert ours.skipped().count > 3


def test_the_first_bad_record_is_named(two, tmp_path):
  settings = folder_of(tmp_path, bad=(3,))
  ours = pipeline.train(**settings, service=two[0])
  theirs = pipeline.train(**settings)
  good = 0
  with pytest.raises(ValueError, match=r"03\.png") as error:
    for _ in theirs.batches(0):
      good += 1
  batches = ours.batches(0)
  for _ in range(good):
    next(batches)
  with pytest.raises(ValueError, match=r"03\.png") as found:
    next(batches)
  assert str(found.value) == str(error.value)


def test_a_worker_that_finds_other_data_is_told(two, tmp_path):
  settings = folder_of(tmp_path)
  data = pipeline.train(**settings, service=two[0])
  (tmp_path / "images" / "c0" / "00.png").unlink()
  with pytest.raises(
    ValueError, match="has 23 examples here, but 24 on"
  ) as error:
    next(data.batches(0))
  assert "\n" not in str(error.value)
  assert "grpc://127.0.0.1" in str(error.value)


def test_a_worker_that_is_killed_costs_no_step(two):
  address, workers, _ = two
  data = pipeline.train(**SETTINGS, service=f"{address}?timeout=60")
  batches = data.batches(4)
  found = [next(batches) for _ in range(5)]
  workers[2].kill()
  start = time.monotonic()
  found += [next(batches) for _ in range(60)]
  assert time.monotonic() - start < 60
  same(found, some(pipeline.train(**SETTINGS), 4, 65))


def test_only_this_machine_reaches_it(two):
  """Its sockets take what comes in by the loopback device, and no more."""
  option = getattr(socket, "SO_BINDTODEVICE", None)
  if option is None:
    pytest.skip("no SO_BINDTODEVICE")
  from input_pipeline import data_service

  with socket.socket() as ours:
    ours.bind(("", 0))
    ours.listen()
    port = ours.getsockname()[1]
    assert data_service._keep_to_loopback(port)
    assert ours.getsockopt(socket.SOL_SOCKET, option, 16).startswith(b"lo")
    socket.create_connection(("127.0.0.1", port), 5).close()
  assert not data_service._keep_to_loopback(port)


@pytest.mark.parametrize(
  ("flags", "named"),
  [
    ([], "--role=dispatcher or --role=worker"),
    (["--role=cook"], "role"),
    (["--role=worker"], "--role=worker needs --dispatcher"),
    (["--role=worker", "--dispatcher=x"], "is not HOST:PORT"),
    (["--role=dispatcher", "--dispatcher=x:1"], "--dispatcher is valid with"),
    (["--role=dispatcher", "--port=99999999"], "port"),
    (["--role=dispatcher", "more"], "'more'"),
    (["--role=dispatcher", "--host=0.0.0.0"], "by which others reach"),
    (["--role=dispatcher", "--port=TAKEN"], "in use"),
  ],
)
def test_wrong_flags_are_one_line(flags, named):
  with socket.socket() as taken:
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    port = str(taken.getsockname()[1])
    flags = [flag.replace("TAKEN", port) for flag in flags]
    process = start(*flags)
    _, said = process.communicate(timeout=60)
  assert process.returncode == 2
  lines = [line for line in said.splitlines() if line.startswith("error: ")]
  assert len(lines) == 1 and named in lines[0]
  assert "Traceback" not in said


@pytest.mark.slow
def test_no_worker_is_told_in_time_and_an_interrupt_ends_it():
  process = start("--role=dispatcher")
  address = f"grpc://127.0.0.1:{port_of(process)}"
  data = pipeline.train(**SETTINGS, service=f"{address}?timeout=2")
  begin = time.monotonic()
  with pytest.raises(ValueError, match="no batch for 2 seconds") as error:
    next(data.batches(0))
  assert 2 <= time.monotonic() - begin < 30
  assert "\n" not in str(error.value)
  process.send_signal(signal.SIGINT)
  _, said = process.communicate(timeout=30)
  assert process.returncode == 0
  assert "Traceback" not in said
  if sys.platform == "linux":
    assert "could not be closed to the network" not in said


@pytest.mark.parametrize(
  "address",
  ["localhost:1", "http://a:1", "grpc://a", "grpc://a:0", "grpc://a:70000", 7]
  + ["grpc://a:1?timeout=0", "grpc://a:1?wait=3", "grpc://a:1/x"],
)
def test_an_address_that_is_none(address):
  with pytest.raises(ValueError, match="is not grpc://HOST:PORT") as error:
    pipeline.train(**SETTINGS, service=address)
  assert "\n" not in str(error.value)


def test_where_there_is_no_dispatcher():
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  data = pipeline.train(**SETTINGS, service=f"grpc://127.0.0.1:{port}")
  with pytest.raises(ValueError, match="no dispatcher answers.*starts one"):
    next(data.batches(0))
  tokens = dict(source="fake:text", tokenizer="byte", seq_len=8, batch_size=2)
  with pytest.raises(ValueError, match="applies ops, but ops is empty"):
    pipeline.train(**tokens, service=f"grpc://127.0.0.1:{port}")


def test_steps_that_never_come_are_prepared_here():
  """Out of order, twice, cut short, or not at all: the order is the steps'."""

  def batch(step, n=2):
    return {"x": np.full(n, step), "_step": np.int64(step)}

  came = [3, 1, 0, 3, 2, *range(6, 100), 5]
  arrivals = [batch(s, 1 if s == 40 else 2) for s in came]

  class Arrivals:
    def next(self, timeout):
      return arrivals.pop(0)

  made_here = []

  def local(step):
    while True:
      made_here.append(step)
      yield {"x": np.full(2, step)}
      step += 1

  where = service_stream.address("grpc://a:1")
  found = service_stream._in_order(Arrivals(), where, 0, 2, None, local)
  for step in range(60):
    np.testing.assert_array_equal(next(found)[0]["x"], [step, step])
  assert made_here == [4, 5, 40]


@pytest.mark.slow
def test_the_settings_survive_json(two):
  settings = {**SETTINGS, "host_index": np.array([0]), "host_count": 1}
  data = pipeline.train(**settings, service=two[0])
  same(some(data, 0, 2), some(pipeline.train(**SETTINGS), 0, 2))
  text = json.dumps({"a": np.int64(3)}, default=service_stream._plain)
  assert json.loads(text) == {"a": 3}
