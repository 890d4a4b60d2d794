"""A denoiser in the latents of an autoencoder."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from jax.sharding import PartitionSpec as P

from common import names
from models import Model
from models.vision import dit, unet, vae


class LatentDiffusion(NamedTuple):
  """Two networks.

  denoiser: z_BHWZ, time_B, label_B -> z_BHWZ.
  autoencoder: has the methods "encode" and "decode" of `vae`.
  needs: the networks that must begin with the parameters of another run; see
    train/initialization.py.
  """

  denoiser: Model
  autoencoder: Model
  needs: tuple[str, ...] = ("autoencoder",)


def latent_diffusion(
  *,
  channels: int,
  image_size: int,
  denoiser: Mapping[str, Any],
  autoencoder: Mapping[str, Any] | None = None,
  num_classes: int | None = None,
  random_autoencoder: bool = False,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> LatentDiffusion:
  """Latent diffusion (Rombach et al., 2022, arXiv:2112.10752).

  The autoencoder is trained by another run, and is given by
  config.init_from.autoencoder, without which no run begins.

  Args:
    channels: C of the images.
    image_size: height and width of the images.
    denoiser: the name of a model of images with a time and a class, such as
      "dit" or "unet", and its arguments.
    autoencoder: arguments of `vae`, as in the run that trained it.
    num_classes: number of classes; None for no classes.
    random_autoencoder: whether a run without config.init_from.autoencoder may
      begin, whose latents are those of a random network, as in tests.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    UserError: an argument of a network is unknown.
    ValueError: an argument of a network is out of range.
  """
  common = {"dtype": dtype, "param_dtype": param_dtype}
  coder = {"latent": 4, "widths": (16, 32, 32), **(autoencoder or {})}
  where = "config.model.autoencoder"
  offered = {"channels": channels, **common}
  made = names.call(vae.vae, where=where, settings=coder, offered=offered)
  own = dict(denoiser)
  where = "config.model.denoiser"
  if "name" not in own:
    raise ValueError('denoiser has no name, such as "dit"')
  function = names.find("models", own.pop("name"), f"{where}.name")
  offered |= {
    "channels": coder["latent"],
    "image_size": image_size // 2 ** (len(coder["widths"]) - 1),
    "num_classes": num_classes,
  }
  found = names.call(function, where=where, settings=own, offered=offered)
  needs = () if random_autoencoder else ("autoencoder",)
  return LatentDiffusion(found, made, needs)


# The autoencoder is small, and is whole on each device.
SHARDING = [(r"autoencoder/", P()), *dit.SHARDING, *unet.SHARDING]
