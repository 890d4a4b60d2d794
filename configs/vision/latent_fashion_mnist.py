r"""Diffusion in the latents of a VAE of Fashion-MNIST (Rombach et al. 2022).

A transformer learns the flow from noise to the 7 x 7 latents of the run of
vae_fashion_mnist, which stays as it is. test/frechet as in ddpm_fashion_mnist.
MEASURED

  python -m input_pipeline.fetch fashion_mnist
  python -m train.main --config=configs/vision/conv_fashion_mnist.py \
    --workdir=runs/conv
  python -m train.main --config=configs/vision/vae_fashion_mnist.py \
    --workdir=runs/vae
  python -m train.main --config=configs/vision/latent_fashion_mnist.py \
    --config.init_from.autoencoder=runs/vae \
    --config.evals.test.classifier=runs/conv

config.model.autoencoder must have the sizes of that run.
"""

from ml_collections import ConfigDict

from configs import common
from configs.vision.parts import diffusion


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = diffusion.image_diffusion(total_steps=8000)
  config.task.update(kind="flow", latent_scale=1.0)
  config.model = dict(
    name="latent_diffusion",
    autoencoder=dict(latent=4, widths=(16, 32, 32)),
    denoiser=dict(name="dit", patch=1, layers=6, dim=192, heads=6),
  )
  config.init_from = dict(autoencoder="")
  if common.is_smoke(arg):
    diffusion.shrink_image_diffusion(
      config,
      model=dict(
        autoencoder=dict(latent=2, widths=(4, 8), groups=4),
        denoiser=dict(name="dit", patch=2, layers=2, dim=16, heads=2),
      ),
    )
  return config
