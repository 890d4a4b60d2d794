"""The features of examples, on the host."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from train import types


class Found(NamedTuple):
  """Features of the real examples of a split, in the order of the data.

  x_NF: float32. label_N: int64. index_N: their places in the data.
  """

  x_NF: np.ndarray
  label_N: np.ndarray
  index_N: np.ndarray


def reader(context: types.EvalContext, of: str) -> Callable[..., Found]:
  """Returns (variables, batches, most=None) -> Found.

  Args:
    context: of the evaluator.
    of: the prediction whose values [B, F] are the features.

  Raises:
    ValueError: the task has no such prediction, or the data no classes.
  """
  if of not in context.task.predict:
    there = ", ".join(sorted(context.task.predict)) or "none"
    raise ValueError(f"of={of!r} is no prediction of the task; valid: {there}")
  if context.num_classes is None:
    raise ValueError("labelled data are needed")
  predict = jax.jit(context.task.predict[of])

  def read(
    variables: types.Variables,
    batches: Callable[[], Any],
    most: int | None = None,
  ) -> Found:
    parts, count = [], 0
    for batch in batches():
      given = {k: v for k, v in batch.items() if k != "label"}
      x_BF, label_B, index_B, mask_B = context.fetch(
        (
          predict(variables, given, context.rng),
          *(batch[k] for k in ("label", "index", "mask")),
        )
      )
      rows = np.flatnonzero(mask_B > 0)
      parts.append(
        (
          np.asarray(x_BF[rows], np.float32).reshape(len(rows), -1),
          np.asarray(label_B[rows], np.int64),
          np.asarray(index_B[rows], np.int64),
        )
      )
      count += len(rows)
      if most is not None and count >= most:
        break
    x, label, index = (
      np.concatenate(each) for each in zip(*parts, strict=True)
    )
    order = np.argsort(index, kind="stable")[:most]
    return Found(x[order], label[order], index[order])

  return read
