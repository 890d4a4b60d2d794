"""Iterates over the texts of a source."""

from collections.abc import Iterator

import numpy as np

from input_pipeline.bad_records import Policy, first_readable, surviving
from input_pipeline.sources import Source

# The number of records, and about the number of characters, held at once.
_RECORDS = 64
_CHARACTERS = 2**25


def documents(
  source: Source, text_key: str, uri: str, policy: Policy = Policy()
) -> Iterator[tuple[int, str | bytes | None, str]]:
  """Yields (index, text, "") of each record, or (index, None, reason) if bad.

  Raises:
    ValueError: the source has no such text field; or, unless the policy skips,
      a record cannot be read or is not text: it names the record.
  """
  sample = first_readable(source, policy)
  if text_key not in sample:
    raise ValueError(
      f"{uri} has no field {text_key!r}; valid: {', '.join(sample)}"
    )
  if sample[text_key].dtype != object:
    raise ValueError(f"{uri}: the field {text_key!r} is not text")

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    values = source.read(indices)[text_key]
    for index, value in zip(indices, values, strict=True):
      wrong = not_text(value)
      if wrong:
        name = source.name(int(index))
        raise ValueError(f"{name}: the field {text_key!r} is not {wrong}")
    return {text_key: values}

  start, count = 0, 1
  while start < source.length:
    indices = np.arange(start, min(start + count, source.length))
    if policy.skip:
      rows, found, errors = surviving(read, indices)
    else:
      rows, found, errors = read(indices), range(len(indices)), {}
    texts = dict(zip(found, rows.get(text_key, ()), strict=True))
    for i, index in enumerate(indices):
      yield int(index), texts.get(i), errors.get(i, "")
    start += len(indices)
    mean = 1 + sum(map(len, texts.values())) // len(indices)
    count = min(_RECORDS, 4 * count, max(1, _CHARACTERS // mean))


def texts(
  source: Source, text_key: str, uri: str, policy: Policy = Policy()
) -> Iterator[str]:
  """Yields the texts to learn a vocabulary from; bad ones as in `documents`."""
  for index, text, _ in documents(source, text_key, uri, policy):
    try:
      if text is not None:
        yield text.decode() if isinstance(text, bytes) else text
    except UnicodeDecodeError as error:
      if not policy.skip:
        raise ValueError(f"{source.name(index)}: {error}") from None


def not_text(value: object) -> str:
  """Returns what a value is not, "text" or "Unicode text", or "" if it is."""
  if not isinstance(value, (str, bytes)):
    return "text"
  if isinstance(value, str) and not value.isascii():
    try:
      value.encode()
    except UnicodeEncodeError:  # A lone surrogate, which JSON can encode.
      return "Unicode text"
  return ""
