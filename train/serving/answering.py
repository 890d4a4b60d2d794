"""Requests into texts for the engine, and its news into OpenAI's answers."""

import contextlib
import queue
import secrets
import time
from typing import Any

from train.generation import replies, streaming
from train.generation.replies import Speaker
from train.serving import protocol
from train.serving.batching import Engine, Event, Job
from train.serving.limits import Limits
from train.serving.protocol import ApiError, Ask, Heading
from train.serving.web import Reply

# How often a client that waits is looked after.
_LOOK = 0.25


class Answering:
  """Answers requests with the texts of an engine.

  Args:
    speaker: who writes.
    engine: that the texts go through.
    limits: of a request.
    model: what it is called.
  """

  def __init__(
    self, speaker: Speaker, engine: Engine, limits: Limits, model: str
  ):
    self.speaker, self.engine, self.limits = speaker, engine, limits
    self.model, self.created = model, int(time.time())

  def models(self) -> list[dict[str, Any]]:
    """OpenAI's list of models, of one."""
    return [
      {
        "id": self.model,
        "object": "model",
        "created": self.created,
        "owned_by": "tessera",
      }
    ]

  def answer(self, path: str, body: Any, reply: Reply) -> None:
    """Answers a request of a path in web.POSTS; ApiError in place of it."""
    chat = path == "/v1/chat/completions"
    read = protocol.chat if chat else protocol.completion
    ask = read(body, self.model, self.limits)
    prompts = self._prompts(ask)
    job = Job(self._texts(ask, prompts))
    kind = "chatcmpl" if chat else "cmpl"
    ident = f"{kind}-{secrets.token_hex(12)}"
    heading = Heading(chat, ident, int(time.time()), self.model)
    used = sum(map(len, prompts))
    try:
      self.engine.submit(job)
      send = self._stream if ask.stream else self._whole
      send(job, heading, ask, used, reply)
    finally:
      job.gone.set()

  def _prompts(self, ask: Ask) -> list[list[int]]:
    """The ids of each prompt; ApiError where they are too many or none."""
    tokenizer = self.speaker.found.parts.data.tokenizer
    if ask.messages is None:
      param, given = "prompt", ask.prompts
    else:
      param, given = "messages", (ask.messages,)
    found = []
    for each in given:
      try:
        if ask.messages is not None:
          ids = self.speaker.chat.prompt(each)
        else:
          ids = tokenizer.begun(each) if isinstance(each, str) else each
        found.append([int(i) for i in ids])
      except (ValueError, OverflowError) as error:
        reason = str(error).splitlines()[0][:200]
        raise ApiError(400, f"{param}: {reason}", param=param) from None
      self._check(param, found[-1], ask)
    return found

  def _check(self, param: str, ids: list[int], ask: Ask) -> None:
    """ApiError where a prompt is none, or leaves no room for its answer."""
    size = self.speaker.found.parts.data.tokenizer.vocab_size
    if not ids or not 0 <= min(ids) <= max(ids) < size:
      raise ApiError(
        400, f"{param} is empty, or has an unknown token", param=param
      )
    most, room = self.limits.prompt_tokens, ask.max_tokens or 1
    if self.speaker.window is not None:
      most = min(most, self.speaker.window - room)
    if len(ids) > most:
      raise ApiError(
        400,
        f"{param} has {len(ids)} tokens, of {max(most, 0)} at most before an"
        f" answer of {room}",
        param=param,
        code="context_length_exceeded",
      )

  def _texts(self, ask: Ask, prompts: list[list[int]]) -> list[replies.Text]:
    """Each prompt n times, with a seed of its own for each answer."""
    found = []
    for ids in prompts:
      most = ask.max_tokens
      if most is None:
        most = self.limits.max_tokens
        if self.speaker.window is not None:
          most = min(most, self.speaker.window - len(ids))
      for _ in range(ask.n):
        seed = ask.seed + len(found)
        options = streaming.Options(max_tokens=most, seed=seed, **ask.options)
        stop_id = None
        if ask.messages is not None:
          options = replies.asked(self.speaker, options)
          stop_id = self.speaker.chat.stop_id
        found.append(replies.begin(self.speaker, ids, options, stop_id))
    return found

  def _whole(self, job: Job, heading: Heading, ask, used, reply) -> None:
    del ask
    texts, finishes = [""] * len(job.texts), [None] * len(job.texts)
    for event in self._events(job, reply):
      texts[event.index] += event.text
      finishes[event.index] = event.finish
    written = protocol.usage(used, sum(text.drawn for text in job.texts))
    reply.whole(heading.whole(texts, finishes, written))

  def _stream(self, job: Job, heading: Heading, ask, used, reply) -> None:
    if heading.chat:
      for index in range(len(job.texts)):
        reply.event(heading.chunk(index, None, None))
    for event in self._events(job, reply):
      if event.text:
        reply.event(heading.chunk(event.index, event.text, None))
      if event.finish:
        reply.event(heading.chunk(event.index, "", event.finish))
    if ask.usage:
      drawn = sum(text.drawn for text in job.texts)
      reply.event(heading.usage_chunk(protocol.usage(used, drawn)))
    reply.event("[DONE]")

  def _events(self, job: Job, reply: Reply):
    """The news of a job, to its end.

    Raises:
      ApiError: it failed, or takes too long.
      ConnectionError: the client has gone.
    """
    looked = time.monotonic()
    until = looked + self.limits.seconds_to_answer
    left = len(job.texts)
    while left:
      event: Event | None = None
      with contextlib.suppress(queue.Empty):
        event = job.events.get(timeout=_LOOK)
      now = time.monotonic()
      if now - looked >= _LOOK:
        looked = now
        if reply.gone():
          raise ConnectionError("the client has gone")
      if now > until:
        raise ApiError(503, "the answer takes too long", code="timeout")
      if event is None:
        continue
      if event.finish == "error":
        raise ApiError(500, "the model failed to answer")
      left -= event.finish is not None
      yield event
