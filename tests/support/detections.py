"""Figures of the evaluator average_precision of given detections."""

import jax
import jax.numpy as jnp
import numpy as np

from train import types
from train.evaluators.average_precision import average_precision


def figures(rows, **more):
  """Those of images, each (objects, detections); a box is (box, class[, p])."""
  batch, guess = {}, {}
  for i, side in enumerate((batch, guess)):
    lists = [row[i] for row in rows]
    n = max(3, *map(len, lists))
    side["boxes"] = np.zeros((len(rows), n, 4), np.float32)
    side["classes"] = np.zeros((len(rows), n), np.int32)
    side["real"] = np.zeros((len(rows), n), np.float32)
    for b, entries in enumerate(lists):
      for j, (box, kind, *score) in enumerate(entries):
        side["boxes"][b, j], side["classes"][b, j] = box, kind
        side["real"][b, j] = score[0] if score else 1.0
  guess["scores"] = guess.pop("real")
  batch["boxes_mask"] = batch.pop("real")
  batch["mask"] = np.ones(len(rows), np.float32)
  batch |= {k: v for k, v in more.items() if k != "masks"}
  if "masks" in more:
    guess["masks"] = more["masks"]
  batch = jax.tree.map(jnp.asarray, batch)

  def predict(variables, batch, rng):
    return jax.tree.map(jnp.asarray, guess)

  context = types.EvalContext(
    task=types.Task(None, {}, {"detections": predict}),
    batches=lambda: iter([batch]),
    decode=None,
    encode=None,
    num_classes=2,
    workdir=None,
    key="val",
    rng=jax.random.key(0),
    load=None,
    say=None,
  )
  return average_precision(context)(types.Variables({}, {}), 1)
