"""Labelled texts as bags of hashed n-grams of their words and characters."""

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from common import bounded_file
from common.files import write_atomically
from input_pipeline import bad_records
from input_pipeline.reading.columns import strings
from input_pipeline.rows import Given, Learning, Rows, labeled
from input_pipeline.rows.parts import ngram_hashes, record_texts

NEEDS_TOKENIZER = False
IGNORES_TOKENIZER = True
AXES = labeled.AXES
# The names of classes that were learned from the training data.
FILE = "labels.json"
_MOST_BYTES = 2**24
_MOST_CLASSES = 10_000
_CHUNK = 4096  # records that are read at once to learn from


def bag_of_ngrams(
  given: Given,
  *,
  words: int = 2,
  characters: tuple[int, int] = (2, 5),
  buckets: int = 2**18,
  ends: bool = False,
  pair_key: str | None = None,
  label_key: str = "label",
  labels: Sequence[str] | None = None,
) -> Rows:
  """Rows of the n-grams of a text, for `fasttext` with kinds=2.

  A row is {"tokens", "segments", "types": int32 [T], "label": int32 []}, where
  T is data.seq_len. tokens has the hashed n-grams; segments is 1 on those of
  words, 2 on those of characters and 0 on padding; types is 1 on the second
  text, whose segments are 3 and 4 (kinds=4). Of a text with more n-grams than
  fit, words keep at most half of the room, and of both kinds an evenly spaced
  part is kept, so that the end of a long text counts as much as its beginning.

  Without `labels` the classes are the source's, or else the distinct labels of
  the training data in sorted order, which are kept in labels.json of the
  working directory.

  Args:
    given: of the data.
    words: the longest n-grams of words; 0 for none.
    characters: (shortest, longest) n-grams of characters within a word and the
      spaces around it; (0, 0) for none.
    buckets: of the hash; the vocab_size of the model.
    ends: whether the beginning and the end of a text count as words, so that
      an n-gram shows that a text begins with "who". Behind the beginning there
      are still `words` words: with 2, "(beginning) how many" is one.
    pair_key: the field of the second text, or None.
    label_key: of the label.
    labels: the names of the classes in order.

  Raises:
    ValueError: a setting is wrong, a field is missing, or a label is not one of
      the classes.
  """
  del labels  # in given.fitted
  names = given.fitted
  size = given.seq_len
  if not isinstance(size, int) or size < 2:
    raise ValueError(
      f"seq_len {size!r} is not the number of n-grams of a row, at least 2"
    )
  source = given.source
  hashed = ngram_hashes.hasher(words, tuple(characters), buckets, ends)
  keys = [given.text_key, *([pair_key] if pair_key else [])]
  room = size // len(keys)

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    wanted = (*keys, label_key)
    records = record_texts.fields(source.read(indices), wanted, given.title)
    rows = {
      key: np.zeros((len(indices), size), np.int32)
      for key in ("tokens", "segments", "types")
    }
    for i in range(len(indices)):
      start = 0
      for second, key in enumerate(keys):
        text = records[key][i]
        if not isinstance(text, str):
          name = source.name(int(indices[i]))
          raise ValueError(f"{name}: {key}={text!r} is not a text")
        for kind, ids in enumerate(_fitted(*hashed(text, second), room), 1):
          end = start + len(ids)
          rows["tokens"][i, start:end] = ids
          rows["segments"][i, start:end] = kind + 2 * second
          rows["types"][i, start:end] = second
          start = end
    rows["label"] = labeled.label_numbers(
      source, label_key, records[label_key], indices, names
    )
    return rows

  return Rows(
    source.length,
    read,
    texts=source.read,
    num_classes=len(names),
    class_names=names,
    note=f"{len(names)} classes",
  )


# The leaves of a row are those of labelled texts.
leaves = labeled.leaves


def placeholders(
  given: Given, records, indices: np.ndarray, *, label_key="label", **other
) -> dict[str, np.ndarray]:
  """Returns labels for records without them, see rows/__init__.py."""
  del records, other
  return {label_key: strings([given.fitted[0]] * len(indices))}


def fit(
  learning: Learning,
  *,
  label_key: str = "label",
  labels: Sequence[str] | None = None,
  **other,
) -> tuple[str, ...]:
  """The names of the classes, in order.

  Raises:
    ValueError: the labels of the training data are not classes, or it is an
      evaluation for which no training has kept any.
  """
  del other
  if labels:
    return tuple(map(str, labels))
  known = learning.sources[0].class_names
  if known:
    return tuple(known)
  path = os.path.join(learning.workdir, FILE) if learning.workdir else None
  if path and os.path.lexists(path):
    return _read(path)
  if not learning.training:
    raise ValueError(
      "rows.bag_of_ngrams: set rows.labels, or evaluate in the workdir of a run"
      f" that has kept {FILE}"
    )
  names = _learned(learning, label_key)
  if path:
    content = json.dumps(names, ensure_ascii=False, indent=1) + "\n"
    write_atomically(path, [content.encode()])
  return names


def _learned(learning: Learning, label_key: str) -> tuple[str, ...]:
  title = " + ".join(learning.titles)
  found: set[Any] = set()
  for source in learning.sources:
    for start in range(0, source.length, _CHUNK):
      indices = np.arange(start, min(start + _CHUNK, source.length))
      if learning.policy.skip:
        records, _, _ = bad_records.surviving(source.read, indices)
      else:
        records = source.read(indices)
      if not records:
        continue
      if label_key not in records:
        raise ValueError(
          f"{title} has no field {label_key!r}; valid: {', '.join(records)}"
        )
      found.update(np.asarray(records[label_key]).tolist())
      if len(found) > _MOST_CLASSES:
        raise ValueError(
          f"{title}: {label_key!r} has over {_MOST_CLASSES} values: it is not"
          " a class"
        )
  wrong = [each for each in found if not isinstance(each, (str, int))]
  if wrong:
    raise ValueError(
      f"{title}: {label_key}={wrong[0]!r} is neither text nor an integer"
    )
  whole = all(isinstance(each, int) for each in found)
  ordered = sorted(found) if whole else sorted(map(str, found))
  return tuple(map(str, ordered))


def _read(path: str) -> tuple[str, ...]:
  try:
    names = json.loads(bounded_file.read(path, _MOST_BYTES))
    right = isinstance(names, list) and names
    if not right or not all(isinstance(name, str) for name in names):
      raise ValueError("no names")
  except (ValueError, RecursionError):
    raise ValueError(f"{path} does not hold the names of classes") from None
  return tuple(names)


def _fitted(of_words, of_characters, room: int) -> list[np.ndarray]:
  """Returns evenly spaced parts that have at most `room` ids together."""
  total = len(of_words) + len(of_characters)
  if total <= room:
    return [of_words, of_characters]
  first = min(len(of_words), max(room // 2, room - len(of_characters)))
  return [_spaced(of_words, first), _spaced(of_characters, room - first)]


def _spaced(ids: np.ndarray, count: int) -> np.ndarray:
  if len(ids) <= count:
    return ids
  return ids[np.arange(count) * len(ids) // count]
