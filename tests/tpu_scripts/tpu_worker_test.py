"""What tpu_scripts/ has the workers do, done here by bash."""

import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import time

import pytest
from stand_in_gcloud import ARGS, HOSTILE, ROOT, Stage, script
from tiers import slow_but


@pytest.fixture
def stage(tmp_path) -> Stage:
  return Stage(tmp_path)


def test_setup_on_the_worker(stage):
  stage.play("setup", "--bucket=gs://b")
  vm = stage.path / "vm"
  vm.mkdir()
  shutil.copy(stage.path / ".cache/tessera/a.tar.gz", vm / "tessera.tar.gz")
  log = stage.path / "log"
  note = f'#!/bin/bash\necho "${{0##*/}} $*" >>{log}\n'
  for name in ("gcsfuse", "sudo", "curl"):
    script(stage.bin / name, note)
  script(stage.bin / "mountpoint", "#!/bin/bash\nexit 1\n")
  script(
    stage.bin / "uv",
    note + "case $1 in venv) mkdir -p .venv/bin; cp /bin/true"
    " .venv/bin/python;; esac\n",
  )

  def install():
    return subprocess.run(
      ["bash", "-c", stage.command("tpu-vm ssh install")],
      cwd=vm,
      env=stage.env(HOME=str(vm)),
      capture_output=True,
      text=True,
    )

  for _ in range(2):  # the second time the venv is there
    done = install()
    assert done.returncode == 0, done.stderr
  pip = (
    "uv pip install --quiet --compile-bytecode --python=.venv/bin/python"
    " -e .[tpu,data,text]"
  )
  mount = (
    "gcsfuse --implicit-dirs --rename-dir-limit=200000"
    " --metadata-cache-ttl-secs=0 b bucket"
  )
  assert log.read_text().splitlines() == [
    *["uv venv --python=3.12 .venv", pip, mount],
    *[pip, mount],
  ]
  assert (vm / "tessera/kept.txt").read_text() == "committed\n"
  assert (vm / "tessera/installed").exists()

  script(stage.bin / "gcsfuse", "#!/bin/bash\nexit 1\n")
  assert install().returncode == 1
  assert not (vm / "tessera/installed").exists()
  # A training that is going on keeps its code.
  (vm / "tessera/kept.txt").write_text("in use\n")
  with subprocess.Popen(
    ["flock", vm / "tessera/train.lock", "sh", "-c", "echo; read x"],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
  ) as holder:
    holder.stdout.readline()
    done = install()
    holder.stdin.close()
  assert done.returncode == 1
  assert done.stderr.startswith("error: nothing copied")
  assert (vm / "tessera/kept.txt").read_text() == "in use\n"


MAIN = """
import json, os, sys, time
with open("started", "a") as file:
  file.write(json.dumps(sys.argv[1:]) + "\\n")
print("start", len(open("started").readlines()))
while not os.path.exists("go"):
  time.sleep(0.02)
print("last words")
sys.exit(int(open("go").read()))
"""


class Worker:
  """A VM's home with the scripts and a stand-in train.main.

  It notes its arguments, says how often it was started, waits for the file
  `go` and exits with the code in it.
  """

  def __init__(self, stage: Stage):
    self.stage = stage
    self.home = stage.path / "vm"
    self.tessera = self.home / "tessera"
    shutil.copytree(ROOT / "tpu_scripts", self.tessera / "tpu_scripts")
    (self.tessera / "installed").touch()
    (self.tessera / ".venv/bin").mkdir(parents=True)
    (self.tessera / ".venv/bin/python").symlink_to(sys.executable)
    script(self.tessera / "train/main.py", MAIN)

  def train(self, attempt, *arguments) -> subprocess.Popen:
    words = ["bash", "tessera/tpu_scripts/on_vm/train", attempt, *arguments]
    return self.ssh(shlex.join(words))

  def ssh(self, command) -> subprocess.Popen:
    return subprocess.Popen(
      ["bash", "-c", command],
      cwd=self.home,
      env=self.stage.env(HOME=str(self.home)),
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      start_new_session=True,
    )

  def go(self, code) -> None:
    (self.tessera / "new").write_text(str(code))
    (self.tessera / "new").rename(self.tessera / "go")

  @property
  def started(self) -> list[list[str]]:
    path = self.tessera / "started"
    if not path.exists():
      return []
    return [json.loads(line) for line in path.read_text().splitlines()]

  def wait_for_start(self, number=1) -> None:
    deadline = time.monotonic() + 20
    while len(self.started) < number:
      assert time.monotonic() < deadline
      time.sleep(0.02)


