"""What a user mistypes or points at: one clear line, and nothing is lost."""

import json
import os
import pathlib
import subprocess
import sys

import forkserver
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
LM = "--config=configs/language/lm_stdlib.py:smoke"
CONV = "--config=conv_fashion_mnist:smoke"
# arguments -> what the line says
CASES = {
  "section": ([LM, "--config.modle.dim=3"], ["modle", '"model"']),
  "key": ([LM, "--config.model.dimm=3"], ["config.model.dimm", '"dim"']),
  "top key": ([LM, "--config.totl_steps=3"], ["totl_steps", '"total_steps"']),
  "eval key": ([LM, "--config.evals.val.splt=x"], ["val.splt", '"split"']),
  "data key": ([LM, "--config.data.opps=x"], ["config.data.opps", '"ops"']),
  "flag": ([LM, "--workdirr=x"], ["workdirr", "workdir"]),
  "type": ([LM, "--config.model.dim=wide"], ["config.model.dim", "wide"]),
  "mistyped --config": ([LM, "--confg.model.dim=4"], ["--confg", '"config"']),
  "no dashes": (
    [LM, "config.total_steps=2"],
    ["unexpected argument", "--config.total_steps=2"],
  ),
  "an evaluator": ([LM, "--config.evals.vla.every_steps=2"], ["vla", '"val"']),
  "number": ([LM, "--config.total_steps=abc"], ["abc: not a whole number"]),
  "no config": ([], ["--config is missing"]),
  "folder": (["--config=configs/"], ["configs/", "name of a config"]),
  "file": (["--config=configs/nope.py"], ["configs/nope.py", "no such file"]),
  "argument": (
    ["--config=configs/language/lm_stdlib.py:smoek"],
    ["smoek", "'smoke'"],
  ),
  "model": ([LM, "--config.model.name=decodr"], ["decodr", '"decoder"']),
  "task": (
    [LM, "--config.task.name=language_modelling"],
    ["config.task.name", '"language_modeling"'],
  ),
  "optimizer": ([LM, "--config.optimizer.name=adamm"], ["adamm", '"adam"']),
  "optimizer key": ([LM, "--config.optimizer.lrr=1"], ["lrr", '"lr"']),
  "regex": (
    [LM, "--config.optimizer.freeze=('nothing_like_it',)"],
    ["config.optimizer", "nothing_like_it"],
  ),
  "op": ([CONV, "--config.data.ops=flipp|scale(-1,1)"], ["flipp", '"flip"']),
  "op's argument": ([CONV, "--config.data.ops=scale(lo=1)"], ["scale", "lo"]),
  "no file": (
    [LM, "--config.data.source=text:/nowhere/*.txt"],
    ["text:/nowhere/*.txt", "no file"],
  ),
  "empty folder": (
    [CONV, "--config.data.source=idx:EMPTY"],
    ["config.data", "EMPTY"],
  ),
  "scheme": ([LM, "--config.data.source=txt:x"], ["'txt'", "text:"]),
  "prompt": (
    [LM, "--config.data.tokenizer=char", "--config.evals.text.prompt=☃"],
    ["config.evals.text", "'☃'"],
  ),
  "mesh": ([LM, "--config.mesh.data=3"], ["config.mesh", "data=3"]),
  "microbatches": (
    [LM, "--config.learner.microbatches=3"],
    ["batch of 8", "3 equal parts"],
  ),
}


def main(*arguments, devices=1):
  flags = f"--xla_force_host_platform_device_count={devices}"
  return forkserver.run(
    [sys.executable, "-m", "train.main", *arguments],
    cwd=ROOT,
    env={**os.environ, "XLA_FLAGS": flags},
    capture_output=True,
    text=True,
  )


def the_line(done) -> str:
  """The only line of standard error."""
  lines = done.stderr.strip().splitlines()
  assert len(lines) == 1, done.stderr
  assert lines[0].startswith("error: ")
  return lines[0]


