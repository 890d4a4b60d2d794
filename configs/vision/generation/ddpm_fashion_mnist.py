r"""A diffusion model of Fashion-MNIST, in pixels (Ho et al. 2020).

A small U-Net, given the class, learns 1,000 steps of the cosine schedule; the
average of its parameters is sampled in 25 steps of DDIM. The Fréchet distance,
test/frechet, is computed in the features of a classifier, the workdir of
conv_fashion_mnist; without one, in pixels. DCGAN (gan_fashion_mnist) has 54.0.
Not yet measured.

  python -m input_pipeline.fetch fashion_mnist
  python -m train.main --config=conv_fashion_mnist \
    --workdir=runs/conv
  python -m train.main --config=ddpm_fashion_mnist \
    --config.evals.test.classifier=runs/conv

--config.task.sampler=ddpm --config.task.steps=1000 samples as the paper does;
--config.task.guidance=2 favours typical pictures of a class.
"""

from ml_collections import ConfigDict

from configs import common
from configs.vision.parts import diffusion


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = diffusion.image_diffusion(total_steps=5000)
  config.task.update(kind="diffusion", schedule="cosine", prediction="v")
  config.model = dict(
    name="unet", widths=(24, 48, 48), depth=1, attention=(2,), head_dim=24
  )
  if common.is_smoke(arg):
    diffusion.shrink_image_diffusion(
      config, model=dict(widths=(4, 8), attention=(1,), head_dim=4, groups=2)
    )
  return config
