import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.optimization import schedules

K = 40


def decay_time(k, warmup, end=K):
  return min(1, (k - warmup) / (end - warmup))


def onecycle(k, warmup):
  n, total = k - warmup, K - warmup
  top = int(0.3 * total)
  a, b, t = (
    (2 / 25, 2, n / top)
    if n < top
    else (2, 2 / 25e4, (n - top) / (total - top))
  )
  return b + (a - b) * (1 + math.cos(math.pi * t)) / 2


# name, settings, rate(k, warmup) from the end of warmup on, for a peak of 2.
SCHEDULES = [
  ("constant", {}, lambda k, w: 2),
  ("linear", {"end_lr": 0.5}, lambda k, w: 2 - 1.5 * decay_time(k, w)),
  ("linear", {"decay_steps": 20}, lambda k, w: 2 - 2 * decay_time(k, w, 20)),
  (
    "cosine",
    {"end_lr": 0.5},
    lambda k, w: 0.5 + 1.5 * (1 + math.cos(math.pi * decay_time(k, w))) / 2,
  ),
  ("step", {"every": 7}, lambda k, w: 2 * 0.1 ** (k // 7)),
  (
    "step",
    {"boundaries": (10, 30), "factor": 0.5},
    lambda k, w: 2 * 0.5 ** ((k >= 10) + (k >= 30)),
  ),
  (
    "exponential",
    {"decay_rate": 0.3, "transition_steps": 4},
    lambda k, w: 2 * 0.3 ** ((k - w) / 4),
  ),
  (
    "exponential",
    {"decay_rate": 0.3, "transition_steps": 4, "staircase": True},
    lambda k, w: 2 * 0.3 ** ((k - w) // 4),
  ),
  (
    "exponential",
    {"decay_rate": 0.3, "end_lr": 1},
    lambda k, w: max(1, 2 * 0.3 ** ((k - w) / (K - w))),
  ),
  (
    "rsqrt",
    {},
    lambda k, w: 2 * math.sqrt(w / k) if w else 2 / math.sqrt(1 + k),
  ),
  (
    "rsqrt",
    {"timescale": 100},
    lambda k, w: 2 * math.sqrt(100 / (100 + k - w)),
  ),
  ("wsd", {}, lambda k, w: 2 if k <= 36 else 2 * (K - k) / 4),
  (
    "wsd",
    {"cooldown_steps": 16, "cooldown": "sqrt", "end_lr": 0.5},
    lambda k, w: 2 if k <= 24 else 0.5 + 1.5 * (1 - math.sqrt((k - 24) / 16)),
  ),
  ("one_cycle", {}, onecycle),
  (
    "polynomial_schedule",
    {"end_value": 0.5, "power": 3},
    lambda k, w: 0.5 + 1.5 * (1 - decay_time(k, w)) ** 3,
  ),
  (
    "piecewise_constant_schedule",
    {"boundaries_and_scales": [["10", 0.5]]},
    lambda k, w: 2 if k - w < 10 else 1,
  ),
  (
    "cosine_decay_schedule",
    {"alpha": 0.25},
    lambda k, w: 0.5 + 1.5 * (1 + math.cos(math.pi * decay_time(k, w))) / 2,
  ),
  (  # does its own warmup, from init_value
    "warmup_cosine_decay_schedule",
    {},
    lambda k, w: 1 + math.cos(math.pi * decay_time(k, w)),
  ),
]


@pytest.mark.parametrize("warmup", [0, 5])
@pytest.mark.parametrize(("name", "settings", "formula"), SCHEDULES)
def test_schedule_follows_its_formula_at_every_step(
  name, settings, formula, warmup
):
  schedule = jax.jit(schedules.make(name, 2, K, warmup, **settings))
  found = [float(schedule(jnp.int32(k))) for k in range(K + 3)]
  wanted = [
    formula(k, warmup) if k >= warmup else k / warmup * formula(warmup, warmup)
    for k in range(K + 1)
  ]
  wanted += 2 * [None]  # past the end: no more than finite
  # 1 + cos(pi t) cancels where it is small, hence the absolute 4e-7 = 2 ulp(2).
  np.testing.assert_allclose(found[: K + 1], wanted[: K + 1], 2e-6, 4e-7)
  assert np.isfinite(found).all()
  assert schedule(jnp.int32(0)).dtype == jnp.float32


def test_every_own_schedule_is_tested():
  assert set(schedules.OWN) - {"plateau"} <= {name for name, *_ in SCHEDULES}
