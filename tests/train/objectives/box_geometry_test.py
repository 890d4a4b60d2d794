"""Boxes by hand, against loops in NumPy and against torchvision."""

import jax
import jax.numpy as jnp
import numpy as np
import peers
import pytest

from train.objectives import boxes as boxes_lib


def drawn(n, seed=0, size=100):
  """Random boxes, float32 [n, 4]."""
  rng = np.random.default_rng(seed)
  low = rng.uniform(0, size * 0.7, (n, 2))
  sides = rng.uniform(size * 0.05, size * 0.4, (n, 2))
  return np.concatenate([low, low + sides], 1).astype(np.float32)


def test_overlap_by_hand():
  a = jnp.asarray([[0.0, 0, 4, 4], [0, 0, 2, 2], [0, 0, 2, 2], [3, 3, 1, 1]])
  b = jnp.asarray([[2.0, 0, 6, 4], [4, 0, 6, 2], [0, 0, 2, 2], [0, 0, 2, 2]])

  def found(a, b):
    every = {kind: boxes_lib.overlap(a, b, kind) for kind in boxes_lib.KINDS}
    return sum(x.sum() for x in every.values()), every

  grads, every = jax.jit(jax.grad(found, argnums=(0, 1), has_aux=True))(a, b)
  np.testing.assert_allclose(every["iou"], [8 / 24, 0, 1, 0], atol=1e-6)
  np.testing.assert_allclose(every["giou"][:3], [1 / 3, -1 / 3, 1], atol=1e-6)
  wanted = [1 / 3 - 4 / (36 + 16), -16 / (36 + 4), 1]
  np.testing.assert_allclose(every["ciou"][:3], wanted, atol=1e-6)
  assert all(np.isfinite(x).all() for x in grads)


def test_codes_and_sides_lead_back():
  boxes, anchors = jnp.asarray(drawn(20)), jnp.asarray(drawn(20, 1))
  codes = boxes_lib.encoded(boxes, anchors, (10, 10, 5, 5))
  back = boxes_lib.decoded(codes, anchors, (10, 10, 5, 5))
  np.testing.assert_allclose(back, boxes, atol=1e-4)
  points = jnp.asarray(drawn(20)[:, :2])
  sides = boxes_lib.to_sides(points, boxes)
  np.testing.assert_allclose(boxes_lib.from_sides(points, sides), boxes, 1e-5)
  assert boxes_lib.grid(2, 3, 8).tolist() == [
    [x, y] for y in (4, 12) for x in (4, 12, 20)
  ]


def greedy(boxes, scores, threshold, classes):
  """Suppression as it is usually written."""
  overlaps = np.asarray(boxes_lib.pairwise(*[jnp.asarray(boxes)] * 2))
  left, kept = list(np.argsort(-scores, kind="stable")), []
  while left:
    best = left.pop(0)
    kept.append(best)
    left = [
      i
      for i in left
      if classes[i] != classes[best] or overlaps[i, best] <= threshold
    ]
  return sorted(kept)


@pytest.mark.parametrize("kinds", [1, 3])
def test_suppression_is_the_greedy_loop(kinds):
  rng = np.random.default_rng(3)
  boxes, scores = drawn(40), rng.choice(20, 40).astype(np.float32) / 20
  classes = rng.integers(0, kinds, 40)
  given = (jnp.asarray(x) for x in (boxes, scores))
  more = () if kinds == 1 else (jnp.asarray(classes),)
  found = jax.jit(lambda *x: boxes_lib.kept(x[0], x[1], 0.3, *x[2:]))(
    *given, *more
  )
  wanted = greedy(boxes, scores, 0.3, classes)
  assert np.flatnonzero(found).tolist() == wanted and 0 < len(wanted) < 40


def test_detections_of_a_batch():
  boxes = jnp.asarray([drawn(1)[0], drawn(1)[0] + 0.5, drawn(2)[1] + 100])
  scores = jnp.asarray([[0.9, 0.1], [0.8, 0.3], [0.0, 0.7]])
  detections = jax.jit(
    boxes_lib.detections, static_argnames=("count", "threshold", "agnostic")
  )
  both = jnp.stack([boxes, boxes]), jnp.stack([scores, scores * 0])
  found = detections(*both, count=5, threshold=0.5)
  np.testing.assert_allclose(found["scores"][0], [0.9, 0.7, 0.3, 0, 0])
  assert found["classes"][0, :3].tolist() == [0, 1, 1]
  np.testing.assert_allclose(
    found["boxes"][0, :3], boxes[jnp.asarray([0, 2, 1])]
  )
  assert not found["scores"][1].any()
  alike = detections(*both, count=3, threshold=0.5, agnostic=True)
  np.testing.assert_allclose(alike["scores"][0], [0.9, 0.7, 0])


@pytest.mark.parity
def test_boxes_are_torchvisions():
  torch = pytest.importorskip("torch")
  ops = peers.torchvision().ops
  from torchvision.models.detection._utils import BoxCoder

  a, b = drawn(300), drawn(300, 1)
  theirs = [torch.tensor(x) for x in (a, b)]
  ours = [jnp.asarray(x) for x in (a, b)]
  for kind, match in (("iou", ops.box_iou), ("giou", ops.generalized_box_iou)):
    np.testing.assert_allclose(
      boxes_lib.pairwise(*ours, kind), match(*theirs), atol=1e-5
    )
  loss = ops.complete_box_iou_loss(*theirs)
  np.testing.assert_allclose(
    1 - boxes_lib.overlap(*ours, "ciou"), loss, atol=1e-4
  )
  coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
  codes = coder.encode_single(*theirs)
  found = boxes_lib.encoded(*ours, (10, 10, 5, 5))
  np.testing.assert_allclose(found, codes, atol=1e-4)
  wild = 5 * codes
  np.testing.assert_allclose(
    boxes_lib.decoded(jnp.asarray(wild), ours[1], (10, 10, 5, 5)),
    coder.decode_single(wild, theirs[1]),
    rtol=1e-4,
    atol=1e-3,
  )
  rng = np.random.default_rng(0)
  scores = rng.random((2, 300)).astype(np.float32)
  classes = rng.integers(0, 3, (2, 300))
  both = jnp.stack(ours)
  for kinds in (None, classes):
    found = boxes_lib.kept(
      both,
      jnp.asarray(scores),
      0.4,
      None if kinds is None else jnp.asarray(kinds),
    )
    for i in range(2):
      kind = np.zeros(300, int) if kinds is None else kinds[i]
      wanted = ops.batched_nms(
        theirs[i], torch.tensor(scores[i]), torch.tensor(kind), 0.4
      )
      assert np.flatnonzero(found[i]).tolist() == sorted(wanted.tolist())
