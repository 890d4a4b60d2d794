"""What features are worth: linear classifiers, nearest neighbours, recall.

N examples to predict, M known ones, F features, C classes, k neighbours. The
neighbours are by cosine similarity.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from train.objectives import losses

# Of similarities that are computed at once.
_ROWS = 512


@partial(jax.jit, static_argnames=("num_classes", "steps"))
def fit(
  x_MF: jax.Array,
  label_M: jax.Array,
  l2: jax.Array | float,
  *,
  num_classes: int,
  steps: int = 200,
) -> tuple[jax.Array, jax.Array]:
  """(kernel_FC, bias_C) of multinomial logistic regression, by L-BFGS.

  It minimizes the mean cross-entropy plus l2 / 2 times the sum of the kernel's
  squares, which is scikit-learn's objective with C = 1 / (M * l2).
  """
  params = (jnp.zeros((x_MF.shape[1], num_classes)), jnp.zeros(num_classes))

  def objective(params):
    kernel_FC, bias_C = params
    nats_M = losses.cross_entropy(x_MF @ kernel_FC + bias_C[None], label_M)
    return nats_M.mean() + 0.5 * l2 * jnp.square(kernel_FC).sum()

  solver = optax.lbfgs()
  value_and_grad = optax.value_and_grad_from_state(objective)

  def step(carry, _):
    params, state = carry
    value, grad = value_and_grad(params, state=state)
    moves, state = solver.update(
      grad, state, params, value=value, grad=grad, value_fn=objective
    )
    return (optax.apply_updates(params, moves), state), None

  carry, _ = jax.lax.scan(step, (params, solver.init(params)), length=steps)
  return carry[0]


def linear_probe(
  known_MF: np.ndarray,
  label_M: np.ndarray,
  x_NF: np.ndarray,
  num_classes: int,
  l2: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1),
) -> np.ndarray:
  """The classes that a linear classifier of known features predicts, [N].

  Features are standardized by those that are known. Of several `l2`, the one is
  taken that classifies every fifth known example best after fitting the others.
  """
  mean, deviation = known_MF.mean(0), known_MF.std(0)
  scale = 1 / np.where(deviation > 1e-6 * (1 + abs(mean)), deviation, 1.0)
  known_MF, x_NF = ((x - mean) * scale for x in (known_MF, x_NF))
  held = np.arange(len(known_MF)) % 5 == 4

  def predicted(rows, strength, x):
    kernel, bias = fit(
      known_MF[rows], label_M[rows], strength, num_classes=num_classes
    )
    return (x @ np.asarray(kernel) + np.asarray(bias)).argmax(1)

  best = l2[0]
  if len(l2) > 1 and held.any():
    found = [
      (predicted(~held, each, known_MF[held]) == label_M[held]).mean()
      for each in l2
    ]
    best = l2[int(np.argmax(found))]
  return predicted(np.ones(len(known_MF), bool), best, x_NF)


def neighbours(
  x_NF: np.ndarray, known_MF: np.ndarray | None, k: int
) -> tuple[np.ndarray, np.ndarray]:
  """(places, similarities) of the k nearest known rows, nearest first.

  Args:
    x_NF: the queries.
    known_MF: the rows that are found; None for the queries themselves, each of
      which does not find itself.
    k: at most as many as there are.

  Returns:
    int [N, k] and float32 [N, k].
  """
  x_NF = _normalized(x_NF)
  alone = known_MF is None
  known = x_NF if known_MF is None else _normalized(known_MF)
  k = min(k, len(known) - alone)
  places, similar = [], []
  for start in range(0, len(x_NF), _ROWS):
    found = x_NF[start : start + _ROWS] @ known.T
    rows = np.arange(len(found))
    if alone:
      found[rows, start + rows] = -np.inf
    # Ties are broken by the order of the data, so that figures do not vary.
    part = np.argsort(-found, axis=1, kind="stable")[:, :k]
    places.append(part)
    similar.append(np.take_along_axis(found, part, 1))
  return np.concatenate(places), np.concatenate(similar)


def _normalized(x: np.ndarray) -> np.ndarray:
  x = np.asarray(x, np.float32)
  return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def recall(
  place_Nk: np.ndarray, label_N: np.ndarray, known_M: np.ndarray, k: int
) -> float:
  """The share of queries with one of their class among the first k found.

  A query whose class no other has is not counted.
  """
  hit_N = (known_M[place_Nk[:, :k]] == label_N[:, None]).any(1)
  counts = np.bincount(known_M, minlength=int(label_N.max(initial=0)) + 1)
  possible_N = counts[label_N] > (1 if known_M is label_N else 0)
  return float(hit_N[possible_N].mean()) if possible_N.any() else 0.0


def vote(
  place_Nk: np.ndarray,
  similar_Nk: np.ndarray,
  known_M: np.ndarray,
  num_classes: int,
  temperature: float = 0.07,
) -> np.ndarray:
  """The class of the largest sum of exp(similarity / temperature), [N].

  Wu et al., 2018, arXiv:1805.01978.
  """
  weight_Nk = np.exp((similar_Nk - similar_Nk[:, :1]) / temperature)
  votes_NC = np.zeros((len(place_Nk), num_classes))
  rows = np.repeat(np.arange(len(place_Nk)), place_Nk.shape[1])
  np.add.at(votes_NC, (rows, known_M[place_Nk].ravel()), weight_Nk.ravel())
  return votes_NC.argmax(1)
