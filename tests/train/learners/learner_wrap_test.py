"""Wrappers of learners against their formulas in NumPy, and through a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.errors import UserError
from configs.textbook import linear_regression
from models import Model
from train import assembly, build, loop, trained, types
from train.learners.counting import counting
from train.learners.supervised import supervised
from train.learners.wrap.ema import ema
from train.learners.wrap.sam import sam
from train.optimization import optimizers
from train.optimization.wrap.lookahead import lookahead
from train.tasks.regression import regression

MASK = np.asarray([1, 0, 1, 1, 1, 0, 1, 1], np.float32)
START = np.asarray([[1.0], [-2.0], [0.5]])


def line():
  """(task, batch): y from three inputs by a matrix, of ragged rows."""
  rng = np.random.default_rng(0)
  batch = {
    "x": jnp.asarray(rng.normal(size=(8, 3)), jnp.float32),
    "y": jnp.asarray(rng.normal(size=(8, 1)), jnp.float32),
    "mask": jnp.asarray(MASK),
  }
  model = Model(
    lambda rng: ({"w": jnp.asarray(START, jnp.float32)}, {}),
    lambda params, state, x, **_: (x @ params["w"], state),
  )
  return regression(model), batch


def gradient(w, batch):
  x, y = (np.asarray(batch[k], float)[MASK > 0] for k in ("x", "y"))
  return 2 * x.T @ (x @ w - y) / len(x)


def sgd(**settings):
  return optimizers.make({"name": "sgd", "lr": 0.1, **settings}, 100)


def states(learner, batch, steps):
  state = jax.jit(learner.init)(jax.random.key(0), batch)
  step, found = jax.jit(learner.step), []
  for k in range(steps):
    given = batch[k] if isinstance(batch, list) else batch
    state, metrics = step(state, given, jax.random.key(k))
    found.append((state, metrics))
  return found


def test_the_average_warms_up_and_skips_dropped_updates():
  task, batch = line()
  bad = {**batch, "x": batch["x"].at[0].set(jnp.nan)}
  learner = ema(supervised(task, sgd()), decay=0.25, warmup=True)
  state = jax.jit(learner.init)(jax.random.key(0), batch)
  step, average, w = jax.jit(learner.step), START, START
  for t, given in enumerate([batch, bad, batch, batch, batch]):
    state, _ = step(state, given, None)
    if given is batch:
      w = w - 0.1 * gradient(w, batch)
      # 1/10, 3/12, and then the decay itself.
      decay = min(0.25, (1 + t) / (10 + t))
      average = decay * average + (1 - decay) * w
    found = learner.variables(state).params["w"]
    np.testing.assert_allclose(found, average, atol=1e-6)
    np.testing.assert_allclose(state.variables.params["w"], w, atol=1e-6)


@pytest.mark.parametrize("wrapper", ["ema", "lookahead"])
def test_what_is_frozen_is_not_copied(wrapper):
  """The copy has the bytes of "w" alone, and "base" is evaluated as it is."""
  _, batch = line()
  start = {"base": jnp.ones((3, 1)), "w": jnp.asarray(START, jnp.float32)}

  def apply(params, state, x, **_):
    return x @ (params["w"] + params["base"]), state

  task = regression(Model(lambda rng: (start, {}), apply))
  optimizer = sgd(freeze=["^base"])
  if wrapper == "ema":
    learner = ema(supervised(task, optimizer), decay=0.5)
  else:
    learner = supervised(task, lookahead(optimizer, every=2))
  (first, _), (state, _) = states(learner, batch, 2)
  kept = state.extra if wrapper == "ema" else state.opt_state["slow"]
  assert sum(x.nbytes for x in jax.tree.leaves(kept)) == 3 * 4
  found = learner.variables(state).params
  np.testing.assert_array_equal(found["base"], start["base"])
  w = [gradient(START + 1, batch) * -0.1 + START]
  w.append(w[0] - 0.1 * gradient(w[0] + 1, batch))
  if wrapper == "ema":
    np.testing.assert_allclose(state.variables.params["w"], w[1], atol=1e-5)
    wanted = (START / 2 + w[0] / 2) / 2 + w[1] / 2
  else:
    wanted = (START + w[1]) / 2
  np.testing.assert_allclose(found["w"], wanted, atol=1e-5)


@pytest.mark.parametrize("microbatches", [1, 4])
@pytest.mark.parametrize("order", ["sam", "ema of sam", "sam of ema"])
def test_sam_descends_by_the_gradient_uphill(order, microbatches):
  task, batch = line()
  decay = sgd(weight_decay=[(".*", 0.1)])
  plain = supervised(task, decay, microbatches=microbatches)
  learner = {
    "sam": lambda: sam(plain, rho=0.5),
    "ema of sam": lambda: ema(sam(plain, rho=0.5), decay=0.5),
    "sam of ema": lambda: sam(ema(plain, decay=0.5), rho=0.5),
  }[order]()
  w = average = START
  for state, _ in states(learner, batch, 3):
    g = gradient(w, batch)
    uphill = gradient(w + 0.5 * g / np.linalg.norm(g), batch)
    offered = learner.gradients(
      state._replace(
        variables=state.variables._replace(params={"w": jnp.float32(w)})
      ),
      batch,
      jax.random.key(0),
    )
    np.testing.assert_allclose(offered["w"], uphill, rtol=1e-5)
    # The decay is of w, not of the parameters uphill.
    w = w - 0.1 * (uphill + 0.1 * w)
    average = (average + w) / 2
    np.testing.assert_allclose(state.variables.params["w"], w, atol=1e-6)
    found = learner.variables(state).params["w"]
    np.testing.assert_allclose(
      found, w if order == "sam" else average, atol=1e-6
    )


def test_what_cannot_be_wrapped_is_refused():
  task, batch = line()
  with pytest.raises(ValueError, match="offers its gradients"):
    sam(counting(task, sgd()))
  twice = ema(supervised(task, sgd(), ema=0.9), decay=0.5)
  with pytest.raises(ValueError, match="already"):
    twice.init(jax.random.key(0), batch)


def config_of(**wraps):
  config = linear_regression.get_config("smoke")
  config.total_steps = 6
  config.log_every_steps = 1
  config.evals = {}
  config.checkpoint = dict(every_steps=2)
  for section, wrap in wraps.items():
    config[section].wrap = wrap
  return config


@pytest.mark.parametrize(
  "section, wrap, message",
  [
    ("learner", [{"name": "emma"}], 'wrap.0..name: .*did you mean "ema"'),
    ("learner", [{"name": "ema", "decy": 0}], 'decy: .* mean "decay"'),
    ("learner", [{"name": "ema", "of": "x"}], "no params 'x'"),
    ("learner", [{"name": "sam"}, {"name": "sam", "rho": 0}], "wrap.1..rho=0"),
    ("learner", "ema", "not a list"),
    ("optimizer", [{"name": "lookahead", "evry": 2}], 'mean "every"'),
    ("optimizer", [{"name": "lookahead", "every": 0}], "wrap.0..every=0"),
    ("task", [{"name": "nothing"}], "config.task.wrap.0..name"),
  ],
)
def test_a_wrong_wrapper_is_one_line_that_names_its_key(section, wrap, message):
  with pytest.raises(UserError, match=message) as error:
    assembly.state_of(assembly.experiment(config_of(**{section: wrap})))
  assert "\n" not in str(error.value)


def test_a_wrapper_is_no_learner():
  config = config_of()
  config.learner.name = "ema"
  with pytest.raises(UserError, match="has no 'ema'"):
    assembly.experiment(config)


def test_a_killed_run_with_wrappers_ends_equal_to_the_bit(tmp_path):
  config = config_of(
    learner=[dict(name="sam"), dict(name="ema", decay=0.9, warmup=True)],
    optimizer=[
      dict(name="gradient_noise"),
      dict(name="lookahead", every=3),
    ],
  )

  names = ("whole", "killed")

  def quiet(where):
    return build.run(config, str(tmp_path / where), say=lambda line: None)

  whole = [r.scalars["train/loss"] for r in loop.fit(quiet("whole"))]
  killed = loop.fit(quiet("killed"))
  for report in killed:
    if report.step == 4:  # behind the checkpoint of step 2
      break
  killed.close()
  rest = [r.scalars["train/loss"] for r in loop.fit(quiet("killed"))]
  assert 0 < len(rest) < 6 and rest == whole[-len(rest) :]
  ends = [trained.load_state(str(tmp_path / name)) for name in names]
  for a, b in zip(*map(jax.tree.leaves, ends), strict=True):
    np.testing.assert_array_equal(a, b)


def test_the_loss_reads_the_average_that_is_lent():
  """The student follows a teacher, the average of itself."""
  _, batch = line()

  def loss(variables, batch, context):
    teacher = variables.frozen.get("teacher", variables.params)["w"]
    distance = jnp.square(variables.params["w"] - 0.5 * teacher).sum()
    return types.mean_of(distance), types.Aux({}, {})

  start = {"w": jnp.asarray(START, jnp.float32)}
  task = types.Task(
    lambda rng, batch: types.Variables(start, {}, {}), {"loss": loss}, {}
  )
  how = dict(decay=0.6, end=1.0, lend="teacher", total_steps=4)
  learner = ema(supervised(task, sgd()), **how)
  w = average = START
  for t, (state, _) in enumerate(states(learner, batch, 3)):
    slope = learner.gradients(
      state._replace(
        variables=state.variables._replace(params={"w": jnp.float32(w)}),
        extra={"ema": {"w": jnp.float32(average)}},
      ),
      batch,
      None,
    )
    np.testing.assert_allclose(slope["w"], 2 * (w - average / 2), rtol=1e-5)
    w = w - 0.1 * 2 * (w - 0.5 * average)
    decay = 1 - 0.4 * (1 + np.cos(np.pi * t / 4)) / 2
    average = decay * average + (1 - decay) * w
    np.testing.assert_allclose(state.variables.params["w"], w, rtol=1e-5)
    found = learner.variables(state)
    np.testing.assert_allclose(found.params["w"], average, rtol=1e-5)
    assert found.frozen == state.variables.frozen == {}
  estimated = learner.loss_variables(types.Variables(start, {}))
  assert estimated.frozen == {"teacher": start}
