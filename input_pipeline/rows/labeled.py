"""Labelled texts, or pairs of texts, for classification."""

from collections.abc import Sequence

import numpy as np

from input_pipeline.reading.columns import strings
from input_pipeline.rows import Given, Rows
from input_pipeline.rows.parts import record_texts
from input_pipeline.sources import Source
from input_pipeline.tokenizers.parts import special_tokens

SPECIAL_TOKENS = special_tokens.BERT
AXES = dict.fromkeys(("tokens", "segments", "types"), ("time",))


def labeled(
  given: Given,
  *,
  pair_key: str | None = None,
  label_key: str = "label",
  labels: Sequence[str] | None = None,
) -> Rows:
  """Rows of "[CLS] text [SEP]" or "[CLS] text [SEP] other [SEP]".

  A row is {"tokens", "segments", "types": int32 [T], "label": int32 []}: types
  is 1 on the second text, segments is 1 except on padding. Texts that are too
  long are truncated at the end of the longer one (BERT, arXiv:1810.04805).

  Args:
    given: of the data.
    pair_key: the field of the second text, or None.
    label_key: of the label.
    labels: the names of the classes in order; None if labels are numbers.

  Raises:
    ValueError: a field is missing, or a label is not one of the classes.
  """
  source = given.source
  cls, sep = (
    special_tokens.find(given.tokenizer, family)
    for family in (special_tokens.CLS, special_tokens.SEP)
  )
  keys = [given.text_key, *([pair_key] if pair_key else [])]
  names = tuple(map(str, labels)) if labels else source.class_names or ()
  marks = 2 + (pair_key is not None)
  if given.seq_len <= marks:
    raise ValueError(f"seq_len {given.seq_len} leaves no room for the text")

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    wanted = (*keys, label_key)
    records = record_texts.fields(source.read(indices), wanted, given.title)
    texts = [
      record_texts.checked(source, key, records[key], indices) for key in keys
    ]
    leaves = ("tokens", "segments", "types")
    rows = {
      k: np.zeros((len(indices), given.seq_len), np.int32) for k in leaves
    }
    for i, pair in enumerate(zip(*texts, strict=True)):
      ids = fitted(
        [given.tokenizer.encode(text) for text in pair], given.seq_len - marks
      )
      tokens = np.concatenate(
        [[cls], *(p for each in ids for p in (each, [sep]))]
      )
      rows["tokens"][i, : len(tokens)] = tokens
      rows["segments"][i, : len(tokens)] = 1
      rows["types"][i, 2 + len(ids[0]) : len(tokens)] = 1
    rows["label"] = label_numbers(
      source, label_key, records[label_key], indices, names
    )
    return rows

  return Rows(
    source.length,
    read,
    texts=source.read,
    num_classes=len(names) or source.num_classes,
    class_names=names,
  )


def leaves(seq_len: int, labels: Sequence[str] | None = None, **other):
  """Returns ({leaf: (shape, dtype)}, classes or None) of such rows."""
  del other
  found = dict.fromkeys(("tokens", "segments", "types"), ((seq_len,), np.int32))
  return {**found, "label": ((), np.int32)}, len(labels) if labels else None


def placeholders(
  given: Given,
  records,
  indices: np.ndarray,
  *,
  label_key: str = "label",
  labels: Sequence[str] | None = None,
  **other,
) -> dict[str, np.ndarray]:
  """Returns labels for records without them, see rows/__init__.py."""
  del records, other
  names = labels or given.source.class_names or (0,)
  return {label_key: strings([names[0]] * len(indices))}


def label_numbers(
  source: Source, key: str, values, indices: np.ndarray, names
) -> np.ndarray:
  """Returns the classes of some records, int32; see `label_number`."""
  return np.array(
    [
      label_number(value, names, source.name(int(n)), key)
      for value, n in zip(values, indices, strict=True)
    ],
    np.int32,
  )


def fitted(ids: list[np.ndarray], most: int) -> list[np.ndarray]:
  """Truncates the longest sequences until they have `most` ids together."""
  sizes = [len(each) for each in ids]
  while sum(sizes) > most:
    longest = int(np.argmax(sizes))
    others = max((s for i, s in enumerate(sizes) if i != longest), default=0)
    over = sum(sizes) - most
    sizes[longest] -= max(1, min(over, sizes[longest] - others))
  return [each[:size] for each, size in zip(ids, sizes, strict=True)]


def label_number(value, names: tuple[str, ...], record: str, key: str) -> int:
  """Returns the number of a class; ValueError if `value` is none of them."""
  value = value.item() if isinstance(value, np.generic) else value
  if not names:
    # Labels are int32 in a batch.
    if isinstance(value, int) and 0 <= value < 2**31:
      return int(value)
    raise ValueError(
      f"{record}: {key}={value!r} is not a class; set rows.labels"
    )
  if str(value) in names:
    return names.index(str(value))
  # Where classes are named by numbers, a number is a name, not a place.
  numbered = all(name.lstrip("-").isdigit() for name in names)
  place = isinstance(value, int) and not numbered
  if place and 0 <= value < len(names):
    return int(value)
  raise ValueError(f"{record}: {key}={value!r} is none of {', '.join(names)}")
