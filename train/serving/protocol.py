"""OpenAI's completions and chat completions: parses requests, formats answers.

A field that would change the answer and is not implemented is refused, not
ignored. _IGNORED lists the fields that do not change the answer.
"""

import math
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

from input_pipeline.tokenizers.parts import chat_template
from input_pipeline.tokenizers.parts.chat_template import Message
from train.serving.limits import Limits

_IGNORED = ("user", "metadata", "store", "service_tier", "safety_identifier")
_SHARED = (
  *("model", "max_tokens", "temperature", "top_p", "n", "stop", "seed"),
  *("stream", "stream_options", "top_k", "min_p", "repetition_penalty"),
)
# Fields that are not implemented, with the values that mean their absence.
_NEUTRAL: dict[str, tuple] = {
  "logprobs": (None, False),
  "top_logprobs": (None, 0),
  "echo": (None, False),
  "best_of": (None, 1),
  "suffix": (None, ""),
  "logit_bias": (None, {}),
  "presence_penalty": (None, 0),
  "frequency_penalty": (None, 0),
  "tools": (None, []),
  "tool_choice": (None, "none", "auto"),
  "functions": (None, []),
  "response_format": (None, {"type": "text"}),
}
_MOST_STOPS, _LONGEST_STOP = 4, 256
# The default of max_tokens for completions in OpenAI's API.
_COMPLETION_TOKENS = 16


