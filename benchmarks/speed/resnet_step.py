"""Milliseconds of a step of a narrow ResNet-18 on a CPU, versus PyTorch.

A ResNet-18 with the stem for small images and 16 channels in its first layers,
batches of 128 images of 32 x 32, float32, gradient and an SGD step without
input pipeline. Ours splits the batch over the devices that XLA_FLAGS makes;
PyTorch, with torchvision's blocks, uses 2 threads, with images in both orders
of its axes. Rounds alternate between the three; the median and the least of
each are printed, excluding compilation and the first round. Needs the extra
`parity`.

  XLA_FLAGS=--xla_force_host_platform_device_count=2 \
    python benchmarks/speed/resnet_step.py --rounds=15
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from torch import nn
from torchvision.models.resnet import BasicBlock

from models.vision.resnet import resnet
from train.compiler_options import of_step

BATCH, CLASSES, LR = 128, 10, 0.01
RNG = np.random.default_rng(0)
IMAGE_BHWC = RNG.normal(size=(BATCH, 32, 32, 3)).astype(np.float32)
LABEL_B = RNG.integers(0, CLASSES, BATCH)


def ours(width: int) -> Callable[[], None]:
  """() -> None, a step of this project's network."""
  mesh = jax.make_mesh((jax.device_count(),), ("data",))
  model = resnet(num_classes=CLASSES, depth=18, stem="cifar", width=width)
  state = jax.device_put(
    jax.jit(model.init)(jax.random.key(0)), NamedSharding(mesh, P())
  )
  batch = jax.device_put((IMAGE_BHWC, LABEL_B), NamedSharding(mesh, P("data")))

  def loss(params, stats, image, label):
    logits, stats = model.apply(params, stats, image, train=True)
    nats_B = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    return jnp.mean(nats_B), stats

  def updated(state, batch):
    gradient, stats = jax.grad(loss, has_aux=True)(*state, *batch)
    return jax.tree.map(lambda p, g: p - LR * g, state[0], gradient), stats

  options = of_step(jax.tree.map(lambda leaf: leaf.sharding, state))
  updated = jax.jit(updated, compiler_options=options)
  held = [state]

  def step():
    held[0] = jax.block_until_ready(updated(held[0], batch))

  return step


def theirs(width: int, order: torch.memory_format) -> Callable[[], None]:
  """() -> None, the same step in PyTorch, with that order of axes."""
  layers = [nn.Conv2d(3, width, 3, padding=1, bias=False)]
  layers += [nn.BatchNorm2d(width), nn.ReLU()]
  inputs = width
  for stage in range(4):
    outputs = width * 2**stage
    for block in range(2):
      stride = 2 if stage and not block else 1
      shortcut = None
      if stride != 1:
        conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        shortcut = nn.Sequential(conv, nn.BatchNorm2d(outputs))
      layers.append(BasicBlock(inputs, outputs, stride, shortcut))
      inputs = outputs
  layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, CLASSES)]
  model = nn.Sequential(*layers).to(memory_format=order)
  image = torch.tensor(IMAGE_BHWC.transpose(0, 3, 1, 2).copy())
  image = image.to(memory_format=order)
  label, optimizer = (
    torch.tensor(LABEL_B),
    torch.optim.SGD(model.parameters(), LR),
  )

  def step():
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(image), label).backward()
    optimizer.step()

  return step


def main() -> None:
  """Prints a row for each."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--rounds", type=int, default=15)
  parser.add_argument("--width", type=int, default=16)
  flags = parser.parse_args()
  torch.set_num_threads(2)
  steps = {
    f"ours, {jax.device_count()} device(s)": ours(flags.width),
    "PyTorch, channels first": theirs(flags.width, torch.contiguous_format),
    "PyTorch, channels last": theirs(flags.width, torch.channels_last),
  }
  taken: dict[str, list[float]] = {name: [] for name in steps}
  for round_ in range(flags.rounds + 1):
    for name, step in steps.items():
      start = time.perf_counter()
      step()
      if round_:
        taken[name].append(1e3 * (time.perf_counter() - start))
  print(f"jax {jax.__version__}, torch {torch.__version__}")
  for name, ms in taken.items():
    median, least = statistics.median(ms), min(ms)
    print(f"{name:25} median {median:6.0f} ms, least {least:.0f}")


if __name__ == "__main__":
  main()
