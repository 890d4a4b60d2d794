"""Losses that compare examples: triplets, ArcFace and NT-Xent.

Each returns float32 values [B] and the weights that they count with. B is the
batch, D the embedding, C the classes.
"""

import math

import jax
import jax.numpy as jnp

from train.objectives import losses

MINING = ("hard", "semi_hard")
_EPS = 1e-12  # of squared lengths and distances
_FAR = jnp.finfo(jnp.float32).max


def normalized(x_BD: jax.Array) -> jax.Array:
  """Rows of length 1, float32; a row of zeros stays zero."""
  x = x_BD.astype(jnp.float32)
  squared = jnp.sum(x * x, axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(jnp.maximum(squared, _EPS))


def distances(x_BD: jax.Array) -> jax.Array:
  """Euclidean distances of all pairs of rows, float32 [B, B]."""
  x = x_BD.astype(jnp.float32)
  difference_BBD = x[:, None] - x[None]
  squared = jnp.sum(jnp.square(difference_BBD), axis=-1)
  # The root has no finite gradient at 0, the distance of a row to itself.
  apart = squared > _EPS
  return jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0)


def triplet(
  x_BD: jax.Array,
  label_B: jax.Array,
  mask_B: jax.Array,
  *,
  margin: float = 0.2,
  mining: str = "hard",
) -> tuple[jax.Array, jax.Array]:
  """max(0, d(anchor, positive) - d(anchor, negative) + margin).

  "hard" takes for each anchor the farthest example of its class and the nearest
  of the others (Hermans et al., 2017, arXiv:1703.07737). "semi_hard" takes each
  pair of a class, and for it the nearest negative that is farther than the
  positive, or else the farthest negative (Schroff et al., 2015,
  arXiv:1503.03832); the value of an anchor is the mean over its pairs.

  Args:
    x_BD: embeddings; distances are Euclidean.
    label_B: integers.
    mask_B: 0 on examples that are in no triplet.
    margin: added to the difference of the distances.
    mining: "hard" or "semi_hard".

  Returns:
    value_B, and weight_B: "hard", whether the anchor has a positive and a
    negative; "semi_hard", its number of pairs.

  Raises:
    ValueError: `mining` is unknown.
  """
  if mining not in MINING:
    raise ValueError(f"mining={mining!r} is neither hard nor semi_hard")
  d_BB, real_B = distances(x_BD), mask_B > 0
  real_BB = real_B[:, None] & real_B[None]
  same_BB = label_B[:, None] == label_B[None]
  positive_BB = same_BB & real_BB & ~jnp.eye(len(label_B), dtype=bool)
  negative_BB = ~same_BB & real_BB
  valid_B = positive_BB.any(1) & negative_BB.any(1)
  if mining == "hard":
    far_B = jnp.max(jnp.where(positive_BB, d_BB, -_FAR), axis=1)
    near_B = jnp.min(jnp.where(negative_BB, d_BB, _FAR), axis=1)
    value_B = jnp.where(valid_B, far_B - near_B + margin, 0.0)
    return jax.nn.relu(value_B), valid_B.astype(jnp.float32)
  # Anchor, positive, negative.
  farther_BBB = negative_BB[:, None] & (d_BB[:, None] > d_BB[:, :, None])
  near_BB = jnp.min(jnp.where(farther_BBB, d_BB[:, None], _FAR), axis=2)
  last_B = jnp.max(jnp.where(negative_BB, d_BB, -_FAR), axis=1)
  chosen_BB = jnp.where(farther_BBB.any(2), near_BB, last_B[:, None])
  pair_BB = positive_BB & valid_B[:, None]
  value_BB = jnp.where(pair_BB, d_BB - chosen_BB + margin, 0.0)
  count_B = pair_BB.sum(1).astype(jnp.float32)
  total_B = jax.nn.relu(value_BB).sum(1)
  return total_B / jnp.maximum(count_B, 1.0), count_B


def arcface_logits(
  x_BD: jax.Array,
  kernel_DC: jax.Array,
  label_B: jax.Array,
  *,
  margin: float = 0.5,
  scale: float = 64.0,
) -> jax.Array:
  """Scaled cosines to the classes, with a margin of the label's angle.

  ArcFace (Deng et al., 2019, arXiv:1801.07698): scale * cos(angle + margin) of
  the label and scale * cos(angle) of the other classes. Where the angle exceeds
  pi - margin, the cosine is reduced by margin * sin(margin) instead, so that
  the logit stays monotonic, as in the authors' implementation.

  Args:
    x_BD: embeddings, which are normalized here.
    kernel_DC: a vector of each class, normalized here.
    label_B: integers.
    margin: radians; 0 for the plain cosines.
    scale: factor of the cosines.

  Returns:
    float32 [B, C].
  """
  cosine_BC = normalized(x_BD) @ normalized(kernel_DC.T).T
  if not margin:
    return scale * cosine_BC
  cosine_BC = jnp.clip(cosine_BC, -1 + 1e-6, 1 - 1e-6)
  sine_BC = jnp.sqrt(1 - jnp.square(cosine_BC))
  moved_BC = cosine_BC * math.cos(margin) - sine_BC * math.sin(margin)
  moved_BC = jnp.where(
    cosine_BC > math.cos(math.pi - margin),
    moved_BC,
    cosine_BC - margin * math.sin(margin),
  )
  own_BC = label_B[:, None] == jnp.arange(cosine_BC.shape[1])[None]
  return scale * jnp.where(own_BC, moved_BC, cosine_BC)


def nt_xent(
  first_BD: jax.Array,
  second_BD: jax.Array,
  mask_B: jax.Array,
  temperature: float = 0.5,
) -> tuple[jax.Array, jax.Array]:
  """SimCLR's normalized, temperature-scaled cross-entropy (arXiv:2002.05709).

  Each of the 2 B projections has to find the other one of its image among all
  but itself, by softmax(cosine / temperature).

  Args:
    first_BD: projections of one view of the images, normalized here.
    second_BD: those of the other view.
    mask_B: 0 on padding, which is no candidate.
    temperature: divides the cosines.

  Returns:
    nats_B, the mean of both views' cross-entropies; correct_B, the share of
    both views whose most similar projection is the right one.
  """
  x_ND = normalized(jnp.concatenate([first_BD, second_BD]))
  N, B = len(x_ND), len(first_BD)
  logits_NN = x_ND @ x_ND.T / temperature
  real_N = jnp.tile(mask_B > 0, 2)
  hidden_NN = jnp.eye(N, dtype=bool) | ~real_N[None]
  logits_NN = jnp.where(hidden_NN, -1e9, logits_NN)
  target_N = jnp.roll(jnp.arange(N), -B)
  nats_N = losses.cross_entropy(logits_NN, target_N)
  correct_N = (jnp.argmax(logits_NN, 1) == target_N).astype(jnp.float32)
  return nats_N.reshape(2, B).mean(0), correct_N.reshape(2, B).mean(0)
