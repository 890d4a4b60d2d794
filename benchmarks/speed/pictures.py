"""Pictures per second of classification on a CPU, versus torchvision.

A ViT and a ResNet with random weights in float32, and the same shapes in both
libraries: torchvision's vit_b_16 and resnet50, or with --small smaller ones of
the same kinds, for a test of this file. They classify batches of one picture
and of eight. PyTorch uses 2 threads, in inference mode; ours is compiled for
one device. Rounds alternate between the two; the median of each is printed,
excluding compilation and a first round, with the number of parameters, which
must be equal.

  pip install -e '.[parity]'
  taskset -c 0,1 python benchmarks/speed/pictures.py --rounds=7
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torchvision

from models.vision.resnet import resnet
from models.vision.vit import vit


def pairs(small: bool) -> dict:
  """{name: (our Model, torchvision's module, size of a picture)}."""
  classes = 10 if small else 1000
  vision = torchvision.models
  if small:
    size, sizes = 32, {"layers": 2, "dim": 32, "heads": 2, "patch": 8}
    transformer = vision.VisionTransformer(
      image_size=size,
      patch_size=8,
      num_layers=2,
      num_heads=2,
      hidden_dim=32,
      mlp_dim=128,
      num_classes=classes,
    )
    residual = vision.resnet18(num_classes=classes)
    depth = 18
  else:
    size, sizes = 224, {"variant": "B/16"}
    transformer = vision.vit_b_16(num_classes=classes)
    residual = vision.resnet50(num_classes=classes)
    depth = 50
  ours = vit(num_classes=classes, image_size=size, **sizes)
  return {
    "vit": (ours, transformer.eval(), size),
    "resnet": (resnet(num_classes=classes, depth=depth), residual.eval(), size),
  }


def ours_of(model, size: int, batch: int) -> tuple[Callable, int]:
  """Returns (() -> logits, computed; the number of parameters)."""
  params, state = jax.jit(model.init)(jax.random.key(0))
  image = np.random.default_rng(0).normal(size=(batch, size, size, 3))
  image = jnp.asarray(image, jnp.float32)
  predict = jax.jit(lambda p, s, x: model.apply(p, s, x)[0])
  count = sum(x.size for x in jax.tree.leaves(params))
  return lambda: np.asarray(predict(params, state, image)), count


def theirs_of(model, size: int, batch: int) -> tuple[Callable, int]:
  """The same of a PyTorch module."""
  image = torch.randn(batch, 3, size, size)

  def predict():
    with torch.inference_mode():
      return model(image).numpy()

  return predict, sum(p.numel() for p in model.parameters())


def speed(predict: Callable, batch: int, seconds: float) -> float:
  """Pictures per second over at least `seconds`."""
  count, start = 0, time.perf_counter()
  while not count or time.perf_counter() - start < seconds:
    predict()
    count += batch
  return count / (time.perf_counter() - start)


def main() -> None:
  """Prints a row for each model and batch."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--seconds", type=float, default=2.0)
  parser.add_argument("--threads", type=int, default=2)
  parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
  parser.add_argument("--small", action="store_true")
  flags = parser.parse_args()
  torch.set_num_threads(flags.threads)
  print(f"jax {jax.__version__}, torch {torch.__version__}")
  print("model   batch  parameters   ours/s  torchvision/s  ratio")
  for name, (model, module, size) in pairs(flags.small).items():
    for batch in flags.batches:
      ours, count = ours_of(model, size, batch)
      theirs, other = theirs_of(module, size, batch)
      if count != other:
        sys.exit(f"{name}: {count:,} parameters, torchvision has {other:,}")
      found = [
        [speed(predict, batch, flags.seconds) for predict in (ours, theirs)]
        for _ in range(flags.rounds + 1)
      ][1:]
      mine, others = (
        statistics.median(each) for each in zip(*found, strict=True)
      )
      print(
        f"{name:7} {batch:5} {count:11,} {mine:8.2f} {others:14.2f}"
        f" {mine / others:6.2f}",
        flush=True,
      )


if __name__ == "__main__":
  main()
