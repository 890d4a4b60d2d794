"""One thread that writes the texts of all requests, in batches.

Texts join and leave a batch between two chunks of tokens. A text's draws depend
on its own seed and on nothing beside it, so that whom it is written with
changes nothing in it; what it has so far is then its prompt.
"""

import collections
import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from train.generation import replies, streaming
from train.generation.replies import Speaker
from train.serving.protocol import ApiError

# Tokens that a batch writes at least before another takes its place: a prompt
# is read anew then.
_LEAST = 32


class Event(NamedTuple):
  """News of one text of a request.

  index: of the text, within the request.
  text: newly readable.
  finish: None while it goes on, "stop" or "length"; "error" where it failed.
  tokens: drawn so far.
  """

  index: int
  text: str
  finish: str | None
  tokens: int


class Job:
  """The texts of one request, and their news.

  events: of Event, until each text has finished.
  gone: set when nobody waits for them any more.
  """

  def __init__(self, texts: Sequence[replies.Text]):
    self.texts = list(texts)
    self.events: queue.SimpleQueue = queue.SimpleQueue()
    self.gone = threading.Event()


class _Row(NamedTuple):
  """Text `index` of a job."""

  job: Job
  index: int

  @property
  def text(self) -> replies.Text:
    return self.job.texts[self.index]

  def going(self) -> bool:
    return self.text.finish is None and not self.job.gone.is_set()

  def tell(self, part: str = "", finish: str | None = None) -> None:
    event = Event(self.index, part, finish, self.text.drawn)
    self.job.events.put(event)


class Engine:
  """Writes what is submitted, in a thread of its own.

  Args:
    speaker: who writes.
    batch: texts written at once.
    waiting: texts that wait at most.
    say: is told what failed.
  """

  def __init__(
    self, speaker: Speaker, batch: int, waiting: int, say: Callable = print
  ):
    self.speaker, self.batch, self.say = speaker, batch, say
    self.most_waiting = waiting
    self._changed = threading.Condition()
    self._waiting: collections.deque[_Row] = collections.deque()
    self._rows: list[_Row] = []
    self._closing = False
    self._thread = threading.Thread(target=self._run, daemon=True)
    self._thread.start()

  def submit(self, job: Job) -> None:
    """Adds the texts of a job to what waits.

    Raises:
      ApiError: too many wait, or the server is about to end.
    """
    rows = [_Row(job, index) for index in range(len(job.texts))]
    with self._changed:
      if self._closing:
        raise ApiError(
          503, "the server is ending", headers={"Retry-After": "5"}
        )
      self._forget_gone()
      if len(self._waiting) + len(rows) > self.most_waiting:
        raise ApiError(
          503,
          f"{len(self._waiting)} texts wait already",
          code="overloaded",
          headers={"Retry-After": "5"},
        )
      self._waiting.extend(rows)
      self._changed.notify_all()

  def close(self, seconds: float) -> bool:
    """Takes nothing more; whether all was written in so many seconds."""
    with self._changed:
      self._closing = True
      self._changed.notify_all()
    self._thread.join(seconds)
    return not self._thread.is_alive()

  def _forget_gone(self) -> None:
    kept = [row for row in self._waiting if row.going()]
    self._waiting = collections.deque(kept)

  def _run(self) -> None:
    while True:
      with self._changed:
        self._rows = [row for row in self._rows if row.going()]
        self._forget_gone()
        while self._waiting and len(self._rows) < self.batch:
          self._rows.append(self._waiting.popleft())
        if not self._rows:
          if self._closing:
            return
          # Not for ever: a job that waits for nobody is forgotten.
          self._changed.wait(1.0)
          continue
      self._write(self._rows)

  def _write(self, rows: list[_Row]) -> None:
    """Writes a batch until it is done, or another takes its place."""
    try:
      pieces = self.speaker.write(
        [row.text.ids for row in rows], [row.text.rest() for row in rows]
      )
      with contextlib.closing(pieces):
        written = [0] * len(rows)
        for piece in pieces:
          row = rows[piece.row]
          written[piece.row] += len(piece.tokens)
          if row.going():
            self._take(row, piece)
          if self._ends(rows, max(written)):
            return
    except Exception as error:  # whatever it is, others are still served
      self.say(f"a batch failed: {type(error).__name__}: {error}")
      for row in rows:
        if row.going():
          row.job.texts[row.index] = row.text._replace(finish="error")
          row.tell(finish="error")

  def _take(self, row: _Row, piece: streaming.Piece) -> None:
    """Brings a text up to date, and tells of it."""
    text, part = replies.read(self.speaker, row.text, piece.tokens)
    if piece.finish is not None and text.finish is None:
      text = text._replace(finish=piece.finish)
    row.job.texts[row.index] = text
    if part or text.finish:
      row.tell(part, text.finish)

  def _ends(self, rows: list[_Row], written: int) -> bool:
    """Whether a batch makes place: nobody is left, or a better one is at hand.

    A better one has a text that waits, or half as many.
    """
    going = sum(row.going() for row in rows)
    if not going:
      return True
    joins = bool(self._waiting) and going < self.batch
    return written >= _LEAST and (joins or 2 * going <= len(rows))
