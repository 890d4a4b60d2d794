"""Detection by centres and segmentation, against NumPy and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common import config_keys, leaf
from models import Model
from train import types
from train.evaluators.segmentation import mean_iou
from train.evaluators.segmentation import segmentation as evaluator
from train.objectives import center_points as points
from train.planning import batch_spec
from train.tasks.center_points import center_points
from train.tasks.segmentation import segmentation

AT = types.Context(jax.random.key(0), jnp.int32(0), train=True)


def given(output):
  """A model whose output is its parameter."""
  return Model(None, lambda params, state, x, **_: (params, state)), output


def labelled():
  """Three images of 2 x 3 pixels and four classes; the last is padding."""
  rng = np.random.default_rng(0)
  label = rng.integers(0, 4, (3, 2, 3)).astype(np.int32)
  label[0, 0, 0], label[1, 1, 1], label[1, 0, 2] = 255, 4, -1
  return {
    "image": jnp.zeros((3, 2, 3, 1)),
    "segmentation": jnp.asarray(label),
    "mask": jnp.asarray([1.0, 1.0, 0.0]),
  }, rng.normal(size=(3, 2, 3, 4)).astype(np.float32)


def test_the_loss_of_pixels_ignores_what_is_no_class():
  batch, logits = labelled()
  model, params = given(jnp.asarray(logits))
  loss, aux = segmentation(model).losses["loss"](
    types.Variables(params, {}), batch, AT
  )
  label = np.asarray(batch["segmentation"])[:2]
  known = (label >= 0) & (label < 4)
  log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  nats = [-log_p[:2][i][label[i]] for i in map(tuple, np.argwhere(known))]
  assert loss.weight == known.sum() == 9
  np.testing.assert_allclose(loss.total, np.sum(nats), rtol=1e-5)
  right = (logits[:2].argmax(-1) == label) & known
  assert aux.metrics["pixel_accuracy"].total == right.sum()


def test_miou_is_that_of_sets_of_pixels(tmp_path):
  batch, logits = labelled()
  model, params = given(jnp.asarray(logits))
  task = segmentation(model)
  found = evaluator(
    types.EvalContext(
      task=task,
      batches=lambda: iter([batch, batch]),
      decode=None,
      encode=None,
      num_classes=4,
      workdir=str(tmp_path),
      key="val",
      rng=jax.random.key(0),
      load=None,
      say=None,
    )
  )(types.Variables(params, {}), 1)
  label = np.asarray(batch["segmentation"])[:2]
  known = (label >= 0) & (label < 4)
  guess, label = logits[:2].argmax(-1)[known], label[known]
  ious = []
  for c in range(4):
    union = ((guess == c) | (label == c)).sum()
    if union:
      ious.append(((guess == c) & (label == c)).sum() / union)
  assert found["miou"] == pytest.approx(np.mean(ious), rel=1e-12)
  assert found["pixel_accuracy"] == pytest.approx((guess == label).mean())
  assert (tmp_path / "val_confusion.csv").exists()
  assert mean_iou(np.zeros((3, 3))) == 0
  assert mean_iou(np.diag([3, 0, 5])) == 1


def boxed():
  """Two boxes and one of padding on a grid of 4 x 6 cells of 8 pixels."""
  boxes = np.array([[[4, 4, 24, 20], [33, 1, 47, 31], [0, 0, 9, 9]]], float)
  return {
    "image": jnp.zeros((1, 32, 48, 1)),
    "boxes": jnp.asarray(boxes, jnp.float32),
    "boxes_mask": jnp.asarray([[1.0, 1.0, 0.0]]),
    "classes": jnp.asarray([[1, 0, 1]]),
    "mask": jnp.ones(1),
  }


def test_heat_peaks_at_the_centres():
  batch = boxed()
  heat, cells = points.targets(
    batch["boxes"] / 8, batch["classes"], batch["boxes_mask"], (1, 4, 6, 2)
  )
  # The centres are at (14, 12) and (40, 16) pixels.
  assert cells[0, :2].tolist() == [[1, 1], [2, 5]]
  assert np.argwhere(np.asarray(heat) == 1).tolist() == [
    [0, 1, 1, 1],
    [0, 2, 5, 0],
  ]
  sigma = (20 / 8 / 6, 16 / 8 / 6)
  wanted = np.exp(-0.5 * (1 / max(sigma[0], 0.5)) ** 2)
  np.testing.assert_allclose(heat[0, 1, 2, 1], wanted, rtol=1e-5)


def perfect(batch):
  """The outputs that describe the boxes exactly."""
  heat, cells = points.targets(
    batch["boxes"] / 8, batch["classes"], batch["boxes_mask"], (1, 4, 6, 2)
  )
  sides = np.zeros((1, 4, 6, 4), np.float32)
  for (row, column), box in zip(cells[0, :2], batch["boxes"][0], strict=False):
    centre = np.array([column, row]) + 0.5
    sides[0, row, column, :2] = centre - box[:2] / 8
    sides[0, row, column, 2:] = box[2:] / 8 - centre
  return {
    "heat": jnp.where(heat == 1, 20.0, -20.0),
    "sides": jnp.asarray(sides),
  }


def test_the_right_output_has_no_loss_and_gives_the_boxes_back():
  batch = boxed()
  model, params = given(perfect(batch))
  task = center_points(model, detections=2)
  variables = types.Variables(params, {})

  @jax.jit
  def loss(params, batch):
    variables = types.Variables(params, {})
    loss, aux = task.losses["loss"](variables, batch, AT)
    return loss.value(), aux.metrics["iou_at_centres"].weight

  value, boxes = loss(params, batch)
  assert value < 1e-5 and boxes == 2
  found = jax.jit(task.predict["detections"])(variables, batch, AT.rng)
  order = np.argsort(found["classes"][0])
  np.testing.assert_allclose(
    found["boxes"][0][order], batch["boxes"][0][np.array([1, 0])], atol=1e-4
  )
  # An image without boxes has only the heat's loss, and no NaN.
  empty = batch | {"boxes_mask": jnp.zeros((1, 3))}
  (value, _), grads = jax.value_and_grad(loss, has_aux=True)(params, empty)
  assert np.isfinite(value) and value > 1
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_the_focal_loss_by_hand():
  z, y = jnp.asarray([0.0, 2.0, -1.0]), jnp.asarray([1.0, 0.5, 0.0])
  p = 1 / (1 + np.exp(-np.asarray(z, float)))
  wanted = [
    -((1 - p[0]) ** 2) * np.log(p[0]),
    -(0.5**4) * p[1] ** 2 * np.log(1 - p[1]),
    -(p[2] ** 2) * np.log(1 - p[2]),
  ]
  np.testing.assert_allclose(points.focal(z, y), wanted, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(jax.device_count() < 8, reason="needs 8 devices")
@pytest.mark.parametrize("name", ["boxes_bccd", "fcn_camvid"])
def test_eight_devices_are_one(name, monkeypatch):
  """Boxes through crops, rotations and mosaics, and masks."""
  import experiments

  from train import build, loop

  pytest.importorskip("tensorflow")

  def losses(**mesh):
    config = experiments.config_of(name, "smoke")
    config.total_steps, config.evals, config.mesh = 4, {}, mesh
    run = build.run(config, None, say=lambda line: None)
    return [report.scalars["train/loss"] for report in loop.fit(run)]

  with monkeypatch.context() as patch:
    first = jax.devices()[:1]
    patch.setattr(jax, "devices", lambda *a: first)
    one = losses(data=1)
  np.testing.assert_allclose(losses(data=8), one, rtol=1e-5)


@pytest.mark.parametrize("name", ["boxes_bccd", "fcn_camvid"])
def test_a_plan_needs_no_pictures(name):
  import experiments

  pytest.importorskip("tensorflow")
  full, smoke = (
    batch_spec.of_config(config_keys.complete(experiments.config_of(name, arg)))
    for arg in ("", "smoke")
  )
  assert full.spec.keys() == smoke.spec.keys()
  assert {k: v.axes for k, v in full.spec.items()} == {
    k: v.axes for k, v in smoke.spec.items()
  }
  assert leaf.sizes(full.spec)["channels"] == 3
  assert full.num_classes == (3 if name == "boxes_bccd" else 11)