@pytest.mark.parametrize("name", CASES)
def test_one_line_that_names_it(name, tmp_path):
  arguments, said = CASES[name]
  (tmp_path / "EMPTY").mkdir()
  arguments = [a.replace("EMPTY", str(tmp_path / "EMPTY")) for a in arguments]
  workdir = tmp_path / "run"
  done = main(*arguments, f"--workdir={workdir}")
  assert done.returncode == 2, done.stderr
  for part in said:
    assert part in the_line(done)
  assert not (workdir / "checkpoints" / "4").exists()


def test_a_batch_that_the_mesh_cannot_divide(tmp_path):
  done = main(LM, "--config.batch_size=12", f"--workdir={tmp_path}", devices=8)
  assert done.returncode == 2
  assert "config.batch_size=12 cannot be divided over the 8" in the_line(done)


@pytest.mark.slow
def test_another_config_is_refused_and_the_run_stays_whole(tmp_path):
  assert main(LM, f"--workdir={tmp_path}").returncode == 0
  before = (tmp_path / "metrics.jsonl").read_bytes()
  done = main(LM, f"--workdir={tmp_path}", "--config.optimizer.lr=0.5")
  assert done.returncode == 2
  assert "config.optimizer.lr (0.004 there, 0.5 now)" in the_line(done)
  assert (tmp_path / "metrics.jsonl").read_bytes() == before
  # The same command again finds it complete; a longer run goes on.
  assert main(LM, f"--workdir={tmp_path}").returncode == 0
  assert (tmp_path / "metrics.jsonl").read_bytes() == before
  assert (
    main(LM, f"--workdir={tmp_path}", "--config.total_steps=6").returncode == 0
  )
  last = (tmp_path / "metrics.jsonl").read_text().splitlines()[-1]
  assert json.loads(last)["step"] == 6


def test_nan_ends_the_run_before_it_is_saved(tmp_path):
  done = main(
    LM,
    f"--workdir={tmp_path}",
    "--config.total_steps=9",
    "--config.optimizer.lr=1e30",
    "--config.optimizer.clip_norm=1e9",
    "--config.optimizer.warmup_steps=5",
    "--config.checkpoint.every_steps=1",
    "--config.checkpoint.keep=9",
  )
  assert done.returncode == 1
  line = the_line(done)
  assert "at step" in line and ("nan" in line or "inf" in line)
  failed = int(line.split("at step ")[1].split(";")[0])
  saved = sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir())
  assert saved and max(saved) < failed
  # What was saved is finite, and opens.
  from train import trained

  params = trained.load(str(tmp_path)).variables.params
  import jax

  assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))


def test_an_image_that_does_not_decode_is_named(tmp_path):
  import matplotlib.image

  images = np.random.default_rng(0).integers(0, 255, (12, 8, 8, 3), np.uint8)
  for i, image in enumerate(images):
    folder = tmp_path / "images" / f"class{i % 2}"
    folder.mkdir(parents=True, exist_ok=True)
    matplotlib.image.imsave(folder / f"{i}.png", image)
  broken = tmp_path / "images" / "class1" / "7.png"
  broken.write_bytes(b"not an image")
  done = main(
    CONV,
    f"--config.data.source=folder:{tmp_path / 'images'}",
    "--config.data.split=all",
    "--config.data.ops=decode(3)|resize(8)|scale(-1, 1)",
    "--config.evals.test.ops=decode(3)|resize(8)|scale(-1, 1)",
    f"--workdir={tmp_path / 'run'}",
  )
  assert done.returncode == 2, done.stderr
  assert str(broken) in the_line(done)


@pytest.mark.parametrize("verb", ["evaluate", "generate"])
def test_a_workdir_without_a_run(verb, tmp_path):
  done = subprocess.run(
    [sys.executable, "-m", f"train.{verb}", f"--workdir={tmp_path}"],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  assert "no config.json" in the_line(done)
