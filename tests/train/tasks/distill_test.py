"""Distillation: its formula, its gradient, and a teacher that is not needed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.errors import UserError
from configs.language import lm_stdlib
from train import build, loop, trained, types
from train.checkpointing import digests
from train.objectives import losses
from train.tasks.wrap.distill import distill

T, ALPHA = 3.0, 0.7


def by_hand(student, teacher):
  """KL(teacher || student) at temperature T, in float64."""
  p, q = (np.exp(np.float64(x) / T) for x in (teacher, student))
  p, q = (x / x.sum(-1, keepdims=True) for x in (p, q))
  return (p * np.log(p / q)).sum(-1)


def linear(name="logits"):
  """A task of a linear classifier, whose loss is the cross-entropy."""

  def logits(variables, batch, rng):
    return batch["x"] @ variables.params["w"]

  def loss(variables, batch, context):
    nats = losses.cross_entropy(logits(variables, batch, None), batch["label"])
    return types.mean_of(nats, batch["mask"]), types.Aux({}, {})

  def init(rng, batch):
    return types.Variables({"w": jnp.zeros((4, 3))}, {})

  return types.Task(init, {"loss": loss}, {name: logits})


@pytest.fixture(scope="module")
def drawn():
  """(batch, the student's variables, the teacher's)."""
  rng = np.random.default_rng(0)
  batch = {
    "x": rng.normal(size=(5, 4)).astype(np.float32),
    "label": np.array([0, 1, 2, 0, 1]),
    "mask": np.array([1, 1, 1, 1, 0], np.float32),
  }
  student, teacher = (
    types.Variables({"w": rng.normal(size=(4, 3)).astype(np.float32)}, {})
    for _ in range(2)
  )
  return batch, student, teacher


def loss_of(task, variables, batch, train=True):
  context = types.Context(jax.random.key(0), jnp.int32(0), train)
  return task.losses["loss"](variables, batch, context)


def test_the_loss_is_the_formula(drawn):
  batch, student, teacher = drawn
  task = distill(
    linear(),
    load=lambda path: (linear(), teacher),
    teacher="run",
    temperature=T,
    alpha=ALPHA,
  )
  variables = task.init(jax.random.key(0), batch)
  assert not np.any(variables.frozen["teacher"]["params"]["w"])
  frozen = task.given()
  variables = student._replace(frozen=frozen)
  mean, aux = loss_of(task, variables, batch)
  ours, theirs = (batch["x"] @ v.params["w"] for v in (student, teacher))
  kl = by_hand(ours, theirs)[:4].mean()
  log_p = ours - np.log(np.exp(ours).sum(-1, keepdims=True))
  own = -log_p[np.arange(4), batch["label"][:4]].mean()
  np.testing.assert_allclose(
    [mean.value(), aux.metrics["distillation"].value()],
    [ALPHA * T**2 * kl + (1 - ALPHA) * own, kl],
    rtol=1e-5,
  )
  assert float(mean.weight) == 4
  np.testing.assert_allclose(
    loss_of(task, variables, batch, train=False)[0].value(), own, rtol=1e-5
  )
  # The teacher is an argument of the program and no constant of it.
  grads = jax.grad(lambda v: loss_of(task, v, batch)[0].total)(variables)
  assert not np.any(grads.frozen["teacher"]["params"]["w"])
  assert np.any(grads.params["w"])


def test_a_hard_label_is_the_teachers_most_probable_class(drawn):
  batch, student, teacher = drawn
  own = linear()
  ours = {"distilled": lambda v, b, rng: 2 * own.predict["logits"](v, b, rng)}
  task = distill(
    own._replace(predict={**own.predict, **ours}),
    load=lambda path: (linear(), teacher),
    teacher="run",
    alpha=ALPHA,
    student="distilled",
    hard=True,
  )
  variables = student._replace(frozen=task.given())
  mean, _ = loss_of(task, variables, batch)
  x = batch["x"][:4]
  label = (x @ teacher.params["w"]).argmax(-1)
  wanted = 0.0
  for share, times, target in (
    (ALPHA, 2, label),
    (1 - ALPHA, 1, batch["label"][:4]),
  ):
    logits = times * x @ student.params["w"]
    nats = np.log(np.exp(logits).sum(-1)) - logits[np.arange(4), target]
    wanted += share * nats.mean()
  np.testing.assert_allclose(mean.value(), wanted, rtol=1e-5)


@pytest.mark.parametrize(
  "settings, other, line",
  [
    (dict(temperature=0.0), linear(), "temperature=0.0"),
    (dict(alpha=1.5), linear(), "alpha=1.5"),
    (dict(logits="logit"), linear(), "did you mean"),
    ({}, linear("logit"), "the task of run has no prediction"),
  ],
)
def test_what_does_not_fit_is_named(drawn, settings, other, line):
  batch, _, teacher = drawn
  with pytest.raises(ValueError, match=line):
    task = distill(
      linear(), load=lambda path: (other, teacher), teacher="run", **settings
    )
    task.init(jax.random.key(0), batch)


def config_of(steps, **task):
  config = lm_stdlib.get_config("smoke")
  config.task.update(task)
  config.total_steps, config.evals, config.writers = steps, {}, []
  config.checkpoint = dict(every_steps=1, keep=3)
  return config


def train(workdir, *args, **kwargs):
  run = build.run(config_of(*args, **kwargs), str(workdir), lambda line: None)
  return run, list(loop.fit(run))


@pytest.mark.slow
def test_a_student_resumes_and_is_read_without_its_teacher(tmp_path):
  train(tmp_path / "teacher", 1)
  wrap = [dict(name="distill", teacher=str(tmp_path / "teacher"))]
  _, rows = train(tmp_path / "straight", 2, wrap=wrap)
  assert "train/distillation" in rows[-1].scalars
  train(tmp_path / "killed", 1, wrap=wrap)
  train(tmp_path / "killed", 2, wrap=wrap)
  states = [
    digests.of(trained.load(str(tmp_path / name)).variables)
    for name in ("straight", "killed")
  ]
  assert states[0] == states[1]
  assert len(list((tmp_path / "straight" / "frozen").iterdir())) == 1
  (tmp_path / "teacher").rename(tmp_path / "gone")
  found = trained.load(str(tmp_path / "straight"))
  assert not found.variables.frozen
  with pytest.raises(UserError, match="teacher"):
    train(tmp_path / "killed", 3, wrap=wrap)
