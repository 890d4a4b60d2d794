r"""A small DnCNN that removes noise from photographs (Zhang et al. 2017).

Grey photographs of the Berkeley segmentation data set: 400 of 180 x 180 pixels
for training, and BSD68, 68 of 481 x 321, for testing, with Gaussian noise of
standard deviation 25 of 255.

  git clone https://github.com/cszn/DnCNN data/dncnn
  ln -s dncnn/TrainingCodes/DnCNN_TrainingCodes_v1.0/data data/denoise_bsd
  python -m train.main --config=dncnn_bsd

Upright pictures are turned, so that all have one size.

--config.task.sigma='(0, 55)' trains one model for all levels of noise, and
--config.evals.test.level=50 measures another level. FFDNet is
--config.model.name=ffdnet --config.task.target=image, with the same sigma.
Published on BSD68 at 25: BM3D 28.57 dB, DnCNN-S 29.23 dB with 17 layers of
width 64 at full resolution. Here, 2 x 2 pixels become the channels of one, as
in FFDNet, for a quarter of the computation. Not yet
measured for all its steps: test/psnr 23.5 dB after 74 of them, on 2 shared CPU
cores; the noisy pictures have 20.5 dB.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.total_steps = 5000
  config.batch_size = 64
  config.task = dict(name="denoising", sigma=(25.0, 25.0))
  config.model = dict(name="dncnn", depth=12, width=48, halved=True)
  config.learner = dict(name="supervised")
  config.optimizer = dict(
    name="adam", lr=1e-3, schedule="cosine", warmup_steps=100
  )
  config.planned = dict(source="fake:image?size=180&channels=1&dtype=uint8")
  config.data = dict(
    source="images:data/denoise_bsd/Train400",
    split="all",
    ops="decode(1)|random_crop(48)|flip|flip(vertical=True)|scale(-1, 1)",
  )
  config.evals = dict(
    test=dict(
      name="denoising",
      source="images:data/denoise_bsd/Set68",
      split="all",
      ops="decode(1)|landscape|central_crop((321, 481))|scale(-1, 1)",
      level=25.0,
      every_steps=1000,
    ),
  )
  config.checkpoint = dict(every_steps=1000, keep=2)
  config.mesh = dict(data=-1)
  if common.is_smoke(arg):
    fake = "fake:image?n=16&size=24&channels=1&dtype=uint8"
    common.shrink(
      config,
      batch_size=8,
      model=dict(depth=4, width=8),
      data=dict(source=fake, ops="random_crop(16)|flip|scale(-1, 1)"),
    )
    config.evals.test.update(
      source=fake, ops="landscape|central_crop(24)|scale(-1, 1)"
    )
  return config
