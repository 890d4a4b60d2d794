"""OpenAI's completions and chat completions: parses requests, formats answers.

fields.py says which fields are refused.
"""

import math
import secrets
from typing import Any, NamedTuple

from input_pipeline.tokenizers.parts import chat_template
from input_pipeline.tokenizers.parts.chat_template import Message
from train.serving import fields
from train.serving.api_error import ApiError, unsupported, wrong
from train.serving.limits import Limits

_SHARED = (
  *("model", "max_tokens", "temperature", "top_p", "n", "stop", "seed"),
  *("stream", "stream_options", "top_k", "min_p", "repetition_penalty"),
)
_MOST_STOPS, _LONGEST_STOP = 16, 256
_MOST_LOGPROBS = 20
# The default of max_tokens for completions in OpenAI's API.
_COMPLETION_TOKENS = 16


class Ask(NamedTuple):
  """A parsed request.

  messages: the messages of a chat, or None for a completion.
  prompts: texts or tuples of token ids for a completion; () for a chat.
  n: the number of answers to each prompt.
  max_tokens: the length limit of each answer; None for the longest possible.
  options: keyword arguments of streaming.Options except max_tokens and seed.
  seed: the seed of the first answer; each further one adds 1.
  stream: whether the answer is sent as it is generated.
  usage: whether a stream ends with the token counts.
  echo: whether the answer begins with the prompt.
  logprobs: the number of most likely tokens to report at each position, or
    None if no log-probabilities are reported.
  """

  messages: tuple[Message, ...] | None
  prompts: tuple
  n: int
  max_tokens: int | None
  options: dict[str, Any]
  seed: int
  stream: bool
  usage: bool
  echo: bool = False
  logprobs: int | None = None


def chat(body: Any, model: str, limits: Limits) -> Ask:
  """Parses a body of /v1/chat/completions; ApiError if it is invalid."""
  own = ("messages", "max_completion_tokens", "logprobs")
  body = fields.present(body, (*_SHARED, *own))
  if body.pop("logprobs", False) is not False:
    raise unsupported("logprobs")
  turns = body.get("messages")
  if isinstance(turns, list):
    turns = [_text_turn(turn) for turn in turns]
  try:
    messages = chat_template.messages_of(turns)
  except ValueError as error:
    raise wrong("messages", str(error)) from None
  if "max_completion_tokens" in body:
    body["max_tokens"] = body["max_completion_tokens"]
  return _shared(body, model, limits)._replace(messages=messages)


def completion(body: Any, model: str, limits: Limits) -> Ask:
  """Parses a body of /v1/completions; ApiError if it is invalid."""
  body = fields.present(body, (*_SHARED, "prompt", "echo", "logprobs"))
  prompt = body.get("prompt")
  whole = isinstance(prompt, list)
  if whole and prompt and all(_is_int(i) for i in prompt):
    prompts: tuple = (tuple(prompt),)
  else:
    prompts = tuple(prompt) if whole else (prompt,)
  for each in prompts or (None,):
    ids = isinstance(each, list | tuple) and each and all(map(_is_int, each))
    if not (ids or (isinstance(each, str) and each)):
      raise wrong(
        "prompt",
        "prompt must be a non-empty text, or a list of texts or token ids",
      )
  ask = _shared(body, model, limits, 0)._replace(
    prompts=prompts,
    echo=_flag(body, "echo"),
    logprobs=_logprobs(body),
  )
  if ask.stream and ask.logprobs is not None:
    raise unsupported("logprobs", " with stream=true")
  if len(prompts) * ask.n > limits.rows:
    raise wrong("n", f"prompts times n must be at most {limits.rows}")
  if ask.max_tokens is None:
    return ask._replace(max_tokens=min(_COMPLETION_TOKENS, limits.max_tokens))
  return ask


def _logprobs(body: dict) -> int | None:
  """The number of alternatives to report, None for no log-probabilities."""
  if body.get("logprobs") is False:
    return None
  if body.get("logprobs") is True:  # the chat API's spelling
    return 0
  return _integer(body, "logprobs", 0, _MOST_LOGPROBS, None)


def _shared(body: dict, model: str, limits: Limits, least: int = 1) -> Ask:
  """Parses the fields that both kinds of request have in common.

  Args:
    body: the fields that are not null.
    model: the name of the model.
    limits: see Limits.
    least: the least value of max_tokens.
  """
  wanted = body.get("model")
  if wanted is not None and wanted != model:
    raise ApiError(
      404,
      f"the model {str(wanted)[:60]!r} does not exist; use {model!r}",
      param="model",
      code="model_not_found",
    )
  options = {
    "temperature": _number(body, "temperature", 0, 2, 1.0),
    "top_p": _number(body, "top_p", 0, 1, None, above=True),
    "min_p": _number(body, "min_p", 0, 1, None),
    "repetition_penalty": _number(
      body, "repetition_penalty", 0, 10, 1.0, above=True
    ),
    "top_k": _top_k(body),
    "stop": _stop(body.get("stop")),
  }
  stream = _flag(body, "stream")
  how = body.get("stream_options")
  if how is not None and not isinstance(how, dict):
    raise wrong("stream_options", "stream_options must be an object")
  seed = _integer(body, "seed", -(2**63), 2**63 - 1, None)
  return Ask(
    messages=None,
    prompts=(),
    n=_integer(body, "n", 1, limits.rows, 1),
    max_tokens=_integer(body, "max_tokens", least, limits.max_tokens, None),
    options=options,
    seed=secrets.randbits(31) if seed is None else seed,
    stream=stream,
    usage=_flag(how or {}, "include_usage"),
  )


