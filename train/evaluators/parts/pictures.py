"""Pictures that evaluators draw."""

import pathlib

import jax
import numpy as np

from train import types


def write(
  context: types.EvalContext, step: int, name: str, image_HWC: np.ndarray
) -> None:
  """Writes WORKDIR/samples/<key>_<step>.png and shows it as "<key>/NAME".

  Args:
    context: of the evaluator.
    step: of the evaluation.
    name: of the picture for config.writers.
    image_HWC: uint8 [H, W, 3].
  """
  if context.workdir is not None and jax.process_index() == 0:
    import matplotlib.image

    folder = pathlib.Path(context.workdir) / "samples"
    folder.mkdir(exist_ok=True)
    path = folder / f"{context.key}_{step:07d}.png"
    matplotlib.image.imsave(path, image_HWC)
    context.say(f"samples  {path}")
  context.show(step, f"{context.key}/{name}", "image", image_HWC)
