"""One thread that generates the texts of all requests, in one batch.

A text joins the batch as soon as a slot is free, and leaves it when it ends.
While the device generates the next tokens, the thread turns the last ones into
text. A text's samples depend on its own seed only, so the other texts of the
batch do not change it.
"""

import asyncio
import collections
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from train.generation import replies
from train.generation.replies import Speaker
from train.generation.slot_programs import Drawn
from train.generation.slots import Slots
from train.serving.protocol import ApiError

# Tokens of prompts that are read between two chunks of generated tokens.
_READ = 512
# The most tokens of a chunk, and the fewest where it is shorter: another text
# may soon join, or one of several texts ends.
_MOST, _FEW = 16, 8
# The part of a chunk's time in which a text that follows another may arrive,
# and how often to look whether the chunk is complete, in seconds.
_FOLLOWING, _TICK = 0.8, 0.001


class Event(NamedTuple):
  """New output of one text of a request.

  index: the text's index within the request.
  text: the characters that became complete.
  finish: None while the text is unfinished, then "stop", "length" or "error".
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
    loop, wake: after new events, `wake` is called in this event loop's thread;
      no loop by default.
  """

  def __init__(self, texts: Sequence[replies.Text]):
    self.texts = list(texts)
    self.events: queue.SimpleQueue = queue.SimpleQueue()
    self.gone = threading.Event()
    self.loop: asyncio.AbstractEventLoop | None = None
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


class _Seat:
  """A text that occupies a slot.

  Attributes:
    row: the text.
    place: the most tokens that the text, with its prompt, has by now.
    left: the most tokens that it may still be continued by; tokens count here
      as soon as the device has been asked for them.
  """

  def __init__(self, row: _Row):
    self.row = row
    self.place = len(row.text.ids)
    self.left = row.text.options.max_tokens

  def going(self) -> bool:
    return self.left > 0 and self.row.going()


class _Flight(NamedTuple):
  """Tokens that the device is generating.

  drawn: the tokens.
  seats: the text in each slot when the device was asked for them.
  most: the most tokens of each text.
  """

  drawn: Drawn
  seats: list[_Seat]
  most: int


