r"""StyleGAN2 of faces of 256 x 256 pixels, config F (Karras et al. 2020).

30,034,338 parameters of the generator and 28,864,129 of the discriminator, 25
million images. Expected: a Fréchet distance of about 4 in the features of
Inception, of 50,000 images (3.99 in MMGeneration's model zoo), which this code
does not have; the evaluator frechet takes the features of a classifier trained
here. Not measured here.
By train.plan it does not fit on v5e:4x4: a step takes 22.6 GB of a chip's 16.9,
since each chip computes the path lengths of the whole half batch.

  python -m train.main --config=stylegan2_ffhq256

data/ffhq256 holds the 70,000 pictures of FFHQ, https://github.com/NVlabs/
ffhq-dataset, at 256 pixels or more. Other pictures of one kind of thing can be
learned in the same way: --config.data.source='images:DIR'. Mirroring doubles
the pictures; where a mirror image has another meaning remove "flip" from
config.data.ops. With less than about 30,000 pictures add adaptive augmentation,
--config.task.augment=0.6 (arXiv:2006.06676).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.batch_size = 64
  config.total_steps = 25_000_000 // config.batch_size
  config.task = dict(
    name="generative_adversarial",
    r1=1.0,
    r1_every=16,
    path_length=2.0,
    path_every=8,
    mixing=0.9,
  )
  config.model = dict(
    name="stylegan2",
    image_size=256,
    channels=3,
    conditional=False,
    dtype="bfloat16",
  )
  # Half of what is averaged are the last 20,000 images.
  decay = 0.5 ** (config.batch_size / 20_000)
  config.learner = dict(
    name="adversarial",
    wrap=[dict(name="ema", of="generator", decay=decay, warmup=True)],
  )
  config.optimizer = dict(name="adam", lr=2.5e-3, b1=0.0, b2=0.99, eps=1e-8)
  config.planned = dict(source="fake:image?size=256&channels=3&dtype=uint8")
  config.data = dict(
    source="images:data/ffhq256",
    split="all",
    ops="decode(3)|resize(256)|flip|scale(-1, 1)",
  )
  config.evals = dict(
    grid=dict(
      name="samples",
      count=64,
      ops="decode(3)|resize(256)|scale(-1, 1)",
      every_steps=5000,
    ),
  )
  config.checkpoint = dict(every_steps=5000, keep=2)
  config.mesh = dict(data=-1)
  if common.is_smoke(arg):
    common.shrink(
      config,
      batch_size=8,
      task=dict(r1_every=2, path_every=2),
      model=dict(
        image_size=8, latent=4, styles=4, mapping_layers=2, base=32, most=4
      ),
      data=dict(source="fake:image?n=40&size=8&channels=3", ops=""),
    )
    config.data.split = "train"
    config.evals.grid.update(count=4, ops="")
  return config
