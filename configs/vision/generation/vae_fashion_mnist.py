r"""A variational autoencoder of Fashion-MNIST (Kingma and Welling 2014).

The figure is test/nats, the negative ELBO of an image in nats, with greys
between 0 and 1 as probabilities of a Bernoulli likelihood. Measured on 2 shared
CPU cores, used as two devices, in 8 min: 255.92 nats; diffusers' AutoencoderKL
trained alike has 254.45 and 254.88 (benchmarks/vision/vae_twin.py).

  python -m input_pipeline.fetch fashion_mnist
  python -m train.main --config=vae_fashion_mnist \
    --workdir=runs/vae

Each evaluation draws samples, reconstructions and interpolations between
pictures in WORKDIR/samples. latent_fashion_mnist.py learns a diffusion in the
latents of this run.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 1000
  config.batch_size = 128
  config.task = dict(name="variational_autoencoder", likelihood="bernoulli")
  config.model = dict(name="vae", latent=4, widths=(16, 32, 32), depth=1)
  config.learner = dict(
    name="supervised", wrap=[dict(name="ema", decay=0.995, warmup=True)]
  )
  config.optimizer = dict(
    name="adam", lr=1e-3, schedule="cosine", warmup_steps=100, clip_norm=100.0
  )
  config.data = dict(
    source="idx:data/fashion_mnist", ops="decode(1)|resize(28)|scale(-1, 1)"
  )

  def pictures(of: str) -> dict:
    return dict(name="samples", of=of, split="test", count=64, every_steps=500)

  config.evals = dict(
    test=dict(name="mean", split="test", every_steps=500),
    samples=pictures("samples"),
    reconstructions=pictures("reconstructions"),
    interpolations=pictures("interpolations"),
  )
  config.checkpoint = dict(every_steps=500, keep=2)
  config.mesh = dict(data=-1)
  if common.is_smoke(arg):
    common.shrink(
      config,
      batch_size=8,
      model=dict(latent=2, widths=(4, 8), groups=4),
      data=dict(source="fake:image?n=40&size=8&channels=1", ops=""),
    )
    for key in ("samples", "reconstructions", "interpolations"):
      config.evals[key].count = 4
  return config
