"""train.doctor on machines that are ill, each fault put there for real."""

import errno
import fcntl
import importlib.metadata
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest

from train.doctor import checks, probes

ROOT = pathlib.Path(__file__).parents[3]


def doctor(*arguments, **env):
  started = time.monotonic()
  done = subprocess.run(
    [sys.executable, "-m", "train.doctor", *arguments],
    cwd=ROOT,
    env={**os.environ, "XLA_FLAGS": "", **env},
    capture_output=True,
    text=True,
  )
  assert time.monotonic() - started < 15
  assert "Traceback" not in done.stderr + done.stdout
  lines = done.stdout.splitlines()
  assert all(line[:6] in ("ok    ", "note  ", "wrong ") for line in lines)
  wrong = [line[6:] for line in lines if line.startswith("wrong")]
  assert done.returncode == (1 if wrong else 0), done.stderr
  return lines, wrong


def probe(function, argument):
  facts = {}
  return list(function(str(argument), facts)), facts


def test_this_machine_is_well(tmp_path):
  workdir = tmp_path / "runs" / "a"
  lines, wrong = doctor(f"--workdir={workdir}")
  assert wrong == []
  text = "\n".join(lines)
  version = ".".join(map(str, sys.version_info[:3]))
  jax = importlib.metadata.version("jax")
  for part in (
    f"ok    Python {version}",
    f"jax {jax}, ",
    "extras installed: ",
    "JAX sees 1 x cpu (cpu); matrix products agree",
    f"workdir {workdir} is writable",
    "flock blocks a second run",
    "files are replaced atomically",
    "write speed",
  ):
    assert part in text, text
  assert list(tmp_path.iterdir()) == []  # a look leaves nothing


def test_a_port_in_use():
  with socket.create_server(("", 0)) as server:
    number = server.getsockname()[1]
    _, wrong = doctor(f"--coordinator=localhost:{number}")
    assert len(wrong) == 1
    assert f"port {number} of this host is in use" in wrong[0]
  found, facts = probe(probes.port, f"localhost:{number}")
  assert facts["here"]
  assert found == [
    ("ok", f"port {number} of this host is free for the coordinator")
  ]


def test_another_host_s_port():
  with socket.create_server(("127.0.0.1", 0)) as server:
    number = server.getsockname()[1]
    at = f"127.0.0.1:{number}"
    level, text = probes._reaches(at, "127.0.0.1", number)
    assert (level, text) == ("ok", f"coordinator {at} is reachable")
  level, text = probes._reaches(at, "127.0.0.1", number)
  assert level == "note" and "nothing listens there yet" in text
  (found,), _ = probe(probes.port, "no-such-host.invalid:80")
  assert found[0] == "wrong" and "no-such-host.invalid" in found[1]
  # An address kept for documentation: nobody has it.
  (found,), facts = probe(probes.port, "192.0.2.1:80")
  assert not facts["here"] and "192.0.2.1:80" in found[1]
  for malformed in ("host", ":80", "host:http", "host:99999"):
    (found,), _ = probe(probes.port, malformed)
    assert found[1].endswith("is not HOST:PORT")


@pytest.mark.skipif(sys.platform != "linux", reason="its way with full queues")
def test_a_port_that_swallows_what_is_sent():
  """As a firewall does: here, a server whose queue is full."""
  with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
    number = server.getsockname()[1]
    waiting = [socket.socket() for _ in range(4)]
    for each in waiting:
      each.setblocking(False)
      each.connect_ex(server.getsockname())
    level, text = probes._reaches("x", "127.0.0.1", number)
    for each in waiting:
      each.close()
  assert level == "wrong"
  assert text == (
    "coordinator x is not reachable: timed out: open the port in the firewall"
  )


def test_a_workdir_that_is_a_file(tmp_path):
  path = tmp_path / "file"
  path.write_text("")
  for argument in (path, path / "below"):
    (found,), _ = probe(probes.workdir, argument)
    assert found == (
      "wrong",
      f"workdir {argument}: {path} is a file, not a folder",
    )


def test_a_workdir_that_cannot_be_written():
  (found,), _ = probe(probes.workdir, "/sys/fs/runs")
  assert found[0] == "wrong"
  assert "workdir /sys/fs/runs is not writable: /sys/fs: " in found[1]


