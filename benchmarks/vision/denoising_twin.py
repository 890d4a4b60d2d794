"""Denoises BSD68 with BM3D, as the evaluator of dncnn_bsd measures a model.

BM3D (Dabov et al., IEEE Transactions on Image Processing 16, 2007) is that of
the package bm3d. The noise is that of the evaluator `denoising`, which depends
on the seed of the run and the index of the picture, and the mean PSNR is
compared with test/psnr. The package is not part of any extra: it needs an
environment with bm3d==4.0.3, pillow and jax.

  python benchmarks/vision/denoising_twin.py --data=data/denoise_bsd/Set68
"""

import argparse
import pathlib
import time

import bm3d
import jax
import numpy as np
from PIL import Image

from train.objectives import denoising as objective


def pictures_of(folder: str) -> list[np.ndarray]:
  """The grey pictures [H, W, 1] in the order of their names, from -1 to 1.

  An upright picture is turned clockwise by a quarter, as the config does.
  """
  found = []
  for path in sorted(pathlib.Path(folder).expanduser().glob("*.png")):
    grey = np.asarray(Image.open(path).convert("L"), np.float32)
    if grey.shape[0] > grey.shape[1]:
      grey = np.rot90(grey, -1)
    found.append(grey[..., None] / 127.5 - 1)
  if not found:
    raise SystemExit(f"{folder}: has no PNG file")
  return found


def main() -> None:
  """Prints the PSNR of each picture, of the noise and of BM3D, and the mean."""
  parser = argparse.ArgumentParser()
  parser.add_argument("--data", default="data/denoise_bsd/Set68")
  parser.add_argument("--level", type=float, default=25.0)
  parser.add_argument("--seed", type=int, default=0, help="that of the run")
  flags = parser.parse_args()
  # As train/build.py derives the key of an evaluator.
  rng = jax.random.fold_in(jax.random.key(flags.seed), 2)
  begin, figures = time.perf_counter(), []
  for index, clean in enumerate(pictures_of(flags.data)):
    noise = objective.noise_of(rng, np.array([index]), clean.shape)
    noisy = np.asarray(
      objective.noisy(clean[None], np.full(1, flags.level, np.float32), noise)
    )[0]
    # The package takes pictures from 0 to 1.
    found = bm3d.bm3d(
      (noisy[..., 0].astype(np.float64) + 1) / 2, flags.level / 255
    )
    pair = [np.clip(x, -1, 1) for x in (noisy, found[..., None] * 2 - 1)]
    figures.append([objective.psnr(clean, x) for x in pair])
    print(f"{index + 1}  noisy {figures[-1][0]:.2f}  bm3d {figures[-1][1]:.2f}")
  seconds = time.perf_counter() - begin
  noisy, denoised = np.mean(figures, axis=0)
  print(f"{seconds:.0f} s; mean PSNR {noisy:.2f} dB noisy, {denoised:.2f} BM3D")


if __name__ == "__main__":
  main()