def _is_int(value: Any) -> bool:
  return isinstance(value, int) and not isinstance(value, bool)


def _integer(body: dict, key: str, least: int, most: int, default):
  value = body.get(key)
  if value is None:
    return default
  if not _is_int(value) or not least <= value <= most:
    raise wrong(key, f"{key} must be an integer from {least} to {most}")
  return value


def _number(body: dict, key: str, least, most, default, above: bool = False):
  value = body.get(key)
  if value is None:
    return default
  if not _is_int(value) and not isinstance(value, float):
    raise wrong(key, f"{key} must be a number")
  within = least < value if above else least <= value
  if not (within and value <= most and math.isfinite(value)):
    least = f"above {least}" if above else f"at least {least}"
    raise wrong(key, f"{key} must be {least} and at most {most}")
  return float(value)


def _top_k(body: dict) -> int | None:
  """top_k, whose values 0 and -1 mean no limit in other servers."""
  value = _integer(body, "top_k", -1, 2**31 - 1, None)
  return value if value is not None and value > 0 else None


def _flag(body: dict, key: str) -> bool:
  value = body.get(key)
  if value is not None and not isinstance(value, bool):
    raise wrong(key, f"{key} must be true or false")
  return bool(value)


def _stop(value: Any) -> tuple[str, ...]:
  found = [value] if isinstance(value, str) else value
  found = [] if found is None else found
  right = isinstance(found, list) and len(found) <= _MOST_STOPS
  if not right or not all(
    isinstance(s, str) and 0 < len(s) <= _LONGEST_STOP for s in found
  ):
    raise wrong(
      "stop",
      f"stop must be a text or a list of at most {_MOST_STOPS} texts, each of 1"
      f" to {_LONGEST_STOP} characters",
    )
  return tuple(found)


def _text_turn(turn: Any) -> Any:
  """The message with its content joined if that is a list of text parts."""
  content = turn.get("content") if isinstance(turn, dict) else None
  for key in ("tool_calls", "function_call", "audio"):
    if isinstance(turn, dict) and turn.get(key):
      raise wrong("messages", f"{key} in a message is not supported")
  if not isinstance(content, list):
    return turn
  texts = [
    part.get("text")
    for part in content
    if isinstance(part, dict) and part.get("type") == "text"
  ]
  if len(texts) != len(content) or not all(isinstance(t, str) for t in texts):
    raise wrong(
      "messages", "only parts of the type text are supported in a content"
    )
  return {**turn, "content": "".join(texts)}


class Heading(NamedTuple):
  """The fields that all objects of an answer share.

  chat: whether the answer is a chat completion.
  id, created, model: OpenAI's fields.
  """

  chat: bool
  id: str
  created: int
  model: str

  def whole(self, texts, finishes, usage, logprobs=None) -> dict[str, Any]:
    """The complete answer; `logprobs` has OpenAI's object for each text."""
    choices = [
      self._choice(i, text, finish, "message")
      for i, (text, finish) in enumerate(zip(texts, finishes, strict=True))
    ]
    for choice, each in zip(choices, logprobs or (), strict=bool(logprobs)):
      choice["logprobs"] = each
    kind = "chat.completion" if self.chat else "text_completion"
    return {**self._common(kind), "choices": choices, "usage": usage}

  def chunk(self, index: int, text: str | None, finish) -> dict[str, Any]:
    """A chunk of a stream; the first one of a chat's answer has text None."""
    choice = self._choice(index, text, finish, "delta")
    return {**self._common(self._chunk_kind()), "choices": [choice]}

  def usage_chunk(self, usage: dict[str, int]) -> dict[str, Any]:
    """The last chunk of a stream, which contains the token counts."""
    fields = self._common(self._chunk_kind())
    return {**fields, "choices": [], "usage": usage}

  def _chunk_kind(self) -> str:
    return "chat.completion.chunk" if self.chat else "text_completion"

  def _common(self, kind: str) -> dict[str, Any]:
    return {
      "id": self.id,
      "object": kind,
      "created": self.created,
      "model": self.model,
    }

  def _choice(self, index: int, text, finish, key: str) -> dict[str, Any]:
    if not self.chat:
      said: dict[str, Any] = {"text": text or ""}
    elif key == "message" or text is None:
      said = {key: {"role": "assistant", "content": text or ""}}
    else:
      said = {key: {"content": text} if text else {}}
    return {
      "index": index,
      **said,
      "logprobs": None,
      "finish_reason": finish,
    }


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
  """OpenAI's token counts of a request."""
  return {
    "prompt_tokens": prompt_tokens,
    "completion_tokens": completion_tokens,
    "total_tokens": prompt_tokens + completion_tokens,
  }
