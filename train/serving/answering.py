"""Turns requests into texts for the engine, and its events into answers."""

import asyncio
import functools
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from train.generation import replies, scoring, streaming
from train.generation.replies import Speaker
from train.serving import logprobs, protocol
from train.serving.batching import Engine, Event, Job
from train.serving.limits import Limits
from train.serving.protocol import ApiError, Ask, Heading

# What ends a stream, in place of an object.
DONE = "[DONE]"


class Answer:
  """The answer to one request, made before its texts go to the engine.

  Call either `whole` or `events`, once. When they end or are cancelled, the
  engine drops what is left of the job.

  Args:
    job: the texts.
    heading: the fields that all objects of the answer share.
    ask: the request.
    prompt_tokens: the tokens of all prompts.
    seconds: time until the answer must be complete.
    echoes: the beginning of each text: its prompt, or "".
    logprobs: (the finished job) -> OpenAI's object of log-probabilities for
      each text; None if they are not asked for.
  """

  def __init__(
    self,
    job: Job,
    heading: Heading,
    ask: Ask,
    prompt_tokens: int,
    seconds: float,
    echoes: Sequence[str],
    logprobs: Callable[[Job], list[dict]] | None,
  ):
    self.job, self.heading, self.seconds = job, heading, seconds
    self.streamed, self._usage = ask.stream, ask.usage
    self._prompt_tokens = prompt_tokens
    self._echoes, self._logprobs = echoes, logprobs
    # The engine changes the job; texts that need no tokens are finished here.
    self._finishes = [text.finish for text in job.texts]

  async def whole(self) -> dict[str, Any]:
    """The complete answer; ApiError if the model fails or time runs out."""
    texts = list(self._echoes)
    finishes = list(self._finishes)
    try:
      async for fresh in self._news():
        for event in fresh:
          texts[event.index] += event.text
          finishes[event.index] = event.finish
    finally:
      self.job.gone.set()
    logprobs = None
    if self._logprobs is not None:
      logprobs = await asyncio.to_thread(self._logprobs, self.job)
    return self.heading.whole(texts, finishes, self._used(), logprobs)

  async def events(self) -> AsyncIterator[list[dict[str, Any] | str]]:
    """The objects of a streamed answer; ApiError as in `whole`.

    Yields lists of objects that are to be sent together; the last one ends with
    `DONE`.
    """
    chunk = self.heading.chunk
    try:
      first = []
      if self.heading.chat:
        first = [chunk(i, None, None) for i in range(len(self.job.texts))]
      for index, text in enumerate(self._echoes):
        first += self._chunks(index, text, self._finishes[index])
      left = self._finishes.count(None)
      if first and left:
        yield first
        first = []
      async for fresh in self._news():
        left -= sum(event.finish is not None for event in fresh)
        found = (self._chunks(e.index, e.text, e.finish) for e in fresh)
        first = list(itertools.chain.from_iterable(found))
        if left:
          yield first
      usage = [self.heading.usage_chunk(self._used())] if self._usage else []
      yield [*first, *usage, DONE]
    finally:
      self.job.gone.set()

  def _chunks(self, index: int, text: str, finish) -> list[dict[str, Any]]:
    chunk = self.heading.chunk
    said = [chunk(index, text, None)] if text else []
    return said + ([chunk(index, "", finish)] if finish else [])

  def _used(self) -> dict[str, int]:
    drawn = sum(text.drawn for text in self.job.texts)
    return protocol.usage(self._prompt_tokens, drawn)

  async def _news(self) -> AsyncIterator[list[Event]]:
    """The events of the job until all of its texts have finished."""
    loop, fresh = asyncio.get_running_loop(), asyncio.Event()
    self.job.loop, self.job.wake = loop, fresh.set
    until = loop.time() + self.seconds
    timer = loop.call_at(until, fresh.set)
    left = self._finishes.count(None)
    try:
      while left:
        fresh.clear()
        found = []
        while not self.job.events.empty():
          found.append(self.job.events.get_nowait())
        if any(event.finish == "error" for event in found):
          raise ApiError(500, "the model failed to answer")
        left -= sum(event.finish is not None for event in found)
        if found:
          yield found
        if loop.time() >= until:
          raise ApiError(503, "the answer took too long", code="timeout")
        if left:
          await fresh.wait()
    finally:
      timer.cancel()


