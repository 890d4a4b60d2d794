"""From masked sentences to their labels, as configs/text/bert_finetune.py
says."""

import json
import re
import sys

import forkserver
import numpy as np
import pytest

from configs.text import bert_finetune, bert_small
from train import build, loop, trained
from train.optimization import parameter_rules

HEADS = [
  f"head/{layer}/{part}"
  for layer in ("output", "pooler")
  for part in ("bias", "kernel")
]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
  """(workdir, parameters by path) of a run of bert_small."""
  workdir = str(tmp_path_factory.mktemp("runs") / "bert_small")
  config = bert_small.get_config("smoke")
  list(loop.fit(build.run(config, workdir, say=lambda line: None)))
  params, _ = build.weights(workdir)
  flat = parameter_rules.flat(params)
  return workdir, {path: np.asarray(leaf) for path, leaf in flat.items()}


def finetuning(workdir, optimizer=(), **sections):
  config = bert_finetune.get_config("smoke")
  config.evals = {}
  config.optimizer.update(dict(optimizer))
  with config.unlocked():
    config.init_from = workdir
    config.update(sections)
  return config


def params_of(state):
  flat = parameter_rules.flat(state.variables.params)
  return {path: np.asarray(leaf) for path, leaf in flat.items()}


def trained_by(config, tmp_path):
  """(parameters before the first step, after the last, what was said)."""
  said = []
  run = build.run(config, str(tmp_path / "run"), say=said.append)
  before = params_of(run.init())
  list(loop.fit(run))
  return before, params_of(trained.load_state(str(tmp_path / "run"))), said


@pytest.mark.slow
def test_the_body_begins_as_it_was_pretrained(pretrained, tmp_path):
  workdir, theirs = pretrained
  before, after, said = trained_by(finetuning(workdir), tmp_path)
  body = [path for path in theirs if not path.startswith("head/")]
  assert sorted(before) == sorted([*body, *HEADS])
  for path in body:
    np.testing.assert_array_equal(before[path], theirs[path], err_msg=path)
  told = next(line for line in said if line.startswith("init_from"))
  n = len(body)
  assert told.startswith(f"init_from: {n} of {n + 4} parameters from {workdir}")
  assert told.endswith("at random: " + ", ".join(HEADS))
  changed = [p for p in after if not np.array_equal(after[p], before[p])]
  assert {"token_embedding/embedding", "head/output/kernel"} <= set(changed)


@pytest.mark.slow
def test_the_vectors_alone_begin_another_model(pretrained, tmp_path):
  """The flag says from what, the config which parameters."""
  workdir, theirs = pretrained
  run = tmp_path / "run"
  done = forkserver.run(
    [
      *(sys.executable, "-m", "train.main", f"--workdir={run}"),
      "--config=configs/text/cls_sst2_vectors.py:smoke",
      *("--config.model.dim=16", f"--init_from={workdir}"),
    ],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert f"init_from: 1 of 3 parameters from {workdir}" in done.stdout
  config = json.loads((run / "config.json").read_text())
  mine = params_of(build.run(config, None, say=lambda line: None).init())
  np.testing.assert_array_equal(
    mine["embedding/embedding"], theirs["token_embedding/embedding"]
  )


@pytest.mark.slow
def test_a_linear_probe_leaves_the_body_as_it_is(pretrained, tmp_path):
  config = finetuning(pretrained[0], {"freeze": [r"^(?!head/)"]})
  before, after, _ = trained_by(config, tmp_path)
  for path in before:
    same = np.array_equal(before[path], after[path])
    assert same != path.startswith("head/"), path


@pytest.mark.slow
def test_lower_layers_learn_less(pretrained, tmp_path):
  """Of sgd's first update, l layers below the head, a share of 0.5^l."""
  deltas = []
  for i, decay in enumerate((1.0, 0.5)):
    optimizer = dict(name="sgd", schedule="constant", layer_decay=decay)
    config = finetuning(pretrained[0], optimizer)
    config.total_steps = 1
    config.model.dropout = 0.0
    config.optimizer.warmup_steps = 0
    config.optimizer.weight_decay = 0.0
    before, after, _ = trained_by(config, tmp_path / str(i))
    deltas.append({path: after[path] - before[path] for path in before})
  whole, less = deltas
  for path, share in (
    ("head/output/kernel", 1.0),
    ("blocks/feed_forward/up/kernel", np.array([0.25, 0.5])[:, None, None]),
    ("token_embedding/embedding", 0.125),
  ):
    assert np.abs(whole[path]).max() > 0
    np.testing.assert_allclose(
      less[path], share * whole[path], rtol=1e-3, atol=1e-7
    )


@pytest.mark.slow
def test_lora_changes_its_matrices_and_the_head_alone(pretrained, tmp_path):
  workdir, theirs = pretrained
  config = finetuning(workdir, adapt=dict(name="lora", rank=2))
  before, after, _ = trained_by(config, tmp_path)
  base = [path for path in before if path.startswith("base/")]
  assert len(base) == len([p for p in theirs if not p.startswith("head/")])
  for path in base:
    own = theirs[path.removeprefix("base/")]
    np.testing.assert_array_equal(before[path], own)
    np.testing.assert_array_equal(after[path], own)
  learned = [p for p in before if not np.array_equal(before[p], after[p])]
  assert learned and all(
    re.match(r"trained/head/|lora/.*(query|value)", path) for path in learned
  )
