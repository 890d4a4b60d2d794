"""Answers of a trained model in a conversation, and texts as tokens come.

What the terminal and the server share: a template in the run's tokens, a
history cut to the window, and the text of tokens up to whatever ends it.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from common.errors import UserError
from input_pipeline.tokenizers.parts import chat_template
from input_pipeline.tokenizers.parts.chat_template import Chat, Message
from train import trained
from train.generation import detokenize, streaming


class Speaker(NamedTuple):
  """A run that answers.

  found: the run.
  chat: its template, in its tokens.
  write: see generation.writer.
  window: the most tokens of a prompt and its answer, or None.
  template: its name.
  """

  found: trained.Trained
  chat: Chat
  write: streaming.Write
  window: int | None
  template: str


class Text(NamedTuple):
  """A text as it is written.

  ids: of the prompt, and what has been drawn.
  options: its own `stop` ends the text.
  stop_id: a token that ends the text, or None.
  reader: of what has been drawn.
  drawn: how many ids have been.
  finish: None while it goes on; "stop" or "length".
  """

  ids: tuple[int, ...]
  options: streaming.Options
  stop_id: int | None
  reader: detokenize.Reader
  drawn: int = 0
  finish: str | None = None

  def rest(self) -> streaming.Options:
    """What `write` is asked for to go on; where it ends is seen here.

    A row's draws depend on its seed and its text alone, so that a text which
    goes on from what it has is the text that would have been.
    """
    left = self.options.max_tokens - self.drawn
    return self.options._replace(max_tokens=left, stop=())


def speaker(
  found: trained.Trained, template: str | None = None, chunk: int = 8
) -> Speaker:
  """The Speaker of a run.

  Args:
    found: the run.
    template: a name of chat_template.py; if None the one that the run learned
      its conversations in, or "plain" where it learned none.
    chunk: see generation.writer.

  Raises:
    UserError: the run's model does not write, or lacks the template's tokens.
  """
  write = streaming.writer(found, chunk)
  rows = found.parts.config["data"].get("rows") or {}
  if template is None:
    learned = rows.get("name") in ("conversations", "preferences")
    template = rows.get("template", "chatml") if learned else "plain"
  try:
    chat = chat_template.bind(template, found.parts.data.tokenizer)
  except ValueError as error:
    raise UserError(f"--template={template}: {error}") from error
  return Speaker(found, chat, write, found.parts.model.max_len, template)


def begin(
  speaker: Speaker,
  ids: Sequence[int],
  options: streaming.Options,
  stop_id: int | None = None,
) -> Text:
  """The Text of a prompt before anything is drawn."""
  ids = tuple(map(int, ids))
  decode = speaker.found.parts.data.tokenizer.decode
  return Text(ids, options, stop_id, detokenize.begin(decode, ids))


def read(
  speaker: Speaker, text: Text, tokens: Iterable[int]
) -> tuple[Text, str]:
  """(the text with tokens more, what became readable) up to its end."""
  tokenizer = speaker.found.parts.data.tokenizer
  ids, reader, drawn, parts = list(text.ids), text.reader, text.drawn, []
  finish = text.finish
  for token in tokens:
    if finish is not None:
      break
    ids.append(int(token))
    drawn += 1
    if token in (text.stop_id, tokenizer.eos):
      finish = "stop"
    else:
      reader, part, stopped = detokenize.read(
        tokenizer.decode, text.options.stop, reader, int(token)
      )
      parts.append(part)
      if stopped:
        reader, finish = reader._replace(held=""), "stop"
      elif drawn >= text.options.max_tokens:
        finish = "length"
    if finish is not None:
      parts.append(reader.held)
  text = text._replace(ids=tuple(ids), reader=reader, drawn=drawn)
  return text._replace(finish=finish), "".join(parts)


def answer(
  speaker: Speaker, messages: Sequence[Message], options: streaming.Options
) -> Iterator[str]:
  """The answer to the messages, piece by piece.

  Args:
    speaker: who answers.
    messages: of the conversation, cut to the window by `within`.
    options: the template's stop is added to theirs.
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
  """The options, with the text that ends the template's answers."""
  if speaker.chat.stop_id is not None:
    return options
  return options._replace(stop=(*options.stop, speaker.chat.stop))


def within(
  speaker: Speaker, messages: Sequence[Message], reserve: int
) -> tuple[list[Message], int]:
  """(messages that leave room for the answer, how many were dropped).

  The oldest are dropped up to a turn of the user, but never what the system
  says, nor the last.

  Args:
    speaker: whose window it is.
    messages: of the conversation.
    reserve: tokens for the answer; at most half of the window is kept free.

  Raises:
    ValueError: what cannot be dropped does not fit, or cannot be encoded.
  """
  kept, dropped = list(messages), 0
  if speaker.window is None:
    return kept, 0
  most = speaker.window - min(reserve, speaker.window // 2)
  while (length := len(speaker.chat.prompt(kept))) > most:
    turns = [i for i, m in enumerate(kept[:-1]) if m.role != "system"]
    if not turns:
      raise ValueError(
        f"{length} tokens are more than the {most} that a prompt may have"
      )
    following = (i for i in turns[1:] if kept[i].role == "user")
    end = next(following, len(kept) - 1)
    gone = [i for i in turns if i < end]
    dropped += len(gone)
    kept = [m for i, m in enumerate(kept) if i not in gone]
  return kept, dropped
