r"""A diffusion transformer of Fashion-MNIST, in pixels (Peebles and Xie 2023).

It learns the velocity of a flow from noise to pictures (Lipman et al. 2023),
and is sampled in 25 steps of Euler's method. test/frechet as in
ddpm_fashion_mnist. Not yet measured.

  python -m input_pipeline.fetch fashion_mnist
  python -m train.main --config=conv_fashion_mnist \
    --workdir=runs/conv
  python -m train.main --config=dit_fashion_mnist \
    --config.evals.test.classifier=runs/conv

--config.task.kind=diffusion learns the steps of a diffusion instead.
"""

from ml_collections import ConfigDict

from configs import common
from configs.vision.parts import diffusion


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = diffusion.image_diffusion(total_steps=8000)
  config.task.update(kind="flow")
  config.model = dict(name="dit", patch=4, layers=6, dim=128, heads=4)
  if common.is_smoke(arg):
    diffusion.shrink_image_diffusion(
      config, model=dict(patch=4, layers=2, dim=16, heads=2)
    )
  return config
