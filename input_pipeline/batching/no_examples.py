"""Batches without examples, for runs whose learner makes its own.

Such a batch holds the "index" of each row and the "mask", which is 1.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from common.leaf import MASK_AND_INDEX
from input_pipeline import order
from input_pipeline.batching import pipeline


def data(
  batch_size: int,
  host_index: int | Sequence[int],
  host_count: int,
  sizes: Mapping[str, int],
  endless: bool = True,
) -> pipeline.Data:
  """Returns the Data of batches without examples, all of them equal.

  Args:
    batch_size: the number of rows in a global batch.
    host_index: which share of the rows is this host's; or several.
    host_count: the number of shares.
    sizes: see pipeline.Data.
    endless: whether there are batches; ValueError at the first one if not.
  """
  index = order.host_rows(batch_size, host_index, host_count).astype(np.int32)

  def batches(first_step: int = 0) -> Iterator[dict[str, np.ndarray]]:
    del first_step
    if not endless:
      raise ValueError(
        "an environment has no examples to evaluate; the evaluator episodes"
        " plays it"
      )
    while True:
      yield {"mask": np.ones(len(index), np.float32), "index": index}

  return pipeline.Data(
    spec=dict(MASK_AND_INDEX),
    num_examples=0,
    num_classes=None,
    tokenizer=None,
    batches=batches,
    batch_size=batch_size,
    sizes=sizes,
  )
