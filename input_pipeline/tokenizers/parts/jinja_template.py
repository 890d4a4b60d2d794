"""Chat templates in Jinja, as published models have them.

A template of this kind is a program that writes the text of a conversation. It
runs in Jinja's immutable sandbox, which gives it no access to files, modules or
attributes of Python; as in other libraries, a hostile template can still take
much time or memory. Its special tokens are read out of the text that it writes,
but never out of the content of a message.
"""

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from input_pipeline import tokenizers
from input_pipeline.tokenizers import Tokenizer
from input_pipeline.tokenizers.parts import chat_template
from input_pipeline.tokenizers.parts.chat_template import Chat, Message

NAME = "own"  # of the template in a run, for --template
_ANSWER, _REPLY = "qzxanswer", "qzxreply"
_MOST_CHARACTERS = 2**24


class Source(NamedTuple):
  """A template before it is bound to a tokenizer.

  text: the template.
  names: the spellings of special tokens that it refers to, such as
    {"bos_token": "<s>"}.
  file: the name of the file that it comes from.
  """

  text: str
  names: Mapping[str, str]
  file: str


def bind(source: Source, tokenizer: Tokenizer) -> Chat:
  """Returns the Chat of a template; it writes prompts only.

  Raises:
    ValueError: jinja2 is not installed, or the template is not valid.
  """
  render = _renderer(source)
  special = tokenizers.special(tokenizer)
  whole = tokenizers.encoder_of_special(tokenizer)
  spelled = {i: name for name, i in special.items()}
  any_special = re.compile(
    "|".join(map(re.escape, sorted(special, key=len, reverse=True))) or r"(?!)"
  )

  def prompt(messages: Sequence[Message]) -> np.ndarray:
    said = "".join(content for _, content in messages)
    if whole is not None and not any_special.search(said):
      return whole(render(messages, True))
    # A character that neither the conversation nor the template has breaks up
    # the special tokens that a content spells.
    points = map(chr, range(0xE000, 0xF8FF))
    mark = next(c for c in points if c not in said and c not in source.text)

    def broken(content: str) -> str:
      return any_special.sub(lambda m: f"{m[0][0]}{mark}{m[0][1:]}", content)

    text = render(
      [m._replace(content=broken(m.content)) for m in messages], True
    )
    return _encoded(tokenizer, text, any_special, special, spelled, mark)

  def encode(messages):
    raise ValueError("a Jinja template has no mask of the answers to learn")

  stop, stop_id = _end(render, any_special, special)
  return Chat(encode, prompt, stop, stop_id)


def _encoded(tokenizer, text, any_special, special, spelled, mark):
  """Encodes a text, in which `mark` breaks up what is no special token."""
  ids, at = [np.zeros(0, np.int32)], 0
  for found in [*any_special.finditer(text), None]:
    end = len(text) if found is None else found.start()
    part = text[at:end].replace(mark, "")
    if part:
      ids.append(chat_template.text_ids(tokenizer, part, spelled))
    if found is not None:
      ids.append(np.array([special[found[0]]], np.int32))
      at = found.end()
  return np.concatenate(ids)


def _end(render, any_special, special) -> tuple[str, int | None]:
  """Returns (text, id) that end an answer; ("", None) if none can be found."""
  turns = [Message("user", _REPLY), Message("assistant", _ANSWER)]
  try:
    _, found, rest = render(turns, False).partition(_ANSWER)
    after = any_special.search(rest)
    if found and after and not rest[: after.start()].strip():
      return after[0], special[after[0]]
    _, _, rest = render([*turns, turns[0]], False).partition(_ANSWER)
  except ValueError:  # a template may refuse such a conversation
    return "", None
  between, found, _ = rest.partition(_REPLY)
  return (between, None) if found and between.strip() else ("", None)


def _renderer(source: Source):
  """Returns (messages, whether an answer follows) -> text."""
  try:
    import jinja2
    import jinja2.ext
    import jinja2.sandbox
  except ImportError:
    raise ValueError(
      "its chat template needs jinja2: pip install -e '.[text]'"
    ) from None

  class Generation(jinja2.ext.Extension):
    """{% generation %} marks an answer for training and writes its body."""

    tags = {"generation"}

    def parse(self, parser):
      next(parser.stream)
      return parser.parse_statements(["name:endgeneration"], drop_needle=True)

  def fail(message: Any) -> None:
    raise jinja2.TemplateError(str(message))

  def as_json(value, ensure_ascii=False, indent=None, **how):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **how)

  environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True,
    lstrip_blocks=True,
    extensions=[Generation, jinja2.ext.loopcontrols],
  )
  environment.filters["tojson"] = as_json
  environment.globals["raise_exception"] = fail
  environment.globals["strftime_now"] = lambda form: (
    datetime.datetime.now().strftime(form)
  )

  def guarded(function, *args, **how):
    try:
      return function(*args, **how)
    except (jinja2.TemplateError, ArithmeticError, LookupError) as error:
      problem = error
    except (AttributeError, RecursionError, TypeError, ValueError) as error:
      problem = error
    line = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
    raise ValueError(f"its chat template ({source.file}): {line[:200]}")

  template = guarded(environment.from_string, source.text)

  def render(messages: Sequence[Message], answered: bool) -> str:
    turns = [message._asdict() for message in messages]
    text = guarded(
      template.render,
      messages=turns,
      add_generation_prompt=answered,
      tools=None,
      documents=None,
      **source.names,
    )
    if len(text) > _MOST_CHARACTERS:
      raise ValueError(f"its chat template ({source.file}) writes too much")
    return text

  return render
