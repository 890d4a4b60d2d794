"""Which fields of a request change the answer.

A field that would change the answer and is not implemented is refused, not
ignored. _IGNORED lists the fields that do not change the answer, and _NEUTRAL
the values with which other fields do not change it. A field that is null is
absent.
"""

from typing import Any

from train.serving.api_error import ApiError, unsupported, wrong

_IGNORED = frozenset(
  {
    *("user", "metadata", "store", "service_tier", "safety_identifier"),
    *("prompt_cache_key", "prompt_cache_retention", "cache_salt"),
    # Without tools there are no calls, and a prediction only saves time.
    *("parallel_tool_calls", "prediction"),
    *("request_id", "priority", "cache_prompt"),
  }
)
# Fields that are not implemented, with the values that change no answer; an
# object or list is also neutral if it is empty. The last ones are those of
# vLLM, llama.cpp and other servers, which their clients send along.
_NEUTRAL: dict[str, tuple] = {
  "top_logprobs": (0,),
  "best_of": (1,),
  "suffix": ("",),
  "echo": (False,),
  "logit_bias": (),
  "presence_penalty": (0,),
  "frequency_penalty": (0,),
  "tools": (),
  "tool_choice": ("none", "auto"),
  "functions": (),
  "function_call": ("none", "auto"),
  "response_format": ({"type": "text"},),
  "modalities": (["text"],),
  "audio": (),
  "web_search_options": (),
  "reasoning_effort": ("none",),
  "verbosity": ("medium",),
  "moderation": (),
  "min_tokens": (0,),
  "ignore_eos": (False,),
  "use_beam_search": (False,),
  "length_penalty": (1,),
  "early_stopping": (False,),
  "typical_p": (1,),
  "tfs_z": (1,),
  "mirostat": (0,),
  "repeat_penalty": (1,),
  "no_repeat_ngram_size": (0,),
  "skip_special_tokens": (True,),
  "spaces_between_special_tokens": (True,),
  "include_stop_str_in_output": (False,),
  "stop_token_ids": (),
  "bad_words": (),
  "prompt_logprobs": (),
  "truncate_prompt_tokens": (),
  "add_generation_prompt": (True,),
  "continue_final_message": (False,),
  "add_special_tokens": (True,),
  "chat_template_kwargs": (),
  "documents": (),
  "include_reasoning": (True, False),
  "return_token_ids": (False,),
}


def present(body: Any, known: tuple[str, ...]) -> dict[str, Any]:
  """Returns the implemented fields of a body that are not null.

  Args:
    body: the JSON value of a request's body.
    known: the implemented fields.

  Raises:
    ApiError: the body is not an object, or has a field that is unknown, or not
      implemented and would change the answer.
  """
  if not isinstance(body, dict):
    raise ApiError(400, "the body must be a JSON object")
  found = {}
  for key, value in body.items():
    if value is None or key in _IGNORED:
      continue
    if key in known:
      found[key] = value
    elif key not in _NEUTRAL:
      raise wrong(key[:60], f"unknown field {key[:60]!r}", "unknown_parameter")
    elif not _is_neutral(key, value, body):
      raise unsupported(key)
  return found


def _is_neutral(key: str, value: Any, body: dict) -> bool:
  """Whether a field that is not implemented changes no answer."""
  if value in ({}, []):
    return True
  if key == "logit_bias" and isinstance(value, dict):
    return all(_is_zero(bias) for bias in value.values())
  if key == "best_of" and value == body.get("n"):
    return not isinstance(value, bool)
  if isinstance(value, bool):
    return any(value is each for each in _NEUTRAL[key])
  return any(
    value == each for each in _NEUTRAL[key] if not isinstance(each, bool)
  )


def _is_zero(value: Any) -> bool:
  return value == 0 and not isinstance(value, bool)
