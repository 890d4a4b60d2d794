"""What every verb sets before JAX starts."""

import sys

import experiments
import jax
import pytest
from absl import flags
from ml_collections import config_flags

from common import cli, config_keys

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
  argv = cli._with_sections(given)
  monkeypatch.setattr(sys, "argv", argv)
  values(argv)
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
