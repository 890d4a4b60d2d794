"""What every verb sets before JAX starts."""

import os
import sys

import experiments
import jax
import pytest
from absl import flags
from ml_collections import config_flags

from common import cli, config_keys, overrides

FILE = str(experiments.ROOT / experiments.path_of("linear_regression"))
FOLDER, SECONDS = (
  "jax_compilation_cache_dir",
  "jax_persistent_cache_min_compile_time_secs",
)


def settings(monkeypatch) -> dict:
  """What start_jax sets."""
  found = {}
  monkeypatch.setattr(jax.config, "update", found.__setitem__)
  monkeypatch.setattr(cli, "_keep_freed_memory", lambda: None)
  cli.start_jax()
  return found


def test_programs_are_kept_in_the_cache_folder(monkeypatch):
  monkeypatch.delenv(FOLDER.upper(), raising=False)
  monkeypatch.delenv(SECONDS.upper(), raising=False)
  monkeypatch.setenv("TESSERA_CACHE", "/a/cache")
  found = settings(monkeypatch)
  assert found[FOLDER] == "/a/cache/xla"
  assert found[SECONDS] == 0.5
  assert found["jax_numpy_rank_promotion"] == "raise"


def test_the_environment_comes_first(monkeypatch):
  monkeypatch.setenv(FOLDER.upper(), "/another")
  monkeypatch.setenv(SECONDS.upper(), "7")
  found = settings(monkeypatch)
  assert FOLDER not in found and SECONDS not in found


def parsed(monkeypatch, *arguments) -> dict:
  """The config that a command line gives, as plain data."""
  values = flags.FlagValues()
  config_flags.DEFINE_config_file(
    "config",
    lock_config=False,
    accept_new_attributes=True,
    flag_values=values,
  )
  given = ["x", "--config=" + FILE, *arguments]
  monkeypatch.setattr(sys, "argv", given)
  left, items = overrides.lists(given)
  argv = overrides.complete(left)
  monkeypatch.setattr(sys, "argv", argv)
  values(argv)
  overrides.set_items(values.config, items)
  return config_keys.plain(values.config)


# Of ml_collections, which loads the config's file.
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_a_section_that_the_config_lacks_can_be_set(monkeypatch):
  before = parsed(monkeypatch)
  found = parsed(
    monkeypatch,
    "--config.recovery.spike=10",
    "--config.early_stopping.metric=val/loss",
    "--config.early_stopping.patience=3",
    "--config.checkpoint.keep=7",
  )
  assert found["recovery"] == {"spike": 10}
  assert found["early_stopping"] == {"metric": "val/loss", "patience": 3}
  assert found["checkpoint"] == {**before["checkpoint"], "keep": 7}


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_any_key_of_the_schema_can_be_set(monkeypatch):
  """Sections that the config lacks, at any depth and in any notation."""
  found = parsed(
    monkeypatch,
    "--config.adapt.name=lora",
    "--config.adapt.rank=4",
    "--config.data.rows.name=labeled",
    "--config.data.rows.labels=('a', 'b')",
    "--config.evals.mine.name",
    "mean",
    "--config.evals.mine.every_steps=2",
    "--config.writers[0].histograms_every=5",
    "--config.init_from.path=runs/a=b",
    "--config.init_from.step=best",
    "--config.mesh.fsdp=2",
    "--config.model.rope_scaling.factor=2.0",
    "--config.log_examples=true",
    "--config.seed",
    "3",
  )
  assert found["adapt"] == {"name": "lora", "rank": 4}
  assert found["data"]["rows"] == {"name": "labeled", "labels": ["a", "b"]}
  assert found["evals"]["mine"] == {"name": "mean", "every_steps": 2}
  assert found["writers"] == [{"name": "tensorboard", "histograms_every": 5}]
  assert found["init_from"] == {"path": "runs/a=b", "step": "best"}
  assert found["mesh"]["fsdp"] == 2 and found["mesh"]["data"] == -1
  assert found["model"]["rope_scaling"] == {"factor": 2.0}
  assert found["log_examples"] in (True, "true") and found["seed"] == 3


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_items_of_lists_can_be_set(monkeypatch):
  """Of lists that the config has, that it lacks, and that a flag sets."""
  found = parsed(
    monkeypatch,
    "--config.learner.wrap[0].name=ema",
    "--config.learner.wrap[0].decay=0.5",
    "--config.learner.wrap[1]={'name': 'sam'}",
    "--config.optimizer.wrap=[{'name': 'lookahead'}]",
    "--config.optimizer.wrap[0].every=3",
    "--config.sharding=[['.*', 'fsdp']]",
    "--config.sharding[0][1]=replicate",
    "--config.init_from.map[0]=a",
    "--config.data.mixture[0].source",
    "fake:linear",
  )
  ema = {"name": "ema", "decay": 0.5}
  assert found["learner"]["wrap"] == [ema, {"name": "sam"}]
  assert found["optimizer"]["wrap"] == [{"name": "lookahead", "every": 3}]
  assert found["sharding"] == [[".*", "replicate"]]
  assert found["init_from"] == {"map": ["a"]}
  assert found["data"]["mixture"] == [{"source": "fake:linear"}]
  for flag, line in (
    ("learner.wrap[1].name=ema", "wrap has 0 items, counted from 0; .0. adds"),
    ("seed.a[0]=x", "seed=0 is no section"),
    ("learner.name[0]=x", "config.learner.name is no list"),
    ("task.wrap[0]=x --config.task.wrap[0].name=x", "wrap.0. is no section"),
  ):
    with pytest.raises(ValueError, match=line):
      parsed(monkeypatch, *f"--config.{flag}".split())