class Answering:
  """Answers requests with texts that an engine generates.

  Args:
    speaker: the model.
    engine: generates its texts.
    limits: see Limits.
    model: the model's name.
    scorer: computes log-probabilities; by default one that compiles each of
      its programs when it is first needed.
  """

  def __init__(
    self,
    speaker: Speaker,
    engine: Engine,
    limits: Limits,
    model: str,
    scorer: scoring.Scorer | None = None,
  ):
    self.speaker, self.engine, self.limits = speaker, engine, limits
    self.model, self.created = model, int(time.time())
    self.score = scorer or scoring.Scorer(speaker.found, limits.room)

  def models(self) -> list[dict[str, Any]]:
    """OpenAI's list of models, which has one entry."""
    return [
      {
        "id": self.model,
        "object": "model",
        "created": self.created,
        "owned_by": "tessera",
      }
    ]

  def answer(self, path: str, body: Any) -> Answer:
    """Submits a request to the engine.

    Args:
      path: one of web.COMPLETIONS.
      body: the JSON value of the request's body.

    Raises:
      ApiError: the request is invalid, or too many are in the queue.
    """
    chat = path == "/v1/chat/completions"
    read = protocol.chat if chat else protocol.completion
    ask = read(body, self.model, self.limits)
    prompts = self._prompts(ask)
    job = Job(self._texts(ask, prompts))
    kind = "chatcmpl" if chat else "cmpl"
    ident = f"{kind}-{secrets.token_hex(12)}"
    heading = Heading(chat, ident, int(time.time()), self.model)
    used = sum(map(len, prompts))
    echoes, logprobs = self._echoes(ask, prompts), None
    if ask.logprobs is not None:
      logprobs = functools.partial(self._logprobs, ask, prompts)
    seconds = self.limits.seconds_to_answer
    answer = Answer(job, heading, ask, used, seconds, echoes, logprobs)
    if any(text.finish is None for text in job.texts):
      self.engine.submit(job)
    return answer

  def _prompts(self, ask: Ask) -> list[list[int]]:
    """The token ids of each prompt; ApiError if one is invalid or too long."""
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
    """ApiError if a prompt is empty or leaves no room for its answer."""
    size = self.speaker.found.parts.data.tokenizer.vocab_size
    if not ids or not 0 <= min(ids) <= max(ids) < size:
      raise ApiError(
        400, f"{param} is empty or contains an unknown token id", param=param
      )
    room = 1 if ask.max_tokens is None else ask.max_tokens
    most = self.limits.prompt_tokens
    if self.speaker.window is not None:
      most = min(most, self.speaker.window - room)
    if len(ids) > most:
      raise ApiError(
        400,
        f"{param} has {len(ids)} tokens; at most {max(most, 0)} are allowed"
        f" with max_tokens={room}",
        param=param,
        code="context_length_exceeded",
      )

  def _texts(self, ask: Ask, prompts: list[list[int]]) -> list[replies.Text]:
    """Each prompt `n` times, each time with its own seed."""
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
        text = replies.begin(self.speaker, ids, options, stop_id)
        found.append(text if most else text._replace(finish="length"))
    return found

  def _echoes(self, ask: Ask, prompts: list[list[int]]) -> list[str]:
    """The beginning of each text: its prompt if `echo` asks for it, or ""."""
    if not ask.echo:
      return [""] * (max(len(prompts), 1) * ask.n)
    decode = self.speaker.found.parts.data.tokenizer.decode
    return [
      given if isinstance(given, str) else decode(ids)
      for given, ids in zip(ask.prompts, prompts, strict=True)
      for _ in range(ask.n)
    ]

  def _logprobs(self, ask: Ask, prompts, job: Job) -> list[dict[str, Any]]:
    """OpenAI's object of log-probabilities for each text of a finished job."""
    tokenizer = self.speaker.found.parts.data.tokenizer
    scores = self.score([text.ids for text in job.texts], ask.logprobs)
    found = []
    for i, (text, each) in enumerate(zip(job.texts, scores, strict=True)):
      given, length = ask.prompts[i // ask.n], len(prompts[i // ask.n])
      # What begins a prompt or ends an answer is not part of its text.
      hidden = set()
      if isinstance(given, str) and tokenizer.bos is not None:
        hidden.add(0)
      if len(text.ids) > length and text.ids[-1] in tokenizer.ends:
        hidden.add(len(text.ids) - 1)
      first = 0 if ask.echo else length
      found.append(logprobs.legacy(tokenizer, text.ids, each, first, hidden))
    return found
