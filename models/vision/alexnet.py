"""AlexNet: five convolutions, then dense layers.

The shape legend is in models/layers/basic.py; images are B, height, width, C.
"""

from collections.abc import Sequence

from models import Model, pure
from models.layers.basic import choose, float_dtype
from models.vision.vgg import SHARDING as SHARDING
from models.vision.vgg import ConvStack, Shape

# Size, stride and padding of the first convolution; (window, stride) of the
# poolings; height and width of what the dense layers read.
STEMS = {
  "imagenet": ((11, 4, 2), (3, 2), 6),
  "cifar": ((5, 1, 2), (2, 2), 4),
}


def alexnet(
  *,
  num_classes: int,
  channels: int = 3,
  image_size: int = 224,
  stem: str = "imagenet",
  width: int = 64,
  hidden: Sequence[int] = (4096, 4096),
  grid: int | None = None,
  batchnorm: bool = False,
  dropout: float = 0.5,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """AlexNet, image_BHWC -> logits_BC in float32.

  Krizhevsky et al., 2012, with the widths of arXiv:1404.5997, one column and no
  response normalization. The method "features" returns x_BF, the input of the
  last layer.

  Args:
    num_classes: C of the logits.
    channels: C of the images.
    image_size: height and width of the images.
    stem: "imagenet", a first convolution of 11 x 11 with stride 4 and poolings
      of 3 x 3 with stride 2; or "cifar", 5 x 5 with stride 1 and poolings of
      2 x 2, for images of about 32 x 32.
    width: channels of the first convolution; the others have 3, 6, 4 and 4
      times as many.
    hidden: widths of the hidden dense layers.
    grid: height and width of the means that the dense layers read, see
      models/vision/vgg.py; 6 for the stem "imagenet" and 4 for "cifar" if None.
    batchnorm: whether there is batch norm between each convolution and its
      relu (arXiv:1502.03167).
    dropout: rate, before each hidden dense layer.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: the stem or a dtype is unknown, or the images are too small.
  """
  first, pool, found = STEMS[choose("stem", stem, STEMS)]
  shapes = [
    Shape(width, *first, pool=pool),
    Shape(3 * width, 5, 1, 2, pool=pool),
    Shape(6 * width),
    Shape(4 * width),
    Shape(4 * width, pool=pool),
  ]
  config = {
    "num_classes": num_classes,
    "channels": channels,
    "image_size": image_size,
    "shapes": shapes,
    "grid": grid or found,
    "hidden": tuple(hidden),
    "batchnorm": batchnorm,
    "dropout": dropout,
    "dropout_first": True,
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }
  return pure(lambda rngs: ConvStack(rngs=rngs, **config))
