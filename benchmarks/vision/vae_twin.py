"""Trains diffusers' AutoencoderKL as vae_fashion_mnist is trained here.

It has the same sizes, batches, optimizer, schedule and average of parameters,
and prints the negative ELBO of a test image in nats, which is compared with
test/nats of that config. Needs the extra `parity`.

  python benchmarks/vision/vae_twin.py --data=data/fashion_mnist --steps=1000
"""

import argparse
import copy
import gzip
import math
import pathlib
import time

import diffusers
import numpy as np
import torch
from torch.nn import functional

BATCH, WARMUP, LR, DECAY = 128, 100, 1e-3, 0.995


def images_of(folder: str, part: str) -> torch.Tensor:
  """[n, 1, 28, 28] from -1 to 1, of "train" or "t10k"."""
  path = pathlib.Path(folder).expanduser() / f"{part}-images-idx3-ubyte.gz"
  content = gzip.decompress(path.read_bytes())
  pixels = np.frombuffer(content, np.uint8, offset=16)
  return torch.tensor(pixels.reshape(-1, 1, 28, 28) / 127.5 - 1).float()


def nats_of(model, image: torch.Tensor) -> torch.Tensor:
  """The negative ELBO of each image, with one sample of the latents."""
  posterior = model.encode(image).latent_dist
  logits = model.decode(posterior.sample()).sample
  grey = (image + 1) / 2
  nats = functional.binary_cross_entropy_with_logits(
    logits, grey, reduction="none"
  )
  return nats.sum((1, 2, 3)) + posterior.kl()


def rate(step: int, steps: int) -> float:
  """Linear from 0, then a cosine to 0."""
  if step < WARMUP:
    return step / WARMUP
  return 0.5 + 0.5 * math.cos(math.pi * (step - WARMUP) / (steps - WARMUP))


def main() -> None:
  """Trains for --steps or --minutes, whichever ends first."""
  parser = argparse.ArgumentParser()
  parser.add_argument("--data", default="data/fashion_mnist")
  parser.add_argument("--steps", type=int, default=1000)
  parser.add_argument("--minutes", type=float, default=math.inf)
  parser.add_argument("--seed", type=int, default=0)
  flags = parser.parse_args()
  torch.manual_seed(flags.seed)
  model = diffusers.AutoencoderKL(
    in_channels=1,
    out_channels=1,
    down_block_types=("DownEncoderBlock2D",) * 3,
    up_block_types=("UpDecoderBlock2D",) * 3,
    block_out_channels=(16, 32, 32),
    layers_per_block=1,
    latent_channels=4,
    norm_num_groups=8,
  )
  average = copy.deepcopy(model).requires_grad_(False)
  train, test = (images_of(flags.data, part) for part in ("train", "t10k"))
  optimizer = torch.optim.Adam(model.parameters(), lr=LR)
  begin, order = time.perf_counter(), torch.randperm(len(train))
  for step in range(flags.steps):
    if time.perf_counter() - begin > 60 * flags.minutes:
      break
    at = step * BATCH % (len(train) - BATCH + 1)
    loss = nats_of(model, train[order[at : at + BATCH]]).mean()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 100.0)
    for group in optimizer.param_groups:
      group["lr"] = LR * rate(step, flags.steps)
    optimizer.step()
    share = 1 - min(DECAY, (1 + step) / (10 + step))
    with torch.no_grad():
      for old, new in zip(
        average.parameters(), model.parameters(), strict=True
      ):
        old.lerp_(new, share)
    if step % 100 == 99:
      seconds = time.perf_counter() - begin
      print(f"step {step + 1}  {seconds:.0f} s  {loss:.2f} nats", flush=True)
  seconds = time.perf_counter() - begin
  with torch.no_grad():
    found = torch.cat([nats_of(average, part) for part in test.split(500)])
  print(f"{seconds:.0f} s of training; test nats {found.mean():.2f}")


if __name__ == "__main__":
  main()
