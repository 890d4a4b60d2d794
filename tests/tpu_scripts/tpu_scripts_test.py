"""tpu_scripts/ on the user's machine, against a stand-in gcloud."""

import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

import pytest
from stand_in_gcloud import ARGS, HOSTILE, ROOT, WHERE, Stage, git

SCRIPTS = ("create", "setup", "run", "logs", "delete")
NOT_FOUND = [1, "ERROR: (gcloud.compute.tpus.tpu-vm.describe) NOT_FOUND: …"]
LOOK = "tpu-vm describe"
TRAIN = "tpu-vm ssh train"
SETUP = ["tpu-vm scp", "tpu-vm ssh install"]


@pytest.fixture
def stage(tmp_path) -> Stage:
  return Stage(tmp_path)


def one_line(done, code, *words):
  assert done.returncode == code, done.stderr
  assert done.stderr.count("\n") == 1
  assert done.stderr.startswith("error: ")
  for word in words:
    assert word in done.stderr


def test_create_a_tpu_vm(stage):
  assert stage.play("create").returncode == 0
  create = ["compute", "tpus", "tpu-vm", "create", "a"]
  assert stage.calls == [
    (
      "tpu-vm create",
      [
        *create,
        "--version=v2-alpha-tpuv5-lite",
        *WHERE,
        "--accelerator-type=v5litepod-8",
      ],
    )
  ]
  # By the environment, a spot one, with further flags.
  done = stage.play(
    "create",
    named=False,
    NAME="a",
    ZONE="us-west4-a",
    TYPE="v4-32",
    VERSION="tpu-ubuntu2204-base",
    SPOT="1",
    QUEUED="0",
    CREATE_FLAGS="--network=n --labels=x=y",
  )
  assert done.returncode == 0
  assert stage.calls[0][1] == [
    *create,
    "--version=tpu-ubuntu2204-base",
    WHERE[0],
    "--accelerator-type=v4-32",
    "--spot",
    "--network=n",
    "--labels=x=y",
  ]


def test_create_waits_in_line(stage):
  look = "queued-resources describe"
  states = ["WAITING_FOR_RESOURCES", [1, "no network"], "PROVISIONING"]
  done = stage.play(
    "create", "--queued", "--spot", answers={look: [*states, "ACTIVE"]}
  )
  assert done.returncode == 0
  assert stage.kinds == ["queued-resources create"] + 4 * [look]
  assert stage.calls[0][1] == [
    *["compute", "tpus", "queued-resources", "create", "a", "--node-id=a"],
    "--runtime-version=v2-alpha-tpuv5-lite",
    *WHERE,
    "--accelerator-type=v5litepod-8",
    "--spot",
  ]
  assert stage.calls[1][1] == [
    *["compute", "tpus", "queued-resources", "describe", "a", *WHERE],
    *["--format=value(state.state)", "--verbosity=error"],
  ]


def test_create_that_fails(stage):
  no = [1, "ERROR: There is no more capacity in the zone"]
  done = stage.play("create", answers={"tpu-vm create": [no]})
  assert done.returncode == 1
  assert "no more capacity" in done.stderr
  done = stage.play(
    "create", "--queued", answers={"queued-resources describe": ["FAILED"]}
  )
  assert done.returncode == 1
  assert "error: the request for a is FAILED" in done.stderr


def test_setup_copies_what_git_tracks_as_it_is_now(stage):
  (stage.checkout / "kept.txt").write_text("changed\n")
  (stage.checkout / "gone.txt").unlink()
  (stage.checkout / "new.txt").write_text("added\n")
  (stage.checkout / "data.bin").write_text("untracked\n")
  git(stage.checkout, "add", "new.txt")
  before = git(stage.checkout, "status", "--porcelain")
  done = stage.play("setup", "--bucket=b")
  assert done.returncode == 0, done.stderr
  assert "not copied: 1 files" in done.stderr
  assert git(stage.checkout, "status", "--porcelain") == before
  assert git(stage.checkout, "stash", "list") == ""

  archive = stage.path / ".cache/tessera/a.tar.gz"
  with tarfile.open(archive) as tar:
    names = {m.name for m in tar.getmembers() if m.isfile()}
    assert tar.extractfile("kept.txt").read() == b"changed\n"
  assert {"kept.txt", "new.txt", "tpu_scripts/on_vm/train"} <= names
  assert not {"gone.txt", "data.bin"} & names
  assert stage.kinds == SETUP
  assert stage.calls[0][1] == [
    *["compute", "tpus", "tpu-vm", "scp", str(archive), "a:tessera.tar.gz"],
    *[*WHERE, "--worker=all"],
  ]
  assert stage.calls[1][1][:-1] == [
    *["compute", "tpus", "tpu-vm", "ssh", "a", *WHERE, "--worker=all"]
  ]


