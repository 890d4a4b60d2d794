"""The fields of records that a batch can hold as they are: numbers."""

import numpy as np

from common.leaf import Spec
from input_pipeline.batching.examples import Examples
from input_pipeline.reading import image_size


def check(examples: Examples, sample: dict, fields: Spec) -> None:
  """Raises ValueError if a batch would lack what the records hold."""
  name = examples.name(0)
  for field, leaf in sample.items():
    first = leaf[0] if leaf.dtype == object else None
    if isinstance(first, np.ndarray):
      raise ValueError(
        f"{name}: the length of the field {field!r} differs between records;"
        f' the op pad(…, inkey="{field}") gives it one'
      )
    if isinstance(first, bytes) and image_size.is_image(first):
      raise ValueError(
        f"{name}: the images of the field {field!r} are not decoded; add the"
        " op 'decode', or 'decode_mask' for the classes of pixels"
      )
  if not fields:
    raise ValueError(
      f"{name} has no numeric field for a batch; set a tokenizer or ops"
    )
