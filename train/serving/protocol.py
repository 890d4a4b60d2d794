"""OpenAI's completions and chat completions: requests read, answers written.

A field that would change the answer and is not known here is refused, not
ignored. What a server need not know is in _IGNORED.
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
# Fields that are known, and what they may be: what they are by default.
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
# What is written where a completion does not say, as OpenAI has it.
_COMPLETION_TOKENS = 16


class ApiError(Exception):
  """What a client is told in place of an answer."""

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
  """What a request asks for.

  messages: of a chat, or None.
  prompts: of a completion: texts, or lists of token ids; () in a chat.
  n: answers to each.
  max_tokens: of each; None for as many as there may be.
  options: keyword arguments of generation.Options, but max_tokens and seed.
  seed: of the first answer; those after it count up.
  stream: whether the answer is sent as it comes.
  usage: whether a stream ends with what it used.
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
  """The Ask of /v1/chat/completions; ApiError for what is none."""
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
  """The Ask of /v1/completions; ApiError for what is none."""
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
      raise _wrong("prompt", "prompt is no text, nor a list of texts or ids")
  ask = _shared(body, model, limits)._replace(prompts=prompts)
  if len(prompts) * ask.n > limits.rows:
    raise _wrong("n", f"{len(prompts) * ask.n} texts, of {limits.rows} at most")
  if ask.max_tokens is None:
    return ask._replace(max_tokens=min(_COMPLETION_TOKENS, limits.max_tokens))
  return ask


def _check_fields(body: Any, known: tuple[str, ...]) -> None:
  if not isinstance(body, dict):
    raise ApiError(400, "the body is no JSON object")
  for key, value in body.items():
    if key in _NEUTRAL:
      if not any(value == each for each in _NEUTRAL[key]):
        raise _wrong(key, f"{key} is not supported", "unsupported_parameter")
    elif key not in known and key not in _IGNORED:
      raise _wrong(key[:60], f"unknown field {key[:60]!r}", "unknown_parameter")


def _shared(body: dict, model: str, limits: Limits) -> Ask:
  """The Ask of what both kinds of request have in common."""
  wanted = body.get("model")
  if wanted is not None and wanted != model:
    raise ApiError(
      404,
      f"there is no model {str(wanted)[:60]!r}; there is {model!r}",
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
    raise _wrong("stream_options", "stream_options is an object, of a stream")
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
    raise _wrong(key, f"{key} is no integer from {least} to {most}")
  return value


def _number(body: dict, key: str, least, most, default, above: bool = False):
  value = body.get(key)
  if value is None:
    return default
  if not _is_int(value) and not isinstance(value, float):
    raise _wrong(key, f"{key} is no number")
  within = least < value if above else least <= value
  if not (within and value <= most and math.isfinite(value)):
    raise _wrong(
      key, f"{key} is not {'above' if above else 'from'} {least} to {most}"
    )
  return float(value)


def _flag(body: dict, key: str) -> bool:
  value = body.get(key)
  if value is not None and not isinstance(value, bool):
    raise _wrong(key, f"{key} is neither true nor false")
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
      f"stop is no text, nor {_MOST_STOPS} at most, of {_LONGEST_STOP}"
      " characters at most",
    )
  return tuple(found)


def _text_turn(turn: Any) -> Any:
  """The turn, whose content, where it is a list of texts, is one text."""
  content = turn.get("content") if isinstance(turn, dict) else None
  if not isinstance(content, list):
    return turn
  texts = [
    part.get("text")
    for part in content
    if isinstance(part, dict) and part.get("type") == "text"
  ]
  if len(texts) != len(content) or not all(isinstance(t, str) for t in texts):
    raise _wrong("messages", "a content has a part that is no text")
  return {**turn, "content": "".join(texts)}


class Heading(NamedTuple):
  """What stands in every object of an answer.

  chat: whether it answers a chat.
  id, created, model: OpenAI's fields.
  """

  chat: bool
  id: str
  created: int
  model: str

  def whole(self, texts, finishes, usage) -> dict[str, Any]:
    """The answer at once."""
    choices = [
      self._choice(i, text, finish, "message")
      for i, (text, finish) in enumerate(zip(texts, finishes, strict=True))
    ]
    kind = "chat.completion" if self.chat else "text_completion"
    return {**self._common(kind), "choices": choices, "usage": usage}

  def chunk(self, index: int, text: str | None, finish) -> dict[str, Any]:
    """A part of a stream; text None is how a chat's answer begins."""
    choice = self._choice(index, text, finish, "delta")
    return {**self._common(self._chunk_kind()), "choices": [choice]}

  def usage_chunk(self, usage: dict[str, int]) -> dict[str, Any]:
    """The last part of a stream that tells what it used."""
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
  """OpenAI's account of a request."""
  return {
    "prompt_tokens": prompt_tokens,
    "completion_tokens": completion_tokens,
    "total_tokens": prompt_tokens + completion_tokens,
  }
