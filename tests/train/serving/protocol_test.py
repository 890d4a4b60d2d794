"""Which fields of clients are accepted, and which are refused."""

import pytest

from train.serving import protocol
from train.serving.limits import Limits

MESSAGES = [{"role": "user", "content": "hi", "tool_calls": None}]
BASE = {"messages": MESSAGES, "max_tokens": 4, "temperature": 0, "seed": 1}
NEUTRAL = [
  *({"parallel_tool_calls": value} for value in (True, False, None)),
  *({"top_k": value} for value in (0, -1, None)),
  *({"n": value} for value in (1, None)),
  *({"stream_options": value} for value in (None, {}, {"include_usage": True})),
  *({"logit_bias": value} for value in (None, {}, {"50256": 0})),
  *({"response_format": value} for value in (None, {"type": "text"})),
  *({"tool_choice": value} for value in (None, "none", "auto")),
  *(
    {"presence_penalty": value, "frequency_penalty": 0.0} for value in (0, 0.0)
  ),
  {"prompt_cache_key": "x", "prompt_cache_retention": "24h", "user": "u"},
  {"store": True, "metadata": {"a": "b"}, "service_tier": "auto"},
  {"safety_identifier": "s", "modalities": ["text"], "verbosity": "medium"},
  {"prediction": {"type": "content", "content": "x"}, "audio": None},
  {"web_search_options": None, "tools": [], "functions": None},
  {"logprobs": False, "top_logprobs": 0, "reasoning_effort": None},
  {"max_completion_tokens": None, "stop": None, "stream": None, "top_p": None},
  {"skip_special_tokens": True, "ignore_eos": False, "min_tokens": 0},
  {"chat_template_kwargs": {}, "add_generation_prompt": True},
  {"a_field_of_tomorrow": None},
]
REFUSED = [
  {"tools": [{"type": "function"}]},
  {"tool_choice": "required"},
  {"logit_bias": {"5": -100}},
  {"presence_penalty": 0.5},
  {"response_format": {"type": "json_object"}},
  {"modalities": ["text", "audio"]},
  {"logprobs": True},
  {"reasoning_effort": "high"},
  {"ignore_eos": True},
  {"min_tokens": 2},
  {"skip_special_tokens": False},
  {"best_of": 3},
  {"top_k": -2},
  {"stream_options": "usage"},
  {"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]},
  {"temprature": 1},
]


@pytest.mark.parametrize("more", NEUTRAL, ids=repr)
def test_a_field_that_changes_nothing_is_accepted(more):
  want = protocol.chat(BASE, "m", Limits())
  assert (
    protocol.chat({**BASE, **more}, "m", Limits())._replace(usage=False) == want
  )


@pytest.mark.parametrize("more", REFUSED, ids=repr)
def test_a_field_that_would_change_the_answer_is_refused(more):
  with pytest.raises(protocol.ApiError) as error:
    protocol.chat({**BASE, **more}, "m", Limits())
  assert error.value.status == 400 and "\n" not in error.value.message
  assert error.value.param == next(iter(more))


def test_the_logprobs_of_completions():
  body = {"prompt": [[1, 2]], "max_tokens": 0, "echo": True, "best_of": 1}
  for given, want in ((None, None), (False, None), (0, 0), (5, 5)):
    ask = protocol.completion({**body, "logprobs": given}, "m", Limits())
    assert (ask.logprobs, ask.max_tokens, ask.echo) == (want, 0, True)
  for more in ({"logprobs": 21}, {"logprobs": 1, "stream": True}):
    with pytest.raises(protocol.ApiError, match="logprobs"):
      protocol.completion({**body, **more}, "m", Limits())
