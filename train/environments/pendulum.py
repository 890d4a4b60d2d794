"""A pendulum that a weak motor is to swing up and keep upright."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from common.leaf import Leaf
from train import types
from train.environments.parts import truncation

GRAVITY = 10.0  # m/s^2
MASS, LENGTH = 1.0, 1.0  # of a uniform rod, kg and m
TORQUE = 2.0  # the motor's largest, N m
FASTEST = 8.0  # radians/s
SECONDS = 0.05  # between two steps


class State(NamedTuple):
  """The state of the pendulum.

  angle: float scalar, radians from the upright.
  turning: float scalar, the angular velocity, radians/s.
  steps: int32 scalar, the number of steps of the episode.
  """

  angle: jax.Array
  turning: jax.Array
  steps: jax.Array


def pendulum(*, most_steps: int = 200) -> types.Environment:
  """Pendulum-v1: the cost of being off the upright, in each of 200 steps.

  The rod turns about its end, in steps of the semi-implicit Euler method of
  0.05 s, as in Gymnasium's Pendulum-v1. An action is the torque of the motor,
  clipped to 2 N m, too weak to lift the rod at once. The reward of a step is
  -(angle^2 + 0.1 turning^2 + 0.001 torque^2) before it, with the angle from -pi
  to pi. An episode begins at any angle with up to 1 radian/s, and does not
  terminate. The observation is [cos angle, sin angle, turning].

  Args:
    most_steps: the number of steps after which an episode is truncated.

  Raises:
    ValueError: most_steps is not a positive integer of 32 bits.
  """
  truncation.check(most_steps)

  def seen(angle, turning):
    return jnp.stack([jnp.cos(angle), jnp.sin(angle), turning])

  def reset(rng):
    draw = jax.random.uniform(rng, (2,), minval=-1.0)
    angle, turning = jnp.pi * draw[0], draw[1]
    state = State(angle, turning, jnp.zeros((), jnp.int32))
    return state, seen(angle, turning)

  def step(state, action, rng):
    del rng
    torque = jnp.clip(action[0], -TORQUE, TORQUE)
    off = (state.angle + jnp.pi) % (2 * jnp.pi) - jnp.pi
    cost = off**2 + 0.1 * state.turning**2 + 0.001 * torque**2
    angle, turning = moved(state.angle, state.turning, torque)
    steps = state.steps + 1
    return (
      State(angle, turning, steps),
      seen(angle, turning),
      -cost.astype(jnp.float32),
      jnp.zeros((), bool),
      steps >= most_steps,
    )

  observation = Leaf((3,), np.dtype(np.float32), ("feature",))
  most = np.full(1, TORQUE, np.float32)
  return types.Environment(
    reset, step, observation, None, most_steps, (-most, most)
  )


def moved(
  angle: jax.Array, turning: jax.Array, torque: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns (angle, turning) after SECONDS under a torque in N m."""
  inertia = MASS * LENGTH**2 / 3
  pull = MASS * GRAVITY * LENGTH / 2 * jnp.sin(angle)
  turning = turning + (pull + torque) / inertia * SECONDS
  turning = jnp.clip(turning, -FASTEST, FASTEST)
  return angle + turning * SECONDS, turning
