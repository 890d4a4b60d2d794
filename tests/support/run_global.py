"""A Global run in one process, as the engine would run it."""

import json
import pickle
from collections.abc import Sequence

from input_pipeline.document import Conclusion, Document, Global, Result


def run_global(
  stage: Global, shards: Sequence[Sequence[Document]]
) -> tuple[list[Result], Conclusion]:
  """What becomes of each document, in order; and the conclusion.

  Each step runs from a pickled copy and on bytes alone, as on another machine.
  """

  def copy() -> Global:
    return pickle.loads(pickle.dumps(stage))

  summaries = [copy().summarize(iter(shard)) for shard in shards]
  assert all(len(s) == stage.partitions for s in summaries)
  # In reverse, since the order of calls is to change nothing.
  found = [
    copy().combine(p, [s[p] for s in summaries])
    for p in reversed(range(stage.partitions))
  ][::-1]
  conclusion = copy().conclude(found, [len(shard) for shard in shards])
  assert len(conclusion.verdicts) == len(shards)
  json.dumps(conclusion.summary)
  results = []
  for verdict, shard in zip(conclusion.verdicts, shards, strict=True):
    judge = copy().judge(verdict)
    results += [judge(place, document) for place, document in enumerate(shard)]
  return results, conclusion


def cut(documents: Sequence[Document], sizes: Sequence[int]) -> list:
  """The documents in shards of these sizes, and the rest in the last."""
  shards, at = [], 0
  for size in sizes:
    shards.append(documents[at : at + size])
    at += size
  return [*shards, documents[at:]]
