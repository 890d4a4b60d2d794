"""A run of many processes is the run of one; none is left waiting."""

import functools
import re
import shutil
import signal
import socket
import threading
import time

import jax
import numpy as np
import pytest
from many_processes import (
  end,
  flag_of,
  free_address,
  meet,
  part,
  rows,
  start,
  wait_until,
)

from common.errors import HostError, UserError
from common.leaf import Leaf
from configs.control import cartpole
from configs.language import lm_stdlib
from configs.vision.classification import conv_fashion_mnist
from input_pipeline.batching import device, pipeline
from input_pipeline.batching import examples as examples_lib
from train import build, loop, sharding, trained
from train.hosts import distributed, roll_call, watchdog

STEPS = 16
FSDP = [[".*", "fsdp"]]
# One run, on two meshes of eight devices; of the latter, each two of four
# processes hold the two halves of the same sequences.
MESHES = [dict(fsdp=8), dict(fsdp=2, context=4)]


def language_model(mesh):
  config = lm_stdlib.get_config("smoke")
  config.total_steps = STEPS
  config.checkpoint.every_steps = 3
  config.mesh, config.sharding = mesh, FSDP
  config.model.layers = 1
  config.data.source = "fake:text"
  config.evals.val.every_steps = STEPS // 2
  config.log_examples = True
  del config.evals.text
  return config


# Gloo says from many threads how many peers each has, a part of the sentence at
# a time (`std::cout << … <<`): those of two threads may come in any order.
_GLOO = re.compile(
  r"\[Gloo\] Rank | is connected to | peer ranks\. "
  r"|Expected number of connected peer ranks is : |\d+|\s"
)


def without_gloo(said: str) -> str:
  """What remains when every part of gloo's sentence is taken out."""
  return _GLOO.sub("", said)


def kill_at(step: int, victim: int, processes, workdir) -> float:
  """kill -9 once that step is told; seconds until the others have ended."""
  path = workdir / "metrics.jsonl"
  deadline = time.monotonic() + 300
  while time.monotonic() < deadline:
    if path.exists() and f'"step": {step},' in path.read_text():
      break
    assert all(p.poll() is None for p in processes), end(processes)
    time.sleep(0.02)
  processes[victim].send_signal(signal.SIGKILL)
  killed = time.monotonic()
  for p in processes:
    p.wait(timeout=60)
  return time.monotonic() - killed


def close(found: list[dict], expected: list[dict], rtol: float) -> None:
  assert [row.keys() for row in found] == [row.keys() for row in expected]
  for a, b in zip(found, expected, strict=True):
    for key in a:
      np.testing.assert_allclose(a[key], b[key], rtol, err_msg=f"{b} {key}")


@pytest.mark.slow
def test_many_processes_are_one(tmp_path):
  """Two processes, then four, then one: each goes on where the last died."""
  straight, shared = tmp_path / "straight", tmp_path / "shared"
  list(loop.fit(build.run(language_model(MESHES[0]), str(straight))))
  for processes, mesh, victim, step in (
    (2, MESHES[0], 1, 4),
    (4, MESHES[1], 0, 9),
  ):
    flag = flag_of(language_model(mesh), tmp_path)
    # Most of the time goes into compiling. (Not for convolutions: at this
    # level jax 0.10 returns wrong gradients of them, also in one process.)
    quick = "--xla_backend_optimization_level=0"
    running = start(processes, shared, flag, xla=quick)
    seconds = kill_at(step, victim, running, shared)
    for i, (code, said) in enumerate(end(running)):
      if i != victim:
        assert code == HostError.code, said
        assert f"error: process {victim} of {processes} (" in said
    assert seconds < 20
    # What many saved, one reads.
    assert step - 4 <= trained.load(str(shared)).step < STEPS
  list(loop.fit(build.run(language_model(MESHES[0]), str(shared))))
  # Sums over devices of several processes are taken in another order.
  close(rows(shared), rows(straight), 1e-6)
  # The same examples in the same global order; and every restore has held
  # the arrays of other processes and another mesh against their digests.
  taken, expected = (
    (path / "examples.jsonl").read_text() for path in (shared, straight)
  )
  assert taken == expected and len(taken.splitlines()) == STEPS
  assert not (shared / "damaged").exists()
  # Process 0 of each start alone has written.
  assert len(list(shared.glob("events.out.tfevents.*"))) == 3