def test_run_goes_on_after_a_preemption(stage):
  assert stage.play("setup").returncode == 0
  (stage.checkout / "kept.txt").write_text("changed since\n")
  answers = {
    LOOK: ["READY", "READY", "PREEMPTED", "READY"],
    TRAIN: [[143, ""], [255, "ssh: connection lost"], ""],
  }
  done = stage.play("run", *ARGS, "--spot", answers=answers)
  assert done.returncode == 0, done.stderr
  assert stage.kinds == [
    *[LOOK, TRAIN, LOOK, TRAIN, LOOK],
    *["tpu-vm delete", "tpu-vm create", *SETUP],
    *[LOOK, TRAIN],
  ]
  calls = dict(stage.calls)
  assert "--spot" in calls["tpu-vm create"]
  assert calls[TRAIN][:8] == [
    *["compute", "tpus", "tpu-vm", "ssh", "a", *WHERE, "--worker=all"]
  ]
  commands = [argv[-1].split() for kind, argv in stage.calls if kind == TRAIN]
  assert {tuple(c[3:]) for c in commands} == {tuple(ARGS)}
  # The new machine has the code of the first.
  with tarfile.open(calls["tpu-vm scp"][4]) as tar:
    assert tar.extractfile("kept.txt").read() == b"committed\n"


def test_run_stands_in_line_again(stage):
  answers = {
    LOOK: ["READY", NOT_FOUND, "READY"],
    TRAIN: [[255, ""], ""],
    "queued-resources describe": ["WAITING_FOR_RESOURCES", "ACTIVE"],
  }
  done = stage.play("run", *ARGS, "--queued", "--spot", answers=answers)
  assert done.returncode == 0, done.stderr
  look = "queued-resources describe"
  assert stage.kinds == [
    *[LOOK, TRAIN, LOOK],
    *["queued-resources delete", "queued-resources create", look, look],
    *[*SETUP, LOOK, TRAIN],
  ]
  assert dict(stage.calls)["queued-resources delete"] == [
    *["compute", "tpus", "queued-resources", "delete", "a", *WHERE],
    *["--force", "--quiet"],
  ]


def test_run_tries_again_what_may_pass(stage):
  # No capacity, then a setup that breaks; gcloud without a network; a worker
  # that failed since another was taken.
  answers = {
    LOOK: ["PREEMPTED", NOT_FOUND, [1, "no network"], "READY", "READY"]
    + ["PREEMPTED", "READY"],
    "tpu-vm create": [[1, "no capacity"], ""],
    "tpu-vm delete": ["", [1, "NOT_FOUND"], ""],
    "tpu-vm ssh install": [[1, "no route"], ""],
    TRAIN: [[127, "No such file"], [101, "a peer is gone"], ""],
  }
  done = stage.play("run", *ARGS, answers=answers)
  assert done.returncode == 0, done.stderr
  assert stage.kinds == [
    *[LOOK, "tpu-vm delete", "tpu-vm create"],
    *[LOOK, "tpu-vm delete", "tpu-vm create", *SETUP],
    *[LOOK, LOOK, TRAIN, *SETUP],
    *[LOOK, TRAIN],
    *[LOOK, "tpu-vm delete", "tpu-vm create", *SETUP],
    *[LOOK, TRAIN],
  ]


@pytest.mark.parametrize(
  ("code", "ends", "kinds"),
  [
    (0, 0, [LOOK, TRAIN]),
    (101, 1, [LOOK, TRAIN, LOOK]),  # the loss was not finite
    (102, 2, [LOOK, TRAIN]),  # bad arguments
    (2, 2, [LOOK, TRAIN]),  # gcloud's own bad arguments
    (1, 1, 3 * [LOOK, TRAIN]),  # gcloud's own failure
    (75, 1, 3 * [LOOK, TRAIN]),  # another host was lost
    (85, 1, 3 * [LOOK, TRAIN]),  # told to end, and saved
    (143, 1, 3 * [LOOK, TRAIN]),
  ],
)
def test_run_ends(stage, code, ends, kinds):
  answers = {LOOK: ["READY"], TRAIN: [[code, "error: its last words"]]}
  done = stage.play("run", *ARGS, answers=answers, RETRIES="3")
  assert done.returncode == ends
  assert stage.kinds == kinds
  assert "its last words" in done.stdout + done.stderr
  tired = "error: training failed 3 times in a row" in done.stderr
  assert tired == (len(kinds) == 6)


