"""What every verb sets before JAX starts."""

import jax

from common import cli

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