@pytest.mark.slow
def test_many_processes_classify_as_one(tmp_path):
  """Also the evaluator that fetches arrays; and all leave in peace."""
  config = conv_fashion_mnist.get_config("smoke")
  config.checkpoint.every_steps = 0
  config.model.features = (4, 4, 8)
  list(loop.fit(build.run(config, str(tmp_path / "one"))))
  found = end(start(2, tmp_path / "two", flag_of(config, tmp_path)))
  assert [code for code, _ in found] == [0, 0], found
  close(rows(tmp_path / "two"), rows(tmp_path / "one"), 1e-5)
  one, two = (
    (tmp_path / name / "test_confusion.csv").read_text()
    for name in ("one", "two")
  )
  assert one == two and "," in one
  assert not without_gloo(found[1][1]), "only process 0 speaks"
  evaluate = build.evaluators(trained.load(str(tmp_path / "two")), "")["test"]
  loaded = trained.load(str(tmp_path / "two"))
  for name, value in evaluate(loaded.variables, loaded.step).items():
    np.testing.assert_allclose(
      value, rows(tmp_path / "two")[-1][f"test/{name}"], 1e-5
    )


def test_gloo_may_be_torn_but_nothing_else_is_taken_out():
  torn = (
    "[Gloo] Rank [Gloo] Rank 11 is connected to  is connected to 77 peer ranks."
    "  peer ranks. Expected number of connected peer ranks is : 7\n"
    "Expected number of connected peer ranks is : 7\n"
  )
  assert without_gloo(torn) == ""
  assert without_gloo(torn + "step 7") == "step"
  assert without_gloo("error: [Gloo] Rank 1 is lost") == "error:islost"


@pytest.mark.slow
def test_environments_of_two_processes_are_those_of_one(tmp_path):
  """Rows of the learner's own state are on both, and are resumed on one."""
  config = cartpole.get_config("smoke")
  config.total_steps, config.checkpoint.every_steps = 8, 4
  config.log_every_steps = 1
  one, two = tmp_path / "one", tmp_path / "two"
  list(loop.fit(build.run(config, str(one))))
  found = end(start(2, two, flag_of(config, tmp_path)))
  assert [code for code, _ in found] == [0, 0], found
  close(rows(two), rows(one), 1e-5)
  # As if both had been killed before the last save.
  shutil.rmtree(two / "checkpoints" / "8")
  list(loop.fit(build.run(config, str(two))))
  close(rows(two), rows(one), 1e-5)
  ends = [trained.load_state(str(path)).extra for path in (one, two)]
  for a, b in zip(*map(jax.tree.leaves, ends), strict=True):
    np.testing.assert_allclose(a, b, 1e-5, 1e-6)


def test_one_that_fails_ends_the_others(tmp_path):
  config = lm_stdlib.get_config("smoke")
  found = end(
    start(
      2,
      tmp_path / "run",
      flag_of(config, tmp_path),
      extra={1: ["--config.data.seq_len=100000000"]},
    )
  )
  assert [code for code, _ in found] == [UserError.code] * 2, found
  assert "error: process 1 of 2 (" in found[0][1]
  assert all("seq_len 100000000" in said for _, said in found)
  assert "Traceback" not in found[0][1] + found[1][1]


@pytest.mark.slow
def test_one_that_never_appears_is_named(tmp_path):
  """The address is process 0's alone to hold, so it may also be missing."""
  flags = ("--config=configs/language/lm_stdlib.py:smoke", "--wait_for_hosts=4")
  began = time.monotonic()
  groups = [start(4, tmp_path, *flags, only=ids) for ids in ([0, 2], [1])]
  for ids, processes in zip(("1, 3", "0"), groups, strict=True):
    for code, said in end(processes):
      assert code == HostError.code, said
      noun = "process 0" if ids == "0" else f"processes {ids}"
      assert f"error: {noun} of 4" in said
      assert "did not appear within 4 s" in said
      assert len(said.splitlines()) == 1, said
  assert time.monotonic() - began < 60


def test_all_who_meet_know_each_other():
  for roll, told in meet(5).values():
    assert told["service"] == "here"
    assert roll.names == [socket.gethostname()] * 5
    part(roll)


