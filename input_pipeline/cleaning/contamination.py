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

  A document with an n-gram of an evaluation set is dropped as contaminated,
  or loses it and `window` characters on each side; it then falls into pieces,
  of which the short are left out, and with too many of which it is dropped.
  n-grams are of words, lower-cased, without punctuation; of examples written
  without spaces, of characters. 23 of them: 13 English words of XQuAD have
  22.5 characters in its Chinese. An example shorter than that counts as one
  n-gram if it has `fewest` words or `fewest_characters`. Unlike GPT-3's, an
  n-gram is not passed over for being frequent in the documents.

  The n-grams are read once in each process, 8 bytes for each.

  Args:
    against: evaluation sets: a URI, all of it; or dict(source=URI,
      split="all", text_keys=[...]): without keys every field of text counts.
    action: "drop" or "cut".
    ngram: words.
    ngram_characters: characters, where no spaces are written.
    fewest: words of a shorter example.
    fewest_characters: and characters.
    window: characters cut on each side.
    shortest_piece: characters of a piece that stays.
    most_pieces: pieces of a document that stays.

  Raises:
    ValueError: a set that is missing, or a setting that does not exist.
  """
  if action not in ("drop", "cut"):
    raise ValueError(
      f"contamination: action: {action!r} is neither 'drop' nor 'cut'"
    )
  if isinstance(against, str) or not against:
    raise ValueError("contamination: against: needs a list of evaluation sets")
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
      f"contamination: against: {dict(entry)!r}: needs source, and may have"
      " split and text_keys, nothing else"
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
