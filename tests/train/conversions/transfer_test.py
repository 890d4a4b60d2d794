"""Runs that begin with the parameters of others: init_from, adapters."""

import json
import sys

import forkserver
import jax
import numpy as np
import pytest

from common.errors import UserError
from configs.language import lm_shakespeare
from train import assembly, build, loop, trained
from train.conversions.parts import arithmetic
from train.optimization import parameter_rules


def config_of(**sections):
  config = lm_shakespeare.get_config("smoke")
  config.evals, config.early_stopping = {}, {}
  config.checkpoint.keep_best = None
  config.data.tokenizer = "byte"
  with config.unlocked():
    for key, value in sections.items():
      if isinstance(value, dict) and key in config:
        config[key].update(value)
      else:
        config[key] = value
  return config


def first_state(config):
  """(the state before the first step, what was said)."""
  said = []
  run = build.run(config, None, say=said.append)
  return run.init(), said


def params_of(state):
  return {
    path: np.asarray(leaf)
    for path, leaf in parameter_rules.flat(state.variables.params).items()
  }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  workdir = str(tmp_path_factory.mktemp("runs") / "a")
  list(loop.fit(build.run(config_of(), workdir, say=lambda line: None)))
  found = trained.load(workdir)
  params, _ = build.weights(workdir)
  flat = parameter_rules.flat(params)
  assert not np.array_equal(
    flat["token_embedding/embedding"],
    params_of(first_state(config_of())[0])["token_embedding/embedding"],
  )
  return workdir, {k: np.asarray(v) for k, v in flat.items()}, found


def test_all_parameters_of_a_run_are_taken(finished):
  workdir, params, _ = finished
  state, said = first_state(config_of(init_from=workdir, seed=5))
  mine = params_of(state)
  assert set(mine) == set(params)
  for path, leaf in mine.items():
    np.testing.assert_array_equal(leaf, params[path], err_msg=path)
  n = len(params)
  assert said == [f"init_from: {n} of {n} parameters from {workdir}"]


def test_paths_are_mapped_and_skipped(finished):
  workdir, params, _ = finished
  section = dict(
    path=workdir,
    map=[
      ("^position_embedding/.*", ""),
      ("attention_norm", "swapped"),
      ("feed_forward_norm", "attention_norm"),
      ("swapped", "feed_forward_norm"),
    ],
    skip=["final_norm"],
  )
  state, said = first_state(config_of(init_from=section, seed=5))
  drawn = params_of(first_state(config_of(seed=5))[0])
  mine = params_of(state)
  norms = "blocks/{}_norm/scale"
  np.testing.assert_array_equal(
    mine[norms.format("attention")], params[norms.format("feed_forward")]
  )
  for path in ("position_embedding/embedding", "final_norm/scale"):
    np.testing.assert_array_equal(mine[path], drawn[path])
    assert path in said[0]


@pytest.mark.parametrize(
  "section, told",
  [
    (dict(path="nowhere"), "nowhere: there is no such file"),
    (dict(map=[("(", "")]), "is not a valid regex"),
    (dict(maps=[]), 'did you mean "map"'),
    (dict(map=[("^", "x/")]), "has none of this run's parameters"),
    (dict(map=[("[a-z_]+", "x")]), "maps two parameters to"),
  ],
)
def test_mistakes_are_one_line(finished, section, told):
  config = config_of(init_from={"path": finished[0], **section})
  with pytest.raises(UserError, match=told) as error:
    first_state(config)
  assert "\n" not in str(error.value)


def test_another_size_is_told(finished):
  config = config_of(init_from=finished[0], model=dict(dim=32))
  with pytest.raises(UserError, match=r"\[2, 32, 32\] here and \[2, 16, 16\]"):
    first_state(config)


OTHERS = [
  (dict(heads=4), r"heads \(2 there, 4 here\); head_dim \(8 there, 4 here\)"),
  (dict(norm_eps=1e-3), r"norm_eps \(1e-05 there, 0.001 here\)"),
  (dict(activation="relu"), r"activation \('gelu' there, 'relu' here\)"),
  (dict(window=4), r"window \(None there, 4 here\)"),
]


