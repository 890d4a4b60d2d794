r"""ViT-S/16 on ImageNet-1k, 90 epochs (Beyer et al. 2022, a plain baseline).

Expected: about 76 % accuracy on the validation images. Not measured here.
Planned by train.plan for v5e:4x4: 5.4 GB per chip, at most 27,300 images/s.

  python -m train.main --config=vit_imagenet

The source is TFDS's. ImageNet's own tar files can be read without unpacking
them; FILE lists the WordNet id of each validation image, or is Kaggle's
LOC_val_solution.csv:

  python -m train.main --config=vit_imagenet \
    --config.data.source='tar:DIR/ILSVRC2012_img_[tv][ra]*.tar?labels=FILE'

The augmentation, mirroring, random crops, RandAugment and mixup, is for
photographs in which the object is large. Where the mirror image has another
meaning (digits, letters, signs, left and right in medical images) remove "flip"
from config.data.ops; where colour or orientation decides the class, remove
"randaugment" too; where a part of the picture does not show the class, replace
random_resized_crop by resize(224).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.batch_size = 1024
  config.total_steps = 90 * 1_281_167 // config.batch_size
  config.task = dict(name="image_classification", mixup=0.2)
  config.model = dict(name="vit", variant="S/16", pool="gap", dtype="bfloat16")
  config.learner = dict(name="supervised")
  config.optimizer = dict(
    name="adamw",
    lr=1e-3,
    schedule="cosine",
    warmup_steps=10_000,
    weight_decay=0.1,
    clip_norm=1.0,
  )
  config.planned = dict(num_classes=1000)
  config.data = dict(
    source="tfds:imagenet2012",
    ops=(
      "decode(3)|random_resized_crop(224, area=(0.05, 1))|flip"
      "|randaugment(2, 10)|scale(-1, 1)"
    ),
  )
  config.evals = dict(
    val=dict(
      name="classification",
      split="validation",
      ops="decode(3)|resize_small(256)|central_crop(224)|scale(-1, 1)",
      every_steps=5000,
    ),
  )
  config.checkpoint = dict(every_steps=2500, keep=2)
  config.mesh = dict(data=-1)
  config.sharding = [(".*", "fsdp")]
  if common.is_smoke(arg):
    common.shrink(
      config,
      batch_size=8,
      model=dict(variant="Ti/16", layers=2, dim=16, heads=2),
      data=dict(source="fake:image?n=40&size=32&channels=3", ops=""),
    )
    config.optimizer.warmup_steps = 1
    config.evals.val.ops = ""
  return config
