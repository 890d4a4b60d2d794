"""Documents that share a long n-gram with an evaluation set."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from input_pipeline.document import Counted, Document, Dropped, Result, Stage
from input_pipeline.similarity.shingles import (
  has_unspaced,
  is_unspaced,
  ngram_hashes,
  token_spans,
  tokens,
)
from input_pipeline.sources import open_source
from input_pipeline.sources.parts.documents import documents


class _Against(NamedTuple):
  source: str
  split: str
  text_keys: tuple[str, ...]


class _Lengths(NamedTuple):
  """Tokens of an n-gram, and of the shortest example that counts as one."""

  words: int
  characters: int
  fewest_words: int
  fewest_characters: int


class _Cut(NamedTuple):
  window: int
  shortest_piece: int
  most_pieces: int


def contamination(
  against: Sequence[str | Mapping[str, Any]],
  action: str = "drop",
  ngram: int = 13,
  ngram_characters: int = 23,
  fewest: int = 8,
  fewest_characters: int = 14,
  window: int = 200,
  shortest_piece: int = 200,
  most_pieces: int = 10,
) -> Stage:
  """Decontamination as in GPT-3 (Brown et al., 2020, appendix C).

  A document that contains an n-gram of an evaluation set is either dropped as
  "contaminated", or the n-gram and `window` characters on each side are cut
  out. Of the pieces that remain the short ones are removed, and a document
  with too many pieces is dropped. N-grams consist of lower-cased words without
  punctuation, or of characters for examples written without spaces: 13 English
  words of XQuAD correspond to 22.5 characters in its Chinese. A shorter example
  counts as one n-gram if it has `fewest` words or `fewest_characters`
  characters. Unlike GPT-3, n-grams that are frequent in the documents count.

  The n-grams are read once in each process and take 8 bytes each.

  Args:
    against: evaluation sets, each a URI or dict(source=URI, split="all",
      text_keys=[...]). Without keys every text field counts.
    action: "drop" or "cut".
    ngram: n for words.
    ngram_characters: n for characters, in text written without spaces.
    fewest: least number of words of a shorter example.
    fewest_characters: least number of characters of a shorter example.
    window: characters cut on each side.
    shortest_piece: least number of characters of a piece that is kept.
    most_pieces: greatest number of pieces of a document that is kept.

  Raises:
    ValueError: an evaluation set or a setting is wrong.
  """
  if action not in ("drop", "cut"):
    raise ValueError(
      f"contamination: action={action!r} is neither 'drop' nor 'cut'"
    )
  if isinstance(against, str) or not against:
    raise ValueError("contamination: against must be a list of evaluation sets")
  sets = tuple(_against(entry) for entry in against)
  for entry in sets:
    _keys(entry)
  lengths = _Lengths(ngram, ngram_characters, fewest, fewest_characters)
  cut = _Cut(window, shortest_piece, most_pieces) if action == "cut" else None
  return functools.partial(_stage, sets, lengths, cut)


def _against(entry: str | Mapping[str, Any]) -> _Against:
  if isinstance(entry, str):
    entry = dict(source=entry)
  unknown = set(entry) - {"source", "split", "text_keys"}
  if unknown or "source" not in entry:
    raise ValueError(
      f"contamination: against has {dict(entry)!r}; an evaluation set has the"
      " key source, and optionally split and text_keys"
    )
  keys = entry.get("text_keys") or ()
  keys = (keys,) if isinstance(keys, str) else tuple(keys)
  return _Against(entry["source"], entry.get("split", "all"), keys)


def _keys(entry: _Against) -> tuple[str, ...]:
  """The fields of text of an evaluation set.

  Raises:
    ValueError: it is missing or has no such field.
  """
  try:
    source = open_source(entry.source, entry.split)
    sample = source.read(np.zeros(1, np.int64))
  except ValueError as error:
    raise ValueError(f"contamination: {error}") from None
  texts = tuple(
    key for key, value in sample.items() if isinstance(value[0], (str, bytes))
  )
  for key in entry.text_keys:
    if key not in texts:
      raise ValueError(
        f"contamination: {entry.source} has no field of text {key!r};"
        f" valid: {', '.join(texts)}"
      )
  if not texts:
    raise ValueError(f"contamination: {entry.source} has no field of text")
  return entry.text_keys or texts


@functools.lru_cache(maxsize=4)
def _ngrams(
  sets: tuple[_Against, ...], lengths: _Lengths
) -> dict[tuple[bool, int], np.ndarray]:
  """{(of characters?, n): sorted hashes} of the evaluation sets."""
  found: dict[tuple[bool, int], list] = {}
  for entry in sets:
    source = open_source(entry.source, entry.split)
    for key in _keys(entry):
      for _, text, _ in documents(source, key, entry.source):
        text = text.decode() if isinstance(text, bytes) else text
        characters = is_unspaced(text, {})
        token = tokens(text, characters)
        n = lengths.characters if characters else lengths.words
        least = (
          lengths.fewest_characters if characters else lengths.fewest_words
        )
        if len(token) >= min(n, least):
          n = min(n, len(token))
          found.setdefault((characters, n), []).append(ngram_hashes(token, n))
  return {k: np.unique(np.concatenate(v)) for k, v in sorted(found.items())}


def _stage(
  sets: tuple[_Against, ...],
  lengths: _Lengths,
  cut: _Cut | None,
  document: Document,
) -> Result:
  text, hits = document.text, []
  unspaced = has_unspaced(text)
  found: dict[bool, np.ndarray] = {}
  for (characters, n), known in _ngrams(sets, lengths).items():
    if characters and not unspaced:
      continue
    if characters not in found:
      found[characters] = tokens(text, characters)
    token = found[characters]
    if len(token) < n:
      continue
    hashes = ngram_hashes(token, n)
    at = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
    starts = np.flatnonzero(known[at] == hashes)
    if len(starts) and not cut:
      return Dropped("contaminated")
    if len(starts):
      spans = token_spans(text, characters)
      hits += zip(spans[starts, 0], spans[starts + n - 1, 1], strict=True)
  return _without(document, hits, cut) if hits and cut else document


def _without(document: Document, hits: list, cut: _Cut) -> Result:
  text, pieces, position, spans = document.text, [], 0, 0
  for start, stop in sorted(hits):
    if start - cut.window > position or not spans:
      spans += 1
      pieces.append(text[position : max(0, start - cut.window)])
    position = max(position, stop + cut.window)
  pieces.append(text[position:])
  pieces = [piece for piece in pieces if len(piece) >= cut.shortest_piece]
  if not 0 < len(pieces) <= cut.most_pieces:
    return Dropped("contaminated")
  return Counted(
    document._replace(text="\n".join(pieces)), {"spans_cut": spans}
  )