def test_stop_logs_and_delete(stage):
  ssh = ["compute", "tpus", "tpu-vm", "ssh", "a", *WHERE]
  assert stage.play("run", "--stop").returncode == 0
  ((_, argv),) = stage.calls
  assert argv[:-1] == [*ssh, "--worker=all"]
  assert argv[-1].startswith("--command=pkill ")
  tail = "--command=tail --lines=100 --follow=name --retry tessera/train.log"
  assert stage.play("logs").returncode == 0
  assert stage.calls[0][1] == [*ssh, "--worker=0", tail]
  assert stage.play("logs", "--worker=all").returncode == 0
  assert stage.calls[0][1] == [*ssh, "--worker=all", tail]
  assert stage.play("delete").returncode == 0
  assert stage.calls[0][1] == [
    *["compute", "tpus", "tpu-vm", "delete", "a", *WHERE, "--quiet"]
  ]


@pytest.mark.parametrize("queued", [[], ["--queued"]])
@pytest.mark.parametrize("name", SCRIPTS)
def test_dry_run_prints_what_would_be_called(stage, name, queued):
  arguments = [*(HOSTILE if name == "run" else []), *queued, "--spot"]
  dry = stage.play(name, *arguments, "--dry-run")
  assert dry.returncode == 0, dry.stderr
  assert stage.calls == []
  assert not (stage.path / ".cache").exists()

  answers = {
    LOOK: ["READY", "PREEMPTED", "READY"],
    "queued-resources describe": ["ACTIVE"],
    TRAIN: [[255, ""], ""],
  }
  assert stage.play(name, *arguments, answers=answers).returncode == 0
  real = [call for call in stage.calls if "describe" not in call[0]]
  if name == "run":
    real.pop()  # the training command once more
  (stage.bin / "calls.jsonl").unlink()
  (stage.bin / "answers.json").write_text("{}")
  subprocess.run(
    ["bash", "-euc", dry.stdout],
    env=stage.env(),
    cwd=stage.checkout,
    check=True,
    capture_output=True,
  )

  def without_attempt(call):
    return (
      call[0],
      [" ".join(a.split(" ")[:2]) for a in call[1]],
      (call[1][-1].split(" ")[3:] if call[0] == TRAIN else call[1][-1]),
    )

  assert [*map(without_attempt, stage.calls)] == [*map(without_attempt, real)]


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_is_missing_or_unknown_is_one_line(stage, name):
  one_line(
    stage.play(name, named=False, ZONE="z", answers={}), 2, "--name=NAME"
  )
  one_line(stage.play(name, "--name=a", named=False), 2, "--zone=ZONE")
  if name != "run":
    one_line(stage.play(name, "--spto"), 2, "--spto", "--help")
  assert stage.calls == []
  done = stage.play(name, "--help", named=False)
  assert done.returncode == 0
  assert f"tpu_scripts/{name} " in done.stdout
  assert "set -euo" not in done.stdout
  assert stage.calls == []


def test_run_says_what_is_missing(stage):
  one_line(stage.play("run", ARGS[0]), 2, "--workdir=")
  one_line(stage.play("run", ARGS[1]), 2, "--config=")
  assert stage.calls == []
  done = stage.play("run", *ARGS, answers={LOOK: [NOT_FOUND]})
  assert done.returncode == 2
  assert "error: there is no TPU a in us-west4-a" in done.stderr
  assert stage.kinds == [LOOK]


def find(program) -> str | None:
  beside = pathlib.Path(sys.executable).parent / program
  return str(beside) if beside.exists() else shutil.which(program)


@pytest.mark.skipif(not find("shellcheck"), reason="no shellcheck")
def test_shellcheck():
  files = [f"tpu_scripts/{name}" for name in (*SCRIPTS, "settings.sh")]
  files += ["tpu_scripts/on_vm/install", "tpu_scripts/on_vm/train"]
  done = subprocess.run(
    [find("shellcheck"), "--external-sources", "--severity=style", *files],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("gcloud"), reason="no gcloud")
def test_the_real_gcloud_takes_every_command(stage):
  answers = {LOOK: ["READY", "PREEMPTED", "READY"], TRAIN: [[255, ""], ""]}
  answers["queued-resources describe"] = ["ACTIVE"]
  calls = {}
  for queued in ([], ["--queued"]):
    stage.play("run", *ARGS, "--spot", *queued, answers=answers)
    calls |= dict(stage.calls)
  assert len(calls) == 9
  env = {
    **os.environ,
    "CLOUDSDK_CONFIG": str(stage.path / "gcloud"),  # nobody is signed in
    "CLOUDSDK_CORE_CHECK_GCE_METADATA": "false",
    "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
  }
  calls["wrong"] = ["compute", "tpus", "tpu-vm", "create", "a", "--no-such"]
  for kind, argv in calls.items():
    done = subprocess.run(
      ["gcloud", *argv], env=env, capture_output=True, text=True
    )
    if kind == "wrong":
      assert done.returncode == 2
    else:
      assert done.returncode == 1, (kind, done.stderr)
      assert "active account" in done.stderr
