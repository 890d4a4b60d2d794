"""Arrays that do not change are saved once, and are missed if they are lost."""

import pathlib
import re
import shutil

import fsspec
import jax
import numpy as np
import pytest

from common.errors import SaveError, UserError
from configs.textbook import linear_regression
from train import build, loop, trained
from train.checkpointing import checkpoint, digests
from train.workdir import bucket, bucket_lock

FROZEN = {f"variables/params/layers/0/{name}" for name in ("kernel", "bias")}


def train(workdir, steps: int, shared: bool = True) -> None:
  """Trains an MLP whose first layer is frozen, with a save every 2 steps."""
  config = linear_regression.get_config("smoke")
  config.model = dict(name="mlp", hidden=[300])
  config.optimizer = dict(name="adam", lr=0.1, freeze=["^layers/0/"])
  config.total_steps, config.evals, config.writers = steps, {}, []
  config.checkpoint = dict(every_steps=2, keep=3)
  run = build.run(config, str(workdir), say=lambda line: None)
  if not shared:  # as earlier releases saved
    run.checkpoints.frozen = frozenset()
  list(loop.fit(run))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  root = tmp_path_factory.mktemp("runs")
  train(root / "straight", 4)
  train(root / "before", 2, shared=False)
  return root


def state_of(workdir) -> dict[str, str]:
  return digests.of(trained.load_state(str(workdir)))


def held(workdir, step: int) -> set[str]:
  """The paths of the arrays that a checkpoint holds itself."""
  where = pathlib.Path(workdir) / "checkpoints" / str(step) / "state"
  tree = checkpoint.arrays.handler().metadata(where).tree
  return {path for path, _ in digests.named(tree)}


def test_each_checkpoint_names_what_the_workdir_holds_once(runs):
  workdir = runs / "straight"
  (kept,) = (workdir / "frozen").iterdir()
  for step in (2, 4):
    assert not held(workdir, step) & FROZEN
    record = checkpoint.read_record(workdir / "checkpoints", step)
    assert record["frozen"] == {"digest": kept.name, "paths": sorted(FROZEN)}
    assert checkpoint.verify(workdir / "checkpoints", step) == []
  assert set(state_of(workdir)) >= FROZEN


def test_a_checkpoint_that_holds_all_arrays_opens_and_is_resumed(
  runs, tmp_path
):
  workdir = shutil.copytree(runs / "before", tmp_path / "run")
  assert held(workdir, 2) >= FROZEN and not (workdir / "frozen").exists()
  record = checkpoint.read_record(workdir / "checkpoints", 2)
  assert record["format"] == 1 and "frozen" not in record
  train(workdir, 4)
  assert not held(workdir, 4) & FROZEN
  assert state_of(workdir) == state_of(runs / "straight")


@pytest.mark.parametrize("fault", ["missing", "flipped", "truncated"])
def test_lost_arrays_end_in_one_line(runs, tmp_path, fault):
  workdir = shutil.copytree(runs / "straight", tmp_path / "run")
  (kept,) = (workdir / "frozen").iterdir()
  if fault == "missing":
    shutil.rmtree(kept)
  else:
    files = [p for p in kept.rglob("d/*") if p.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 255
    cut = content if fault == "flipped" else content[: len(content) // 3]
    largest.write_bytes(cut)
  line = rf"^{re.escape(str(kept))}: .*all checkpoints of the run need these"
  for attempt, error in (
    (lambda: trained.load(str(workdir)), UserError),
    (lambda: train(workdir, 6), SaveError),
  ):
    with pytest.raises(error, match=line) as found:
      attempt()
    assert "\n" not in str(found.value)
  assert len(checkpoint.verify(workdir / "checkpoints", 4)) == 1
  # No checkpoint is blamed for it.
  assert not (workdir / "damaged").exists()


def test_arrays_that_changed_after_all_are_in_the_checkpoint(tmp_path):
  manager = checkpoint.open_manager(
    str(tmp_path / "checkpoints"), unchanging=["a"]
  )
  record = {"position": 0, "evaluated": True, "health": {}, "rollbacks": 0}
  shapes = jax.eval_shape(lambda: {"a": np.zeros(3), "b": np.zeros(2)})
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes
  )
  for step in (1, 2):
    state = {"a": jax.numpy.full(3, float(step)), "b": jax.numpy.zeros(2)}
    checkpoint.save(manager, step, state, record)
  checkpoint.check(manager, wait=True)
  assert len(list((tmp_path / "frozen").iterdir())) == 1
  assert (held(tmp_path, 1), held(tmp_path, 2)) == ({"b"}, {"a", "b"})
  for step in (1, 2):
    found = checkpoint.restore(manager, shapes, step).state["a"]
    np.testing.assert_array_equal(found, np.full(3, step))


def test_they_are_read_from_a_bucket(runs, tmp_path, monkeypatch):
  monkeypatch.setattr(bucket_lock, "_SETTLE", 0.01)
  monkeypatch.setenv("TESSERA_CACHE", str(tmp_path / "cache"))
  store = fsspec.filesystem("memory").store
  store.clear()
  for steps in (2, 4):
    with bucket.writing("memory://b/run", say=lambda line: None) as local:
      train(local, steps)
  kept = [name for name in store if name.startswith("/b/run/frozen/")]
  assert len({name.split("/")[4] for name in kept}) == 1
  assert state_of("memory://b/run") == state_of(runs / "straight")
  store.clear()
