"""A batch of a fixed number of slots, which texts join and leave at any time.

The cache has places for as many tokens as the longest text needs, rounded up to
one of a few sizes: attending to fewer takes less time. A text that joins reads
its own prompt only.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from train.generation import streaming
from train.generation.decoding_programs import How, Rows, seed_of
from train.generation.slot_programs import Drawn, Programs, State

# After how many calls in which a smaller cache would do it is made smaller.
_PATIENCE = 4


class Slots:
  """Continues the texts in its slots, a few tokens of each at a time.

  The caller decides which text is in which slot, and keeps the occupied slots
  at 0 … n-1. The methods return before the device has finished.

  Args:
    programs: see Programs.

  Attributes:
    count, chunk: the number of slots, and of tokens per call.
  """

  def __init__(self, programs: Programs):
    self.count, self.chunk = programs.count, programs.chunk
    self._programs, self._compiled = programs, programs.compiled
    self.reset()

  def reset(self) -> None:
    """Empties all slots."""
    self._state, self._read = self._compiled["start"]()
    self._room, self._spare = self._programs.room, 0

  def read(self, ids: Sequence[int]) -> Iterator[int]:
    """Reads a prompt piece by piece, for `join`; yields each piece's tokens."""
    fed, first, pieces = list(ids[:-1]), 0, self._programs.pieces
    if not fed or not self._programs.grows:  # else the first piece does it
      self._read = self._compiled["clear"](self._read)
    while first < len(fed):
      left = len(fed) - first
      fitting = [size for size in pieces if size <= left]
      size = max(fitting, default=pieces[0])
      if self._programs.grows:
        # Near the end of the cache, tokens are read again at their own places.
        first = min(first, self._programs.room - size)
      piece = fed[first : first + size]
      tokens_1P = np.zeros((1, size), np.int32)
      tokens_1P[0, : len(piece)] = piece
      self._read = self._compiled["read", size](
        self._programs.variables,
        self._read,
        tokens_1P,
        np.int32(first),
        len(piece),
      )
      first += len(piece)
      yield len(piece)

  def join(
    self, slot: int, ids: Sequence[int], options: streaming.Options
  ) -> None:
    """Puts the prompt that was read last, and its options, into a slot."""
    seen_V = np.zeros((self._programs.vocabulary,), bool)
    if options.repetition_penalty != 1:
      seen_V[list(ids)] = True
    every = np.iinfo(np.int32).max
    how = How(
      seed=seed_of(options.seed),
      temperature=np.float32(options.temperature),
      top_k=np.int32(every if options.top_k is None else options.top_k),
      top_p=np.float32(1 if options.top_p is None else options.top_p),
      min_p=np.float32(0 if options.min_p is None else options.min_p),
      penalty=np.float32(options.repetition_penalty),
    )
    place, left = np.int32(len(ids) - 1), np.int32(options.max_tokens)
    rows = Rows(self._read, np.int32(ids[-1]), place, left, seen_V)
    self._resize(max(self._room, self._least(len(ids))))
    self._state = self._compiled["join", self._room](
      self._state, State(rows, how), np.int32(slot)
    )

  def move(self, source: int, target: int) -> None:
    """Copies the text of one slot to another."""
    self._state = self._compiled["move", self._room](
      self._state, np.int32(source), np.int32(target)
    )

  def advance(self, occupied: int, room: int, most: int | None = None) -> Drawn:
    """Continues the texts in the first slots by up to `most` tokens.

    Args:
      occupied: how many slots are occupied.
      room: the tokens of the longest of these texts after this call.
      most: at most C, which is the default.
    """
    needed = self._least(room)
    self._spare = self._spare + 1 if needed < self._room else 0
    if needed > self._room or self._spare > _PATIENCE:
      self._resize(needed)
    B = min(B for B in self._programs.slot_counts if occupied <= B)
    self._state, drawn = self._compiled["advance", B, self._room](
      self._programs.variables,
      self._state,
      np.int32(occupied),
      np.int32(self.chunk if most is None else most),
    )
    return drawn

  def _least(self, tokens: int) -> int:
    """Returns the smallest size of the cache for texts of so many tokens."""
    return min(S for S in self._programs.rooms if tokens <= S)

  def _resize(self, room: int) -> None:
    """Copies the cache to one of another size, from each size to the next."""
    rooms, self._spare = self._programs.rooms, 0
    while self._room != room:
      place = rooms.index(self._room) + (1 if room > self._room else -1)
      self._state = self._compiled["resize", self._room, rooms[place]](
        self._state
      )
      self._room = rooms[place]
