"""Progressive sizes: the interpolation by hand, when, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train import types
from train.tasks.wrap.progressive_size import progressive_size

STEPS = 10


def task():
  """Its loss is the mean square of the pixels; it reports their number."""

  def loss(variables, batch, context):
    image_BHWC = batch["image"] * variables.params["scale"]
    mean = types.mean_of(jnp.square(image_BHWC))
    return mean, types.Aux({}, {"rows": types.mean_of(mean.weight)})

  variables = types.Variables({"scale": jnp.float32(1)}, {})
  return types.Task(lambda rng, batch: variables, {"loss": loss}, {})


BATCH = {
  "image": np.random.default_rng(0).normal(size=(2, 8, 6, 3)).astype("f4"),
  "mask": np.ones(2, "f4"),
}
WRAPPED = {"sizes": (4,), "shares": (0.5,), "total_steps": STEPS}


def halved(x):
  """Rows of half the number, by the triangle of four weights 1, 3, 3 and 1."""
  weights = np.zeros((len(x) // 2, len(x)))
  for i in range(len(weights)):
    for k, weight in zip(
      range(2 * i - 1, 2 * i + 3), (1, 3, 3, 1), strict=True
    ):
      if 0 <= k < len(x):
        weights[i, k] = weight
  return np.tensordot(weights / weights.sum(1, keepdims=True), x, 1)


@pytest.mark.parametrize(
  "step, train, small",
  [(0, True, True), (4, True, True), (5, True, False), (0, False, False)],
)
def test_the_first_share_of_the_steps_sees_small_images(step, train, small):
  wrapped = progressive_size(task(), **WRAPPED)
  context = types.Context(jax.random.key(0), jnp.int32(step), train)
  expected = np.moveaxis(BATCH["image"], 0, 2)
  if small:
    expected = np.swapaxes(halved(np.swapaxes(halved(expected), 0, 1)), 0, 1)

  def loss(scale):
    variables = types.Variables({"scale": scale}, {})
    return wrapped.losses["loss"](variables, BATCH, context)[0].value()

  value, slope = jax.jit(jax.value_and_grad(loss))(jnp.float32(2))
  square = np.square(expected).mean()
  np.testing.assert_allclose(value, 4 * square, rtol=1e-5)
  np.testing.assert_allclose(slope, 4 * square, rtol=1e-5)


def test_what_does_not_fit_is_refused():
  with pytest.raises(ValueError, match="a positive share for each size"):
    progressive_size(task(), sizes=(4, 5), shares=(0.5,), total_steps=STEPS)
  with pytest.raises(ValueError, match="below 1 together"):
    progressive_size(task(), sizes=(4,), shares=(1.0,), total_steps=STEPS)
  context = types.Context(jax.random.key(0), jnp.int32(0), True)
  variables = task().init(None, BATCH)
  wrapped = progressive_size(task(), **WRAPPED)
  for batch, match in (
    ({**BATCH, "image": BATCH["image"][:, :4]}, "below the 4 rows"),
    ({**BATCH, "masks": BATCH["image"][..., 0]}, "'masks' has a value"),
  ):
    with pytest.raises(ValueError, match=match):
      wrapped.losses["loss"](variables, batch, context)
