"""Path lengths, augmentations and projection, by formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.objectives import adversarial, augmentation, projection

KEY = jax.random.key(0)


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype("float32")


def test_path_lengths_of_a_linear_generator():
  """image = sum_l A_l w_l, so that |J^T y| is that of A_l^T y."""
  a = normal(2, 12, 5)  # styles, pixels, W
  w_BLW = jnp.asarray(normal(3, 2, 5, seed=1))

  def synthesize(w_BLW):
    return jnp.einsum("BLW,LPW->BP", w_BLW, a).reshape(3, 2, 3, 2)

  y = np.asarray(jax.random.normal(KEY, (3, 2, 3, 2))).reshape(3, 12) / 6**0.5
  slope = np.einsum("BP,LPW->BLW", y, a)
  want = np.sqrt((slope**2).sum(2).mean(1))
  got = adversarial.path_lengths(synthesize, w_BLW, KEY)
  np.testing.assert_allclose(got, want, rtol=1e-4)
  penalty, mean = adversarial.path_penalty(got, jnp.float32(2))
  assert float(mean) == pytest.approx(2 + 0.01 * (want.mean() - 2), rel=1e-5)
  wanted = ((want - float(mean)) ** 2).mean()
  assert float(penalty) == pytest.approx(wanted, rel=1e-4)


def test_the_probability_follows_the_signs_of_real_images():
  state = {"p": jnp.float32(0), "sign": jnp.float32(0)}
  high, low = jnp.asarray([1.0, 2, 3, 4]), jnp.asarray([-1.0, 2, -3, 4])
  p = []
  for logits in [high] * 20 + [low] * 25:
    state = adversarial.adapted(state, logits, 0.6, 100)
    p.append(float(state["p"]))
  # 0.9 ** 9 < 0.4: it waits and is never below 0, then it moves by 4 / 100.
  np.testing.assert_allclose(p[6:10], [0, 0, 0.04, 0.08], atol=1e-6)
  assert p[19] == pytest.approx(0.48)
  assert p[-1] == 0


def test_maps_move_pixels_and_mirror_the_borders():
  image = jnp.asarray(normal(2, 5, 4, 3))
  one = jnp.asarray([[1.0, 0, 0], [0, 1, 0]])
  shift = one.at[0, 2].set(1).at[1, 2].set(-2)
  got = np.asarray(jax.jit(augmentation.moved)(image, jnp.stack([one, shift])))
  np.testing.assert_allclose(got[0], image[0], atol=1e-6)
  rows, columns = [2, 1, 0, 1, 2], [1, 2, 3, 2]
  want = np.asarray(image[1])[rows][:, columns]
  np.testing.assert_allclose(got[1], want, atol=1e-6)


def test_augmentations_leave_images_at_zero_and_pass_gradients():
  image = jnp.asarray(normal(8, 6, 6, 3))
  grey = jnp.broadcast_to(image[..., :1], image.shape)

  @jax.jit
  def run(image, p):
    def total(x):
      found = augmentation.augmented(x, p, KEY)
      return found.sum(), found

    return jax.grad(total, has_aux=True)(image)

  np.testing.assert_allclose(run(image, 0.0)[1], image, atol=1e-5)
  changed = np.abs(np.asarray(run(image, 0.3)[1]) - image).max((1, 2, 3))
  assert (changed > 1e-3).mean() > 0
  slope, got = run(grey, 1.0)
  assert np.isfinite(slope).all() and (np.asarray(slope) != 0).any()
  np.testing.assert_allclose(got, got[..., :1] + 0 * got, atol=1e-5)
  assert np.abs(np.asarray(got) - grey).max((1, 2, 3)).min() > 1e-3
  with pytest.raises(ValueError, match="2 channels"):
    augmentation.recoloured(jnp.zeros((1, 2, 2, 2)), 1.0, KEY)


def test_projection_finds_the_styles_of_an_image():
  a = jnp.asarray(normal(64, 3))
  w_BW = jnp.asarray(normal(2, 3, seed=2))

  def synthesize(w_BW):
    return (w_BW @ a.T).reshape(2, 8, 8, 1)

  project = jax.jit(
    lambda start, image: projection.project(synthesize, start, image, 300)
  )
  found = project(jnp.zeros((2, 3)), synthesize(w_BW))
  np.testing.assert_allclose(found, w_BW, atol=1e-2)
  # Two sizes, 8 and 4; of constants all are equal.
  ones = jnp.ones((1, 8, 8, 1))
  assert float(projection.distance(ones, 3 * ones)[0]) == 4
