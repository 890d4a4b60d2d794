"""Chat templates: how a conversation is written, and what opens each turn.

A template is data, not a program: what opens a turn and what closes it, in
text and in special tokens. Every text, a turn's content above all, is encoded
by itself, and never to a special token: what a user writes cannot close a turn
or open another. "plain" alone has no tokens of its own, so that there a content
can imitate a turn; it is for models that know no such tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from common.names import nearest
from input_pipeline.tokenizers import Tokenizer
from input_pipeline.tokenizers.parts import special_tokens

ROLES = ("system", "user", "assistant")
# ShareGPT's spellings, and what OpenAI now calls the system.
_SPEAKERS = {
  "developer": "system",
  "human": "user",
  "gpt": "assistant",
  "chatgpt": "assistant",
  **{role: role for role in ROLES},
}
# No conversation has more; a hostile record would be paid for in memory.
_MOST_TURNS = 10_000

# A text, in which {role} is the role's name; or the family of a special token.
Part = str | tuple[str, ...]


class Template(NamedTuple):
  """How conversations are written.

  name: what it is called.
  roles: {role: what the template calls it}.
  opening: of a turn, up to its content.
  closing: of a turn, after its content; its first part ends an answer, and is
    learned with it.
  begin: of a conversation; if nothing, the tokenizer's bos where it has one.
  trimmed: whether white space around a content is dropped.
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
    # OpenAI's ChatML; what Qwen and many others speak.
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
  """One turn: one of ROLES, and what it says."""

  role: str
  content: str


class Chat(NamedTuple):
  """A template in a tokenizer's tokens.

  encode: (messages) -> (int32 ids, bool whether each is of an answer: its
    content, and what ends it); ValueError where a content cannot be encoded.
  prompt: (messages) -> int32 ids that the answer goes on from.
  stop: the text that ends an answer.
  stop_id: the token that ends an answer, or None where a text does.
  """

  encode: Callable[[Sequence[Message]], tuple[np.ndarray, np.ndarray]]
  prompt: Callable[[Sequence[Message]], np.ndarray]
  stop: str
  stop_id: int | None


def get(name: str) -> Template:
  """The template of a name; ValueError, with the nearest, where none has it."""
  if name in TEMPLATES:
    return TEMPLATES[name]
  raise ValueError(
    f"template={name!r} is unknown{nearest(name, TEMPLATES)}"
    f" (there are: {', '.join(TEMPLATES)})"
  )


def tokens_of(name: str) -> tuple[tuple[str, ...], ...]:
  """The families of special tokens that a template needs, each once."""
  found = get(name)
  parts = (*found.begin, *found.opening, *found.closing)
  return tuple(dict.fromkeys(p for p in parts if isinstance(p, tuple)))


def bind(name: str, tokenizer: Tokenizer) -> Chat:
  """The Chat of a template's name in the tokens of `tokenizer`.

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
    ids, said = list(begin), [False] * len(begin)
    for role, content in messages:
      content = content.strip() if template.trimmed else content
      body = text_ids(tokenizer, content, spelled)
      ids += [*opening[role], body, *closing]
      answers = [role == "assistant"] * 2
      said += [False] * len(opening[role]) + answers
      said += [False] * (len(closing) - 1)
    mask = np.repeat(said, [len(each) for each in ids])
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
  """The ids of a text, none of which is special.

  A tokenizer that takes a special token's spelling for the token is given the
  spelling in two parts.

  Args:
    tokenizer: of the text.
    text: whoever wrote it.
    special: {id: how it is spelled}.

  Raises:
    ValueError: the text cannot be encoded without one of them.
  """
  ids = tokenizer.encode(text)
  if not np.isin(ids, list(special)).any():
    return ids
  parts = [text]
  for name in special.values():
    parts = [piece for part in parts for piece in _parted(part, name)]
  ids = _joined([tokenizer.encode(part) for part in parts if part])
  if np.isin(ids, list(special)).any():
    raise ValueError("a text is encoded to a token that opens or closes turns")
  return ids


def _parted(text: str, name: str) -> list[str]:
  """The text, cut behind the first character of each `name` in it."""
  first, *others = text.split(name)
  parts = [first]
  for other in others:
    parts[-1] += name[:1]
    parts.append(name[1:] + other)
  return parts


def _joined(ids: Sequence[np.ndarray]) -> np.ndarray:
  return np.concatenate([np.zeros(0, np.int32), *ids]).astype(np.int32)


def messages_of(turns: Any, what: str = "messages") -> tuple[Message, ...]:
  """The messages of a record's list of turns.

  A turn is {"role", "content"}, or ShareGPT's {"from", "value"}.

  Raises:
    ValueError: it is no such list; one line that tells which turn is wrong.
  """
  if not isinstance(turns, (list, tuple, np.ndarray)) or not len(turns):
    raise ValueError(f"{what} is no list of turns")
  if len(turns) > _MOST_TURNS:
    raise ValueError(f"{what} has {len(turns)} turns, of {_MOST_TURNS} at most")
  found = []
  for i, turn in enumerate(turns):
    if not isinstance(turn, Mapping):
      raise ValueError(f"{what}[{i}] is no object with role and content")
    keys = ("from", "value") if "from" in turn else ("role", "content")
    speaker, content = (turn.get(key) for key in keys)
    role = _SPEAKERS.get(speaker) if isinstance(speaker, str) else None
    if role is None:
      raise ValueError(
        f"{what}[{i}].{keys[0]}={str(speaker)[:40]!r} is none of "
        f"{', '.join(ROLES)}"
      )
    if not isinstance(content, str):
      raise ValueError(f"{what}[{i}].{keys[1]} is no text")
    found.append(Message(role, content))
  return tuple(found)
