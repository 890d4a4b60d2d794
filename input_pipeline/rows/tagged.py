"""Words with a tag each, such as named entities: IOB2 and other schemes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from input_pipeline.reading.columns import strings
from input_pipeline.rows import Given, Rows
from input_pipeline.rows.parts import word_features
from input_pipeline.rows.parts.record_windows import cut, records
from input_pipeline.tokenizers.parts import special_tokens

SPECIAL_TOKENS = special_tokens.BERT
AXES = dict.fromkeys(("tokens", "segments", "targets", "mask"), ("time",))
UNITS = {"targets": "tokens"}


def tagged(
  given: Given,
  *,
  labels: Sequence[str] | None = None,
  words_key: str = "words",
  tags_key: str = "tags",
  overlap: int | None = None,
  buckets: int | None = None,
) -> Rows:
  """Rows of "[CLS] word word … [SEP]"; the first token of a word has its tag.

  A row is {"tokens", "segments", "targets": int32 [T], "mask": float32 [T]}:
  mask is 1 on the tokens whose target counts, segments is 1 except on padding
  (BERT, arXiv:1810.04805, section 5.3). A sentence that does not fit is cut
  into overlapping windows; each of its words counts in one window, the one in
  which it is farther from the edge. Words are encoded one by one, those after
  the first with a space before them; a single word longer than a window is
  truncated.

  With `buckets` the tokens are int32 [T, F], the hashed features of each word
  (see word_features.py), 0 for none; there is one position per word, and no
  [CLS] or [SEP].

  texts gives "words" and "tags" of the entire sentence, "record", the number of
  the sentence, and "first", the index of the word of each position that counts.

  Args:
    given: of the data.
    labels: the tags in the order of their numbers.
    words_key: the field of the words, a list of strings.
    tags_key: of their tags, a list of equal length.
    overlap: the number of tokens that neighbouring windows share; None for a
      quarter of a window.
    buckets: of the hash, or None for the tokenizer's tokens.

  Raises:
    ValueError: there are no labels, a tag is not one of them, or a record does
      not hold words and tags.
  """
  keys = (words_key, tags_key)
  if not labels:
    raise ValueError(f"rows.labels is missing: {_all_tags(given, keys)}")
  number = {str(tag): i for i, tag in enumerate(labels)}
  marks = 0 if buckets else 2
  room = given.seq_len - marks
  overlap = room // 4 if overlap is None else overlap
  if room < 1 or not 0 <= overlap < room:
    raise ValueError(
      f"seq_len {given.seq_len} leaves no room for words with an overlap of"
      f" {overlap}"
    )
  encode = _encoder(given, room, buckets)

  def windows(name: str, record: dict[str, Any]):
    words, tags = _checked(name, *(record[key] for key in keys))
    for tag in tags:
      if tag not in number:
        raise ValueError(
          f"{name}: tag {tag!r} is none of {', '.join(map(str, labels))}"
        )
    sizes = np.array([len(ids) for ids in encode(words)], np.int64)
    return owned(sizes, room, overlap)

  index = cut(given, keys, windows)
  cls, sep = (
    special_tokens.find(given.tokenizer, family)
    for family in (special_tokens.CLS, special_tokens.SEP)
  )

  def read(rows: np.ndarray) -> dict[str, np.ndarray]:
    found = records(given, index[rows, 0], keys)
    shape = (len(rows), given.seq_len)
    tail = (word_features.COUNT,) if buckets else ()
    out = {k: np.zeros(shape, np.int32) for k in ("segments", "targets")}
    out["tokens"] = np.zeros((*shape, *tail), np.int32)
    out["mask"] = np.zeros(shape, np.float32)
    for i, (words, tags) in enumerate(zip(*found.values(), strict=True)):
      _, start, end, first, last = index[rows[i]]
      ids = encode(list(words)[:end])[start:]
      sizes = [1 if buckets else len(each) for each in ids]
      places = marks // 2 + np.cumsum([0, *sizes])
      if buckets:
        out["tokens"][i, : len(ids)] = np.concatenate(ids)
      else:
        row = np.concatenate([[cls], *ids, [sep]])
        out["tokens"][i, : len(row)] = row
      out["segments"][i, : places[-1] + marks // 2] = 1
      counted = places[first - start : last - start]
      out["mask"][i, counted] = 1
      out["targets"][i, counted] = [number[tag] for tag in tags[first:last]]
    return out

  def texts(rows: np.ndarray) -> dict[str, Sequence]:
    found = records(given, index[rows, 0], keys)
    return {
      "words": found[words_key],
      "tags": found[tags_key],
      "record": index[rows, 0],
      "first": index[rows, 3],
    }

  names = tuple(map(str, labels))
  return Rows(
    len(index),
    read,
    texts,
    len(names),
    names,
    planned=True,
    record=lambda row: given.source.name(int(index[row, 0])),
  )


def placeholders(
  given: Given,
  records,
  indices: np.ndarray,
  *,
  labels: Sequence[str] | None = None,
  words_key: str = "words",
  tags_key: str = "tags",
  **other,
) -> dict[str, np.ndarray]:
  """Returns tags for records without them, see rows/__init__.py.

  Records with a text in place of words have the words that spaces separate.
  """
  del indices, other
  words = records.get(words_key, records.get(given.text_key))
  if words is None or not labels:
    return {}
  words = [w.split() if isinstance(w, str) else w for w in words]
  tags = [
    [labels[0]] * (len(w) if isinstance(w, (list, tuple)) else 0) for w in words
  ]
  return {words_key: strings(words), tags_key: strings(tags)}


def leaves(
  seq_len: int,
  labels: Sequence[str] | None = None,
  buckets: int | None = None,
  **other,
):
  """Returns ({leaf: (shape, dtype)}, classes or None) of such rows."""
  del other
  tail = (word_features.COUNT,) if buckets else ()
  found = dict.fromkeys(("segments", "targets"), ((seq_len,), np.int32))
  found["tokens"] = ((seq_len, *tail), np.int32)
  found["mask"] = ((seq_len,), np.float32)
  return found, len(labels) if labels else None


def owned(sizes: np.ndarray, room: int, overlap: int):
  """Yields (start, end, first, last) of each window over words of given sizes.

  A window holds the words start … end - 1, at most `room` tokens; of them,
  first … last - 1 count in it, and every word counts in one window.
  """
  ends = np.cumsum(sizes)
  spans = [(0, int(np.searchsorted(ends, room, side="right")))]
  while spans[-1][1] < len(sizes):
    stop = spans[-1][1]
    # Goes back by the words in the overlap, but advances by at least one word.
    start = int(np.searchsorted(ends, ends[stop - 1] - overlap, side="left"))
    start = max(min(start + 1, stop), spans[-1][0] + 1)
    before = ends[start - 1]
    end = int(np.searchsorted(ends, before + room, side="right"))
    if end <= stop:  # The next word is too long to share a window.
      start, end = stop, stop + 1
    spans.append((start, end))
  middles = [
    (b[0] + a[1]) // 2 for a, b in zip(spans[:-1], spans[1:], strict=True)
  ]
  bounds = [0, *middles, len(sizes)]
  return [
    (*span, first, last)
    for span, first, last in zip(spans, bounds[:-1], bounds[1:], strict=True)
  ]


def _encoder(given: Given, room: int, buckets: int | None):
  """Returns (words) -> an array of each: ids [n] or hashed features [1, F]."""
  if buckets:
    hashed = word_features.hasher(buckets)
    return lambda words: [hashed(word)[None] for word in words]
  sep = special_tokens.find(given.tokenizer, special_tokens.SEP)

  def encode(words: Sequence[str]) -> list[np.ndarray]:
    found = [
      given.tokenizer.encode(" " * bool(i) + word)[:room]
      for i, word in enumerate(words)
    ]
    # Keeps words that the tokenizer drops, such as a control character.
    return [ids if len(ids) else np.array([sep]) for ids in found]

  return encode


def _checked(name: str, words, tags) -> tuple[list[str], list[str]]:
  for what, values in (("words", words), ("tags", tags)):
    if not isinstance(values, (list, tuple)) or not all(
      isinstance(value, str) for value in values
    ):
      raise ValueError(f"{name}: {what} is not a list of strings")
  if len(words) != len(tags):
    raise ValueError(f"{name}: {len(words)} words, but {len(tags)} tags")
  if not words:
    raise ValueError(f"{name}: holds no word")
  return list(words), list(tags)


def _all_tags(given: Given, keys: tuple[str, str]) -> str:
  """Returns a line that lists the tags of the data."""
  found: set[str] = set()

  def collect(name: str, record: dict[str, Any]):
    found.update(_checked(name, *(record[key] for key in keys))[1])
    return [()]

  cut(given, keys, collect)
  return f"{given.title} has labels={sorted(found)[:100]}"