def test_another_arithmetic_is_refused(finished):
  path = finished[0]
  for model, told in OTHERS:
    with pytest.raises(UserError, match=told) as error:
      first_state(config_of(init_from=path, model=model))
    assert "\n" not in str(error.value)
  section = dict(path=path, anyway=True)
  _, said = first_state(config_of(init_from=section, model=OTHERS[0][0]))
  assert "heads (2 there" in said[0] and said[-1].startswith("init_from: ")
  # These change no result, and skipped parameters compute nothing.
  same = dict(dropout=0.1, remat="full", scan=False, kv_heads=2, head_dim=8)
  first_state(config_of(init_from=path, model=dict(same)))
  section = dict(path=path, skip=["attention"])
  first_state(config_of(init_from=section, model=OTHERS[0][0]))


@pytest.mark.parametrize(
  "theirs, ours, keys",
  [
    (dict(positions="rotary"), dict(positions="rotary", rope_theta=5e5), 1),
    (dict(rope_theta=5e5), {}, 0),  # learned positions have none
    (dict(bias=True), dict(bias=False), 1),
    (dict(name="vit", variant="S/16"), dict(name="vit", heads=6), 0),
    (dict(name="vit", variant="S/16"), dict(name="vit", heads=12), 2),
    (dict(name="vit", heads=6, layer_scale=1.0), dict(name="vit", heads=6), 1),
    (dict(name="convnext", layer_scale=1.0), dict(name="convnext"), 0),
    (dict(name="bert", head="mlm"), dict(name="bert", head="classes"), 0),
    (dict(name="bert", heads=2), dict(heads=4, norm_eps=1e-12), 3),
    (dict(name="word_vectors"), dict(name="text_cnn"), 0),
  ],
)
def test_settings_are_compared(theirs, ours, keys):
  loaded = ["blocks/attention/query/kernel", "blocks/norm/scale"]
  decoder = dict(name="decoder", dim=384)
  found = arithmetic.differences({**decoder, **theirs}, decoder | ours, loaded)
  assert len(found) == keys, found


def test_a_killed_run_goes_on_without_the_run_it_began_with(finished, tmp_path):
  config = config_of(init_from=finished[0])
  whole = list(loop.fit(build.run(config, str(tmp_path / "w"), say=print)))
  workdir = str(tmp_path / "part")
  steps = loop.fit(build.run(config, workdir, say=lambda line: None))
  for report in steps:
    if report.step == 3:
      break
  steps.close()
  said = []
  rest = list(loop.fit(build.run(config, workdir, say=said.append)))
  ends = (each[-1].scalars["train/loss"] for each in (rest, whole))
  assert len(set(ends)) == 1
  assert not [line for line in said if "init_from" in line]


LORA = dict(name="lora", rank=4, alpha=8.0, trained=["final_norm"])


def test_lora_begins_as_the_model_and_changes_only_its_own(finished, tmp_path):
  workdir, params, _ = finished
  config = config_of(init_from=workdir, adapt=LORA)
  state, _ = first_state(config)
  parts = assembly.experiment(config)
  start = parameter_rules.flat(parts.model.plain(state.variables.params))
  for path, leaf in params.items():
    np.testing.assert_array_equal(start[path], leaf, err_msg=path)

  adapted = str(tmp_path / "lora")
  list(loop.fit(build.run(config, adapted, say=lambda line: None)))
  found = trained.load(adapted)
  last = trained.load_state(adapted)
  tuned = params_of(last)
  for path, leaf in tuned.items():
    kind, _, name = path.partition("/")
    if kind == "base":
      np.testing.assert_array_equal(leaf, params[name], err_msg=path)
    else:
      assert np.any(leaf != params_of(state)[path]), path
  # The optimizer keeps moments of what it trains, and of nothing else.
  held = sum(x.size for x in jax.tree.leaves(last.opt_state))
  few = sum(v.size for k, v in tuned.items() if not k.startswith("base/"))
  assert 2 * few <= held < 2 * few + 20

  # The formula, in NumPy.
  plain, _ = build.weights(adapted)
  flat = parameter_rules.flat(plain)
  path = "blocks/attention/query/kernel"
  A, B = (tuned[f"lora/{path}/{name}"] for name in "AB")
  expected = params[path] + 8.0 / 4 * np.einsum("lir,lro->lio", A, B)
  np.testing.assert_allclose(flat[path], expected, rtol=0, atol=1e-7)
  tokens = np.arange(8, dtype=np.int32)[None]
  np.testing.assert_allclose(
    parts.model.apply(found.variables.params, {}, tokens)[0],
    parts.network.apply(plain, {}, tokens)[0],
    rtol=0,
    atol=1e-6,
  )
  # A run can begin with it: the change is merged.
  state, _ = first_state(config_of(init_from=adapted))
  np.testing.assert_array_equal(params_of(state)[path], flat[path])


