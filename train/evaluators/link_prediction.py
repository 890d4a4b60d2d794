"""Link prediction: the rank of a fact's entity among all entities."""

from collections.abc import Iterable, Sequence

import jax
import numpy as np

from input_pipeline.batching import pipeline
from train import types

_FIELDS = ("head", "relation", "tail")
_HITS = (1, 3, 10)
_CHUNK = 4096  # facts that are read at once


def link_prediction(
  context: types.EvalContext, *, known: Sequence[str] = ()
) -> types.Evaluator:
  """Measures mrr, hits_at_1, hits_at_3, hits_at_10 and mean_rank, filtered.

  Of each fact the head and the tail are ranked among all entities by their
  scores, where entities that complete another known fact are left out (the
  filtered setting of Bordes et al., NeurIPS 2013). Entities of equal scores
  share the mean of their ranks. The metrics are means over heads and tails.

  Args:
    context: of the run; its task predicts "heads" and "tails", scores [B, E].
    known: URIs of further facts, such as those of the training and test data;
      the facts that are evaluated are always known.

  Raises:
    ValueError: the task predicts no such scores, or `known` cannot be read.
  """
  for name in ("heads", "tails"):
    if name not in context.task.predict:
      raise ValueError(f"link_prediction: the task does not predict {name}")
  others = [_facts(uri, context.workdir) for uri in known]

  @jax.jit
  def scores(variables, batch, rng):
    predict = context.task.predict
    found = [predict[k](variables, batch, rng) for k in ("heads", "tails")]
    return found, [batch[k] for k in (*_FIELDS, "mask")]

  filters: list[tuple[dict, dict]] = []

  def evaluate(variables, step):
    del step
    if not filters:
      own = (_real(context.fetch(dict(b))) for b in context.batches())
      filters.append(completions(np.concatenate([*own, *others])))
    heads_of, tails_of = filters[0]
    ranks = [np.zeros(0)]
    for batch in context.batches():
      found = scores(variables, dict(batch), context.rng)
      (heads_BE, tails_BE), leaves = context.fetch(found)
      *ids, mask_B = map(np.asarray, leaves)
      for i in np.flatnonzero(mask_B):
        h, r, t = (int(column[i]) for column in ids)
        ranks.append(rank(heads_BE[i], h, heads_of[r, t]))
        ranks.append(rank(tails_BE[i], t, tails_of[h, r]))
    return metrics(np.hstack(ranks))

  return types.Measuring(evaluate, lambda variables: list(metrics(np.ones(1))))


def completions(facts_N3: np.ndarray) -> tuple[dict, dict]:
  """Returns {(relation, tail): heads} and {(head, relation): tails}."""
  heads_of: dict[tuple[int, int], list[int]] = {}
  tails_of: dict[tuple[int, int], list[int]] = {}
  for h, r, t in np.unique(facts_N3, axis=0).tolist():
    heads_of.setdefault((r, t), []).append(h)
    tails_of.setdefault((h, r), []).append(t)
  return heads_of, tails_of


def rank(scores_E: np.ndarray, right: int, known: Iterable[int]) -> float:
  """The filtered rank of an entity, from 1; a half more for each tie.

  Args:
    scores_E: of all entities; those that are not numbers rank first.
    right: the entity that is ranked.
    known: the entities that are left out, beside which `right` may be.
  """
  # A score that is not a number is not below any other.
  above_E = ~(scores_E <= scores_E[right])
  tied_E = scores_E == scores_E[right]
  kept_E = np.ones(len(scores_E), bool)
  kept_E[list(known)] = False
  kept_E[right] = False
  return 1 + float((above_E & kept_E).sum() + (tied_E & kept_E).sum() / 2)


def metrics(ranks: np.ndarray) -> dict[str, float]:
  """The means over ranks."""
  found = {"mrr": float(np.mean(1 / ranks))}
  found |= {f"hits_at_{k}": float(np.mean(ranks <= k)) for k in _HITS}
  return {**found, "mean_rank": float(np.mean(ranks))}


def _real(batch: dict) -> np.ndarray:
  """The facts of a batch without its padding, int [n, 3]."""
  facts_B3 = np.stack([np.asarray(batch[k]) for k in _FIELDS], -1)
  return facts_B3[np.asarray(batch["mask"]) > 0]


def _facts(uri: str, workdir: str | None) -> np.ndarray:
  """The facts of a source, numbered as in the run, int [n, 3]."""
  data = pipeline.evaluation(
    source=uri,
    split="all",
    rows={"name": "triples"},
    batch_size=_CHUNK,
    workdir=workdir,
  )
  return np.concatenate([_real(batch) for batch in data.batches(0)])