class Engine:
  """Generates the texts that are submitted, in a thread of its own.

  Args:
    speaker: the model.
    slots: the batch, which no one else uses.
    waiting: the maximum number of texts in the queue.
    say: called with a line for each failure.
  """

  def __init__(
    self, speaker: Speaker, slots: Slots, waiting: int, say: Callable = print
  ):
    self.speaker, self.slots, self.say = speaker, slots, say
    self.most_waiting = waiting
    self._changed = threading.Condition()
    self._waiting: collections.deque[_Row] = collections.deque()
    self._closing = False
    # In the order of their slots; None where a text has left, until `_ask`.
    self._seats: list[_Seat | None] = []
    self._joining: tuple[_Seat, Iterator[int]] | None = None
    self._vacated = False  # whether a text has just left
    self._ended = 0  # texts that ended in the last chunk that was taken
    self._since = 0.0  # when the device began with the chunk in flight
    self._pace = 0.0  # seconds per token of all texts
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

  def held(self) -> int:
    """Returns the number of texts that wait or are being generated."""
    with self._changed:
      joining = self._joining is not None
      return len(self._waiting) + joining + len(self._seated())

  def _forget_gone(self) -> None:
    kept = [row for row in self._waiting if row.going()]
    self._waiting = collections.deque(kept)

  def _run(self) -> None:
    flight = None
    while self._wait(flight):
      seats = flight.seats if flight else []
      try:
        self._leave()
        self._join()
        if flight:
          self._linger(flight)
        following = self._ask()
        if flight:
          self._take(flight)
        else:
          self._since = time.perf_counter()
        flight = following
      except Exception as error:  # the server must survive any error
        self.say(f"a batch failed: {type(error).__name__}: {error}")
        self._fail(seats)
        flight = None

  def _wait(self, flight: _Flight | None) -> bool:
    """Waits for a text to continue; False if the thread is to end."""
    with self._changed:
      while True:
        self._forget_gone()
        if flight or self._seats or self._joining or self._waiting:
          return True
        if self._closing:
          return False
        self._changed.wait()

  def _seated(self) -> list[_Seat]:
    return [seat for seat in self._seats if seat is not None]

  def _leave(self) -> None:
    """Frees the slots of texts that are not continued."""
    with self._changed:
      self._seats = [seat if seat.going() else None for seat in self._seats]
      self._vacated = None in self._seats

  def _close_gaps(self) -> None:
    """Moves the last texts into slots that texts have left."""
    with self._changed:
      seats = self._seats
      while None in seats:
        last, gap = seats.pop(), seats.index(None) if None in seats else None
        if last is not None and gap is not None:
          self.slots.move(len(seats), gap)
          seats[gap] = last

  def _join(self) -> None:
    """Reads prompts of waiting texts, which then join; at most _READ tokens.

    If no text is being generated, it reads a whole prompt.
    """
    budget = _READ
    while len(self._seated()) < self.slots.count:
      if self._joining is None:
        with self._changed:
          self._forget_gone()
          if not self._waiting:
            return
          seat = _Seat(self._waiting.popleft())
          self._joining = seat, self.slots.read(seat.row.text.ids)
      seat, pieces = self._joining
      for tokens in pieces:
        budget -= tokens
        if budget <= 0 and self._seated():
          return
      text = seat.row.text
      with self._changed:
        if None not in self._seats:
          self._seats.append(None)
        slot = self._seats.index(None)
        self.slots.join(slot, text.ids, text.options)
        self._seats[slot], self._joining = seat, None

  def _linger(self, flight: _Flight) -> None:
    """Lets texts join that follow those that have just ended.

    A client often sends its next request as soon as it has its answer. While
    the device is busy, nothing is lost by waiting for it.
    """
    until = self._since + _FOLLOWING * self._pace * flight.most
    followers, self._ended = self._ended, 0
    while followers > 0 and len(self._seated()) < self.slots.count:
      with self._changed:
        while not (self._waiting or self._closing or flight.drawn.ready()):
          left = until - time.perf_counter()
          if left <= 0:
            return
          self._changed.wait(min(left, _TICK))
        if not self._waiting:
          return
      before = len(self._seated())
      self._join()
      followers -= max(1, len(self._seated()) - before)

  def _ask(self) -> _Flight | None:
    """Asks the device for the next tokens of all texts."""
    self._close_gaps()
    seats = self._seated()
    if not seats:
      return None
    most = min(self._most(seats), self.slots.chunk)
    for seat in seats:
      drawn = min(most, seat.left)
      seat.place, seat.left = seat.place + drawn, seat.left - drawn
    room = max(seat.place for seat in seats)
    return _Flight(self.slots.advance(len(seats), room, most), seats, most)

  def _most(self, seats: Sequence[_Seat]) -> int:
    """Returns the most tokens of the next chunk.

    Long chunks cost less time per token; short ones let other texts join soon.
    """
    if len(seats) == 1:
      return _MOST
    free = self.slots.count - len(seats)
    if self._vacated and free and not self._waiting:
      return _FEW
    # A text that ends in the middle of a chunk keeps its slot until the end.
    return max(_FEW, min(_MOST, *(seat.left for seat in seats)))

  def _take(self, flight: _Flight) -> None:
    """Adds the tokens to their texts, and emits what became readable.

    Texts that end come first: the sooner their clients have them, the sooner
    follow their next requests.
    """
    drawn = flight.drawn.lists()
    now = time.perf_counter()
    self._pace = (now - self._since) / max(flight.most, 1)
    self._since = now
    pairs = list(zip(flight.seats, drawn, strict=False))
    for ending in (True, False):
      jobs = [
        seat.row.job
        for seat, tokens in pairs
        if (seat.left == 0) == ending and self._extend(seat.row, tokens)
      ]
      _wake(jobs)

  def _extend(self, row: _Row, tokens: list[int]) -> bool:
    """Adds tokens to a text; returns whether that emitted an event."""
    if not row.going():
      return False
    text, part = replies.read(self.speaker, row.text, tokens)
    row.job.texts[row.index] = text
    self._ended += text.finish is not None
    if part or text.finish:
      row.emit(part, text.finish)
      return True
    return False

  def _fail(self, seats: list[_Seat]) -> None:
    """Ends all texts of the batch with an error, and empties the slots."""
    joining = [self._joining[0]] if self._joining else []
    failed = [*seats, *self._seated(), *joining]
    for seat in failed:
      if seat.row.going():
        text = seat.row.text._replace(finish="error")
        seat.row.job.texts[seat.row.index] = text
        seat.row.emit(finish="error")
    _wake([seat.row.job for seat in failed])
    with self._changed:
      self._seats, self._joining = [], None
    self.slots.reset()


def _wake(jobs: Sequence[Job]) -> None:
  """Wakes the readers of the jobs: one call for all jobs of an event loop.

  Each call into another thread makes this one wait for the interpreter.
  """
  loops: dict = {}
  for job in jobs:
    if job.loop is not None:
      loops.setdefault(job.loop, {})[job] = None
  for loop, waiting in loops.items():
    with contextlib.suppress(RuntimeError):  # the loop may have been closed
      loop.call_soon_threadsafe(_wake_here, list(waiting))


def _wake_here(jobs: Sequence[Job]) -> None:
  for job in jobs:
    job.wake()
