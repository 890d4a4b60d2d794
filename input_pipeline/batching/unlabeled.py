"""Records without labels, of which a model predicts the labels."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from common.leaf import Spec
from input_pipeline.sources import Source


class Unlabeled(NamedTuple):
  """What a prediction knows of the labels that its records may lack.

  leaves: {name: Leaf} of the batches of training that the prediction
    does not read, such as the label; they are zeros.
  num_classes: of the run, or None.
  class_names: of the run, in the order of the labels, or ().
  absent: fields of the records that are left out, such as boxes.
  """

  leaves: Spec
  num_classes: int | None = None
  class_names: tuple[str, ...] = ()
  absent: tuple[str, ...] = ()


def without_labels(source: Source, known: Unlabeled, leaves: Mapping) -> Source:
  """Returns a source with the run's classes, and zeros as some fields.

  Args:
    source: of the records, which may have labels; they are not used.
    known: of the run.
    leaves: {field: (shape, dtype)} of the zeros.
  """

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    zeros = {
      name: np.zeros((len(indices), *shape), dtype)
      for name, (shape, dtype, *_) in leaves.items()
    }
    rows = source.read(indices)
    return {k: v for k, v in rows.items() if k not in known.absent} | zeros

  return source._replace(
    read=read if leaves or known.absent else source.read,
    num_classes=known.num_classes or source.num_classes,
    class_names=known.class_names or source.class_names,
  )
