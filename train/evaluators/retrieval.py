"""Retrieval: recall at k, and a page of nearest neighbours."""

from collections.abc import Sequence

import numpy as np

from train import types
from train.evaluators.parts import pictures as drawing
from train.evaluators.parts import representations
from train.evaluators.samples import grid
from train.objectives import features as objective

# The frames of neighbours: of the query's class, and of another.
_RIGHT, _WRONG = (0, 150, 0), (200, 0, 0)
_FRAME = 2  # pixels


def retrieval(
  context: types.EvalContext,
  *,
  of: str = "embeddings",
  ks: Sequence[int] = (1, 5, 10),
  neighbours: int = 20,
  temperature: float = 0.07,
  pictures: int = 8,
) -> types.Evaluator:
  """Measures recall_at_1, recall_at_5, recall_at_10 and knn_accuracy.

  Each example is a query, and all others of the split can be found, by cosine
  similarity. recall_at_k is the share of queries with an example of their class
  among the k nearest. knn_accuracy is that of a vote of the nearest neighbours,
  weighted by exp(similarity / temperature). The classes need not be those of
  the training.

  WORKDIR/samples/<key>_<step>.png shows queries, at the left, and their nearest
  neighbours, with a green frame if they are of the query's class and else a red
  one.

  Args:
    context: of the run; its data have labels.
    of: the prediction whose values are the embeddings.
    ks: of the recalls.
    neighbours: the number of neighbours that vote.
    temperature: of the votes.
    pictures: the number of queries that are drawn, spread over the split; 0
      draws none, for data that are no images in [-1, 1].

  Raises:
    ValueError: the task has no such prediction, the data have no labels, or a
      number is out of range.
  """
  ks = tuple(sorted(ks))
  if not ks or ks[0] < 1 or neighbours < 1 or not temperature > 0:
    raise ValueError(
      f"ks={ks}, neighbours={neighbours} or temperature={temperature} is not"
      " above 0"
    )
  read = representations.reader(context, of)

  def evaluate(variables, step):
    found = read(variables, context.batches)
    label_N = found.label_N
    most = max(*ks, neighbours)
    places, similar = objective.neighbours(found.x_NF, None, most)
    vote_N = objective.vote(
      places[:, :neighbours],
      similar[:, :neighbours],
      label_N,
      int(label_N.max()) + 1,
      temperature,
    )
    if pictures:
      queries = np.unique(
        np.linspace(0, len(label_N) - 1, pictures).astype(int)
      )
      page = _page(context, found, queries, places[queries, :8])
      drawing.write(context, step, "neighbours", page)
    recalls = {
      f"recall_at_{k}": objective.recall(places, label_N, label_N, k)
      for k in ks
    }
    right = float((vote_N == label_N).mean())
    return {**recalls, "knn_accuracy": right}

  names = (*(f"recall_at_{k}" for k in ks), "knn_accuracy")
  return types.Measuring(evaluate, lambda variables: names)


def _page(context, found, queries, place_Qk) -> np.ndarray:
  """The picture of the queries and their neighbours, uint8 [H, W, 3]."""
  wanted = set(found.index_N[queries]) | set(found.index_N[place_Qk].ravel())
  images = {}
  for batch in context.batches():
    image_BHWC, index_B = context.fetch((batch["image"], batch["index"]))
    for image, index in zip(image_BHWC, index_B, strict=True):
      if int(index) in wanted:
        images[int(index)] = grid(np.asarray(image)[None])
  rows = []
  for query, places in zip(queries, place_Qk, strict=True):
    row = [_framed(images[int(found.index_N[query])], (255, 255, 255))]
    for place in places:
      same = found.label_N[place] == found.label_N[query]
      colour = _RIGHT if same else _WRONG
      row.append(_framed(images[int(found.index_N[place])], colour))
    rows.append(np.concatenate(row, axis=1))
  return np.concatenate(rows)


def _framed(image_HWC: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
  """The image within a frame."""
  height, width, _ = image_HWC.shape
  framed = np.empty((height + 2 * _FRAME, width + 2 * _FRAME, 3), np.uint8)
  framed[:] = colour
  framed[_FRAME:-_FRAME, _FRAME:-_FRAME] = image_HWC
  return framed
