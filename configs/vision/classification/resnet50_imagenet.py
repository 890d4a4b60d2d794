r"""ResNet-50 on ImageNet-1k, 90 epochs (He et al. 2016; Goyal et al. 2017).

Expected: about 76 % accuracy on the validation images. Not measured here.
Planned by train.plan for v5e:4x4: 2.9 GB per chip, at most 65,500 images/s.

  python -m train.main --config=resnet50_imagenet

The source is TFDS's. ImageNet's own tar files can be read without unpacking
them; FILE lists the WordNet id of each validation image, or is Kaggle's
LOC_val_solution.csv:

  python -m train.main --config=resnet50_imagenet \
    --config.data.source='tar:DIR/ILSVRC2012_img_[tv][ra]*.tar?labels=FILE'

The augmentation, mirroring and crops of 8 to 100 % of the area, is for
photographs in which the object is large. Where the mirror image has another
meaning (digits, letters, signs, left and right in medical images) remove "flip"
from config.data.ops; where a part of the picture does not show the class,
replace random_resized_crop(224) by resize(224).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.batch_size = 1024
  config.total_steps = 90 * 1_281_167 // config.batch_size
  config.task = dict(name="image_classification", label_smoothing=0.1)
  config.model = dict(name="resnet", depth=50, dtype="bfloat16")
  config.learner = dict(name="supervised")
  config.optimizer = dict(
    name="sgd",
    momentum=0.9,
    nesterov=True,
    lr=0.4,
    schedule="cosine",
    warmup_steps=5 * 1_281_167 // config.batch_size,
    l2=1e-4,
  )
  normalize = "normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])"
  config.planned = dict(num_classes=1000)
  config.data = dict(
    source="tfds:imagenet2012",
    ops=f"decode(3)|random_resized_crop(224)|flip|{normalize}",
  )
  config.evals = dict(
    val=dict(
      name="classification",
      split="validation",
      ops=f"decode(3)|resize_small(256)|central_crop(224)|{normalize}",
      every_steps=5000,
    ),
  )
  config.checkpoint = dict(every_steps=2500, keep=2)
  config.mesh = dict(data=-1)
  if common.is_smoke(arg):
    common.shrink(
      config,
      batch_size=8,
      model=dict(depth=18, width=4),
      data=dict(source="fake:image?n=40&size=32&channels=3", ops=""),
    )
    config.optimizer.warmup_steps = 1
    config.evals.val.ops = ""
  return config
