r"""Text to pictures of Fashion-MNIST: a diffusion transformer reads captions.

The captions are the names of the classes in a sentence, "a picture of a
sandal", as bytes; each block attends to them (Peebles and Xie 2023, with the
cross-attention of Rombach et al. 2022). A tenth of them are left out in
training, for guidance (Ho and Salimans 2022). test/frechet as in
ddpm_fashion_mnist. Not yet measured.

  python -m input_pipeline.fetch fashion_mnist
  python -m train.main --config=configs/vision/conv_fashion_mnist.py \
    --workdir=runs/conv
  python -m train.main --config=configs/vision/text_fashion_mnist.py \
    --config.evals.test.classifier=runs/conv
"""

from ml_collections import ConfigDict

from configs import common
from configs.vision.parts import diffusion

_NAMES = (
  "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt",
  "sneaker", "bag", "ankle boot",
)  # fmt: skip


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = diffusion.image_diffusion(total_steps=8000)
  config.task.update(kind="flow", text=True, guidance=1.5)
  config.model = dict(name="dit", patch=4, layers=6, dim=128, heads=4, text=32)
  captions = f"caption({_NAMES!r}, length=32)"
  config.data.ops += f"|{captions}"
  if common.is_smoke(arg):
    diffusion.shrink_image_diffusion(
      config, model=dict(patch=4, layers=2, dim=16, heads=2)
    )
    config.data.update(
      source="fake:image?n=40&size=8&channels=1&classes=10", ops=captions
    )
  return config
