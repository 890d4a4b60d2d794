"""Noise, predictions and samplers, against formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import Model
from models.vision.latent_diffusion import LatentDiffusion
from train import types
from train.objectives import diffusion as objective
from train.tasks.diffusion import diffusion


def test_the_schedules_are_the_papers():
  linear = objective.signal_shares("linear", 1000)
  assert linear[0] == pytest.approx(1 - 1e-4)
  assert linear[-1] == pytest.approx(4.0358e-5, rel=1e-3)
  cosine = objective.signal_shares("cosine", 1000)
  at = np.cos((np.array([0, 500]) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
  assert cosine[499] == pytest.approx(at[1] / at[0], rel=1e-9)
  assert (np.diff(linear) < 0).all() and (np.diff(cosine) < 0).all()


@pytest.mark.parametrize("prediction", objective.PREDICTIONS)
def test_predictions_are_inverted(prediction):
  rng = np.random.default_rng(0)
  x0, noise = rng.normal(size=(2, 5))
  a, s = np.sqrt(0.3), np.sqrt(0.7)
  output = objective.target(x0, noise, a, s, prediction)
  found = objective.parts(output, a * x0 + s * noise, a, s, prediction)
  np.testing.assert_allclose(found, (x0, noise), atol=1e-9)


def oracle(mean, how):
  """The best prediction for data that are N(mean, 0.04)."""

  def denoise(x, time_B):
    if how.shares is None:
      a, s = 1 - time_B[:, None] / 1000, time_B[:, None] / 1000
    else:
      share_B = jnp.asarray(how.shares, jnp.float32)[time_B.astype(int)]
      a, s = jnp.sqrt(share_B)[:, None], jnp.sqrt(1 - share_B)[:, None]
    x0 = mean + 0.04 * a / (0.04 * a**2 + s**2) * (x - a * mean)
    noise = (x - a * x0) / s
    return objective.target(x0, noise, a, s, how.prediction)

  return denoise


@pytest.mark.parametrize(
  ("kind", "name", "steps", "prediction", "eta"),
  [
    ("diffusion", "ddim", 50, "eps", 0.0),
    ("diffusion", "ddim", 200, "v", 1.0),
    ("diffusion", "ddpm", 200, "x0", 0.0),
    ("flow", "euler", 100, "eps", 0.0),
    ("flow", "heun", 20, "eps", 0.0),
  ],
)
def test_samplers_find_the_distribution(kind, name, steps, prediction, eta):
  how = objective.noising(kind, "cosine", prediction, 200)
  sample = objective.sampler_of(how, name, steps, eta, clip=0.0)
  x = jax.random.normal(jax.random.key(0), (4000, 1))
  found = jax.jit(lambda x: sample(oracle(0.5, how), x, jax.random.key(1)))(x)
  assert float(found.mean()) == pytest.approx(0.5, abs=0.03)
  assert float(found.std()) == pytest.approx(0.2, abs=0.02)


def test_heun_is_of_second_order():
  how = objective.noising("flow", "cosine", "eps", 10)
  x = jax.random.normal(jax.random.key(0), (50, 1))
  # The exact flow maps quantiles of N(0, 1) to those of N(0.5, 0.04).
  exact = 0.5 + 0.2 * x

  def error(method, steps):
    found = objective.flow(
      oracle(0.5, how), x, jax.random.key(1), steps, method
    )
    return float(jnp.abs(found - exact).max())

  assert error("euler", 40) < 0.7 * error("euler", 20)
  assert error("heun", 20) < 0.3 * error("euler", 20)


@pytest.mark.parametrize("name", ["ddim", "ddpm", "euler", "heun"])
def test_a_sampler_resumes_to_the_bit(name):
  flow = name in ("euler", "heun")
  kind = "flow" if flow else "diffusion"
  how = objective.noising(kind, "linear", "eps", 30)
  rng, shares_T = jax.random.key(3), objective.signal_shares("linear", 30)
  plan = objective.Diffusion(shares_T, steps=8)

  def run(x, begin=0, end=None):
    denoise = oracle(0.5, how)
    if flow:
      return objective.flow(denoise, x, rng, 8, name, begin, end)
    if name == "ddpm":
      return objective.ddpm(denoise, x, rng, plan, begin, end)
    return objective.ddim(denoise, x, rng, plan, 1.0, begin, end)

  x = jax.random.normal(jax.random.key(0), (3, 2))
  whole = run(x)
  resumed = run(run(x, end=5), begin=5)
  assert np.array_equal(whole, resumed)
  assert np.array_equal(whole, run(x))


def test_guidance_is_linear_in_the_outputs():
  def denoise(x, time_B, label_B):
    return x * label_B[:, None] + time_B[:, None]

  x, time_B = jnp.ones((2, 3)), jnp.asarray([1.0, 2.0])
  label_B = jnp.asarray([1, 2])
  outputs = [
    objective.guided(denoise, label_B, 9, weight)(x, time_B)
    for weight in (0.0, 1.0, 3.0)
  ]
  none, given, more = map(np.asarray, outputs)
  np.testing.assert_array_equal(given[:, 0], [2, 4])
  np.testing.assert_array_equal(none[:, 0], [10, 11])
  np.testing.assert_allclose(more, none + 3 * (given - none))


def pictures():
  rng = np.random.default_rng(0)
  return {
    "image": jnp.asarray(rng.uniform(-1, 1, (4, 4, 4, 1)), jnp.float32),
    "label": jnp.asarray([0, 1, 2, 1]),
    "index": jnp.arange(4),
    "mask": jnp.asarray([1.0, 1.0, 1.0, 0.0]),
  }


def recording(seen):
  def apply(params, state, x, time_B, label_B, **how):
    seen.append((x, time_B, label_B))
    return jnp.zeros_like(x), state

  return Model(None, apply)


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
def test_the_loss_is_that_of_the_drawn_noise(kind):
  seen, batch = [], pictures()
  task = diffusion(recording(seen), kind=kind, num_classes=3, drop_label=0.0)
  at = types.Context(jax.random.key(1), jnp.int32(0), train=False)
  mean, _ = task.losses["loss"](types.Variables({}, {}), batch, at)
  ((x, time_B, label_B),) = seen
  assert label_B.tolist() == [0, 1, 2, 1]
  x, image = np.asarray(x, float), np.asarray(batch["image"], float)
  t = np.asarray(time_B, float)[:, None, None, None]
  if kind == "flow":
    noise = (x - (1 - t / 1000) * image) / (t / 1000)
    wanted = noise - image
  else:
    share = objective.signal_shares("cosine", 1000)[np.asarray(time_B)]
    share = share[:, None, None, None]
    wanted = (x - np.sqrt(share) * image) / np.sqrt(1 - share)
  # An output of zeros has the mean square of what is wanted as its loss.
  assert float(mean.value()) == pytest.approx(
    (wanted[:3] ** 2).mean(), rel=1e-3
  )
  # In training, all labels may be left out.
  task = diffusion(recording(seen), kind=kind, num_classes=3, drop_label=1.0)
  train = at._replace(train=True)
  task.losses["loss"](types.Variables({}, {}), batch, train)
  assert seen[-1][2].tolist() == [3] * 4


def test_latents_are_those_of_the_frozen_autoencoder():
  """With a coder that multiplies by a parameter, and halves the image."""

  def code(params, state, x, method):
    if method == "encode":
      mean = params["w"] * x[:, ::2, ::2]
      return (mean, jnp.full_like(mean, -30.0)), state
    return jnp.repeat(jnp.repeat(x / params["w"], 2, 1), 2, 2), state

  seen = []
  coder = Model(lambda rng: ({"w": jnp.asarray(4.0)}, {}), code)
  denoiser = recording(seen)._replace(init=lambda rng: ({}, {}))
  task = diffusion(
    LatentDiffusion(denoiser, coder),
    kind="flow",
    num_classes=3,
    steps=1,
    latent_scale=2.0,
    likelihood="gaussian",
  )
  batch = pictures()
  variables = task.init(jax.random.key(0), batch)
  assert float(variables.frozen["autoencoder"]["params"]["w"]) == 4
  at = types.Context(jax.random.key(1), jnp.int32(0), train=False)
  mean, _ = task.losses["loss"](variables, batch, at)
  ((x, time_B, _),) = seen
  t = np.asarray(time_B, float)[:, None, None, None] / 1000
  latent = 8 * np.asarray(batch["image"], float)[:, ::2, ::2]
  noise = (np.asarray(x, float) - (1 - t) * latent) / t
  square = ((noise - latent)[:3] ** 2).mean()
  assert float(mean.value()) == pytest.approx(square, rel=1e-3)
  # A velocity of 0 leaves the noise as it is; it is scaled and decoded.
  made = task.predict["samples"](variables, batch, at.rng)
  start = jax.random.normal(jax.random.split(at.rng)[0], (4, 2, 2, 1)) / 8
  want = np.clip(np.repeat(np.repeat(start, 2, 1), 2, 2), -1, 1)
  np.testing.assert_allclose(made, want, rtol=1e-5)


def test_latent_diffusion_is_made_of_sections():
  from common.errors import UserError
  from models.vision.latent_diffusion import latent_diffusion

  sizes = {"channels": 1, "image_size": 8, "num_classes": 2}
  given = {"name": "dit", "layers": 1, "dim": 8, "heads": 2}
  coder = {"latent": 3, "widths": (4, 8), "groups": 4}
  found = latent_diffusion(denoiser=given, autoencoder=coder, **sizes)
  params, _ = jax.eval_shape(found.denoiser.init, jax.random.key(0))
  assert params["head"]["kernel"].shape == (8, 2 * 2 * 3)
  with pytest.raises(UserError, match="config.model.denoiser.dpeth"):
    latent_diffusion(denoiser=given | {"dpeth": 1}, **sizes)
  with pytest.raises(ValueError, match="no name"):
    latent_diffusion(denoiser={}, **sizes)


def test_a_latent_diffusion_needs_a_trained_autoencoder():
  from common.errors import UserError
  from configs.vision import latent_fashion_mnist
  from train import build

  config = latent_fashion_mnist.get_config("smoke")
  config.model.random_autoencoder = False
  run = build.run(config, None, say=lambda line: None)
  with pytest.raises(UserError, match="init_from.autoencoder is not set"):
    run.init()


def test_the_text_matters_and_its_end_does_not():
  from models.vision.dit import dit

  sizes = {"layers": 1, "dim": 8, "heads": 2, "patch": 2, "text": 6}
  model = dit(channels=1, image_size=4, **sizes)
  params, _ = jax.jit(model.init)(jax.random.key(0))
  # Gates and the last layer are zeros in the beginning.
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  params = tree.unflatten(
    jax.random.normal(key, leaf.shape) / 4
    for key, leaf in zip(keys, leaves, strict=True)
  )
  run = jax.jit(lambda p, text: model.apply(p, {}, image, time_B, text)[0])
  image = jax.random.normal(jax.random.key(2), (4, 4, 4, 1))
  image = jnp.broadcast_to(image[:1], image.shape)
  time_B = jnp.full(4, 500.0)
  texts = [b"shoe", b"shoe", b"heos", b""]
  rows = [list(text.ljust(6, bytes(1))) for text in texts]
  one, again, other, none = np.asarray(run(params, jnp.asarray(rows)))
  np.testing.assert_array_equal(one, again)
  # The same letters in another order; no text.
  assert np.abs(one - other).max() > 1e-3
  assert np.abs(one - none).max() > 1e-3
  # Places behind the end are not attended to.
  order = params["order"]["embedding"]
  changed = {**params, "order": {"embedding": order.at[4:].add(9.0)}}
  found = np.asarray(run(changed, jnp.asarray(rows)))
  np.testing.assert_allclose(found[0], one, atol=1e-6)


def test_texts_are_left_out_row_by_row():
  from train.objectives import diffusion as objective

  tokens_BS = jnp.ones((64, 3), jnp.int32)
  found = np.asarray(
    objective.without(jax.random.key(0), tokens_BS, share=0.5, none=0)
  )
  assert (found == found[:, :1]).all() and 16 < found[:, 0].sum() < 48


def test_choices_are_checked():
  for wrong in (
    {"kind": "both"},
    {"schedule": "square"},
    {"prediction": "noise"},
    {"sampler": "heun"},
    {"kind": "flow", "sampler": "ddim"},
    {"steps": 2000},
    {"eta": 2.0},
    {"likelihood": "poisson"},
    {"latent_scale": 0.0},
  ):
    with pytest.raises(ValueError):
      diffusion(recording([]), **wrong)