def test_an_old_version_is_named(monkeypatch):
  right = importlib.metadata.version

  def version(name):
    return {"jax": "0.9.0", "optax": "0.2.8.dev1"}.get(name) or right(name)

  monkeypatch.setattr(importlib.metadata, "version", version)
  wrong = [x.text for x in checks.packages() if x.level == "wrong"]
  assert "jax 0.9.0 is older than 0.10.2: pip install -U 'jax>=0.10.2'" in wrong
  assert any(text.startswith("optax 0.2.8.dev1 is older") for text in wrong)
  # pyproject's own minimums, found there by hand.
  text = (ROOT / "pyproject.toml").read_text()
  assert '"jax>=0.10.2"' in text and '"optax>=0.2.8"' in text


def test_a_jaxlib_of_another_jax(monkeypatch):
  right = importlib.metadata.version
  monkeypatch.setattr(
    importlib.metadata,
    "version",
    lambda name: "99.0" if name == "jaxlib" else right(name),
  )
  wrong = [x.text for x in checks.packages() if x.level == "wrong"]
  assert len(wrong) == 1 and wrong[0].startswith("jaxlib 99.0 is not ")


@pytest.mark.parametrize("missing", ["sentencepiece", "tensorflow-datasets"])
def test_an_extra_is_missing_where_a_config_needs_it(missing, monkeypatch):
  right = importlib.metadata.version

  def version(name):
    if name == missing:
      raise importlib.metadata.PackageNotFoundError(name)
    try:
      return right(name)
    except importlib.metadata.PackageNotFoundError:
      return "99"  # the others are there, whatever this machine has

  monkeypatch.setattr(importlib.metadata, "version", version)
  extra = {"sentencepiece": "text", "tensorflow-datasets": "data"}[missing]
  (line,) = checks.extras(None)
  assert line.level == "ok" and f"; not installed: {extra}" in line.text
  config = {
    "data": {"source": "stdlib:", "tokenizer": "sentencepiece?vocab_size=9"},
    "evals": {"val": {"source": "tfds:mnist"}, "odd": 3},
    "model": {"matmul": "int8"},
  }
  lines = list(checks.extras(config))
  wrong = [x.text for x in lines if x.level == "wrong"]
  key = {"text": "config.data.tokenizer", "data": "config.evals.val.source"}
  assert wrong == [
    f"{key[extra]} needs the extra {extra}: pip install -e '.[{extra}]'"
    f" ({missing} is not installed)"
  ]
  assert checks.needs(config) == {
    "text": "config.data.tokenizer",
    "data": "config.evals.val.source",
    "quantization": "config.model.matmul",
  }
  for spec in ("wordpiece:v.txt", "tokenizers:t.json"):
    needed = checks.needs({"data": {"tokenizer": spec}})
    assert needed == {"text": "config.data.tokenizer"}
  writers = [{"name": "tensorboard"}, {"name": "wandb"}]
  assert checks.needs({"writers": writers}) == {
    "wandb": "config.writers[1].name"
  }


