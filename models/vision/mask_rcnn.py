"""A two-stage detector that also finds the pixels of each object.

The shape legend is in models/layers/basic.py; images are B, height, width, C.
R is a region.
"""

from collections.abc import Sequence

import jax
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.layers.basic import Conv
from models.layers.up_convolution import UpConvolution
from models.vision.faster_rcnn import FasterRcnn, settings
from models.vision.yolo import STRIDES

# Cells of each side of a region, which are doubled by the head.
_SIZE = 14
_HE = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


class MaskHead(nnx.Module):
  """Convolutions with relu, one to twice the size, and logits."""

  def __init__(self, features, hidden, count, num_classes, **common):
    common["kernel_init"] = _HE
    sizes = [features, *[hidden] * count]
    pairs = zip(sizes[:-1], sizes[1:], strict=True)
    self.convs = nnx.List(Conv(*pair, 3, **common) for pair in pairs)
    self.up = UpConvolution(sizes[-1], hidden, **common)
    self.logits = Conv(hidden, num_classes, 1, **common)

  def __call__(self, x_BHWC):
    """Returns logits [B, 2 H, 2 W, C]."""
    for conv in self.convs:
      x_BHWC = jax.nn.relu(conv(x_BHWC))
    return self.logits(jax.nn.relu(self.up(x_BHWC)))


class MaskRcnn(nnx.Module):
  """See `mask_rcnn`."""

  def __init__(self, *, mask_features, mask_convs, **detector):
    self.detector = FasterRcnn(**detector)
    common = {k: detector[k] for k in ("dtype", "param_dtype", "rngs")}
    self.dtype = detector["dtype"]
    self.head = MaskHead(
      detector["features"],
      mask_features,
      mask_convs,
      detector["num_classes"],
      **common,
    )

  def __call__(self, image_BHWC):
    """The first stage; see `faster_rcnn`."""
    return self.detector(image_BHWC)

  def regions(self, levels, boxes_BR4):
    """The second stage; see `faster_rcnn`."""
    return self.detector.regions(levels, boxes_BR4)

  def masks(self, levels, boxes_BR4):
    """Logits of the pixels within boxes; see `mask_rcnn`."""
    x = self.detector.cropped(levels, boxes_BR4, _SIZE)
    x = self.head(x.reshape(-1, *x.shape[2:]).astype(self.dtype))
    return x.reshape(*boxes_BR4.shape[:2], *x.shape[1:]).astype("float32")


def mask_rcnn(
  *,
  num_classes: int,
  channels: int,
  width: int = 16,
  depth: int = 1,
  features: int = 64,
  hidden: int = 256,
  mask_features: int = 64,
  mask_convs: int = 4,
  sizes: Sequence[Sequence[float]] = ((32,), (64,), (128,)),
  ratios: Sequence[float] = (0.5, 1.0, 2.0),
  strides: Sequence[int] = STRIDES,
  norm: str = "group",
  backbone: str = "csp",
  coarser: bool = False,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """Mask R-CNN (He et al., 2017, arXiv:1703.06870) with a feature pyramid.

  It is models/vision/faster_rcnn.py, which see for its outputs and its method
  "regions", with a third head: the method "masks" is (levels, boxes_BR4 in
  pixels) -> float32 logits [B, R, 28, 28, C], whether a pixel within a box is
  of an object of each class.

  Args:
    num_classes: C.
    channels: C of the images.
    width: channels of the backbone at half the size.
    depth: factor of the numbers of the backbone's blocks; of a ResNet 18, 34,
      50, 101 or 152.
    features: channels of the pyramid.
    hidden: units of the two layers of the regions' head.
    mask_features: channels of the masks' head.
    mask_convs: its 3 x 3 convolutions.
    sizes: for each level, the sides of its anchors in pixels.
    ratios: height / width of the anchors.
    strides: of the levels, of 4, 8, 16 and 32 some that follow each other.
    norm: of the backbone, "group" or "batch"; of a ResNet "batch" or "frozen".
    backbone: "csp", that of models/vision/yolo.py; or "resnet", that of
      models/vision/resnet.py.
    coarser: whether a further level, every second cell of the last one in both
      directions, has anchors; regions take no features from it.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: an argument is wrong.
  """
  detector = settings(
    num_classes=num_classes,
    channels=channels,
    width=width,
    depth=depth,
    features=features,
    hidden=hidden,
    sizes=sizes,
    ratios=ratios,
    strides=strides,
    norm=norm,
    backbone=backbone,
    coarser=coarser,
    dtype=dtype,
    param_dtype=param_dtype,
  )
  more = {"mask_features": mask_features, "mask_convs": mask_convs}
  return pure(lambda rngs: MaskRcnn(rngs=rngs, **more, **detector))


SHARDING = [
  (r"conv/kernel", P(None, None, None, "tensor")),
  (r"(first|second)/kernel", P(None, "tensor")),
]
