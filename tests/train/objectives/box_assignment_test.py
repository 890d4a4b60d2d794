"""Who learns what, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from train.objectives import box_assignment, region_proposals, set_matching
from train.objectives import boxes as boxes_lib


def cells():
  """A grid of 4 x 4 cells of 8 pixels, all of which predict 16 x 16 boxes."""
  points = boxes_lib.grid(4, 4, 8)
  boxes = boxes_lib.from_sides(points, jnp.full((16, 4), 8.0))
  return {
    "logits": jnp.zeros((1, 16, 2)),
    "boxes": boxes[None],
    "points": points,
    "strides": jnp.full(16, 8.0),
  }


task_aligned = jax.jit(
  box_assignment.task_aligned, static_argnames=("top", "alpha", "beta")
)


def assigned(found, truth, real, top, alpha=0.5, beta=6.0):
  """Of up to three objects; padding is added."""
  room = 3 - len(truth)
  return task_aligned(
    found,
    jnp.asarray([truth + [[0, 0, 32, 32]] * room], jnp.float32),
    jnp.zeros((1, 3), jnp.int32),
    jnp.asarray([real + [0] * room], jnp.float32),
    top=top,
    alpha=alpha,
    beta=beta,
  )


def test_the_best_aligned_cells_learn_an_object():
  found = cells()
  # Exactly the box of the cell in row 1, column 1; padding beside it.
  truth = [[4, 4, 20, 20], [0, 0, 32, 32], [4, 4, 20, 20]]
  owner, share = assigned(found, truth, [1, 0, 0], 1)
  assert np.flatnonzero(share[0]).tolist() == [5]
  assert owner[0, 5] == 0
  np.testing.assert_allclose(share[0, 5], 1, rtol=1e-5)  # its IoU
  # A higher score outweighs: the cell at its right, with IoU 1/2, beta 0.
  found["logits"] = found["logits"].at[0, 6, 0].set(5.0)
  _, share = assigned(found, [[4, 4, 24, 20]], [1], 1, 1.0, 0.0)
  assert np.flatnonzero(share[0]).tolist() == [6]
  np.testing.assert_allclose(share[0, 6], 1 / 2, rtol=1e-5)
  # Points in the box are (12, 12) alone: others never learn it.
  _, share = assigned(found, [[5, 5, 19, 19]], [1], 16)
  assert np.flatnonzero(share[0]).tolist() == [5]


def test_objects_share_no_cell_and_none_is_left_out():
  found = cells()
  # Both contain the points of columns 1 and 2 in row 1.
  truth = [[4, 4, 28, 20], [12, 4, 28, 20]]
  owner, share = assigned(found, truth, [1, 1], 16)
  assert share[0, 6] > 0 and owner[0, 6] == 1
  assert share[0, 5] > 0 and owner[0, 5] == 0
  # An object between the points belongs to the nearest one.
  _, share = assigned(found, [[17, 1, 19, 3]], [1], 3)
  assert np.flatnonzero(share[0]).tolist() == [2]
  # Without objects nothing is learned.
  _, share = assigned(found, truth, [0, 0], 3)
  assert not share.any()


def test_the_loss_of_bins_by_hand():
  found = cells() | {"bins": jnp.zeros((1, 16, 4, 5))}
  own = jnp.broadcast_to(jnp.asarray([0.0, 0, 12, 12]), (1, 16, 4))
  logits = found["bins"].at[0, 0, 0, 0].set(2.0)
  nats = jax.jit(box_assignment.bins_loss)({**found, "bins": logits}, own)
  # The point (4, 4): half a cell to the left, which is half of bins 0 and 1.
  uniform = np.log(5)
  first = np.log(np.exp(2) + 4) - 1
  np.testing.assert_allclose(nats[0, 0], (3 * uniform + first) / 4, rtol=1e-5)


def test_matches_and_samples_by_hand():
  boxes = jnp.asarray(
    [[[0, 0, 10, 10], [0, 0, 10, 4], [50, 50, 60, 60]]], float
  )
  truth = region_proposals.Truth(
    jnp.asarray([[[0.0, 0, 10, 10], [0, 0, 10, 3], [52, 50, 70, 60]]]),
    jnp.asarray([[2, 0, 1]]),
    real=jnp.asarray([[1.0, 1, 0]]),
    crowd=jnp.asarray([[0.0, 0, 1]]),
  )
  matched = jax.jit(region_proposals.matched, static_argnums=(2, 3, 4))
  match = matched(boxes, truth, 0.3, 0.8)
  assert match.owner[0, :2].tolist() == [0, 1]
  assert match.positive[0].tolist() == [True, False, False]
  # The second has IoU 0.75, and the third overlaps a crowd by 0.4.
  assert match.negative[0].tolist() == [False, False, False]
  best = matched(boxes, truth, 0.3, 0.8, True)
  assert best.positive[0].tolist() == [True, True, False]
  many = region_proposals.Matched(
    jnp.zeros((2, 40), jnp.int32),
    jnp.asarray([[True] * 20 + [False] * 20, [False] * 40]),
    jnp.asarray([[False] * 20 + [True] * 20, [True] * 4 + [False] * 36]),
  )
  sample = jax.jit(region_proposals.sampled, static_argnums=(2, 3))
  place, real = sample(many, jax.random.key(0), 8, 0.25)
  assert (place[0] < 20).sum() == 2 and real[0].all()
  assert real[1].sum() == 4 and sorted(place[1, :4].tolist()) == [0, 1, 2, 3]
  few = many._replace(negative=jnp.zeros((2, 40), bool))
  _, real = sample(few, jax.random.key(0), 8, 0.25)
  assert real.sum(1).tolist() == [2, 0]


def test_matching_is_scipys():
  rng = np.random.default_rng(0)
  cost = rng.normal(size=(6, 5, 9)).astype(np.float32)
  cost[1] = cost[1, :1]  # all objects want the same queries
  real = np.ones((6, 5), np.float32)
  real[2, [0, 3]], real[3] = 0, 0
  found = jax.jit(set_matching.matching)(jnp.asarray(cost), jnp.asarray(real))
  for b in range(6):
    rows = np.flatnonzero(real[b])
    wanted = scipy.optimize.linear_sum_assignment(cost[b, rows])
    own = np.asarray(found)[b, rows]
    assert len(set(own)) == len(rows)
    np.testing.assert_allclose(
      cost[b, rows, own].sum(), cost[b, rows][wanted].sum(), rtol=1e-5
    )
