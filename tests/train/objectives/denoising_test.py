"""PSNR, SSIM, noise and tiles, against formulas written out here."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from common.names import find
from train import types
from train.evaluators.denoising import denoising as evaluator
from train.objectives import denoising as objective
from train.tasks.denoising import denoising


def pictures(shape, seed=0):
  return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.parametrize("gaussian", [True, False])
def test_ssim_is_the_formula_with_scipys_filters(gaussian):
  """As scikit-image computes it, whose two kinds of windows these are."""
  x, y = pictures((16, 19)), pictures((16, 19), 1)
  if gaussian:
    pad, unbiased = 5, 1.0

    def averaged(values):
      return ndimage.gaussian_filter(values, 1.5, truncate=3.5)

  else:
    pad, unbiased = 3, 49 / 48

    def averaged(values):
      return ndimage.uniform_filter(values, 7)

  x, y = x.astype(float), y.astype(float)
  mx, my = averaged(x), averaged(y)
  vx = unbiased * (averaged(x * x) - mx * mx)
  vy = unbiased * (averaged(y * y) - my * my)
  vxy = unbiased * (averaged(x * y) - mx * my)
  a, b = 0.02**2, 0.06**2
  wanted = (2 * mx * my + a) * (2 * vxy + b)
  wanted /= (mx**2 + my**2 + a) * (vx + vy + b)
  found = objective.ssim(x[..., None], y[..., None], gaussian=gaussian)
  assert found == pytest.approx(wanted[pad:-pad, pad:-pad].mean(), rel=1e-9)
  assert objective.ssim(x[..., None], x[..., None]) == pytest.approx(1)
  with pytest.raises(ValueError, match="at least"):
    objective.ssim(x[:4, :, None], y[:4, :, None])


def test_psnr_of_a_known_error():
  x = np.zeros((4, 4, 1))
  # An error of 25 of 255 is 20 log10(255 / 25) dB.
  assert objective.psnr(x, x + 50 / 255) == pytest.approx(20.172, abs=1e-3)
  assert objective.psnr(x, x) == float("inf")


def plain(**more):
  model = find("models", "dncnn", "name")(channels=1, depth=4, width=4, **more)
  params, state = model.init(jax.random.key(0))
  # Batch norm of other statistics than 0 and 1.
  state = jax.tree.map(lambda x: x + 0.5, state)
  return jax.jit(
    lambda x: model.apply(params, state, x, jnp.full((1,), 9.0))[0]
  )


@pytest.mark.parametrize(
  ("more", "margin", "multiple"),
  [({}, 4, 1), ({"halved": True, "level_map": True}, 8, 2)],
)
def test_tiles_are_the_whole(more, margin, multiple):
  denoise, x = plain(**more), pictures((37, 45, 1))
  whole = np.asarray(denoise(x[None]))[0]
  tiled = objective.tiled(denoise, x, 24, margin, multiple)
  np.testing.assert_allclose(tiled, whole, atol=1e-5)
  # The test can fail: with margins that are too narrow, tiles show.
  bad = objective.tiled(denoise, x, 24, 0, multiple)
  assert np.abs(bad - whole).max() > 1e-4
  with pytest.raises(ValueError, match="leaves no"):
    objective.tiled(denoise, x, 2 * margin, margin)


def test_every_pixel_is_of_one_tile():
  for size, tile, margin, multiple in itertools.product(
    (5, 16, 17, 40), (16, 20), (0, 3, 6), (1, 4)
  ):
    cuts = objective._cuts(size, tile, margin, multiple)
    assert [c[2] for c in cuts] == [0, *(c[3] for c in cuts[:-1])]
    assert cuts[-1][3] == size
    for begin, end, low, high in cuts:
      assert begin % multiple == 0 and begin <= low < high <= end <= size
      assert low == 0 or low - begin >= margin
      assert high == size or end - high >= margin


def identity(scale):
  """A "model" that finds a share of its input to be noise."""
  from models import Model

  def apply(params, state, x, level_B, **how):
    return scale * x + 0 * level_B[:, None, None, None], state

  return Model(None, apply)


def batch_of(count, seed=0):
  return {
    "image": jnp.asarray(pictures((count, 12, 12, 1), seed)),
    "index": jnp.arange(count) + 7,
    "mask": jnp.ones(count),
  }


def test_noise_of_an_evaluation_depends_on_the_index_alone():
  task = denoising(identity(0.25), level=25.0)
  nothing = types.Variables({}, {})
  at = types.Context(jax.random.key(1), jnp.int32(0), train=False)
  batch = batch_of(3)
  parts = [jax.tree.map(lambda x, i=i: x[i : i + 1], batch) for i in range(3)]
  loss = jax.jit(task.losses["loss"])
  whole, _ = loss(nothing, batch, at)
  each = [loss(nothing, part, at)[0] for part in parts]
  assert float(whole.total) == pytest.approx(sum(float(e.total) for e in each))
  # E (0.75 (x + n) - x)^2 = x^2 / 16 + (0.75 * 25 / 127.5)^2
  wanted = np.mean(batch["image"] ** 2) / 16 + (0.75 * 25 / 127.5) ** 2
  assert float(whole.value()) == pytest.approx(float(wanted), rel=0.2)
  # In training, levels are drawn from the range.
  train = at._replace(train=True)
  none = denoising(identity(0.0), sigma=0).losses["loss"](nothing, batch, train)
  assert float(none[0].total) == 0


def test_the_evaluator_measures_each_image(tmp_path):
  task = denoising(identity(0.25))
  batch = batch_of(3)
  batch["mask"] = jnp.asarray([1.0, 1.0, 0.0])
  given = types.EvalContext(
    task=task,
    batches=lambda: iter([batch]),
    decode=None,
    encode=None,
    num_classes=None,
    workdir=str(tmp_path),
    key="test",
    rng=jax.random.key(0),
    load=None,
    say=lambda line: None,
  )
  found = evaluator(given, level=50.0)(types.Variables({}, {}), 3)
  noise = objective.noise_of(given.rng, batch["index"], (12, 12, 1))
  clean = np.asarray(batch["image"], float)[:2]
  noisy = clean + 50 / 127.5 * np.asarray(noise, float)[:2]
  for key, image in (("psnr", 0.75 * noisy), ("noisy_psnr", noisy)):
    error = np.clip(image, -1, 1) - clean
    decibel = 10 * np.log10(4 / (error**2).mean((1, 2, 3)))
    assert found[key] == pytest.approx(decibel.mean(), rel=1e-5)
  assert 0 < found["ssim"] < 1 and (tmp_path / "samples").exists()
  tiled = evaluator(given, level=50.0, tile=10, margin=2, multiple=1)
  assert tiled(types.Variables({}, {}), 3) == pytest.approx(found, rel=1e-5)


def test_levels_and_targets_are_checked():
  for wrong in ({"sigma": (5, 1)}, {"target": "both"}, {"level": -1.0}):
    with pytest.raises(ValueError):
      denoising(identity(0), **wrong)
  task = denoising(identity(0.25), target="image")
  batch = batch_of(2) | {"level": jnp.ones(2)}
  found = task.predict["denoised"](types.Variables({}, {}), batch, None)
  np.testing.assert_allclose(found, 0.25 * batch["image"])
