r"""Chats with a model in the terminal: `python -m train.chat --workdir=…`.

Each line is a message; a backslash at its end continues the message on the next
line. /reset starts a new conversation. /system TEXT starts a conversation with
TEXT as its system message. /save FILE writes the conversation to a new file, in
the format that rows/conversations.py reads. /quit and Ctrl-D exit. Ctrl-C stops
an answer; the part generated so far remains in the conversation.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator

from absl import flags

from common import cli
from train.generation import sampling_flags

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "The directory of the run.", required=True)
flags.DEFINE_string(
  "template",
  None,
  "The chat template: chatml, llama3, plain, or own, which is that of the"
  " folder that the run was converted from. Default: the one that the run was"
  " fine-tuned with, or else own if there is one, or else plain.",
)
flags.DEFINE_string("system", None, "The system message. Default: none.")
sampling_flags.define()
flags.DEFINE_integer(
  "seed", 0, "The random seed of sampling. Equal seeds give equal answers."
)
flags.DEFINE_integer(
  "max_tokens", 500, "The maximum length of an answer, in tokens.", 1
)
cli.define_step()

_HELP = "/reset, /system TEXT, /save FILE, /quit; Ctrl-C stops an answer"


def main(argv) -> None:
  """Reads messages and prints the answers as they are generated."""
  del argv
  cli.start_jax()
  from train import trained
  from train.generation import replies, streaming

  options = sampling_flags.options(FLAGS.seed)
  try:
    streaming.check(options)
  except ValueError as error:
    raise cli.UserError(f"--{error}") from error
  found = trained.load(FLAGS.workdir, FLAGS.step)
  speaker = replies.speaker(found, FLAGS.template)

  def within(messages):
    return replies.within(speaker, messages, options.max_tokens)

  def answer(messages, turn: int) -> Iterator[str]:
    # Each turn has its own seed, so a repeated message may have a different
    # answer.
    own = options._replace(seed=options.seed + turn)
    return replies.answer(speaker, messages, own)

  if sys.stdin.isatty():
    print(f"{replies.described(speaker)}; {_HELP}")
  else:
    print(replies.described(speaker), file=sys.stderr)
  converse(_lines(), _say, answer, within, FLAGS.system)


def converse(
  lines: Iterable[str],
  say: Callable[[str], None],
  answer: Callable[..., Iterator[str]],
  within: Callable,
  system: str | None = None,
) -> list:
  """Runs a conversation and returns its messages.

  Args:
    lines: the user's messages and commands.
    say: writes text to the terminal.
    answer: (messages, index of the turn) -> the parts of the answer.
    within: (messages) -> (the messages that fit in the context window, the
      number of dropped messages); raises ValueError if the last message alone
      does not fit.
    system: the system message, or None.
  """
  from input_pipeline.tokenizers.parts.chat_template import Message

  def begun(system):
    return [Message("system", system)] if system else []

  messages, warned, turn = begun(system), False, 0
  for line in lines:
    command, _, rest = line.strip().partition(" ")
    if command == "/quit":
      break
    if not line.strip():
      continue
    if command == "/reset":
      messages = begun(system)
    elif command == "/system":
      system, messages = rest.strip(), begun(rest.strip())
    elif command == "/save":
      say(f"({saved(rest.strip(), messages)})\n")
    elif command.startswith("/"):
      say(f"(unknown command {cli.printable(command)}: {_HELP})\n")
    else:
      message = Message("user", line)
      try:
        messages, dropped = within([*messages, message])
      except ValueError as error:
        say(f"({cli.printable(str(error))})\n")
        continue
      if dropped and not warned:
        warned = True
        say("(the conversation is longer than the context window; the model no")
        say(" longer sees its oldest messages)\n")
      messages.append(Message("assistant", _heard(answer(messages, turn), say)))
      turn += 1
  return messages


def _heard(pieces: Iterator[str], say: Callable[[str], None]) -> str:
  """Prints an answer as it is generated, until Ctrl-C, and returns it."""
  parts = []
  try:
    for piece in pieces:
      parts.append(piece)
      say(_harmless(piece))
  except KeyboardInterrupt:
    say(" …")
  say("\n")
  return "".join(parts)


def _harmless(text: str) -> str:
  """The text with control characters escaped, except newlines and tabs."""
  return "\n".join(
    cli.printable(part).replace("\\x09", "\t") for part in text.split("\n")
  )


def saved(path: str, messages: list) -> str:
  """Writes the conversation to a new file; returns a line with the result."""
  if not path:
    return "/save needs a file name"
  record = {"messages": [message._asdict() for message in messages]}
  try:
    with open(path, "x", encoding="utf-8") as file:
      file.write(json.dumps(record, ensure_ascii=False) + "\n")
  except (OSError, ValueError) as error:
    reason = getattr(error, "strerror", None) or str(error)
    return f"{cli.printable(path)}: {reason}"
  return f"saved {len(messages)} messages to {cli.printable(path)}"


def _lines() -> Iterator[str]:
  """Yields the typed messages until Ctrl-D."""
  prompt = "> " if sys.stdin.isatty() else ""
  if prompt:
    import readline  # noqa: F401  (enables line editing and history)
  parts: list[str] = []
  while True:
    try:
      line = input(". " if parts and prompt else prompt)
    except EOFError:
      if parts:
        yield "\n".join(parts)
      return
    except KeyboardInterrupt:
      parts = []
      _say("\n(press Ctrl-D or type /quit to exit)\n")
      continue
    parts.append(line.removesuffix("\\"))
    if not line.endswith("\\"):
      yield "\n".join(parts)
      parts = []


def _say(text: str) -> None:
  sys.stdout.write(text)
  sys.stdout.flush()


if __name__ == "__main__":
  sys.exit(cli.run(main))
