"""The fields of records that a batch can hold as they are: numbers."""

import numpy as np

from common.leaf import Spec
from input_pipeline import ops as ops_lib
from input_pipeline.batching.examples import Examples
from input_pipeline.reading import image_size


def check_nested(name: str, sample: dict, ops: str) -> None:
  """Raises ValueError for a field that is lost: lists, objects, no elements.

  Text is left out of a batch without an error, and so is whatever the op `keep`
  does not name.

  Args:
    name: of the record.
    sample: the record, [1, ...] each.
    ops: of the config.
  """
  if ops and any(call.name == "keep" for call in ops_lib.calls(ops)):
    return
  for field, leaf in sample.items():
    if 0 in leaf.shape[1:]:
      raise ValueError(
        f"{name}: the field {field!r} has no elements; the op keep(…) names the"
        " fields that are wanted"
      )
    first = leaf[0] if leaf.dtype == object else None
    if isinstance(first, (dict, list, tuple)):
      kind = "an object" if isinstance(first, dict) else "a list of such values"
      raise ValueError(
        f"{name}: the field {field!r} is {kind}, which no batch can hold; the"
        " op keep(…) names the fields that are wanted"
      )


def check(examples: Examples, sample: dict, fields: Spec) -> None:
  """Raises ValueError if a batch would lack what the records hold."""
  name = examples.name(0)
  check_nested(name, sample, "")
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
