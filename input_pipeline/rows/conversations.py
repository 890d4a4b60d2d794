"""Packs conversations into rows in which only the answers are learned."""

import hashlib
import json
import os
from typing import Any, NamedTuple

import numpy as np

from common.files import cache_folder, write_atomically
from input_pipeline.bad_records import surviving
from input_pipeline.packing import windows
from input_pipeline.packing.whole_documents import best_fit, by_first
from input_pipeline.rows import Given, Rows
from input_pipeline.tokenizers.parts import chat_template
from input_pipeline.tokenizers.parts.chat_template import Chat, Message

AXES = windows.AXES
UNITS = windows.UNITS
_FORMAT = 1
# The number of conversations read at once, and packed together.
_AT_ONCE, _TOGETHER = 1024, 2**16
# The length of a conversation without an answer, and of a bad record.
_NOTHING, _BAD = 0, -1


def needed_tokens(template: str = "chatml", **other):
  """Returns the families of special tokens that the template needs."""
  del other
  return chat_template.tokens_of(template)


def conversations(
  given: Given, *, template: str = "chatml", key: str | None = None
) -> Rows:
  """Rows of whole conversations, in which only the answers are targets.

  A row is {"inputs", "targets", "segments", "positions": int32 [T], "mask":
  float32 [T]}: mask is 1 where the target belongs to an assistant's content, or
  is the token that ends it. Segments number the conversations of a row from 1,
  positions count from the start of each; all are 0 on padding. The
  conversations of a row are planned once, by best fit decreasing, as in
  packing/whole_documents.py.

  A conversation longer than a row is cut after its last complete answer that
  fits; if not even the first one fits, within that answer. Conversations
  without an answer are left out. The note counts both.

  Args:
    given: of the data.
    template: a name in chat_template.py.
    key: the field of the turns: [{"role", "content"}, …] or ShareGPT's
      [{"from", "value"}, …]; "messages" or "conversations" if None.

  Raises:
    ValueError: a record holds no conversation, or none has an answer.
  """
  chat = chat_template.bind(template, given.tokenizer)

  def messages(index: int, records: dict, place: int) -> tuple[Message, ...]:
    field = key or next(
      (k for k in ("messages", "conversations") if k in records), "messages"
    )
    if field not in records:
      raise ValueError(
        f"{given.title} has no field {field!r}; valid: {', '.join(records)}"
      )
    try:
      return chat_template.messages_of(records[field][place], field)
    except ValueError as error:
      raise ValueError(f"{given.source.name(index)}: {error}") from None

  def encoded(indices: np.ndarray) -> dict[str, np.ndarray]:
    """Returns {"found": objects (ids, mask, whether cut)} of conversations."""
    records = given.source.read(indices)
    found = np.empty(len(indices), object)
    for place, index in enumerate(map(int, indices)):
      said = messages(index, records, place)
      try:
        found[place] = fitted(chat, said, given.seq_len + 1)
      except ValueError as error:
        raise ValueError(f"{given.source.name(index)}: {error}") from None
    return {"found": found}

  lengths, cut = _lengths(given, encoded, [template, key])
  rows = plan(lengths, given.seq_len)
  if not len(rows.ends):
    raise ValueError(f"{given.title} has no answer to learn")

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    names = ("inputs", "targets", "segments", "positions")
    shape = (len(indices), given.seq_len)
    leaves = {name: np.zeros(shape, np.int32) for name in names}
    leaves["mask"] = np.zeros(shape, np.float32)
    for row, index in enumerate(map(int, indices)):
      start = int(rows.ends[index - 1]) if index else 0
      members = rows.members[start : int(rows.ends[index])]
      column = 0
      for number, (ids, mask, _) in enumerate(encoded(members)["found"], 1):
        at = (row, slice(column, column + len(ids) - 1))
        leaves["inputs"][at], leaves["targets"][at] = ids[:-1], ids[1:]
        leaves["mask"][at], leaves["segments"][at] = mask[1:], number
        leaves["positions"][at] = np.arange(len(ids) - 1)
        column += len(ids) - 1
    return leaves

  note = _note(given.title, lengths, cut)
  return Rows(len(rows.ends), read, note=note, planned=True)


