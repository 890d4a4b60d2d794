"""Documents by how well an n-gram model of ours foretells them."""

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
  """A stage that measures perplexity, and drops what lies outside of bounds.

  As CCNet (Wenzek et al., LREC 2020), which keeps what is like Wikipedia; but
  a UTF-8 byte, exp(-ln p(text) / bytes), so that neither the tokenizer nor the
  language sets the scale: it is 2 to the bits a byte of a language model's
  evaluation. fields["perplexity"] has it, to 6 digits. A text of no bytes has
  none, and is kept.

  Args:
    model: a file of `python -m input_pipeline.train_ngram`.
    max: what is above is dropped, as perplexity_above.
    min: what is below is dropped, as perplexity_below: so repetitive are
      menus, and text that a machine wrote.
    languages: only documents whose fields["lang"] is one of these are
      measured; None measures all.

  Raises:
    ValueError: there is no such model, its tokenizer cannot spell every text,
      or a bound makes no sense.
  """
  low = 1.0 if min is None else min
  high = float("inf") if max is None else max
  numbers = all(type(bound) in (int, float) for bound in (low, high))
  if not numbers or not 1 <= low <= high:
    raise ValueError(
      f"perplexity(min={min!r}, max={max!r}): a perplexity is 1 or more, and "
      "min is at most max"
    )
  if isinstance(languages, str):
    raise ValueError(f"perplexity(languages={languages!r}) is no list")
  _, tokenizer = _load(model, _identity(model))
  if tokenizer.spec == "char":
    raise ValueError(
      f"perplexity(model={model!r}): its tokenizer char cannot spell every "
      "text; train one with byte or sentencepiece"
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
  """Read once a process: a stage that is sent away holds but the name."""
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
  # Machines differ in a logarithm's last digits, and bytes must not.
  found = float(f"{found:.6g}")
  if found > high:
    return Dropped("perplexity_above")
  if found < low:
    return Dropped("perplexity_below")
  fields = {**document.fields, "perplexity": found}
  return document._replace(fields=fields)
