"""Samples from the model: a PNG grid of images, or texts."""

import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from train import types


def samples(
  context: types.EvalContext,
  *,
  count: int = 64,
  prompt: str = "\n",
  length: int = 200,
  temperature: float = 0.8,
  of: str = "samples",
) -> types.Evaluator:
  """Writes WORKDIR/samples/<key>_<step>.png or .txt; returns no metrics.

  The same image or text goes to config.writers as "<key>/samples".

  Args:
    context: the task predicts `of`.
    count: the number of images or texts.
    prompt: the beginning of each text.
    length: the number of tokens to generate after the prompt.
    temperature: divides the logits that tokens are sampled from.
    of: the prediction that is drawn, such as "reconstructions".

  Raises:
    ValueError: the task does not predict `of`, or the tokenizer cannot
      encode the prompt.
  """
  if of not in context.task.predict:
    raise ValueError(f"samples needs a task that predicts {of}")
  predict = jax.jit(context.task.predict[of])
  # Here, so that a prompt that cannot be encoded fails before training.
  ids = [] if context.encode is None else list(map(int, context.encode(prompt)))

  def images(variables):
    made, total = [], 0
    for i, batch in enumerate(_forever(context.batches)):
      rng = jax.random.fold_in(context.rng, i)
      made.append(context.fetch(predict(variables, batch, rng)))
      total += len(made[-1])
      if total >= count:
        return grid(np.concatenate(made)[:count])
    return None

  def texts(variables):
    tokens_BL = np.zeros((count, len(ids) + length), np.int32)
    tokens_BL[:, : len(ids)] = ids
    mask_BL = np.zeros(tokens_BL.shape, np.float32)
    mask_BL[:, : len(ids)] = 1
    batch = {
      "tokens": jnp.asarray(tokens_BL),
      "mask": jnp.asarray(mask_BL),
      "temperature": jnp.float32(temperature),
    }
    made_BL = context.fetch(predict(variables, batch, context.rng))
    return [context.decode(row) for row in made_BL]

  def evaluate(variables, step):
    folder = pathlib.Path(context.workdir or ".") / "samples"
    writes = context.workdir is not None and jax.process_index() == 0
    if writes:
      folder.mkdir(exist_ok=True)
    stem = f"{context.key}_{step:07d}"
    if context.encode is None:
      image_HWC = images(variables)
      if writes:
        import matplotlib.image

        matplotlib.image.imsave(folder / f"{stem}.png", image_HWC)
        context.say(f"samples  {folder / stem}.png")
      context.show(step, f"{context.key}/samples", "image", image_HWC)
    else:
      text = "\n\n---\n\n".join(texts(variables))
      if writes:
        (folder / f"{stem}.txt").write_text(text + "\n")
        context.say(f"samples  {folder / stem}.txt\n{text}")
      context.show(step, f"{context.key}/samples", "text", text)
    return {}

  return types.Measuring(evaluate, lambda variables: ())


def grid(image_BHWC: np.ndarray) -> np.ndarray:
  """Images in [-1, 1] side by side: uint8 [rows * H, columns * W, 3]."""
  count, height, width, channels = image_BHWC.shape
  columns = math.ceil(math.sqrt(count))
  rows = math.ceil(count / columns)
  cells = np.full((rows * columns, height, width, channels), -1.0, np.float32)
  cells[:count] = np.clip(image_BHWC, -1, 1)
  cells = cells.reshape(rows, columns, height, width, channels)
  image = cells.transpose(0, 2, 1, 3, 4).reshape(
    rows * height, columns * width, channels
  )
  image = np.rint((image + 1) * 127.5).astype(np.uint8)
  return image if channels == 3 else np.repeat(image[..., :1], 3, -1)


def _forever(batches):
  while True:
    yield from batches()
