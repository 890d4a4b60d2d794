"""Filtering of documents by their perplexity under an n-gram model."""

import functools
import os
from collections.abc import Sequence

from input_pipeline.cleaning.parts import ngram, ngram_file
from input_pipeline.document import Document, Dropped, Result, Stage


def perplexity(
  model: str,
  max: float | None = None,
  min: float | None = None,
  languages: Sequence[str] | None = None,
) -> Stage:
  """A stage that measures perplexity and drops documents outside of bounds.

  CCNet (Wenzek et al., LREC 2020) filters in this way to keep text like
  Wikipedia. The perplexity is per UTF-8 byte, exp(-ln p(text) / bytes), so that
  it depends neither on the tokenizer nor on the language; it equals 2 to the
  bits per byte. It is written to fields["perplexity"], with 6 digits. Empty
  texts are kept and have none.

  Args:
    model: a file written by `python -m input_pipeline.train_ngram`.
    max: documents above are dropped as "perplexity_above".
    min: documents below are dropped as "perplexity_below"; these are
      repetitive, such as menus and generated text.
    languages: the values of fields["lang"] to measure; None measures all
      documents.

  Raises:
    ValueError: there is no such model, its tokenizer cannot encode every text,
      or a bound is wrong.
  """
  low = 1.0 if min is None else min
  high = float("inf") if max is None else max
  numbers = all(type(bound) in (int, float) for bound in (low, high))
  if not numbers or not 1 <= low <= high:
    raise ValueError(
      f"perplexity: min={min!r} and max={max!r}: both must be at least 1, and "
      "min at most max"
    )
  if isinstance(languages, str):
    raise ValueError(f"perplexity: languages={languages!r} is not a list")
  _, tokenizer = _load(model, _identity(model))
  if tokenizer.spec == "char":
    raise ValueError(
      f"perplexity: the tokenizer char of model={model!r} cannot encode every "
      "text; train the model with byte or sentencepiece"
    )
  chosen = None if languages is None else frozenset(languages)
  return functools.partial(_judge, model, low, high, chosen)


def _identity(path: str) -> tuple[int, int]:
  """Changes when a file is replaced."""
  try:
    status = os.stat(os.path.expanduser(path))
  except OSError as error:
    raise ValueError(f"{path}: {error.strerror}") from None
  return status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=4)
def _load(path: str, identity: tuple[int, int]):
  """Reads a model once per process; a pickled stage holds its name only."""
  return ngram_file.load(path)


def _judge(
  path: str,
  low: float,
  high: float,
  languages: frozenset[str] | None,
  document: Document,
) -> Result:
  if languages is not None and document.fields.get("lang") not in languages:
    return document
  model, tokenizer = _load(path, _identity(path))
  found = ngram.perplexity(model, tokenizer, document.text)
  if found is None:
    return document
  # The last digits of a logarithm differ between machines.
  found = float(f"{found:.6g}")
  if found > high:
    return Dropped("perplexity_above")
  if found < low:
    return Dropped("perplexity_below")
  fields = {**document.fields, "perplexity": found}
  return document._replace(fields=fields)
