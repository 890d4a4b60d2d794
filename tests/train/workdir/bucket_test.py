"""Workdirs in buckets: killed in mid-upload, resumed, raced, refused."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import emulated_bucket
import fsspec
import numpy as np
import pytest
from tiers import slow_but

from common import mirror, storage
from common.errors import BucketError, SaveError, UserError
from train import build, loop, trained
from train.checkpointing import digests
from train.workdir import bucket, bucket_lock, inspection, lock_record

ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def soon(monkeypatch):
  monkeypatch.setattr(bucket_lock, "_SETTLE", 0.01)


@pytest.fixture
def memory():
  """The objects of fsspec's memory://, {path: bytes}."""
  store = fsspec.filesystem("memory").store
  store.clear()
  yield store
  store.clear()


@pytest.fixture
def emulated(tmp_path, monkeypatch):
  """The folder whose files are the objects of emulated://."""
  folder = tmp_path / "objects"
  folder.mkdir()
  monkeypatch.setenv("EMULATED_BUCKET", str(folder))
  monkeypatch.setenv("TESSERA_CACHE", str(tmp_path / "cache"))
  emulated_bucket.register()
  return folder


def names(store, root="/b/run/") -> set[str]:
  return {path.removeprefix(root) for path in store}


def start(workdir: str, **env) -> subprocess.Popen:
  path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])
  return subprocess.Popen(
    [
      sys.executable,
      "-c",
      "import emulated_bucket; emulated_bucket.run('train.main')",
      "--config=linear_regression",
      "--config.total_steps=40",
      "--config.log_every_steps=1",
      "--config.checkpoint.every_steps=10",
      "--config.evals.val.every_steps=10",
      f"--workdir={workdir}",
    ],
    cwd=ROOT,
    env={**os.environ, "XLA_FLAGS": "", "PYTHONPATH": path, **env},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def finish(process: subprocess.Popen) -> str:
  said, _ = process.communicate(timeout=300)
  assert process.returncode == 0, said
  return said


def kill_when(process: subprocess.Popen, ready) -> None:
  deadline = time.monotonic() + 300
  while not ready():
    assert process.poll() is None, process.stdout.read()
    assert time.monotonic() < deadline
    time.sleep(0.002)
  process.send_signal(signal.SIGKILL)
  process.communicate()


def figures(workdir: str) -> list[dict]:
  """The rows of metrics.jsonl without those that depend on time."""
  with bucket.reading(workdir) as local:
    text = (pathlib.Path(local) / "metrics.jsonl").read_text()
  rows = [json.loads(line) for line in text.splitlines()]
  keep = ("step", "train/loss", "val/loss")
  return [{k: v for k, v in row.items() if k in keep} for row in rows]


@pytest.mark.slow
def test_killed_in_mid_upload_and_resumed_nothing_differs(emulated, tmp_path):
  straight = str(tmp_path / "straight")
  finish(start(straight))

  url = "emulated://b/deep/run"

  def objects(step):
    return [n for n in os.listdir(emulated) if f"checkpoints%2F{step}%2F" in n]

  def half(step):
    found = objects(step)
    return found and not any("_CHECKPOINT_METADATA" in n for n in found)

  kill_when(start(url, EMULATED_SECONDS="0.05"), lambda: half(10))
  # The first checkpoint is not complete, so the run begins anew, and then ends
  # in the middle of the third.
  kill_when(start(url, EMULATED_SECONDS="0.05"), lambda: half(30))
  assert [c["step"] for c in inspection.run(url)["checkpoints"]] == [10, 20]
  said = finish(start(url))
  assert f"{url}; last saved at step 20" in said
  assert str(tmp_path / "cache") not in said

  assert figures(url) == figures(straight)
  one, other = (trained.load_state(workdir) for workdir in (straight, url))
  assert one.step == other.step == 40
  assert digests.of(one) == digests.of(other)
  found = inspection.run(url)
  assert [c["step"] for c in found["checkpoints"]] == [30, 40]
  assert {c["state"] for c in found["checkpoints"]} == {"verified"}
  assert not found["damaged"] and not found["unfinished"]
  assert not [n for n in os.listdir(emulated) if "run.lock" in n]


def test_a_local_run_and_one_in_a_bucket_write_the_same_files(
  memory, tmp_path, monkeypatch
):
  monkeypatch.setenv("TESSERA_CACHE", str(tmp_path / "cache"))
  from configs.textbook import linear_regression

  config = linear_regression.get_config("smoke")
  for workdir in (str(tmp_path / "run"), "memory://b/run"):
    with bucket.writing(workdir) as local:
      list(loop.fit(build.run(config, local, say=lambda line: None)))

  def shape(files):  # which data files Orbax writes is its own matter
    return {n for n in files if "/state/" not in n and "events" not in n}

  here = {
    p.relative_to(tmp_path / "run").as_posix()
    for p in (tmp_path / "run").rglob("*")
    if p.is_file()
  }
  assert shape(names(memory)) == shape(here)
  one, other = (
    trained.load_state(w) for w in (str(tmp_path / "run"), "memory://b/run")
  )
  assert digests.of(one) == digests.of(other)
  assert not list((tmp_path / "cache" / "workdirs").iterdir())


def test_rows_reach_the_bucket_before_the_checkpoint_they_precede(
  memory, tmp_path, monkeypatch
):
  order = []
  upload = storage.upload
  monkeypatch.setattr(
    storage,
    "upload",
    lambda local, url: (order.append(url), upload(local, url)),
  )
  folder = tmp_path / "run"
  step = folder / "checkpoints" / "3"
  (step / "state").mkdir(parents=True)
  for name in ("_CHECKPOINT_METADATA", "state/a", "commit_success.txt"):
    (step / name).write_text(name)
  for name in ("metrics.jsonl", "evaluated.json", "z.jsonl"):
    (folder / name).write_text(name)
  (folder / "checkpoints" / "4.orbax-checkpoint-tmp").mkdir()
  (folder / "checkpoints" / "4.orbax-checkpoint-tmp" / "x").write_text("x")
  copy = mirror.Mirror("memory://b/run", folder)
  copy.push()
  order = [url.removeprefix("memory://b/run/") for url in order]
  assert order[:3] == ["metrics.jsonl", "z.jsonl", "evaluated.json"]
  assert order[-1] == "checkpoints/3/_CHECKPOINT_METADATA"
  assert len(order) == 6
  before = len(order)
  copy.push()
  assert len(order) == before  # nothing has changed

  # Removed: its last object goes first.
  removed = []
  remove = storage.remove
  monkeypatch.setattr(
    storage, "remove", lambda url: (removed.append(url), remove(url))
  )
  for path in sorted(step.rglob("*"), reverse=True):
    path.unlink() if path.is_file() else path.rmdir()
  step.rmdir()
  copy.push()
  copy.close()
  assert removed[0].endswith("/checkpoints/3/_CHECKPOINT_METADATA")
  assert len(removed) == 3
  assert names(memory) == {"metrics.jsonl", "z.jsonl", "evaluated.json"}


def test_a_checkpoint_saved_again_replaces_the_one_before(memory, tmp_path):
  folder = tmp_path / "run"
  step = folder / "checkpoints" / "3"
  (step / "state").mkdir(parents=True)
  (step / "_CHECKPOINT_METADATA").write_text("1")
  (step / "state" / "old").write_text("1")
  copy = mirror.Mirror("memory://b/run", folder)
  copy.push()
  (step / "state" / "old").unlink()
  (step / "state" / "new").write_text("2")
  (step / "_CHECKPOINT_METADATA").write_text("22")
  copy.push()
  copy.close()
  assert names(memory) == {
    "checkpoints/3/_CHECKPOINT_METADATA",
    "checkpoints/3/state/new",
  }


def test_an_upload_that_fails_goes_on_where_it_stopped(
  memory, tmp_path, monkeypatch
):
  monkeypatch.setattr(mirror, "_AT_ONCE", 1)
  folder = tmp_path / "run"
  step = folder / "checkpoints" / "3"
  (step / "state").mkdir(parents=True)
  for name in ("_CHECKPOINT_METADATA", "state/a", "state/b", "state/c"):
    (step / name).write_text(name)
  tries, upload = [], storage.upload

  def failing(local, url):
    tries.append(url)
    if len(tries) == 3:
      raise BucketError(f"{url}: gone for a moment")
    upload(local, url)

  monkeypatch.setattr(storage, "upload", failing)
  copy = mirror.Mirror("memory://b/run", folder)
  with pytest.raises(BucketError, match="gone for a moment"):
    copy.push()
  assert "checkpoints/3/_CHECKPOINT_METADATA" not in names(memory)
  copy.push()
  copy.close()
  assert len(tries) == 5 and len(set(tries)) == 4  # one of them twice
  assert tries[-1].endswith("_CHECKPOINT_METADATA")
  assert len(names(memory)) == 4


def test_reading_copies_arrays_when_they_are_needed(memory, tmp_path):
  memory_fs = fsspec.filesystem("memory")
  content = {
    "config.json": b"{}",
    "checkpoints/3/_CHECKPOINT_METADATA": b"",
    "checkpoints/3/state/big": b"array",
    "checkpoints/5/state/big": b"unfinished",
    "events.out.tfevents.1": b"e",
  }
  for name, data in content.items():
    memory_fs.pipe_file(f"/b/run/{name}", data)
  with bucket.reading("memory://b/run") as local:
    folder = pathlib.Path(local)
    assert (folder / "config.json").read_bytes() == b"{}"
    assert not (folder / "checkpoints" / "5").exists()
    array = folder / "checkpoints" / "3" / "state" / "big"
    assert not array.exists()
    mirror.fetch(folder / "checkpoints" / "3")
    assert array.read_bytes() == b"array"
    with pytest.raises(UserError, match="^memory://b/run/x: wrong$"):
      try:
        raise UserError(f"{local}/x: wrong")
      except UserError as error:
        raise UserError(mirror.named(str(error))) from None
  assert not folder.exists()
  assert names(memory) == set(content)  # a reader sweeps nothing
  with bucket.writing("memory://b/run"):
    pass
  assert names(memory) == set(content) - {"checkpoints/5/state/big"}


def test_errors_name_the_bucket(memory):
  with pytest.raises(UserError, match="^memory://b/none: no config.json"):
    trained.load("memory://b/none")


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "a\\evil"])
def test_an_object_whose_name_leads_elsewhere_is_refused(
  name, monkeypatch, memory
):
  found = {f"/b/run/{name}": {"size": 1, "type": "file"}}
  kind = fsspec.get_filesystem_class("memory")
  monkeypatch.setattr(kind, "find", lambda *_, **__: found)
  with (
    pytest.raises(UserError, match="cannot be the name of a file"),
    bucket.reading("memory://b/run"),
  ):
    raise AssertionError("nothing is read")


