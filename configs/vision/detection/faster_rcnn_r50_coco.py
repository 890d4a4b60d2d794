r"""Faster R-CNN with a ResNet-50-FPN on COCO (arXiv:1506.01497, 1612.03144).

torchvision's fasterrcnn_resnet50_fpn: levels P2 to P6, anchors of 32 to 512
pixels in three ratios, a head of 1,024 units, and frozen batch norm. For 90
classes that has 41,755,286 parameters, of which 4,100 are codes of no object,
which are never used and do not exist here; COCO has 80 classes. The schedule
called 1x: 90,000 steps of 16 pictures. Expected from a backbone that is trained
on ImageNet: about 37 % AP on val2017 (36.7 % in Detectron's model zoo; 37.0 %
in torchvision's, after 26 epochs). Not measured here.

Meant for v5e:4x4, one picture a chip; train.plan was not run to its end here.

  python -m train.main --config=faster_rcnn_r50_coco \
    --init_from=resnet50.safetensors

The file of weights, in torchvision's or transformers' layout, becomes the
backbone, whose stem and first stage are not trained; a run without it begins at
random and learns little. data/coco holds train2017, val2017 and annotations,
unpacked from the archives of cocodataset.org. Pictures are scaled to fit into
1088 x 1088 pixels, so that those of 640 x 480 have 1088 x 816; published are
1066 x 800. Other pictures with boxes are the same config with another
--config.data.source, such as coco:DIR or voc:DIR.
"""

from ml_collections import ConfigDict

from configs import common
from configs.vision.parts.coco import coco, shrink_coco


def get_config(arg: str = "") -> ConfigDict:
  """The experiment; "smoke" makes it tiny, on fake data."""
  normalize = "normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])"
  config = coco(
    size=1088,
    train=f"{normalize}|letterbox(1088)|flip",
    test=f"{normalize}|letterbox(1088)",
    every_steps=10_000,
  )
  config.batch_size = 16
  config.total_steps = 90_000
  config.task = dict(
    name="two_stage_detection",
    proposals=1000,
    candidates=1000,
    anchors=256,
    regions=512,
  )
  config.model = dict(
    name="faster_rcnn",
    backbone="resnet",
    depth=50,
    width=64,
    norm="frozen",
    strides=(4, 8, 16, 32),
    coarser=True,
    sizes=((32,), (64,), (128,), (256,), (512,)),
    ratios=(0.5, 1.0, 2.0),
    features=256,
    hidden=1024,
    dtype="bfloat16",
  )
  config.init_from = dict(path=None, map=(("^", "backbone/"),))
  config.learner = dict(name="supervised")
  config.optimizer = dict(
    name="sgd",
    momentum=0.9,
    lr=0.02,
    schedule="step",
    boundaries=(60_000, 80_000),
    warmup_steps=1000,
    l2=1e-4,
    freeze=("^backbone/(stem|blocks/[012])/",),
  )
  if common.is_smoke(arg):
    shrink_coco(
      config,
      "letterbox(40)|flip",
      dict(
        depth=18,
        width=2,
        features=4,
        hidden=8,
        sizes=((4,), (8,), (12,), (16,), (24,)),
      ),
      proposals=8,
      candidates=16,
      anchors=16,
      regions=8,
    )
    config.optimizer.update(warmup_steps=1, boundaries=(2, 3))
  return config
