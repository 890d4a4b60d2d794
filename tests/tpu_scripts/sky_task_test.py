"""tpu_scripts/sky.yaml: its parts run by bash, as SkyPilot runs them."""

import json
import os
import shlex
import signal
import subprocess
import sys

import pytest
import yaml
from stand_in_gcloud import ROOT, script

from common.errors import Preempted


@pytest.fixture
def task() -> dict:
  return yaml.safe_load((ROOT / "tpu_scripts/sky.yaml").read_text())


def sky(task, part, path, **env) -> subprocess.CompletedProcess:
  """What SkyPilot does with a part of a task file: a script of bash."""
  return subprocess.run(
    ["bash", "-c", task[part]],
    cwd=path,
    env={"HOME": str(path), "PATH": f"{path}/bin:{os.environ['PATH']}", **env},
    capture_output=True,
    text=True,
    timeout=30,
  )


def test_sky_covers_three_clouds_and_keeps_the_run(task):
  clouds = [one["infra"] for one in task["resources"]["any_of"]]
  assert sorted(clouds) == ["aws", "azure", "gcp"]
  assert task["envs"] == {"BUCKET": None, "ARGS": None}  # both must be given
  (mount,) = task["file_mounts"].values()
  assert mount["source"] == "${BUCKET}"
  # What other hosts' ends and an end by the cloud exit with: all may pass.
  again = task["resources"]["job_recovery"]["recover_on_exit_codes"]
  codes = [os.EX_TEMPFAIL, Preempted.code, 128 + signal.SIGTERM]
  assert again == codes


def test_sky_runs_the_same_command(task, tmp_path):
  script(
    tmp_path / ".venv/bin/python",
    f"#!{sys.executable} -SE\nimport json, sys\n"
    "print(json.dumps(sys.argv[1:]))\nsys.exit(3)\n",
  )
  args = ["--config=a.py", "--workdir=bucket/a b", "--config.x='$HOME'"]
  env = {"ARGS": shlex.join(args), "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2"}
  one = sky(task, "run", tmp_path, SKYPILOT_NUM_NODES="1", **env)
  assert json.loads(one.stdout) == ["-m", "train.main", *args]
  assert one.returncode == 3
  two = sky(
    task,
    "run",
    tmp_path,
    SKYPILOT_NUM_NODES="2",
    SKYPILOT_NODE_RANK="1",
    **env,
  )
  assert json.loads(two.stdout) == [
    *["-m", "train.main", *args, "--coordinator=10.0.0.1:8476"],
    *["--num_processes=2", "--process_id=1"],
  ]
  for flag in ("coordinator", "num_processes", "process_id"):
    assert f'"{flag}"' in (ROOT / "train/hosts/flags.py").read_text()


@pytest.mark.parametrize(
  ("driver", "cuda"), [("535.183.06", 12), ("580.65", 13)]
)
def test_sky_sets_up_for_the_driver(task, tmp_path, driver, cuda):
  script(tmp_path / "bin/nvidia-smi", f"#!/bin/bash\necho {driver}\n")
  script(tmp_path / "bin/uv", "#!/bin/bash\necho uv $*\n")
  done = sky(task, "setup", tmp_path)
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines() == [
    "uv venv --python=3.12 .venv",
    "uv pip install --quiet --compile-bytecode --python=.venv/bin/python"
    f" -e .[data,text] jax[cuda{cuda}]",
  ]
