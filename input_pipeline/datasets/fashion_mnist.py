"""Fashion-MNIST: grey images of ten kinds of clothing."""

from input_pipeline.datasets import Dataset, File, Files, Written

_ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_FILES = {
  "train-images-idx3-ubyte.gz": (
    26_421_880,
    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
  ),
  "train-labels-idx1-ubyte.gz": (
    29_515,
    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
  ),
  "t10k-images-idx3-ubyte.gz": (
    4_422_102,
    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
  ),
  "t10k-labels-idx1-ubyte.gz": (
    5_148,
    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
  ),
}


def fashion_mnist() -> Dataset:
  """The data set, in the files of the MNIST family."""
  return Dataset(
    what="70,000 images of clothing, 28 x 28, ten classes (Xiao et al. 2017)",
    licence="MIT",
    origin="https://github.com/zalandoresearch/fashion-mnist",
    digests="TensorFlow Datasets' record; of the labels' files, also computed",
    files=tuple(
      File(f"{_ADDRESS}{name}", f"img_fashion_mnist/{name}", *entry)
      for name, entry in _FILES.items()
    ),
    holds=tuple(_FILES),
    write=_write,
    configs=(
      "conv_fashion_mnist",
      "ddpm_fashion_mnist",
      "dit_fashion_mnist",
      "embed_fashion_mnist",
      "gan_fashion_mnist",
      "latent_fashion_mnist",
      "stylegan2_fashion_mnist",
      "text_fashion_mnist",
      "vae_fashion_mnist",
      "vqvae_fashion_mnist",
    ),
  )


def _write(files: Files) -> Written:
  for name in _FILES:
    yield name, files[name].read_bytes()
