"""An autoencoder whose latents are entries of a codebook.

The shape legend is in models/layers/basic.py; images are B, height, width, C.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from models import Model, pure
from models.layers import basic
from models.vision import vae

SHARDING = vae.SHARDING


class Codebook(nnx.Module):
  """Vectors [K, Z], and the nearest one to each latent.

  With `averages`, training moves each vector towards the mean of the latents
  that chose it, by exponential moving averages of their number and sum, and
  there is nothing to differentiate (van den Oord et al., appendix A.1). One
  that is chosen by fewer than half a latent in a batch is replaced by a latent.
  """

  def __init__(self, entries, latent, *, averages, decay, rngs, param_dtype):
    self.decay, self.use_running_average = decay, False
    bound = 1 / entries
    vectors_KZ = jax.random.uniform(
      rngs.params(), (entries, latent), param_dtype, -bound, bound
    )
    self.vectors = nnx.data(None if averages else nnx.Param(vectors_KZ))
    self.sums = nnx.data(nnx.BatchStat(vectors_KZ) if averages else None)
    self.counts = nnx.data(
      nnx.BatchStat(jnp.ones((entries,), jnp.float32)) if averages else None
    )

  def table(self):
    """The vectors, float32 [K, Z]."""
    if self.vectors is not None:
      return self.vectors[...].astype(jnp.float32)
    # Laplace smoothing keeps the vector of a code that is never chosen finite.
    counts_K, total = self.counts[...], self.counts[...].sum()
    entries = counts_K.shape[0]
    counts_K = (counts_K + 1e-5) / (total + entries * 1e-5) * total
    return jax.lax.stop_gradient(self.sums[...] / counts_K[:, None])

  def __call__(self, z_BHWZ):
    """(vectors [B, h, w, Z], the number of each, int32 [B, h, w])."""
    flat = z_BHWZ.astype(jnp.float32).reshape(-1, z_BHWZ.shape[-1])
    table_KZ = self.table()
    # |z|^2 is the same for every entry.
    distance = jnp.sum(table_KZ**2, axis=1)[None] - 2 * flat @ table_KZ.T
    code = jnp.argmin(distance, axis=1)
    if self.vectors is None and not self.use_running_average:
      self._follow(jax.lax.stop_gradient(flat), code)
    shape = z_BHWZ.shape
    return table_KZ[code].reshape(shape), code.reshape(shape[:-1])

  def _follow(self, flat, code):
    """Moves the averages towards the latents of this batch."""
    entries, share = self.counts[...].shape[0], 1 - self.decay
    chosen = jax.nn.one_hot(code, entries)
    counts_K = self.counts[...] + share * (chosen.sum(0) - self.counts[...])
    sums_KZ = self.sums[...] + share * (chosen.T @ flat - self.sums[...])
    # A vector that hardly any latent chooses becomes one of the latents.
    dead_K = counts_K < 0.5
    some_K = jnp.arange(entries) * flat.shape[0] // entries
    self.counts[...] = jnp.where(dead_K, 1.0, counts_K)
    self.sums[...] = jnp.where(dead_K[:, None], flat[some_K], sums_KZ)


class VectorQuantized(nnx.Module):
  """An encoder, a codebook and a decoder. See `vqvae`."""

  def __init__(
    self, *, channels, latent, entries, averages, decay, rngs, **common
  ):
    self.encoder = vae.Encoder(
      channels=channels, outputs=latent, rngs=rngs, **common
    )
    self.codebook = Codebook(
      entries,
      latent,
      averages=averages,
      decay=decay,
      rngs=rngs,
      param_dtype=common["param_dtype"],
    )
    self.decoder = vae.Decoder(
      latent=latent, outputs=channels, rngs=rngs, **common
    )

  def __call__(self, image_BHWC):
    """The decoded entries nearest to the latents, image_BHWC in float32."""
    return self.reconstruct(image_BHWC)["image"]

  def reconstruct(self, image_BHWC):
    """{"image", "latent", "vector", "code"}; gradients pass straight through.

    latent and vector are [B, h, w, Z] and code is int32 [B, h, w].
    """
    z_BHWZ = self.encoder(image_BHWC)
    vector_BHWZ, code_BHW = self.codebook(z_BHWZ)
    passed_BHWZ = z_BHWZ + jax.lax.stop_gradient(vector_BHWZ - z_BHWZ)
    return {
      "image": self.decoder(passed_BHWZ),
      "latent": z_BHWZ,
      "vector": vector_BHWZ,
      "code": code_BHW,
    }

  def decode(self, code_BHW):
    """The image of codes, image_BHWC in float32."""
    return self.decoder(self.codebook.table()[code_BHW])


def vqvae(
  *,
  channels: int,
  latent: int = 8,
  entries: int = 128,
  codebook: str = "ema",
  decay: float = 0.99,
  widths: Sequence[int] = (16, 32, 32),
  depth: int = 1,
  groups: int = 8,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """A VQ-VAE, image_BHWC -> image_BHWC in float32.

  Van den Oord et al., 2017, arXiv:1711.00937, with the encoder and the decoder
  of `vae`. Methods: "reconstruct", image_BHWC -> a dict with the image, the
  latents, their nearest vectors and the numbers of these; "decode", numbers
  [B, h, w] -> image_BHWC.

  Args:
    channels: C of the images.
    latent: Z, the size of the vectors.
    entries: K, the number of vectors.
    codebook: "ema" moves the vectors by moving averages, which are part of
      model_state; "gradient" learns them by a loss.
    decay: of the moving averages.
    widths: channels at the full size, at half of it, and so on.
    depth: residual blocks at each size of the encoder; the decoder has one
      more.
    groups: of group norm.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: a choice is unknown, or a width is not a multiple of the groups.
  """
  basic.choose("codebook", codebook, ("ema", "gradient"))
  config = {
    "latent": latent,
    "entries": entries,
    "averages": codebook == "ema",
    "decay": decay,
    **vae.sizes(channels, widths, depth, groups, dtype, param_dtype),
  }
  return pure(lambda rngs: VectorQuantized(rngs=rngs, **config))
