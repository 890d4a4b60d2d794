r"""Diffusion in the latents of a VAE of Fashion-MNIST (Rombach et al. 2022).

A transformer learns the flow from noise to the 7 x 7 latents of a run of
vae_fashion_mnist, which stays as it is. Its likelihood is a Gaussian of
standard deviation 0.1, which keeps more details than Bernoulli's. Under the
bound, latents have a variance of about 1. test/frechet as in
ddpm_fashion_mnist. Not yet measured.

  python -m input_pipeline.fetch fashion_mnist
  python -m train.main --config=configs/vision/conv_fashion_mnist.py \
    --workdir=runs/conv
  python -m train.main --config=configs/vision/vae_fashion_mnist.py \
    --config.task.likelihood=gaussian --workdir=runs/vae
  python -m train.main --config=configs/vision/latent_fashion_mnist.py \
    --config.init_from.autoencoder=runs/vae \
    --config.evals.test.classifier=runs/conv

config.model.autoencoder and config.task.likelihood must be those of that run.
"""

from ml_collections import ConfigDict

from configs import common
from configs.vision.parts import diffusion


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = diffusion.image_diffusion(total_steps=6500)
  config.task.update(kind="flow", likelihood="gaussian")
  config.model = dict(
    name="latent_diffusion",
    autoencoder=dict(latent=4, widths=(16, 32, 32)),
    denoiser=dict(name="dit", patch=1, layers=6, dim=128, heads=4),
  )
  config.init_from = dict(autoencoder="")
  if common.is_smoke(arg):
    diffusion.shrink_image_diffusion(
      config,
      model=dict(
        random_autoencoder=True,
        autoencoder=dict(latent=2, widths=(4, 8), groups=4),
        denoiser=dict(name="dit", patch=2, layers=2, dim=16, heads=2),
      ),
    )
  return config