class ApiError(Exception):
  """An error that is sent to the client in place of an answer."""

  def __init__(
    self,
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
  ):
    super().__init__(message)
    self.status, self.message = status, message
    self.param, self.code = param, code
    self.headers = dict(headers or {})

  def body(self) -> dict[str, Any]:
    """OpenAI's error object."""
    kinds = {401: "authentication_error", 429: "rate_limit_error"}
    server = "server_error" if self.status >= 500 else "invalid_request_error"
    return {
      "error": {
        "message": self.message,
        "type": kinds.get(self.status, server),
        "param": self.param,
        "code": self.code,
      }
    }


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
  """

  messages: tuple[Message, ...] | None
  prompts: tuple
  n: int
  max_tokens: int | None
  options: dict[str, Any]
  seed: int
  stream: bool
  usage: bool


def chat(body: Any, model: str, limits: Limits) -> Ask:
  """Parses a body of /v1/chat/completions; ApiError if it is invalid."""
  own = ("messages", "max_completion_tokens")
  _check_fields(body, (*_SHARED, *own))
  turns = body.get("messages")
  if isinstance(turns, list):
    turns = [_text_turn(turn) for turn in turns]
  try:
    messages = chat_template.messages_of(turns)
  except ValueError as error:
    raise _wrong("messages", str(error)) from None
  if "max_completion_tokens" in body:
    body = {**body, "max_tokens": body["max_completion_tokens"]}
  return _shared(body, model, limits)._replace(messages=messages)


def completion(body: Any, model: str, limits: Limits) -> Ask:
  """Parses a body of /v1/completions; ApiError if it is invalid."""
  _check_fields(body, (*_SHARED, "prompt"))
  prompt = body.get("prompt")
  whole = isinstance(prompt, list)
  if whole and prompt and all(_is_int(i) for i in prompt):
    prompts: tuple = (tuple(prompt),)
  else:
    prompts = tuple(prompt) if whole else (prompt,)
  for each in prompts or (None,):
    ids = isinstance(each, list | tuple) and each and all(map(_is_int, each))
    if not (ids or (isinstance(each, str) and each)):
      raise _wrong(
        "prompt",
        "prompt must be a non-empty text, or a list of texts or token ids",
      )
  ask = _shared(body, model, limits)._replace(prompts=prompts)
  if len(prompts) * ask.n > limits.rows:
    raise _wrong("n", f"prompts times n must be at most {limits.rows}")
  if ask.max_tokens is None:
    return ask._replace(max_tokens=min(_COMPLETION_TOKENS, limits.max_tokens))
  return ask


def _check_fields(body: Any, known: tuple[str, ...]) -> None:
  if not isinstance(body, dict):
    raise ApiError(400, "the body must be a JSON object")
  for key, value in body.items():
    if key in _NEUTRAL:
      if not any(value == each for each in _NEUTRAL[key]):
        raise _wrong(key, f"{key} is not supported", "unsupported_parameter")
    elif key not in known and key not in _IGNORED:
      raise _wrong(key[:60], f"unknown field {key[:60]!r}", "unknown_parameter")


def _shared(body: dict, model: str, limits: Limits) -> Ask:
  """Parses the fields that both kinds of request have in common."""
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
    "top_k": _integer(body, "top_k", 1, 2**31 - 1, None),
    "stop": _stop(body.get("stop")),
  }
  stream = _flag(body, "stream")
  how = body.get("stream_options")
  if how is not None and not (isinstance(how, dict) and stream):
    raise _wrong(
      "stream_options", "stream_options must be an object and needs stream=true"
    )
  seed = _integer(body, "seed", -(2**63), 2**63 - 1, None)
  return Ask(
    messages=None,
    prompts=(),
    n=_integer(body, "n", 1, limits.rows, 1),
    max_tokens=_integer(body, "max_tokens", 1, limits.max_tokens, None),
    options=options,
    seed=secrets.randbits(31) if seed is None else seed,
    stream=stream,
    usage=_flag(how or {}, "include_usage"),
  )


def _wrong(param: str, message: str, code: str | None = None) -> ApiError:
  return ApiError(400, message, param=param, code=code)


def _is_int(value: Any) -> bool:
  return isinstance(value, int) and not isinstance(value, bool)


def _integer(body: dict, key: str, least: int, most: int, default):
  value = body.get(key)
  if value is None:
    return default
  if not _is_int(value) or not least <= value <= most:
    raise _wrong(key, f"{key} must be an integer from {least} to {most}")
  return value


def _number(body: dict, key: str, least, most, default, above: bool = False):
  value = body.get(key)
  if value is None:
    return default
  if not _is_int(value) and not isinstance(value, float):
    raise _wrong(key, f"{key} must be a number")
  within = least < value if above else least <= value
  if not (within and value <= most and math.isfinite(value)):
    least = f"above {least}" if above else f"at least {least}"
    raise _wrong(key, f"{key} must be {least} and at most {most}")
  return float(value)


def _flag(body: dict, key: str) -> bool:
  value = body.get(key)
  if value is not None and not isinstance(value, bool):
    raise _wrong(key, f"{key} must be true or false")
  return bool(value)


def _stop(value: Any) -> tuple[str, ...]:
  found = [value] if isinstance(value, str) else value
  found = [] if found is None else found
  right = isinstance(found, list) and len(found) <= _MOST_STOPS
  if not right or not all(
    isinstance(s, str) and 0 < len(s) <= _LONGEST_STOP for s in found
  ):
    raise _wrong(
      "stop",
      f"stop must be a text or a list of at most {_MOST_STOPS} texts, each of 1"
      f" to {_LONGEST_STOP} characters",
    )
  return tuple(found)


def _text_turn(turn: Any) -> Any:
  """The message with its content joined if that is a list of text parts."""
  content = turn.get("content") if isinstance(turn, dict) else None
  if not isinstance(content, list):
    return turn
  texts = [
    part.get("text")
    for part in content
    if isinstance(part, dict) and part.get("type") == "text"
  ]
  if len(texts) != len(content) or not all(isinstance(t, str) for t in texts):
    raise _wrong(
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

  def whole(self, texts, finishes, usage) -> dict[str, Any]:
    """The complete answer."""
    choices = [
      self._choice(i, text, finish, "message")
      for i, (text, finish) in enumerate(zip(texts, finishes, strict=True))
    ]
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
