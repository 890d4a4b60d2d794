"""Predictions that are drawn at random, from no data."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from common import names
from common.errors import UserError
from common.leaf import Spec, arrays
from input_pipeline.ops.parts import text_bytes
from train import prediction, trained
from train.prediction import Context, Piece
from train.prediction.parts import preparation
from train.prediction.parts.records import Predicted

# At most so many at a time, unless the user asks for more.
_MOST = 16


class Drawing(NamedTuple):
  """What to draw.

  number: of pictures.
  seed: of the first one; picture i depends on (seed, i) alone.
  label: the name or number of a class, or None for each class in turn.
  batch: the number at a time; None for at most 16.
  prompts: texts that the pictures show in turn; () for no text.
  """

  number: int
  seed: int = 0
  label: str | None = None
  batch: int | None = None
  prompts: tuple[str, ...] = ()


def drawn(
  found: trained.Trained,
  wanted: Drawing,
  advance: Callable[[int], None] = lambda rows: None,
) -> Predicted:
  """Returns pictures that are drawn from a run.

  Raises:
    UserError: the run draws no pictures, or has no such class; or a prompt
      cannot be read by it.
  """
  parts = found.parts
  name, spec = parts.config["task"]["name"], parts.data.spec
  kind = prediction.kind_of(parts.task, name, drawn=True)
  predict = parts.task.predict[kind]
  shapes = arrays(spec, 1, jax.ShapeDtypeStruct)
  key = jax.random.key(0)
  try:
    abstract = jax.eval_shape(predict, found.variables, shapes, key)
    context = Context(abstract, spec, parts.data.class_names)
    rendering = prediction.rendering(kind, context)
  except (UserError, ValueError, KeyError) as error:
    raise UserError(
      f"--number: the task of this run, {name}, draws no pictures"
    ) from error
  read = trained.inputs_of(lambda b: predict(found.variables, b, key), shapes)
  labels_N = _labels(wanted, read, parts.data)
  field, texts_NS = _texts(wanted.prompts, read, spec)

  def one(variables, row, key):
    batch = jax.tree.map(lambda x: x[None], row)
    return jax.tree.map(lambda x: x[0], predict(variables, batch, key))

  # Each picture has a key of its own, so that it does not depend on the batch.
  every = jax.jit(jax.vmap(one, (None, 0, 0)))
  rows = preparation.whole_batch(wanted.batch or _MOST, parts.mesh)
  rows = min(rows, preparation.whole_batch(wanted.number, parts.mesh))

  def pieces() -> Iterator[Piece]:
    key = jax.random.key(wanted.seed)
    for first in range(0, wanted.number, rows):
      numbers = np.arange(first, first + rows)
      batch = arrays(spec, rows, np.zeros)
      batch["mask"] = np.ones_like(batch["mask"])
      if labels_N is not None:
        batch["label"] = labels_N[numbers % len(labels_N)].astype(np.int32)
      if field is not None:
        batch[field] = texts_NS[numbers % len(texts_NS)]
      keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(numbers)
      values = jax.device_get(every(found.variables, batch, keys))
      count = min(rows, wanted.number - first)
      named = {}
      if labels_N is not None:
        named["label"] = batch["label"].tolist()
      if field is not None:
        turns = numbers % len(texts_NS)
        named["prompt"] = [wanted.prompts[turn] for turn in turns]
      yield Piece(
        values[:count],
        np.ones(count, np.float32),
        [f"{number:05d}" for number in numbers[:count]],
        lambda named=named, n=count: {k: v[:n] for k, v in named.items()},
      )
      advance(count)

  return Predicted(wanted.number, rendering.render(pieces()), rendering)


def _labels(wanted: Drawing, read: set[str], data) -> np.ndarray | None:
  """The classes that the pictures take in turn; None if there are none.

  Raises:
    UserError: the run has no such class.
  """
  number = data.num_classes or 0
  if "label" not in read or not number:
    if wanted.label is not None:
      other = "; --prompt gives a text" * (
        _text_of(read, data.spec) is not None
      )
      raise UserError(
        f"--label={wanted.label}: this run draws without classes{other}"
      )
    return None
  if wanted.label is None:
    return np.arange(number)
  known = {str(n): n for n in range(number)}
  known |= {each: n for n, each in enumerate(data.class_names)}
  if wanted.label not in known:
    raise UserError(
      f"--label={wanted.label}: no class of this run"
      f"{names.nearest(wanted.label, known)}"
      f" (there are: {', '.join(data.class_names) or f'0 to {number - 1}'})"
    )
  return np.array([known[wanted.label]])


def _text_of(read: set[str], spec: Spec) -> str | None:
  """The field of texts, as bytes, that the pictures depend on, or None."""
  return next((k for k in read if spec[k].axes == text_bytes.AXES), None)


def _texts(
  prompts: tuple[str, ...], read: set[str], spec: Spec
) -> tuple[str | None, np.ndarray]:
  """Returns (the field of texts, or None without prompts, int32 [N, S]).

  Raises:
    UserError: the run reads no text, or one is too long for it.
  """
  field = _text_of(read, spec)
  if not prompts:
    return None, np.zeros((0, 0), np.int32)
  if field is None:
    raise UserError("--prompt: this run draws without texts")
  (length,) = spec[field].shape
  try:
    rows = [text_bytes.encoded(prompt, length) for prompt in prompts]
  except ValueError as error:
    raise UserError(f"--prompt: {error}") from None
  return field, np.stack(rows)