@pytest.mark.parametrize(
  "path",
  [
    "linear_regression",
    "configs/linear_regression.py",
    "./configs/textbook/linear_regression.py",
    "configs/language/linear_regression.py",
    str(experiments.ROOT / "configs" / "linear_regression.py"),
  ],
)
def test_configs_are_found_from_any_folder(path, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert cli._config_found(f"--config={path}:smoke") == f"--config={FILE}:smoke"


def test_a_missing_file_of_another_folder_is_not_replaced(tmp_path):
  flag = f"--config={tmp_path}/configs/linear_regression.py"
  assert cli._config_found(flag) == flag


def test_libtpu_is_quiet_where_there_is_no_tpu(tmp_path, monkeypatch):
  monkeypatch.setattr(os, "environ", {"TPU_MIN_LOG_LEVEL": "0"})
  (tmp_path / "accel0").touch()
  cli.quiet_libtpu(str(tmp_path))
  assert os.environ["TPU_MIN_LOG_LEVEL"] == "0"
  assert "TPU_WORKER_HOSTNAMES" not in os.environ
  (tmp_path / "accel0").unlink()
  cli.quiet_libtpu(str(tmp_path))
  assert os.environ["TPU_WORKER_HOSTNAMES"] == "localhost"


@pytest.mark.parametrize(
  ("given", "line"),
  [
    ([], "--workdir is missing"),
    (["runs/a"], "--workdir is missing; did you mean --workdir=runs/a?"),
    (["--step", "3", "--all", "a b"], "; did you mean --workdir='a b'?"),
    (["--step=3", "--noall"], "--workdir is missing"),
  ],
)
def test_a_required_flag_is_named_with_what_was_meant(given, line, monkeypatch):
  values = flags.FlagValues()
  flags.DEFINE_string("workdir", None, "", values, required=True)
  flags.DEFINE_integer("step", None, "", flag_values=values)
  flags.DEFINE_bool("all", False, "", flag_values=values)
  monkeypatch.setattr(flags, "FLAGS", values)
  monkeypatch.setattr(sys, "argv", [])
  with pytest.raises(cli.UserError) as error:
    cli._parse(["x", *given])
  assert str(error.value).endswith(line)


def test_a_missing_config_is_named_with_what_was_meant():
  assert [
    str(cli.missing("config", ["x", *rest], "lm_stdlib"))
    for rest in ([], ["lm_zh"])
  ] == [
    "--config is missing, for example --config=lm_stdlib",
    "--config is missing; did you mean --config=lm_zh?",
  ]
