"""A pole on a cart, to be balanced by pushing the cart left or right."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from common.leaf import Leaf
from train import types
from train.environments.parts import truncation

GRAVITY = 9.8  # m/s^2
CART, POLE = 1.0, 0.1  # masses, kg
HALF_LENGTH = 0.5  # of the pole, m
FORCE = 10.0  # N
SECONDS = 0.02  # between two steps
FARTHEST = 2.4  # m from the middle of the track
STEEPEST = 12 * np.pi / 180  # radians from the upright
SPREAD = 0.05  # the first state is drawn from -SPREAD to SPREAD


class State(NamedTuple):
  """The state of the cart.

  physics: float [4], the position (m) and velocity (m/s) of the cart, the
    angle (radians) and angular velocity (radians/s) of the pole.
  steps: int32 scalar, the number of steps of the episode.
  """

  physics: jax.Array
  steps: jax.Array


def cartpole(*, most_steps: int = 500) -> types.Environment:
  """CartPole-v1: 1 for every step until the pole falls or the cart leaves.

  The equations of motion are those of Barto, Sutton and Anderson (IEEE
  Transactions on Systems, Man, and Cybernetics 13, 1983), without friction, in
  steps of Euler's method of 0.02 s, as in Gymnasium's CartPole-v1. Action 1
  pushes the cart to the right and 0 to the left, with 10 N. An episode
  terminates when the pole is more than 12 degrees from the upright or the cart
  more than 2.4 m from the middle; that step is still worth 1. The observation
  is [position, velocity, angle, angular velocity].

  Args:
    most_steps: the number of steps after which an episode is truncated.

  Raises:
    ValueError: most_steps is not a positive integer of 32 bits.
  """
  truncation.check(most_steps)

  def reset(rng):
    physics = jax.random.uniform(rng, (4,), minval=-SPREAD, maxval=SPREAD)
    return State(physics, jnp.zeros((), jnp.int32)), physics

  def step(state, action, rng):
    del rng
    physics = moved(state.physics, jnp.where(action == 1, FORCE, -FORCE))
    steps = state.steps + 1
    gone = jnp.abs(physics[0]) > FARTHEST
    fallen = jnp.abs(physics[2]) > STEEPEST
    return (
      State(physics, steps),
      physics,
      jnp.float32(1),
      gone | fallen,
      steps >= most_steps,
    )

  observation = Leaf((4,), np.dtype(np.float32), ("feature",))
  return types.Environment(reset, step, observation, 2, most_steps)


def moved(physics: jax.Array, force: jax.Array) -> jax.Array:
  """Returns the physics of a State after SECONDS under a force in newtons."""
  position, velocity, angle, turning = physics
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  total = CART + POLE
  push = (force + POLE * HALF_LENGTH * turning**2 * sin) / total
  turn = (GRAVITY * sin - cos * push) / (
    HALF_LENGTH * (4 / 3 - POLE * cos**2 / total)
  )
  speed_up = push - POLE * HALF_LENGTH * turn * cos / total
  change = jnp.stack([velocity, speed_up, turning, turn])
  return physics + SECONDS * change
