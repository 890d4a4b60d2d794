"""Tasks and evaluators of representations, with models that are given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from models import Model
from models.vision.projected import Projected
from train import types
from train.evaluators.linear_probe import linear_probe
from train.evaluators.parts import representations
from train.evaluators.retrieval import retrieval
from train.objectives import metric_learning as objective
from train.objectives import self_distillation as dino
from train.tasks.representation.contrastive_learning import contrastive_learning
from train.tasks.representation.metric_learning import metric_learning
from train.tasks.representation.self_distillation import self_distillation

RNG = np.random.default_rng(0)
AT = types.Context(jax.random.key(0), jnp.int32(0), train=True)
W = RNG.normal(size=(12, 5)).astype(np.float32)


def linear(width=5):
  """A backbone of flat pixels, and a head of one matrix."""

  def features(params, state, x, **_):
    return x.reshape(len(x), -1), state

  def head(params, state, x, **_):
    return x @ params["w"], state

  start = {"w": jnp.asarray(W)}
  return Projected(
    Model(lambda rng: ({}, {}), features),
    Model(lambda rng: (start, {}), head),
    width,
  )


def images(n):
  return RNG.normal(size=(n, 2, 2, 3)).astype(np.float32)


def flat(x):
  return x.reshape(len(x), -1) @ W


def loss_of(task, batch, frozen=(), at=AT):
  variables = task.init(jax.random.key(0), batch)
  variables = variables._replace(frozen=frozen)
  (loss,) = task.losses.values()
  return loss(variables, batch, at), variables


@pytest.mark.parametrize("kind", ["arcface", "triplet"])
def test_metric_learning_masks_and_embeds(kind):
  task = metric_learning(linear(), num_classes=3, loss=kind)
  batch = {
    "image": images(6),
    "label": jnp.asarray([0, 1, 0, 1, 2, 2]),
    "mask": jnp.asarray([1.0, 1, 1, 1, 1, 0]),
  }
  (mean, _), variables = loss_of(task, batch)
  bad = {**batch, "image": batch["image"].copy()}
  bad["image"][5] = 9.0
  assert loss_of(task, bad)[0][0].value() == mean.value()
  z = task.predict["embeddings"](variables, batch, None)
  wanted = flat(batch["image"])
  wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
  np.testing.assert_allclose(z, wanted, atol=1e-6)
  assert task.coupled == (kind == "triplet")
  assert ("classes" in variables.params) == (kind == "arcface")
  evaluated = loss_of(task, batch, at=AT._replace(train=False))[0][0]
  if kind == "arcface":  # without the margin
    assert evaluated.value() < mean.value()


def test_views_are_those_of_one_image():
  task = contrastive_learning(linear(), temperature=0.3)
  batch = {"view_1": images(4), "view_2": images(4), "mask": jnp.ones(4)}
  (mean, aux), _ = loss_of(task, batch)
  nats, correct = objective.nt_xent(
    flat(batch["view_1"]), flat(batch["view_2"]), batch["mask"], 0.3
  )
  np.testing.assert_allclose(mean.value(), nats.mean(), rtol=1e-5)
  assert aux.metrics["accuracy"].value() == correct.mean()


def test_the_teacher_sees_views_and_the_student_crops_as_well():
  task = self_distillation(
    linear(), crops=1, first_temperature=0.2, warmup_steps=4
  )
  fields = ("view_1", "view_2", "crop_1")
  batch = {field: images(3) for field in fields} | {"mask": jnp.ones(3)}
  with pytest.raises(ValueError, match='lend="teacher"'):
    loss_of(task, batch)
  lent = {"backbone": {}, "head": {"w": jnp.asarray(2 * W)}}
  at = AT._replace(step=jnp.int32(2))
  (mean, aux), _ = loss_of(task, batch, {"teacher": lent}, at)
  student = np.stack([flat(batch[field]) for field in fields])
  teacher = 2 * student[:2]
  wanted = dino.self_distillation(
    student, teacher, jnp.zeros(5), teacher_temperature=0.12
  )
  np.testing.assert_allclose(mean.value(), wanted.mean(), rtol=1e-5)
  center = aux.model_state["center"]
  np.testing.assert_allclose(center, 0.1 * teacher.mean((0, 1)), rtol=1e-4)
  # In evaluation, the average is both, and the center stays.
  (_, aux), _ = loss_of(task, batch, at=at._replace(train=False))
  assert not aux.model_state["center"].any()


def clusters(n, seed):
  """Batches of four, the last one padded, of three separate classes."""
  rng = np.random.default_rng(seed)
  label = rng.integers(0, 3, n)
  x = rng.normal(size=(n, 1, 3, 1)) * 0.3
  x[np.arange(n), 0, label, 0] += 3
  size = -(-n // 4) * 4
  batch = {
    "image": np.zeros((size, 1, 3, 1), np.float32),
    "label": np.zeros(size, np.int32),
    "index": np.full(size, -1, np.int32),
    "mask": np.zeros(size, np.float32),
  }
  given = {"image": x, "label": label, "index": np.arange(n), "mask": 1}
  for name, value in given.items():
    batch[name][:n] = value
  return lambda: (
    {k: jnp.asarray(v[i : i + 4]) for k, v in batch.items()}
    for i in range(0, size, 4)
  )


def context(tmp_path, n=14, read=None):
  def features(variables, batch, rng):
    return batch["image"].reshape(len(batch["image"]), -1)

  return types.EvalContext(
    task=types.Task(None, {}, {"features": features, "embeddings": features}),
    batches=clusters(n, 1),
    decode=None,
    encode=None,
    num_classes=3,
    workdir=str(tmp_path),
    key="test",
    rng=jax.random.key(0),
    load=None,
    say=lambda line: None,
    read=read or (lambda split: clusters(23, 0)),
  )


def test_a_probe_knows_the_training_split(tmp_path):
  asked = []

  def read(split):
    asked.append(split)
    return clusters(23, 0)

  evaluate = linear_probe(context(tmp_path, read=read), fit="few", l2=0.01)
  found = evaluate(types.Variables({}, {}), 1)
  assert asked == ["few"]
  assert found == {"accuracy": 1.0, "knn_accuracy": 1.0}
  # The first examples alone, without padding.
  some = representations.reader(context(tmp_path), "features")
  known = some(types.Variables({}, {}), clusters(6, 0), 5)
  (batch, _) = clusters(6, 0)()
  assert known.index_N.tolist() == list(range(5))
  np.testing.assert_array_equal(known.label_N[:4], batch["label"])
  with pytest.raises(ValueError, match="of='x'.*valid: embeddings, features"):
    linear_probe(context(tmp_path), of="x")


def test_retrieval_draws_neighbours_in_frames(tmp_path):
  evaluate = retrieval(context(tmp_path), ks=(2, 1), neighbours=2, pictures=2)
  found = evaluate(types.Variables({}, {}), 3)
  assert list(found) == list(evaluate.names(None))
  assert found["recall_at_1"] == found["recall_at_2"] == 1.0
  page = np.asarray(Image.open(tmp_path / "samples" / "test_0000003.png"))
  # Two queries; each 1 x 3 pixels within a frame of two, and two neighbours.
  assert page.shape[:2] == (2 * 5, 3 * 7)
  assert page[0, 0, :3].tolist() == [255] * 3
  assert page[0, 7, :3].tolist() == page[0, 14, :3].tolist() == [0, 150, 0]
