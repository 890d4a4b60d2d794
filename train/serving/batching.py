"""One thread that generates the texts of all requests, in batches.

Texts join and leave a batch between two chunks of tokens. A text's samples
depend on its own seed only, so the other texts of a batch do not change it. A
text that continues in another batch has what was generated so far as its
prompt.
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

# The fewest tokens that a batch generates before another replaces it, because
# the new batch must process all prompts again.
_LEAST = 32


class Event(NamedTuple):
  """New output of one text of a request.

  index: the text's index within the request.
  text: the characters that became complete.
  finish: None while the text goes on, then "stop" or "length", or "error".
  tokens: the number of tokens sampled so far.
  """

  index: int
  text: str
  finish: str | None
  tokens: int


class Job:
  """The texts of one request, and the queue of their events.

  Attributes:
    events: a queue of Event, until each text has finished.
    gone: set when nobody needs the texts any more.
    wake: called after each event, in the engine's thread.
  """

  def __init__(self, texts: Sequence[replies.Text]):
    self.texts = list(texts)
    self.events: queue.SimpleQueue = queue.SimpleQueue()
    self.gone = threading.Event()
    self.wake: Callable[[], None] = lambda: None


class _Row(NamedTuple):
  """Text `index` of a job."""

  job: Job
  index: int

  @property
  def text(self) -> replies.Text:
    return self.job.texts[self.index]

  def going(self) -> bool:
    return self.text.finish is None and not self.job.gone.is_set()

  def emit(self, part: str = "", finish: str | None = None) -> None:
    event = Event(self.index, part, finish, self.text.drawn)
    self.job.events.put(event)
    self.job.wake()


class Engine:
  """Generates the texts that are submitted, in a thread of its own.

  Args:
    speaker: the model.
    batch: the most texts that are generated at the same time.
    waiting: the most texts in the queue.
    say: called with a line for each batch that fails.
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
    """Adds the texts of a job to the queue.

    Raises:
      ApiError: the queue is full, or the server is shutting down.
    """
    rows = [_Row(job, index) for index in range(len(job.texts))]
    with self._changed:
      if self._closing:
        raise ApiError(
          503, "the server is shutting down", headers={"Retry-After": "5"}
        )
      self._forget_gone()
      if len(self._waiting) + len(rows) > self.most_waiting:
        raise ApiError(
          503,
          f"the queue is full: {len(self._waiting)} texts are waiting",
          code="overloaded",
          headers={"Retry-After": "5"},
        )
      self._waiting.extend(rows)
      self._changed.notify_all()

  def close(self, seconds: float) -> bool:
    """Accepts no more; returns whether all texts finished in that time."""
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
          # The timeout lets jobs that nobody needs leave the queue.
          self._changed.wait(1.0)
          continue
      self._write(self._rows)

  def _write(self, rows: list[_Row]) -> None:
    """Generates a batch until it is done or another one replaces it."""
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
    except Exception as error:  # whatever it is, the server goes on
      self.say(f"a batch failed: {type(error).__name__}: {error}")
      for row in rows:
        if row.going():
          row.job.texts[row.index] = row.text._replace(finish="error")
          row.emit(finish="error")

  def _take(self, row: _Row, piece: streaming.Piece) -> None:
    """Adds a piece to a text and emits what became readable."""
    text, part = replies.read(self.speaker, row.text, piece.tokens)
    if piece.finish is not None and text.finish is None:
      text = text._replace(finish=piece.finish)
    row.job.texts[row.index] = text
    if part or text.finish:
      row.emit(part, text.finish)

  def _ends(self, rows: list[_Row], written: int) -> bool:
    """Whether another batch should replace this one.

    That is the case if no text is left, and, after _LEAST tokens, if a text in
    the queue can join or if half of the texts have finished.
    """
    going = sum(row.going() for row in rows)
    if not going:
      return True
    joins = bool(self._waiting) and going < self.batch
    return written >= _LEAST and (joins or 2 * going <= len(rows))