def leaves(seq_len: int, **other) -> tuple[dict[str, Any], None]:
  """Returns ({leaf: (shape, dtype)}, no classes) of such rows."""
  del other
  names = ("inputs", "targets", "segments", "positions")
  found = dict.fromkeys(names, ((seq_len,), np.int32))
  return {**found, "mask": ((seq_len,), np.float32)}, None


class Packed(NamedTuple):
  """The conversations of each row; both int64.

  ends: [rows], the cumulative number of conversations up to each row's end.
  members: [conversations], their indices.
  """

  ends: np.ndarray
  members: np.ndarray


def plan(lengths: np.ndarray, seq_len: int) -> Packed:
  """Packs conversations by their numbers of targets; omits those below 1."""
  ends, members, before = [], [], 0
  for start in range(0, len(lengths), _TOGETHER):
    some = start + np.flatnonzero(lengths[start : start + _TOGETHER] > 0)
    if not len(some):
      continue
    row = by_first(best_fit(lengths[some], seq_len))
    members.append(some[np.lexsort((some, row))])
    ends.append(before + np.cumsum(np.bincount(row)))
    before += len(some)
  nothing = [np.zeros(0, np.int64)]
  return Packed(
    *(np.concatenate([*nothing, *parts]) for parts in (ends, members))
  )


def fitted(
  chat: Chat, messages: tuple[Message, ...], most: int
) -> tuple[np.ndarray, np.ndarray, bool]:
  """Returns (ids, mask, whether it was cut) of at most `most` ids.

  There are no ids if none of them would belong to an answer.
  """
  ids, mask = chat.encode(messages)
  # Nothing after the last answer is learned.
  end = int(np.flatnonzero(mask)[-1]) + 1 if mask.any() else 0
  cut = end > most
  if cut:
    last = np.flatnonzero(mask[:most] & ~mask[1 : most + 1])
    end = int(last[-1]) + 1 if len(last) else most
  if not mask[1:end].any():
    end = 0
  return ids[:end], mask[:end], cut


def _lengths(
  given: Given, encoded, kind: list
) -> tuple[np.ndarray, np.ndarray]:
  """Returns (int64 targets, bool whether it was cut) of each conversation.

  They are kept in the cache, unless records are skipped.
  """
  source, skip = given.source, given.tally.policy.skip
  identity = [
    *(_FORMAT, *kind, given.seq_len, given.uri, given.split),
    *(source.fingerprint, given.tokenizer.spec, given.tokenizer.vocab_size),
    hashlib.sha256(given.tokenizer.content).hexdigest(),
  ]
  digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
  path = os.path.join(cache_folder(given.cache_dir), f"{digest}.conversations")
  if not skip and os.path.exists(path):
    kept = np.fromfile(path, np.int64)
    if len(kept) == 2 * source.length:
      lengths, cut = np.split(kept, 2)
      return lengths, cut > 0
  lengths = np.full(source.length, _BAD, np.int64)
  cut = np.zeros(source.length, bool)
  for start in range(0, source.length, _AT_ONCE):
    indices = np.arange(start, min(start + _AT_ONCE, source.length))
    if skip:
      rows, found, errors = surviving(encoded, indices)
      given.tally.add(
        len(indices),
        [(source.name(int(indices[i])), why) for i, why in errors.items()],
      )
    else:
      rows, found = encoded(indices), np.arange(len(indices))
    for i, (ids, _, was_cut) in zip(found, rows.get("found", ()), strict=True):
      lengths[start + i] = max(len(ids) - 1, _NOTHING)
      cut[start + i] = was_cut
  if not skip:
    write_atomically(path, [np.concatenate([lengths, cut]).tobytes()])
  return lengths, cut


def _note(title: str, lengths: np.ndarray, cut: np.ndarray) -> str:
  """Returns the note that counts cut and omitted conversations, or ""."""
  nothing = int(np.sum(lengths == _NOTHING))
  shortened = int(np.sum(cut & (lengths > 0)))
  parts = []
  if shortened:
    parts.append(f"{shortened:,} are cut to fit a row")
  if nothing:
    parts.append(f"{nothing:,} are left out, as no answer fits a row")
  if not parts:
    return ""
  return f"{title}: of {len(lengths):,} conversations, {', '.join(parts)}"