def test_a_stranger_is_not_counted():
  """What scans ports, or is left of another run, does not disturb."""
  address = free_address()
  port = int(address.split(":")[1])
  found = []

  def call():
    place = roll_call.Place(address, 2, 0)
    found.append(roll_call.gather(place, 10, dict))

  thread = threading.Thread(target=call)
  thread.start()
  for words in (b"GET / HTTP/1.0\r\n\r\n", b"[1]\n", b'{"process": 1}\n', b""):
    while True:
      try:
        stranger = socket.create_connection(("localhost", port), timeout=5)
        break
      except OSError:
        time.sleep(0.05)
    stranger.sendall(words)
    stranger.close()
  answer = roll_call.gather(roll_call.Place(address, 2, 1), 10, dict)
  thread.join(timeout=30)
  part(answer[0], found[0][0])


def test_contradictions_are_told_to_all():
  def others(place):
    return place._replace(num_processes=3 if place.process_id else 2)

  found = meet(2, place_of=others)
  for error in found.values():
    assert isinstance(error, UserError)
    assert "process 1 (" in str(error)
    assert "--num_processes=3, but process 0 with --num_processes=2" in str(
      error
    )

  def twice(place):
    return place._replace(process_id=min(place.process_id, 1))

  found = meet(3, place_of=twice)
  assert all(
    "process 1 of 3 was started twice" in str(e) for e in found.values()
  )


def note(ends, i, line, code):
  """Stands for the end of process i."""
  ends[i] = (line, code)


def watched(count: int, timeout=30.0):
  """Watches of processes that have met, and what each ended with."""
  met = meet(count)
  ends = {}

  watches = [
    watchdog.Watch(met[i][0], timeout, leave=functools.partial(note, ends, i))
    for i in range(count)
  ]
  return watches, ends


@pytest.mark.parametrize("teller", [0, 2])
def test_who_fails_says_why_to_all(teller):
  watches, ends = watched(4)
  watches[teller].fail("config.x: is wrong", 2)
  wait_until(lambda: len(ends) == 3)
  name = f"process {teller} of 4 ({socket.gethostname()})"
  assert set(ends.values()) == {(f"{name} ended: config.x: is wrong", 2)}


@pytest.mark.parametrize("silent", [0, 1])
def test_silence_is_noticed(silent):
  """A machine that is cut off closes no connection."""
  met = meet(3)
  ends = {}
  began = time.monotonic()
  for i in set(range(3)) - {silent}:
    watchdog.Watch(met[i][0], 2.0, leave=functools.partial(note, ends, i))
  wait_until(lambda: len(ends) == 2)
  part(met[silent][0])
  assert 2 <= time.monotonic() - began < 10
  for line, code in ends.values():
    assert f"process {silent} of 3 (" in line
    assert "has not responded for 2 s" in line
    assert "the run resumes from its last checkpoint" in line
    assert code == HostError.code


def test_none_leaves_before_the_last_is_done():
  watches, ends = watched(3)
  left = []
  threads = [
    threading.Thread(target=lambda i=i: (watches[i].finish(), left.append(i)))
    for i in range(3)
  ]
  for thread in threads[:2]:
    thread.start()
  time.sleep(1)
  assert not left
  threads[2].start()
  wait_until(lambda: len(left) == 3)
  assert not ends


@pytest.mark.parametrize(
  ("tasks", "devices"), [("1(x4)", None), ("8(x2)", (3,))]
)
def test_a_slurm_step_is_found(monkeypatch, tasks, devices):
  """The variables that srun sets, and the first name of its node list."""
  for key, value in {
    "SLURM_JOB_ID": "4242",
    "SLURM_STEP_NODELIST": "node[007-010],big1",
    "SLURM_NTASKS": "16",
    "SLURM_PROCID": "11",
    "SLURM_LOCALID": "3",
    "SLURM_STEP_TASKS_PER_NODE": tasks,
  }.items():
    monkeypatch.setenv(key, value)
  place = distributed.find()
  assert place.coordinator.startswith("node007:")
  assert place[1:] == (16, 11, devices)
  assert distributed.find(num_processes=1) is None
  monkeypatch.setenv("SLURM_NTASKS", "1")
  assert distributed.find() is None


def test_flags_come_before_the_environment(monkeypatch):
  assert distributed.find() is None
  monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "a:1")
  monkeypatch.setenv("JAX_NUM_PROCESSES", "4")
  with pytest.raises(UserError, match="also needs --process_id$"):
    distributed.find()
  monkeypatch.setenv("JAX_PROCESS_ID", "3")
  assert distributed.find() == ("a:1", 4, 3, None)
  assert distributed.find("b:2", 8, 0) == ("b:2", 8, 0, None)
  with pytest.raises(UserError, match="count from 0"):
    distributed.find(process_id=4)
  with pytest.raises(UserError, match="not HOST:PORT"):
    distributed.find("b")