@pytest.mark.parametrize(
  "change, told",
  [
    (dict(rank=0), "rank=0: not a whole number of at least 1"),
    (dict(targets=["nothing"]), "matches no parameter"),
    (dict(targets=["final_norm/scale"]), "is not a matrix"),
    (dict(name="lore"), 'did you mean "lora"'),
    (dict(targets="query"), "lists of regexes"),
  ],
)
def test_a_wrong_adapter_is_one_line(change, told):
  with pytest.raises(UserError, match=told):
    build.run(config_of(adapt={**LORA, **change}), None, say=print)


def test_a_network_of_several_has_no_adapter():
  from configs.vision.generation import gan_fashion_mnist

  config = gan_fashion_mnist.get_config("smoke")
  with config.unlocked():
    config.adapt = LORA
  with pytest.raises(UserError, match="consists of several networks"):
    build.run(config, None, say=print)


def test_layer_decay_by_hand():
  from train.optimization import optimizers as optim

  params = {
    "token_embedding": {"embedding": np.ones((3, 2), np.float32)},
    "blocks": {"up": {"kernel": np.ones((4, 2, 2), np.float32)}},
    "final_norm": {"scale": np.ones(2, np.float32)},
    "head": {"kernel": np.ones((2, 2), np.float32)},
  }
  optimizer = optim.make(dict(name="sgd", lr=0.1, layer_decay=0.5), 10)
  grads = jax.tree.map(np.ones_like, params)
  updates, _ = optimizer.update(grads, optimizer.init(params), params)
  np.testing.assert_allclose(
    updates["blocks"]["up"]["kernel"][:, 0, 0],
    [-0.1 / 16, -0.1 / 8, -0.1 / 4, -0.1 / 2],
    rtol=1e-6,
  )
  np.testing.assert_allclose(updates["token_embedding"]["embedding"], -0.1 / 32)
  np.testing.assert_allclose(updates["final_norm"]["scale"], -0.1)
  np.testing.assert_allclose(updates["head"]["kernel"], -0.1)


@pytest.mark.parametrize("decay", [0, 1.5, "x"])
def test_a_wrong_layer_decay_is_told(decay):
  from train.optimization import optimizers

  with pytest.raises(ValueError, match="layer_decay"):
    optimizers.make(dict(name="sgd", lr=0.1, layer_decay=decay), 10)


@pytest.mark.slow
def test_a_linear_probe_trains_the_head_alone(finished):
  config = config_of(
    init_from=finished[0], optimizer=dict(freeze=["^(?!final_norm/)"])
  )
  run = build.run(config, None, say=lambda line: None)
  state = run.init()
  before = params_of(state)
  for batch, _ in zip(run.batches(0), range(2), strict=False):
    state, _ = run.learner.step(state, batch, run.rng)
  after = params_of(state)
  changed = {path for path in before if np.any(before[path] != after[path])}
  assert changed == {"final_norm/scale"}


def test_what_says_how_alone_takes_nothing():
  how = {"path": None, "map": [("^final_norm/.*", "")]}
  mine, said = first_state(config_of(init_from=how))
  assert not said
  drawn = params_of(first_state(config_of())[0])
  assert params_of(mine).keys() == drawn.keys()
  for path, leaf in params_of(mine).items():
    np.testing.assert_array_equal(leaf, drawn[path], err_msg=path)


@pytest.mark.slow
def test_the_flag_names_it_for_any_config(finished, tmp_path):
  workdir = str(tmp_path / "b")
  done = forkserver.run(
    [
      *(sys.executable, "-m", "train.main", f"--init_from={finished[0]}"),
      "--config=configs/language/lm_shakespeare.py:smoke",
      "--config.data.tokenizer=byte",
      f"--workdir={workdir}",
    ],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert f"parameters from {finished[0]}" in done.stdout
  kept = json.loads((tmp_path / "b" / "config.json").read_text())
  assert kept["init_from"] == finished[0]
