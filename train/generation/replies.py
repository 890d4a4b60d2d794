"""Replies of a trained model in a conversation, and incremental texts.

The terminal and the server share this module: it applies a chat template,
truncates the history to the model's window, and turns tokens into text until a
stop condition is met.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from common.errors import UserError
from input_pipeline.tokenizers.parts import chat_template, jinja_template
from input_pipeline.tokenizers.parts.chat_template import Chat, Message
from train import trained
from train.generation import detokenize, streaming


class Speaker(NamedTuple):
  """A trained run that answers messages.

  found: the run.
  chat: the chat template, in the ids of the run's tokenizer.
  write: see streaming.writer.
  window: the maximum number of tokens of a prompt and its answer, or None.
  template: the name of the template.
  inference: see streaming.inference.
  """

  found: trained.Trained
  chat: Chat
  write: streaming.Write
  window: int | None
  template: str
  inference: streaming.Inference


class Text(NamedTuple):
  """A text during its generation.

  ids: the ids of the prompt and those generated so far.
  options: the generation options; their `stop` strings end the text.
  stop_id: a token that ends the text, or None.
  reader: the state of detokenizing the generated text.
  drawn: the number of ids generated so far.
  finish: None while the text is unfinished, then "stop" or "length".
  """

  ids: tuple[int, ...]
  options: streaming.Options
  stop_id: int | None
  reader: detokenize.Reader
  drawn: int = 0
  finish: str | None = None

  def rest(self) -> streaming.Options:
    """Returns the options with which `write` continues the text.

    They hold no stop strings, because `read` detects the end. A row's samples
    depend only on its seed and its text, so a text that is continued equals one
    that was never interrupted.
    """
    left = self.options.max_tokens - self.drawn
    return self.options._replace(max_tokens=left, stop=())


def speaker(
  found: trained.Trained, template: str | None = None, chunk: int = 8
) -> Speaker:
  """Returns the Speaker of a run.

  Args:
    found: the run.
    template: the name of a template in chat_template.py, or "own" for that of
      the folder that the run was converted from. If None, the template of the
      conversations that the run was trained on; "own" if it was trained on none
      and has one; otherwise "plain".
    chunk: see streaming.writer.

  Raises:
    UserError: the run's model cannot generate text, or its tokenizer lacks the
      template's tokens.
  """
  inference = streaming.inference(found)
  write = streaming.writer(inference, chunk)
  rows = found.parts.config["data"].get("rows") or {}
  if template is None:
    learned = rows.get("name") in ("conversations", "preferences")
    unlearned = "plain" if found.template is None else jinja_template.NAME
    template = rows.get("template", "chatml") if learned else unlearned
  try:
    chat = _bound(template, found)
  except ValueError as error:
    raise UserError(f"--template={template}: {error}") from error
  return Speaker(
    found, chat, write, found.parts.model.max_len, template, inference
  )


def _bound(template: str, found: trained.Trained) -> Chat:
  """Returns the Chat of a template; ValueError if there is none."""
  tokenizer = found.parts.data.tokenizer
  if template != jinja_template.NAME:
    return chat_template.bind(template, tokenizer)
  if found.template is None:
    raise ValueError("this run has no chat template of its own")
  return jinja_template.bind(found.template, tokenizer)


def described(speaker: Speaker) -> str:
  """Returns a line that names the speaker's template."""
  source = speaker.found.template
  own = speaker.template == jinja_template.NAME and source is not None
  where = f" (the model's own, from {source.file})" if own else ""
  return f"chat template: {speaker.template}{where}"


def begin(
  speaker: Speaker,
  ids: Sequence[int],
  options: streaming.Options,
  stop_id: int | None = None,
) -> Text:
  """Returns the Text of a prompt before any token is generated."""
  ids = tuple(map(int, ids))
  decode = speaker.found.parts.data.tokenizer.decode
  return Text(ids, options, stop_id, detokenize.begin(decode, ids))


def read(
  speaker: Speaker, text: Text, tokens: Iterable[int]
) -> tuple[Text, str]:
  """Appends tokens up to the end of the text; returns (text, new characters).

  Args:
    speaker: the speaker that generates the text.
    text: the text so far.
    tokens: the next ids; those after the end of the text are ignored.
  """
  tokenizer = speaker.found.parts.data.tokenizer
  if text.finish is not None:
    return text, ""
  part = detokenize.read_part(
    tokenizer.decode,
    (*tokenizer.ends, text.stop_id),
    text.options.stop,
    text.options.max_tokens - text.drawn,
    text.reader,
    tokens,
  )
  text = text._replace(
    ids=(*text.ids, *part.tokens),
    reader=part.reader,
    drawn=text.drawn + len(part.tokens),
    finish=part.finish,
  )
  return text, part.text


def answer(
  speaker: Speaker, messages: Sequence[Message], options: streaming.Options
) -> Iterator[str]:
  """Yields the answer to the messages, piece by piece.

  Args:
    speaker: the speaker that answers.
    messages: the conversation, truncated to the window by `within`.
    options: the generation options; the template's stop string is added.
  """
  ids = speaker.chat.prompt(messages)
  text = begin(speaker, ids, asked(speaker, options), speaker.chat.stop_id)
  if speaker.window is not None:
    room = speaker.window - len(ids)
    most = max(1, min(options.max_tokens, room))
    text = text._replace(options=text.options._replace(max_tokens=most))
  for piece in speaker.write([text.ids], [text.rest()]):
    text, part = read(speaker, text, piece.tokens)
    if part:
      yield part
    if text.finish is not None:
      return


def asked(speaker: Speaker, options: streaming.Options) -> streaming.Options:
  """Adds the template's stop string, if its answers end with a string."""
  if speaker.chat.stop_id is not None or not speaker.chat.stop:
    return options
  return options._replace(stop=(*options.stop, speaker.chat.stop))


def within(
  speaker: Speaker, messages: Sequence[Message], reserve: int
) -> tuple[list[Message], int]:
  """Drops old messages so that the prompt leaves room for the answer.

  The oldest messages are dropped, up to the next message of the user. System
  messages and the last message are never dropped.

  Args:
    speaker: the speaker whose window limits the prompt.
    messages: the conversation.
    reserve: tokens reserved for the answer, at most half of the window.

  Returns:
    (the remaining messages, the number of dropped messages).

  Raises:
    ValueError: the messages that must stay do not fit, or a message cannot be
      encoded.
  """
  kept, dropped = list(messages), 0
  if speaker.window is None:
    return kept, 0
  most = speaker.window - min(reserve, speaker.window // 2)
  while (length := len(speaker.chat.prompt(kept))) > most:
    turns = [i for i, m in enumerate(kept[:-1]) if m.role != "system"]
    if not turns:
      raise ValueError(
        f"{length} tokens are more than the {most} that fit into the prompt"
      )
    following = (i for i in turns[1:] if kept[i].role == "user")
    end = next(following, len(kept) - 1)
    gone = [i for i in turns if i < end]
    dropped += len(gone)
    kept = [m for i, m in enumerate(kept) if i not in gone]
  return kept, dropped