PAIRS = [[0, 1], [2, 3], [4, 5], [6, 7]]
HALVES = [[0, 1, 2, 3], [4, 5, 6, 7]]
# Mesh, the devices of each process in its order, the shares that each holds.
HELD = [
  (dict(data=8), PAIRS, PAIRS),
  # A square of a torus is not a run of its rows.
  (dict(data=8), *[[[0, 1, 4, 5], [2, 3, 6, 7]]] * 2),
  (dict(data=2, tensor=4), PAIRS, [[0], [0], [1], [1]]),
  (dict(fsdp=4, context=2), HALVES, [[0, 1], [2, 3]]),
  (dict(context=2, data=4), HALVES, [[0, 1, 2, 3]] * 2),
  (dict(slice=2, fsdp=2, context=2), HALVES, [[0, 1], [2, 3]]),
  (dict(tensor=2, data=2, expert=2), PAIRS, [[0, 1], [2, 3]] * 2),
]


@pytest.mark.parametrize(("axes", "processes", "expected"), HELD)
def test_a_process_reads_its_own_slice(monkeypatch, axes, processes, expected):
  """Counted where the source is read; together they are the global batch."""
  grid = np.array(jax.devices()).reshape(list(axes.values()))
  mesh = jax.sharding.Mesh(grid, list(axes))
  read = []
  opened = examples_lib.open_source

  def counted(uri, split, policy):
    source = opened(uri, split, policy)

    def reader(indices):
      read.extend(indices)
      return source.read(indices)

    return source._replace(read=reader)

  monkeypatch.setattr(examples_lib, "open_source", counted)
  settings = dict(source="fake:linear", batch_size=16)
  batches = pipeline.train(**settings, seed=1).batches(5)
  whole = next(batches)["index"].reshape(sharding.batch_parts(mesh), -1)
  for mine, shares in zip(processes, expected, strict=True):
    devices = frozenset(mesh.devices.flat[i] for i in mine)
    held, count = device.shares(sharding.batch_sharding(mesh), devices)
    assert list(held) == shares
    kwargs = dict(**settings, host_index=held, host_count=count)
    stream = pipeline.train(**kwargs, seed=1).batches(5)
    read.clear()
    batch = next(stream)
    np.testing.assert_array_equal(batch["index"], whole[shares].reshape(-1))
    np.testing.assert_array_equal(read, batch["index"])
    last = list(pipeline.evaluation(**kwargs, split="train").batches(0))[-1]
    assert len(last["mask"]) == 16 // count * len(shares)


def test_batches_are_placed_by_their_axes():
  """With a context axis the axis of time is cut, but no other."""
  mesh = sharding.make_mesh(dict(context=2, data=4))
  batch = {
    "tokens": np.arange(64).reshape(8, 8),
    "image": np.arange(128).reshape(8, 4, 2, 2),
    "mask": np.arange(8),
  }
  spec = {"tokens": Leaf((8,), np.dtype(np.int32), ("time",))}

  def of(name):
    return sharding.batch_sharding(mesh, spec.get(name))

  placed = device.place(batch, of)
  for name, shape in dict(tokens=(2, 4), image=(2, 4, 2, 2), mask=(2,)).items():
    np.testing.assert_array_equal(placed[name], batch[name])
    shards = placed[name].addressable_shards
    assert {shard.data.shape for shard in shards} == {shape}
    for shard in shards:
      np.testing.assert_array_equal(shard.data, batch[name][shard.index])


def test_evaluation_ends_alike_where_shares_are_scattered():
  """Each example once, whoever holds its row."""
  seen = []
  for held in ((0, 3), (1, 2)):
    data = pipeline.evaluation(
      source="fake:linear?n=10",
      split="train",
      batch_size=8,
      host_index=held,
      host_count=4,
    )
    batches = list(data.batches(0))
    assert len(batches) == 2
    for batch in batches:
      np.testing.assert_array_equal(batch["mask"] > 0, batch["index"] >= 0)
      seen.extend(batch["index"][batch["mask"] > 0])
  assert sorted(seen) == list(range(data.num_examples))