def test_a_second_run_is_refused_and_a_dead_one_replaced(emulated):
  url = "emulated://b/run"
  lock = bucket_lock.hold(url)
  line = (
    rf"^{url} is in use by process {os.getpid()} on host .*, started .*; stop"
    r" that process or choose another --workdir \(if it was killed, wait 60 s"
  )
  with pytest.raises(UserError, match=line):
    bucket_lock.hold(url)
  assert len(os.listdir(emulated)) == 1  # no probe is left
  lock.release()
  assert not os.listdir(emulated)

  # A process of this host that has ended.
  child = subprocess.Popen([sys.executable, "-c", ""])
  child.wait()
  dead = lock_record.current()._replace(pid=child.pid)
  storage.write(f"{url}/run.lock", lock_record.encode(dead))
  bucket_lock.hold(url).release()

  # One of another host, fresh and then old by the bucket's clock.
  other = lock_record.current()._replace(host="far", boot="other")
  storage.write(f"{url}/run.lock", lock_record.encode(other))
  with pytest.raises(UserError, match="on host far"):
    bucket_lock.hold(url)
  (path,) = emulated.iterdir()
  os.utime(path, (time.time() - 61,) * 2)
  bucket_lock.hold(url).release()


def test_the_loser_of_a_race_for_an_old_record_is_refused(
  emulated, monkeypatch
):
  """Both find the same old record; both replace it; one of them goes on."""
  url = "emulated://b/run"
  monkeypatch.setattr(bucket_lock, "_SETTLE", 0.3)
  old = lock_record.current()._replace(host="far", boot="other")
  storage.write(f"{url}/run.lock", lock_record.encode(old))
  (path,) = emulated.iterdir()
  os.utime(path, (time.time() - 61,) * 2)
  both = threading.Barrier(2)
  remove = storage.remove

  def together(name):
    if name == f"{url}/run.lock":
      both.wait(60)
    remove(name)

  monkeypatch.setattr(storage, "remove", together)
  found = []

  def take():
    try:
      found.append(bucket_lock.hold(url))
    except UserError as error:
      found.append(str(error))

  threads = [threading.Thread(target=take) for _ in range(2)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(90)
  monkeypatch.setattr(storage, "remove", remove)
  locks = [each for each in found if not isinstance(each, str)]
  lines = [each for each in found if isinstance(each, str)]
  assert len(locks) == 1 and len(lines) == 1, found
  assert "is in use by process" in lines[0]
  locks[0].check()
  locks[0].release()


def test_a_run_whose_lock_was_taken_over_writes_nothing_more(
  memory, tmp_path, monkeypatch
):
  monkeypatch.setenv("TESSERA_CACHE", str(tmp_path / "cache"))
  url = "memory://b/run"
  with (
    pytest.raises(SaveError, match="taken over by process 7 on host far.*in "),
    bucket.writing(url, say=lambda line: None) as local,
  ):
    other = lock_record.current()._replace(host="far", boot="x", pid=7)
    storage.write(f"{url}/run.lock", lock_record.encode(other))
    (pathlib.Path(local) / "metrics.jsonl").write_text("late")
  assert names(memory) == {"run.lock"}
  (kept,) = (tmp_path / "cache" / "workdirs").iterdir()
  assert (kept / "metrics.jsonl").read_text() == "late"


@pytest.mark.parametrize(
  "url, line",
  [
    ("nosuch://b/run", "no file system is known for the scheme nosuch://.*"),
    ("http://b/run", "http:// cannot be written to.*"),
    ("file:///tmp/run", "give the path without file://"),
    ("memory://", "name a folder, as in memory://BUCKET/RUN"),
  ],
)
def test_a_scheme_that_is_not_served_is_one_line(url, line, tmp_path):
  with pytest.raises(UserError, match=f"^--workdir={url}: {line}$"):
    storage.check("--workdir", url)


def test_a_library_that_is_missing_is_named(monkeypatch):
  def missing(name):
    raise ImportError("Please install gcsfs", name="gcsfs")

  monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
  with pytest.raises(UserError) as found:
    storage.check("--workdir", "gs://b/run")
  assert str(found.value) == (
    "--workdir=gs://b/run: gs:// needs a library that is not installed (gcsfs):"
    " pip install -e '.[bucket]'"
  )


_VERBS = (
  "train.main --config=linear_regression:smoke --workdir=nosuch://b/run",
  "train.evaluate --workdir=nosuch://b/run",
  "train.generate --workdir=nosuch://b/run --prompt=a",
  "train.inspect nosuch://b/run",
  "train.convert --from=x --workdir=nosuch://b/run",
  "train.convert --to=nosuch://b/run --workdir=x",
  "input_pipeline.train_tokenizer --data=text:x --output=nosuch://b/t",
  "input_pipeline.train_ngram --data=text:x --output=nosuch://b/t.npz",
  "input_pipeline.judge --data=jsonl:x --output=nosuch://b/t",
)


@pytest.mark.parametrize("command", slow_but(_VERBS[:3], _VERBS))
def test_no_verb_makes_a_folder_named_by_a_scheme(command, tmp_path):
  verb, *flags = command.split()
  done = subprocess.run(
    [sys.executable, "-m", verb, *flags],
    cwd=tmp_path,
    env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": ""},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2, done.stderr
  assert done.stderr.count("\n") == 1, done.stderr
  assert "nosuch://" in done.stderr
  assert not list(tmp_path.iterdir())


def test_several_processes_are_refused(memory, monkeypatch):
  monkeypatch.setattr("jax.process_count", lambda: 2)
  line = "a run of several processes needs a folder that all of them share"
  with pytest.raises(UserError, match=line), bucket.writing("memory://b/run"):
    raise AssertionError("nothing is run")
  assert not memory


def test_a_library_call_with_a_bucket_makes_no_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  from configs.textbook import linear_regression

  config = linear_regression.get_config("smoke")
  with pytest.raises(UserError, match="memory:// is not supported here"):
    build.run(config, "memory://b/run", say=lambda line: None)
  assert not list(tmp_path.iterdir())


def test_storage_of_a_missing_object(memory):
  with pytest.raises(
    FileNotFoundError, match="^memory://b/x: there is no such"
  ):
    storage.read("memory://b/x", 10)
  storage.write("memory://b/x", b"12345")
  assert storage.read("memory://b/x", 5) == b"12345"
  with pytest.raises(OSError, match="^memory://b/x: larger than 4 bytes"):
    storage.read("memory://b/x", 4)
  assert not storage.create("memory://b/x", b"other")
  assert storage.create("memory://b/y", b"new")
  assert storage.listing("memory://b") == {"x": 5, "y": 3}
  storage.remove("memory://b/x")
  storage.remove("memory://b/x")
  assert storage.listing("memory://b/none") == {}


def test_a_listing_holds_no_other_folder(monkeypatch, memory):
  """Buckets have no folders: some list RUN-2/x for the prefix RUN."""
  kind = fsspec.get_filesystem_class("memory")
  found = {
    "/b/run-2/x": {"size": 1, "type": "file"},
    "/b/run/": {"size": 0, "type": "file"},
    "/b/run/x/": {"size": 0, "type": "file"},
    "/b/run/x/y": {"size": 2, "type": "file"},
  }
  monkeypatch.setattr(kind, "find", lambda *_, **__: found)
  assert storage.listing("memory://b/run") == {"x/y": 2}


def test_a_bucket_that_fails_is_one_line_and_exit_code_74(
  monkeypatch, memory, capsys
):
  from common import cli

  def broken(*_, **__):
    raise RuntimeError("no route\nto host")

  monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "find", broken)
  with pytest.raises(OSError) as found:
    storage.listing("memory://b/run")
  assert cli.tell(found.value) == 74
  assert capsys.readouterr().err == (
    "error: memory://b/run: RuntimeError: no route\n"
  )


def test_brackets_in_a_path_are_no_pattern(tmp_path):
  from train.checkpointing import checkpoint

  folder = str(tmp_path / "run [v2] *")
  manager = checkpoint.open_manager(folder)
  state = {"w": np.arange(6.0, dtype=np.float32)}
  checkpoint.save(manager, 1, state, RECORD)
  checkpoint.check(manager, wait=True)
  manager.close()
  assert checkpoint.verify(folder, 1) == []


RECORD = {"position": 0, "evaluated": True, "health": {}, "rollbacks": 0}
