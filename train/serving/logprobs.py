"""Log-probabilities in the form of OpenAI's completions.

lm-evaluation-harness and other tools score texts with them: `echo` repeats the
prompt, `max_tokens` of 0 or 1 adds nothing or one token, and `logprobs` gives
the log-probability of every token of the answer.
"""

import math
from collections.abc import Sequence
from typing import Any

from train.generation import detokenize
from train.generation.scoring import Scores

_LOWEST = -9999.0  # JSON has no infinity


def legacy(
  tokenizer, ids: Sequence[int], scores: Scores, first: int, hidden: set[int]
) -> dict[str, Any]:
  """Returns OpenAI's object: tokens, token_logprobs, top_logprobs, text_offset.

  The texts of the tokens are those that they add to the text: a token that
  only begins a character is empty, and the token that completes it has the
  character. Offsets are counted in the text of the answer.

  Args:
    tokenizer: the tokenizer of the run.
    ids: the tokens of the prompt and the answer.
    scores: their scores.
    first: the index of the first token of the answer's text: 0 if the prompt is
      repeated.
    hidden: the indices of tokens that are not part of the text: one that begins
      or ends it.
  """
  decode = tokenizer.decode
  reader = detokenize.begin(decode, ids[:first])
  tokens, offsets, at = [], [], 0
  for i in range(first, len(ids)):
    if i in hidden:
      tokens.append(decode([ids[i]]))
      offsets.append(at)
      continue
    reader, text, _ = detokenize.read(decode, (), reader, ids[i])
    tokens.append(text)
    offsets.append(at)
    at += len(text)
  return {
    "tokens": tokens,
    "token_logprobs": [
      _finite(scores.own_T[i]) if i else None for i in range(first, len(ids))
    ],
    "top_logprobs": [
      _top(decode, ids, i, text, scores) if i else None
      for i, text in enumerate(tokens, first)
    ],
    "text_offset": offsets,
  }


def _top(decode, ids, i: int, text: str, scores: Scores) -> dict[str, float]:
  """Returns {text: log-probability} of the most likely tokens and of token i.

  If two tokens have the same text, the more likely one counts.
  """
  before = [int(ids[i - 1])]
  start = decode(before)
  found: dict[str, float] = {}
  for token, value in zip(scores.ids_TK[i], scores.top_TK[i], strict=True):
    pair = decode([*before, int(token)])
    name = pair.removeprefix(start) if pair.startswith(start) else ""
    found.setdefault(name or decode([int(token)]), _finite(value))
  own = _finite(scores.own_T[i])
  if own not in found.values():
    found[text] = max(own, found.get(text, own))
  return found


def _finite(value: Any) -> float:
  return float(value) if math.isfinite(value) else _LOWEST