def smi(folder: pathlib.Path, script: str) -> str:
  """A PATH on which nvidia-smi is this script, and nothing else is."""
  folder.mkdir()
  (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
  (folder / "nvidia-smi").chmod(0o755)
  return str(folder)


def test_a_gpu_that_jax_does_not_see(tmp_path):
  path = smi(tmp_path / "bin", 'echo "GPU 0: NVIDIA H100"')
  env = {"PATH": path, "JAX_PLATFORMS": ""}
  _, wrong = doctor(f"--workdir={tmp_path}", **env)
  assert wrong == [
    "this machine seems to have a GPU, but JAX sees only the CPU: pip install"
    " -U -e '.[cuda]'"
  ]
  lines, wrong = doctor(f"--workdir={tmp_path}", PATH=path, JAX_PLATFORMS="cpu")
  assert wrong == []
  assert "note  JAX_PLATFORMS=cpu hides the GPU from JAX" in lines


def test_what_seems_to_be_in_the_machine(tmp_path, monkeypatch):
  nothing = tmp_path / "nothing"
  nothing.mkdir()
  monkeypatch.setenv("PATH", "")
  assert checks.accelerators(str(nothing)) == (None, [])
  (tmp_path / "tpu").mkdir()
  (tmp_path / "tpu" / "accel0").write_text("")
  assert checks.accelerators(str(tmp_path / "tpu")) == ("TPU", [])
  (tmp_path / "tpu5" / "vfio").mkdir(parents=True)
  (tmp_path / "tpu5" / "vfio" / "vfio").write_text("")  # any host has it
  assert checks.accelerators(str(tmp_path / "tpu5")) == (None, [])
  (tmp_path / "tpu5" / "vfio" / "0").write_text("")
  assert checks.accelerators(str(tmp_path / "tpu5")) == ("TPU", [])
  monkeypatch.setenv("PATH", smi(tmp_path / "bin", "echo broken >&2; exit 9"))
  seen, (line,) = checks.accelerators(str(nothing))
  assert seen is None
  assert line == ("wrong", "nvidia-smi: broken: check the driver")


def test_a_command_that_hangs_is_killed_with_all_it_started(tmp_path):
  told = tmp_path / "pid"
  script = f"sleep 60 & echo $! > {told}; wait"
  started = time.monotonic()
  assert checks.answer(["sh", "-c", script], 0.5) == (None, "", "")
  assert time.monotonic() - started < 10
  assert gone(int(told.read_text()))


def gone(pid: int) -> bool:
  for _ in range(100):
    try:
      state = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
      return True
    if state.rpartition(")")[2].split()[0] == "Z":
      return True
    time.sleep(0.05)
  return False


def test_devices_that_do_not_answer(tmp_path):
  """A jax that never comes back from its import, as from a dead device."""
  (tmp_path / "jax.py").write_text(
    f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str("
    "os.getpid()))\ntime.sleep(600)\n"
  )
  _, wrong = doctor("--wait=1.5", PYTHONPATH=str(tmp_path))
  assert wrong == ["devices: no response within 1.5 s"]
  assert gone(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize(
  ("content", "said"),
  [
    (
      "raise RuntimeError('no TPU\\nmore')",
      "JAX cannot use its devices: no TPU",
    ),
    ("import os; os._exit(9)", "devices: exit code 9"),
  ],
)
def test_a_jax_that_fails_is_one_line(content, said, tmp_path):
  (tmp_path / "jax.py").write_text(content)
  _, wrong = doctor(PYTHONPATH=str(tmp_path))
  assert wrong == [said]


def test_a_device_that_multiplies_wrongly(monkeypatch):
  import jax

  right = jax.device_put
  bad = jax.devices()[5]

  def put(x, device):
    return right(x * 1.01 if device == bad else x, device)

  monkeypatch.setattr(jax, "device_put", put)
  found, _ = probe(probes.devices, "")
  assert found == [
    ("wrong", f"{bad} computes wrong matrix products: do not use it")
  ]


def test_a_disk_where_a_rename_is_no_one_move(tmp_path, monkeypatch):
  def replace(a, b):
    os.unlink(b)
    time.sleep(0.01)
    os.rename(a, b)

  monkeypatch.setattr(os, "replace", replace)
  level, text = probes._rename(tmp_path)
  assert level == "wrong" and "is not atomic" in text


def test_a_disk_without_flock(tmp_path, monkeypatch):
  def missing(fd, how):
    raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

  monkeypatch.setattr(fcntl, "flock", missing)
  level, text = probes._flock(tmp_path)
  assert level == "note" and text.startswith("no flock here (Operation not")
  monkeypatch.setattr(fcntl, "flock", lambda fd, how: None)
  level, text = probes._flock(tmp_path)
  assert level == "note" and "does not exclude" in text


def test_a_full_disk(tmp_path):
  code = """
import json, resource, sys
from train.doctor import probes
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
print(json.dumps(list(probes.workdir(sys.argv[1], {}))))
"""
  done = subprocess.run(
    [sys.executable, "-c", code, str(tmp_path)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  assert json.loads(done.stdout)[-1] == [
    "wrong",
    f"workdir {tmp_path}: {os.strerror(errno.EFBIG)}",
  ]
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  ("limit", "level"), [(128, "wrong"), (512, "note"), (2048, "ok")]
)
def test_few_open_files(limit, level):
  code = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, 4096))
from train.doctor import checks
print(*checks.open_files())
"""
  done = subprocess.run(
    [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
  )
  assert done.stdout.startswith(f"{level} open files: at most {limit}")
  assert ("ulimit -n 4096" in done.stdout) == (level != "ok")


def test_a_missing_library_is_one_line(tmp_path):
  """Even one that the doctor itself is made of."""
  (tmp_path / "packaging").mkdir()
  (tmp_path / "packaging" / "__init__.py").write_text(
    "raise ModuleNotFoundError('gone', name='packaging')"
  )
  done = subprocess.run(
    [sys.executable, "-m", "train.doctor"],
    cwd=ROOT,
    env={**os.environ, "PYTHONPATH": str(tmp_path)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 1
  assert done.stderr == "wrong packaging is not installed: pip install -e .\n"


def test_a_config_of_the_project_names_its_extras(tmp_path):
  lines, _ = doctor(
    f"--workdir={tmp_path}",
    "--config=conv_fashion_mnist",
  )
  assert "config.data.ops needs the extra data" in "\n".join(lines)
