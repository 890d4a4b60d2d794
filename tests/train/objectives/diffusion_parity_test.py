"""Samplers step by step against diffusers' schedulers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.objectives import diffusion as objective

T = 50
BETAS = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
THEIRS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}


def output_of(x, time_B):
  """A stand-in for a network, in NumPy or JAX."""
  return 0.9 * x + 0.1 * (time_B[:, None] / T)


@pytest.mark.parity
@pytest.mark.parametrize("prediction", objective.PREDICTIONS)
@pytest.mark.parametrize("schedule", objective.SCHEDULES)
@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_samplers_are_diffusers_schedulers(sampler, schedule, prediction):
  torch = pytest.importorskip("torch")
  diffusers = pytest.importorskip("diffusers")
  name = {"ddim": "DDIMScheduler", "ddpm": "DDPMScheduler"}[sampler]
  scheduler = getattr(diffusers, name)(
    num_train_timesteps=T,
    beta_schedule=BETAS[schedule],
    prediction_type=THEIRS[prediction],
    timestep_spacing="trailing",
  )
  scheduler.set_timesteps(10)
  shares_T = objective.signal_shares(schedule, T)
  np.testing.assert_allclose(scheduler.alphas_cumprod, shares_T, rtol=1e-4)

  rng, how = jax.random.key(0), objective.Diffusion(shares_T, prediction, 10)
  start = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
  x, ours = torch.tensor(start), jnp.asarray(start)
  assert scheduler.timesteps.tolist() == objective.times_of(how)[0].tolist()
  for i, time in enumerate(scheduler.timesteps):
    output = output_of(x.numpy(), np.full(3, float(time), np.float32))
    noise = np.asarray(jax.random.normal(jax.random.fold_in(rng, i), x.shape))
    if sampler == "ddim":
      found = scheduler.step(
        torch.tensor(output), time, x, eta=0.5,
        variance_noise=torch.tensor(noise),
      )  # fmt: skip
      ours = objective.ddim(output_of, ours, rng, how, 0.5, i, i + 1)
      x = found.prev_sample
    else:
      # Their noise is drawn inside; ours is put in its place.
      with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
          f"{type(scheduler).__module__}.randn_tensor",
          lambda *args, noise=noise, **kwargs: torch.tensor(noise),
        )
        x = scheduler.step(torch.tensor(output), time, x).prev_sample
      ours = objective.ddpm(output_of, ours, rng, how, i, i + 1)
    np.testing.assert_allclose(ours, x.numpy(), atol=1e-4)
