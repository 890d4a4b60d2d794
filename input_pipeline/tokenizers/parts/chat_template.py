"""Chat templates: how a conversation is written as text and special tokens.

A template is data, not a program: the text and special tokens that open and
close a turn. Every text, and in particular the content of a turn, is encoded
separately and never to a special token, so a user's text cannot close a turn or
open another. Only "plain" has no special tokens, so there a content can imitate
a turn; it is for models that do not know such tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from common.names import nearest
from input_pipeline.tokenizers import Tokenizer
from input_pipeline.tokenizers.parts import special_tokens

ROLES = ("system", "user", "assistant")
# ShareGPT's names, and OpenAI's newer name for the system.
_SPEAKERS = {
  "developer": "system",
  "human": "user",
  "gpt": "assistant",
  "chatgpt": "assistant",
  **{role: role for role in ROLES},
}
# No real conversation has more; this bounds the memory of a hostile record.
_MOST_TURNS = 10_000

# A text, with {role} for the role's name; or the family of a special token.
Part = str | tuple[str, ...]


class Template(NamedTuple):
  """How conversations are written.

  name: of the template.
  roles: {role: its name in the template}.
  opening: the parts of a turn before its content.
  closing: the parts of a turn after its content; the first part ends an answer
    and is learned with it.
  begin: the parts before a conversation; if empty, the tokenizer's bos, if any.
  trimmed: whether white space around a content is removed.
  """

  name: str
  roles: Mapping[str, str]
  opening: tuple[Part, ...]
  closing: tuple[Part, ...]
  begin: tuple[Part, ...] = ()
  trimmed: bool = False


_OWN_NAMES = {role: role for role in ROLES}
TEMPLATES = {
  each.name: each
  for each in (
    # OpenAI's ChatML, which Qwen and many others use.
    Template(
      "chatml",
      _OWN_NAMES,
      opening=(("<|im_start|>",), "{role}\n"),
      closing=(("<|im_end|>",), "\n"),
    ),
    # The Llama 3 model card.
    Template(
      "llama3",
      _OWN_NAMES,
      opening=(
        ("<|start_header_id|>",),
        "{role}",
        ("<|end_header_id|>",),
        "\n\n",
      ),
      closing=(("<|eot_id|>",),),
      begin=(("<|begin_of_text|>",),),
      trimmed=True,
    ),
    Template(
      "plain",
      {role: role.capitalize() for role in ROLES},
      opening=("{role}: ",),
      closing=("\n\n",),
      trimmed=True,
    ),
  )
}


class Message(NamedTuple):
  """One turn: its role, one of ROLES, and its content."""

  role: str
  content: str


class Chat(NamedTuple):
  """A template in a tokenizer's tokens.

  encode: (messages) -> (int32 ids, bool whether each belongs to an answer: its
    content or the part that ends it); ValueError if a content cannot be
    encoded.
  prompt: (messages) -> int32 ids that the answer continues.
  stop: the text that ends an answer.
  stop_id: the token that ends an answer, or None if a text ends it.
  """

  encode: Callable[[Sequence[Message]], tuple[np.ndarray, np.ndarray]]
  prompt: Callable[[Sequence[Message]], np.ndarray]
  stop: str
  stop_id: int | None


def get(name: str) -> Template:
  """Returns the template of a name; ValueError, with the nearest, if none."""
  if name in TEMPLATES:
    return TEMPLATES[name]
  raise ValueError(
    f"template={name!r} is unknown{nearest(name, TEMPLATES)}"
    f" (valid: {', '.join(TEMPLATES)})"
  )


def tokens_of(name: str) -> tuple[tuple[str, ...], ...]:
  """Returns the families of special tokens that a template needs, each once."""
  found = get(name)
  parts = (*found.begin, *found.opening, *found.closing)
  return tuple(dict.fromkeys(p for p in parts if isinstance(p, tuple)))


def bind(name: str, tokenizer: Tokenizer) -> Chat:
  """Returns the Chat of a template's name in the tokens of `tokenizer`.

  Raises:
    ValueError: there is no such template, or the tokenizer lacks its tokens.
  """
  template = get(name)
  ids_of = {f: special_tokens.find(tokenizer, f) for f in tokens_of(name)}
  spelled = {i: tokenizer.decode([i]).strip() for i in ids_of.values()}

  def written(parts: Sequence[Part], role: str = "") -> list[np.ndarray]:
    return [
      np.array([ids_of[part]], np.int32)
      if isinstance(part, tuple)
      else tokenizer.encode(part.format(role=template.roles.get(role, "")))
      for part in parts
    ]

  begin, closing = written(template.begin), written(template.closing)
  if not begin and tokenizer.bos is not None:
    begin = [np.array([tokenizer.bos], np.int32)]
  opening = {role: written(template.opening, role) for role in ROLES}

  def encode(messages: Sequence[Message]) -> tuple[np.ndarray, np.ndarray]:
    ids, learned = list(begin), [False] * len(begin)
    for role, content in messages:
      content = content.strip() if template.trimmed else content
      body = text_ids(tokenizer, content, spelled)
      ids += [*opening[role], body, *closing]
      answers = [role == "assistant"] * 2
      learned += [False] * len(opening[role]) + answers
      learned += [False] * (len(closing) - 1)
    mask = np.repeat(learned, [len(each) for each in ids])
    return _joined(ids), mask.astype(bool)

  def prompt(messages: Sequence[Message]) -> np.ndarray:
    return _joined([encode(messages)[0], *opening["assistant"]])

  last = template.closing[0]
  if isinstance(last, str):
    return Chat(encode, prompt, last, None)
  return Chat(encode, prompt, spelled[ids_of[last]], ids_of[last])


def text_ids(
  tokenizer: Tokenizer, text: str, special: Mapping[int, str]
) -> np.ndarray:
  """Encodes a text such that none of the ids is a special token.

  If a tokenizer takes the spelling of a special token in the text for the
  token, the spelling is encoded in two parts.

  Args:
    tokenizer: of the text.
    text: from any author.
    special: {id: its spelling}.

  Raises:
    ValueError: the text cannot be encoded without a special token.
  """
  ids = tokenizer.encode(text)
  if not np.isin(ids, list(special)).any():
    return ids
  parts = [text]
  for name in special.values():
    parts = [piece for part in parts for piece in _parted(part, name)]
  ids = _joined([tokenizer.encode(part) for part in parts if part])
  if np.isin(ids, list(special)).any():
    raise ValueError("a text is encoded as a token that opens or closes turns")
  return ids


def _parted(text: str, name: str) -> list[str]:
  """Returns the text, split after the first character of each `name` in it."""
  first, *others = text.split(name)
  parts = [first]
  for other in others:
    parts[-1] += name[:1]
    parts.append(name[1:] + other)
  return parts


def _joined(ids: Sequence[np.ndarray]) -> np.ndarray:
  return np.concatenate([np.zeros(0, np.int32), *ids]).astype(np.int32)


def messages_of(turns: Any, what: str = "messages") -> tuple[Message, ...]:
  """Returns the messages of a record's list of turns.

  A turn is {"role", "content"}, or ShareGPT's {"from", "value"}.

  Raises:
    ValueError: the value is not such a list; one line that names the wrong
      turn.
  """
  if not isinstance(turns, (list, tuple, np.ndarray)) or not len(turns):
    raise ValueError(f"{what} is not a list of turns")
  if len(turns) > _MOST_TURNS:
    raise ValueError(
      f"{what} has {len(turns)} turns; at most {_MOST_TURNS} are allowed"
    )
  found = []
  for i, turn in enumerate(turns):
    if not isinstance(turn, Mapping):
      raise ValueError(f"{what}[{i}] is not an object with role and content")
    keys = ("from", "value") if "from" in turn else ("role", "content")
    speaker, content = (turn.get(key) for key in keys)
    role = _SPEAKERS.get(speaker) if isinstance(speaker, str) else None
    if role is None:
      raise ValueError(
        f"{what}[{i}].{keys[0]}={str(speaker)[:40]!r} is not one of "
        f"{', '.join(ROLES)}"
      )
    if not isinstance(content, str):
      raise ValueError(f"{what}[{i}].{keys[1]} is not a string")
    found.append(Message(role, content))
  return tuple(found)
