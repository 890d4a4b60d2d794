"""Pairs of answers to a prompt, one of which is preferred."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from input_pipeline.rows import Given, Rows
from input_pipeline.tokenizers.parts import chat_template
from input_pipeline.tokenizers.parts.chat_template import Chat, Message

_SIDES = ("chosen", "rejected")
AXES = dict.fromkeys(
  (
    f"{side}_{leaf}"
    for side in _SIDES
    for leaf in ("inputs", "targets", "mask")
  ),
  ("time",),
)


def needed_tokens(template: str = "chatml", **other):
  """Returns the families of special tokens that the template needs."""
  del other
  return chat_template.tokens_of(template)


def preferences(given: Given, *, template: str = "chatml") -> Rows:
  """Rows of one pair each: a preferred answer and a rejected one.

  A record is {"prompt", "chosen", "rejected"}: the prompt is a text, or the
  turns before the answer; an answer is a text, or turns that end with it. If
  the answers hold the entire conversation, as in many data sets, the prompt may
  be missing.

  A row is, for each side of the pair, {"SIDE_inputs", "SIDE_targets": int32
  [T], "SIDE_mask": float32 [T]}; mask is 1 where the target belongs to the last
  answer, or is the token that ends it. If the longer side does not fit, the
  oldest turns of the prompt are dropped from both sides, except system turns
  and the last turn; then the answer is truncated.

  Args:
    given: of the data.
    template: a name in chat_template.py.

  Raises:
    ValueError: a record holds no pair, or no token of an answer fits its row.
  """
  chat = chat_template.bind(template, given.tokenizer)
  names = list(leaves(given.seq_len)[0])

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    records = given.source.read(indices)
    rows: dict[str, list] = {name: [] for name in names}
    for i, index in enumerate(map(int, indices)):
      try:
        pair = _pair({k: v[i] for k, v in records.items()})
        sides = fitted(chat, *pair, given.seq_len + 1)
      except ValueError as error:
        raise ValueError(f"{given.source.name(index)}: {error}") from None
      for side, (ids, mask) in zip(_SIDES, sides, strict=True):
        rows[f"{side}_inputs"].append(_padded(ids[:-1], given.seq_len))
        rows[f"{side}_targets"].append(_padded(ids[1:], given.seq_len))
        rows[f"{side}_mask"].append(_padded(mask[1:], given.seq_len))
    return {
      name: np.array(values, np.float32 if "mask" in name else np.int32)
      for name, values in rows.items()
    }

  return Rows(given.source.length, read, texts=given.source.read)


def leaves(seq_len: int, **other) -> tuple[dict[str, Any], None]:
  """Returns ({leaf: (shape, dtype)}, no classes) of such rows."""
  del other
  kinds = {"inputs": np.int32, "targets": np.int32, "mask": np.float32}
  return {
    f"{side}_{name}": ((seq_len,), dtype)
    for side in _SIDES
    for name, dtype in kinds.items()
  }, None


def fitted(
  chat: Chat,
  prompt: tuple[Message, ...],
  chosen: str,
  rejected: str,
  most: int,
) -> list[tuple[np.ndarray, np.ndarray]]:
  """Returns (ids, mask of the answer) of both sides, `most` ids each.

  Raises:
    ValueError: the prompt leaves no room.
  """
  turns = list(prompt)
  while True:
    sides = [_side(chat, turns, answer) for answer in (chosen, rejected)]
    if max(len(ids) for ids, _ in sides) <= most:
      return sides
    oldest = next(
      (i for i, turn in enumerate(turns[:-1]) if turn.role != "system"), None
    )
    if oldest is None:
      break
    del turns[oldest]
  sides = [(ids[:most], mask[:most]) for ids, mask in sides]
  if not all(mask.any() for _, mask in sides):
    raise ValueError(
      f"the prompt leaves no room for an answer in {most - 1} tokens"
    )
  return sides


def _side(chat: Chat, turns: list[Message], answer: str):
  """Returns (ids, mask) up to the token that ends the answer."""
  start = len(chat.prompt(turns))
  ids, mask = chat.encode([*turns, Message("assistant", answer)])
  mask = mask & (np.arange(len(ids)) >= start)
  end = int(np.flatnonzero(mask)[-1]) + 1
  return ids[:end], mask[:end]


def _pair(record: Mapping) -> tuple[tuple[Message, ...], str, str]:
  """Returns (prompt, chosen, rejected) of a record.

  Raises:
    ValueError: it holds no such pair.
  """
  answers, before = [], []
  for side in _SIDES:
    if side not in record:
      raise ValueError(f"no field {side!r}; valid: {', '.join(record)}")
    value = record[side]
    if isinstance(value, str):
      answers.append(value)
      continue
    turns = chat_template.messages_of(value, side)
    if turns[-1].role != "assistant":
      raise ValueError(f"{side} does not end with a turn of the assistant")
    answers.append(turns[-1].content)
    before.append(turns[:-1])
  prompt = record.get("prompt")
  if isinstance(prompt, str):
    turns = (Message("user", prompt),)
  elif prompt is not None:
    turns = chat_template.messages_of(prompt, "prompt")
  elif len(before) == 2 and before[0]:
    turns = before[0]
  else:
    raise ValueError("no field 'prompt', and no turns before the answers")
  if any(each and each != turns for each in before):
    raise ValueError("chosen and rejected do not answer the same turns")
  return turns, *answers


def _padded(values: np.ndarray, size: int) -> np.ndarray:
  return np.pad(values, (0, size - len(values)))
