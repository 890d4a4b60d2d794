"""Detection by centres and segmentation, against NumPy and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common import config_keys, leaf
from models import Model
from train import types
from train.evaluators.segmentation import mean_iou, overlay
from train.evaluators.segmentation import segmentation as evaluator
from train.objectives import center_points as points
from train.objectives import segmentation as objective
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


def evaluated(task, batches, workdir, said=None):
  return types.EvalContext(
    task=task,
    batches=lambda: iter(batches),
    decode=None,
    encode=None,
    num_classes=4,
    workdir=workdir,
    key="val",
    rng=jax.random.key(0),
    load=None,
    say=said,
    class_names=("sky", "road", "car", "tree"),
  )


def test_miou_is_that_of_sets_of_pixels(tmp_path):
  batch, logits = labelled()
  model, params = given(jnp.asarray(logits))
  context = evaluated(segmentation(model), [batch, batch], str(tmp_path))
  found = evaluator(context)(types.Variables(params, {}), 1)
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
  # Of the classes that are named, without the pixels of the third one.
  assert mean_iou(np.array([[2, 0, 1], [1, 4, 0], [5, 5, 5]]), (0, 1)) == (
    pytest.approx((2 / 4 + 4 / 5) / 2)
  )


def test_the_weights_of_classes_and_dice_by_hand():
  batch, logits = labelled()
  model, params = given(jnp.asarray(logits))
  weights, ignored = (0.5, 2.0, 1.0, 4.0), 3
  task = segmentation(
    model, class_weights=weights, ignored=(ignored,), dice=0.7
  )
  loss, aux = task.losses["loss"](types.Variables(params, {}), batch, AT)
  p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  total = weight = 0.0
  lost = []
  for label, p_HWC in zip(
    np.asarray(batch["segmentation"])[:2], p, strict=False
  ):
    known = (label >= 0) & (label < ignored)
    scores = []
    for c in set(label[known]):
      own = label == c
      both = p_HWC[..., c][known].sum() + own.sum()
      scores.append(1 - 2 * p_HWC[..., c][own].sum() / both)
    lost.append(np.mean(scores))
    for place in map(tuple, np.argwhere(known)):
      w = weights[label[place]]
      total += w * (0.7 * lost[-1] - np.log(p_HWC[place][label[place]]))
      weight += w
  np.testing.assert_allclose(loss.total, total, rtol=1e-5)
  np.testing.assert_allclose(loss.weight, weight, rtol=1e-6)
  np.testing.assert_allclose(
    aux.metrics["dice_loss"].value(), np.mean(lost), rtol=1e-5
  )
  task = segmentation(model, class_weights=(1.0, 2.0))
  with pytest.raises(ValueError, match="has 2 numbers and the model 4 classes"):
    task.losses["loss"](types.Variables(params, {}), batch, AT)


@pytest.mark.parity
def test_losses_of_pixels_are_segmentation_models_pytorchs():
  torch = pytest.importorskip("torch")
  smp = pytest.importorskip("segmentation_models_pytorch.losses")
  rng, C = np.random.default_rng(0), 4
  label = rng.integers(0, C - 1, (3, 8, 9))  # the last class does not occur
  label[rng.random(label.shape) < 0.2] = 255
  logits = rng.normal(size=(*label.shape, C)).astype(np.float32)
  theirs = torch.tensor(logits.transpose(0, 3, 1, 2)), torch.tensor(label)
  known = objective.pixel_weights(jnp.asarray(label), C)
  got = objective.dice_loss(jnp.asarray(logits), jnp.asarray(label), known)
  # Theirs averages over all classes, ours over those in the image.
  dice = smp.DiceLoss("multiclass", classes=[0, 1, 2], ignore_index=255)
  wanted = [dice(*(x[i : i + 1] for x in theirs)) for i in range(3)]
  np.testing.assert_allclose(got, wanted, atol=1e-5)
  model, params = given(jnp.asarray(logits))
  batch = {
    "image": jnp.zeros((*label.shape, 3)),
    "segmentation": jnp.asarray(label),
    "mask": jnp.ones(3),
  }
  weights = (0.5, 2.0, 1.0, 4.0)
  # Theirs has no weights of classes, and its mean counts ignored pixels too.
  plain = smp.SoftCrossEntropyLoss("sum", smooth_factor=0.0, ignore_index=255)
  weighted = torch.nn.CrossEntropyLoss(torch.tensor(weights), ignore_index=255)
  for settings, nats in ((), plain), (weights, weighted):
    task = segmentation(model, class_weights=settings)
    mean, _ = task.losses["loss"](types.Variables(params, {}), batch, AT)
    got = mean.value() if settings else mean.total
    np.testing.assert_allclose(got, nats(*theirs), rtol=1e-5)


@pytest.mark.parametrize("array", [jnp.asarray, np.asarray])
def test_windows_and_mirror_images_are_averaged(array):
  image = np.random.default_rng(0).normal(size=(2, 7, 10, 4)).astype("float32")

  def logits(view):  # they depend on the columns of the window
    column = jnp.arange(view.shape[2], dtype=jnp.float32)[None, None, :, None]
    return jnp.asarray(view) + jnp.pad(column, ((0, 0), (0, 0), (0, 0), (0, 3)))

  def probabilities(view):
    z = np.exp(np.asarray(logits(jnp.asarray(view))))
    return z / z.sum(-1, keepdims=True)

  window, total, count = (4, 6), np.zeros(image.shape), np.zeros((7, 10, 1))
  assert objective.window_starts(7, 4, 0.5) == [0, 2, 3]
  assert objective.window_starts(10, 6, 0.5) == [0, 2, 4]
  for y in (0, 2, 3):
    for x in (0, 2, 4):
      view = image[:, y : y + 4, x : x + 6]
      found = probabilities(view)
      found = (found + probabilities(view[:, :, ::-1])[:, :, ::-1]) / 2
      total[:, y : y + 4, x : x + 6] += found
      count[y : y + 4, x : x + 6] += 1
  found = objective.averaged_probabilities(
    logits, array(image), window=window, overlap=0.5, flips=True
  )
  np.testing.assert_allclose(found, total / count, atol=1e-5)


def test_pixels_are_judged_and_drawn_in_windows(tmp_path):
  batch, logits = labelled()
  batch["image"] = jnp.asarray(logits)  # so that windows have their logits
  model = Model(None, lambda params, state, x, **_: (x, state))
  said, empty = [], types.Variables({}, {})
  context = evaluated(segmentation(model), [batch], str(tmp_path), said.append)
  whole = evaluator(context)(empty, 1)
  found = evaluator(context, window=(2, 2), flips=True, pictures=2)(empty, 1)
  assert found == whole
  assert said == [f"samples  {tmp_path}/samples/val_0000001.png"]
  header = (tmp_path / "val_confusion.csv").read_text().splitlines()[0]
  assert header == ",sky,road,car,tree"
  for wrong, line in (
    ({"classes": ("sea",)}, "'sea' is no class of the data .sky, road"),
    ({"window": (2,)}, "is not .height, width"),
    ({"overlap": 1.0}, "not within 0..1"),
  ):
    with pytest.raises(ValueError, match=line):
      evaluator(context, **wrong)
  classes = np.array([[0, 1, 2, 255, -1]])
  drawn = overlay(np.full((1, 5, 1), 1.0), classes)
  # A flat picture is black; of the colours six tenths are seen.
  assert drawn[0].tolist() == [
    [0, 0, 0], [77, 0, 0], [0, 77, 0], [0, 0, 0], [0, 0, 0],
  ]  # fmt: skip


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
