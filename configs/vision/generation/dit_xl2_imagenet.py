r"""DiT-XL/2 on ImageNet-1k at 256 x 256 pixels (Peebles and Xie 2023).

A transformer of 28 layers removes noise from latents of 32 x 32 x 4. It has the
published 675 million parameters, less the 0.02 million of the learned variances
of noise, which this code does not learn. Expected after the 400,000 steps of
the paper's comparisons: a Fréchet distance of about 19.5 in the features of
Inception without guidance, and 9.6 after 7 million steps. Not measured here.
Planned by train.plan for v5e:8x8: 0.9 GB per chip, at most 3,530 images/s, a
bound that the network between the chips sets.

  python -m train.main --config=dit_xl2_imagenet \
    --config.init_from.autoencoder=runs/vae_imagenet

The autoencoder has the shape of Stable Diffusion's, which halves the pictures
three times. It is a run of the task variational_autoencoder on the same data
with the arguments of config.model.autoencoder as its config.model, and a
Gaussian likelihood:

  python -m train.main --config=vae_fashion_mnist \
    --config.data.source=tfds:imagenet2012 --config.task.likelihood=gaussian \
    --config.data.ops='decode(3)|random_resized_crop(256)|flip|scale(-1, 1)' \
    --config.model.widths='(128, 256, 512, 512)' --config.model.depth=2 \
    --config.model.groups=32 --workdir=runs/vae_imagenet

config.task.latent_scale must then bring the variance of latents to about 1. The
source is TFDS's; ImageNet's own tar files are read as in resnet50_imagenet.
"""

from ml_collections import ConfigDict

from configs import common
from configs.vision.parts import diffusion


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.batch_size = 256
  config.total_steps = 400_000
  config.task = dict(
    name="diffusion",
    schedule="linear",
    latent_scale=0.18215,
    likelihood="gaussian",
    steps=250,
    guidance=1.5,
  )
  config.model = dict(
    name="latent_diffusion",
    autoencoder=dict(latent=4, widths=(128, 256, 512, 512), depth=2, groups=32),
    denoiser=dict(
      name="dit", patch=2, layers=28, dim=1152, heads=16, remat="full"
    ),
    dtype="bfloat16",
  )
  config.init_from = dict(autoencoder="")
  config.learner = dict(
    name="supervised", wrap=[dict(name="ema", decay=0.9999)]
  )
  config.optimizer = dict(name="adamw", lr=1e-4, weight_decay=0.0)
  config.planned = dict(num_classes=1000)
  config.data = dict(
    source="tfds:imagenet2012",
    ops="decode(3)|resize_small(256)|central_crop(256)|flip|scale(-1, 1)",
  )
  config.evals = dict(
    grid=dict(
      name="samples",
      split="validation",
      ops="decode(3)|resize_small(256)|central_crop(256)|scale(-1, 1)",
      count=64,
      every_steps=10_000,
    ),
  )
  config.checkpoint = dict(every_steps=5000, keep=2)
  config.mesh = dict(fsdp=-1)
  config.sharding = [(".*", "fsdp")]
  if common.is_smoke(arg):
    diffusion.shrink_image_diffusion(
      config,
      model=dict(
        random_autoencoder=True,
        autoencoder=dict(latent=2, widths=(4, 8), groups=4),
        denoiser=dict(name="dit", patch=2, layers=2, dim=16, heads=2),
      ),
    )
    config.evals.grid.ops = ""
  return config
