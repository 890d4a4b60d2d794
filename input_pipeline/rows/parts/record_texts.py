"""The texts of records, checked, for rows that read one record each."""

from collections.abc import Sequence

import numpy as np

from input_pipeline.sources import Source
from input_pipeline.sources.parts.documents import not_text


def fields(
  records: dict[str, np.ndarray], keys: Sequence[str], title: str
) -> dict[str, np.ndarray]:
  """Returns {key: values} of records.

  Raises:
    ValueError: the records have no such field.
  """
  for key in keys:
    if key not in records:
      raise ValueError(
        f"{title} has no field {key!r}; valid: {', '.join(records)}"
      )
  return {key: records[key] for key in keys}


def texts_of(
  source: Source, keys: Sequence[str], title: str, indices: np.ndarray
) -> list[list[str]]:
  """Returns the texts of some fields of some records, one list for each field.

  Raises:
    ValueError: a field is missing, or is not text; it names the record.
  """
  records = fields(source.read(indices), keys, title)
  found = []
  for key in keys:
    values = checked(source, key, records[key], indices)
    found.append([v.decode() if isinstance(v, bytes) else v for v in values])
  return found


def checked(
  source: Source, key: str, values: np.ndarray, indices: np.ndarray
) -> Sequence[str | bytes]:
  """Returns the values of a field, which are texts.

  Raises:
    ValueError: one is not text; it names the record.
  """
  for i, value in zip(indices, values, strict=True):
    wrong = not_text(value)
    if wrong:
      name = source.name(int(i))
      raise ValueError(f"{name}: the field {key!r} is not {wrong}")
  return values
