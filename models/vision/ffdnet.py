"""FFDNet: a denoiser that is given the level of the noise."""

from models import Model
from models.vision import dncnn

SHARDING = dncnn.SHARDING


def ffdnet(
  *,
  channels: int,
  depth: int = 15,
  width: int = 64,
  batchnorm: bool = True,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """FFDNet (Zhang et al., 2018, arXiv:1710.04026): `dncnn` on 2 x 2 pixels.

  image_BHWC, level_B -> image_BHWC in float32, the clean image rather than the
  noise: set config.task.target="image". Published for colours: depth 12 and
  width 96.

  Args:
    channels: C of the images.
    depth: number of convolutions.
    width: channels inside.
    batchnorm: whether the inner convolutions are followed by batch norm.
    dtype: of the computation.
    param_dtype: of the parameters.
  """
  return dncnn.dncnn(
    channels=channels,
    depth=depth,
    width=width,
    halved=True,
    level_map=True,
    batchnorm=batchnorm,
    dtype=dtype,
    param_dtype=param_dtype,
  )