@pytest.fixture
def worker(stage):
  worker = Worker(stage)
  yield worker
  worker.go(0)  # nothing stays behind


def test_arguments_survive_the_way_to_the_worker(stage, worker):
  answers = {"tpu-vm describe": ["READY"]}
  assert stage.play("run", *HOSTILE, answers=answers).returncode == 0
  worker.go(0)
  process = worker.ssh(stage.command("tpu-vm ssh train"))
  said, _ = process.communicate(timeout=30)
  assert process.returncode == 0, said
  assert worker.started == [HOSTILE]
  assert said == "start 1\nlast words\n"


@pytest.mark.parametrize(
  ("code", "exits"),
  slow_but(
    [(0, 0), (75, 75)],
    [(0, 0), (1, 101), (2, 102), (75, 75), (85, 85), (255, 143)],
  ),
)
def test_exit_codes_of_the_worker(worker, code, exits):
  worker.go(code)
  process = worker.train("1", *ARGS)
  said, _ = process.communicate(timeout=30)
  assert process.returncode == exits, said
  # Repeated by gcloud after the connection broke: the same end, no new start.
  again = worker.train("1", *ARGS)
  said, _ = again.communicate(timeout=30)
  assert again.returncode == exits
  assert "last words" in said
  assert len(worker.started) == 1
  # A new attempt starts anew, and shows only what is new.
  worker.go(0)
  new = worker.train("2", *ARGS)
  said, _ = new.communicate(timeout=30)
  assert new.returncode == 0
  assert said == "start 2\nlast words\n"


def test_training_outlives_the_connection_and_is_joined(worker):
  lost = worker.train("1", *ARGS)
  worker.wait_for_start()
  os.killpg(lost.pid, 9)
  lost.wait()
  lost.stdout.close()
  joined = worker.train("2", *ARGS)
  other = worker.train("3", *ARGS, "--config.seed=1")
  said, _ = other.communicate(timeout=30)
  assert other.returncode == 102
  assert "error: another training is running" in said
  worker.go(1)
  said, _ = joined.communicate(timeout=30)
  assert joined.returncode == 101
  assert said == "start 1\nlast words\n"
  assert len(worker.started) == 1


@pytest.mark.skipif(not shutil.which("pgrep"), reason="no pgrep")
def test_stop_means_the_training_and_nothing_else(stage, worker):
  stage.play("run", "--stop")
  process = worker.train("1", *ARGS)
  worker.wait_for_start()
  # pgrep finds what pkill would end, on this machine too.
  command = stage.command("tpu-vm ssh").replace("pkill", "pgrep")
  pids = subprocess.run(
    ["bash", "-c", command], capture_output=True, text=True, check=True
  ).stdout.split()
  here = [
    pid
    for pid in pids
    if pathlib.Path(f"/proc/{pid}/cwd").resolve() == worker.tessera
  ]
  assert len(here) == 1
  os.kill(int(here[0]), 15)
  process.communicate(timeout=30)
  assert process.returncode == 143


def test_a_bare_worker_says_so(worker):
  (worker.tessera / "installed").unlink()
  process = worker.train("1", *ARGS)
  process.communicate(timeout=30)
  assert process.returncode == 127
  assert worker.started == []
