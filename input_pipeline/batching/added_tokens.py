"""The tokens that a run's ops and rows add to a tokenizer's vocabulary."""

from collections.abc import Callable, Mapping
from typing import Any

from input_pipeline import ops as ops_lib
from input_pipeline import rows as rows_lib
from input_pipeline.tokenizers import Tokenizer
from input_pipeline.tokenizers.parts import special_tokens


def extended(tokenizer: Tokenizer, ops: str) -> Tokenizer:
  """Returns the tokenizer with the tokens that the ops need and it lacks added.

  Text is never encoded to one of the added tokens; they decode to their names.

  Raises:
    ValueError: the ops are malformed.
  """
  return special_tokens.added(
    tokenizer,
    names(ops, lambda name: special_tokens.piece(tokenizer, name) is not None),
  )


def of_rows(tokenizer: Tokenizer, rows: Mapping[str, Any] | None) -> Tokenizer:
  """Returns the tokenizer extended by the tokens that a kind of rows needs.

  Raises:
    ValueError: there is no such kind of rows.
  """
  needed = rows_lib.special_tokens(rows)
  return special_tokens.added(
    tokenizer,
    [f[0] for f in needed if special_tokens.lookup(tokenizer, f) is None],
  )


def names(
  ops: str, known: Callable[[str], bool] = lambda name: False
) -> list[str]:
  """Returns the names of the tokens that the ops add to a vocabulary.

  Args:
    ops: see input_pipeline/ops.
    known: (name) -> whether the vocabulary already has the token.

  Raises:
    ValueError: the ops are malformed.
  """
  added: list[str] = []

  def need(first: str, *others: str, family: tuple[str, ...] = ()) -> None:
    if first not in added and not any(map(known, (first, *family))):
      added.extend((*others, first))

  for call in ops_lib.calls(ops) if ops else ():
    if call.name == "mask_tokens" and call.kwargs.get("mask_id") is None:
      need(special_tokens.MASK[0], family=special_tokens.MASK)
    if call.name in ("blank_infilling", "trailing_blank"):
      for family in (
        special_tokens.MASK,
        special_tokens.START,
        special_tokens.END,
      ):
        need(family[0], family=family)
    chosen = call.kwargs.get("sentinel_id")
    if call.name == "span_corruption" and chosen is None:
      need(
        special_tokens.sentinel(0),
        *map(
          special_tokens.sentinel, range(special_tokens.SENTINELS - 1, 0, -1)
        ),
      )
  return added


def of_examples(examples: Any, ops: str) -> Any:
  """Returns the Examples, with the ops' added tokens in their tokenizer."""
  if not examples.tokenizer:
    return examples
  return examples._replace(tokenizer=extended(examples.tokenizer, ops))
