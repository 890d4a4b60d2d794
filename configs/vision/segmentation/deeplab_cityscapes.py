r"""DeepLabV3 on Cityscapes: streets in 19 classes (arXiv:1706.05587, 4.3).

ResNet-101 with output stride 16, batches of 16 crops of 769 x 769 pixels,
90,000 steps, and a rate that falls as the power 0.9 of the steps that are left.
There is an auxiliary head as in torchvision, and no multi-grid. Expected, from
a backbone that is trained on ImageNet: about 77 % mIoU on the pictures of val,
each taken whole (paper, table 6: 77.23 %, with multi-grid). Not measured here.
Meant for v5e:4x4, one crop a chip; train.plan was not run to its end here.

  python -m train.main --config=deeplab_cityscapes \
    --config.init_from.path=resnet101.safetensors \
    --config.init_from.map="[['^', 'backbone/']]"

Cityscapes needs a registration (cityscapes-dataset.com); data/cityscapes holds
leftImg8bit and gtFine, as they are unpacked. Squares with a side of 384 to 971
pixels of a picture of 1024 x 2048 are resized to 769. Other street scenes, and
medical or aerial pictures, are the same config with another
--config.data.source='masks:DIR?classes=N'.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  config = ConfigDict()
  config.seed = 0
  config.batch_size = 16
  config.total_steps = 90_000
  config.task = dict(name="segmentation", auxiliary=0.4)
  config.model = dict(
    name="deeplab",
    depth=101,
    output_stride=16,
    rates=(6, 12, 18),
    auxiliary=True,
    dtype="bfloat16",
  )
  config.learner = dict(name="supervised")
  config.optimizer = dict(
    name="sgd",
    momentum=0.9,
    lr=0.007,
    schedule="polynomial_schedule",
    end_value=0.0,
    power=0.9,
    l2=1e-4,
  )
  normalize = "normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])"
  config.planned = dict(source="fake:masks?size=1024&classes=19")
  config.data = dict(
    source="masks:data/cityscapes?ids=train",
    ops="decode(3)|decode_mask"
    "|random_resized_crop(769, area=(0.07, 0.45), ratio=(1.0, 1.0))"
    f"|flip|{normalize}",
  )
  config.evals = dict(
    val=dict(
      name="segmentation",
      split="val",
      ops=f"decode(3)|decode_mask|{normalize}",
      pictures=4,
      every_steps=5000,
    ),
  )
  config.checkpoint = dict(every_steps=2500, keep=2)
  config.mesh = dict(data=-1)
  if common.is_smoke(arg):
    common.shrink(
      config,
      batch_size=8,
      model=dict(depth=18, width=4, features=8),
      data=dict(
        source="fake:masks?n=40&size=40",
        ops="decode_mask|random_resized_crop(33)|flip|to_float",
      ),
    )
    config.evals.val.update(ops="decode_mask|to_float", window=(33, 33))
  return config
