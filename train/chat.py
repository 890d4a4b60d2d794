r"""A conversation in the terminal: `python -m train.chat --workdir=…`.

A line is a message; one that ends with a backslash goes on in the next.
Commands: /reset forgets the conversation, /system TEXT begins it anew under
TEXT, /save FILE writes it as a line that rows/conversations.py reads, /quit
leaves, as Ctrl-D does. Ctrl-C stops an answer, of which what was said is kept.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator

from absl import flags

from common import cli
from train.generation import sampling_flags

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "Where the run lives.", required=True)
flags.DEFINE_string(
  "template",
  None,
  "chatml, llama3 or plain; by default what the run was fine-tuned with, or "
  "plain.",
)
flags.DEFINE_string("system", None, "What the conversation stands under.")
sampling_flags.define()
flags.DEFINE_integer("seed", 0, "Of the draws: equal seeds, equal text.")
flags.DEFINE_integer("max_tokens", 500, "Tokens of an answer.", 1)
cli.define_step()

_HELP = "/reset, /system TEXT, /save FILE, /quit; Ctrl-C stops an answer"


def main(argv) -> None:
  """Reads messages, and prints the answers as they come."""
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
    # A seed of its own for each: the same words may be said twice.
    own = options._replace(seed=options.seed + turn)
    return replies.answer(speaker, messages, own)

  if sys.stdin.isatty():
    print(f"template {speaker.template}; {_HELP}")
  converse(_lines(), _say, answer, within, FLAGS.system)


def converse(
  lines: Iterable[str],
  say: Callable[[str], None],
  answer: Callable[..., Iterator[str]],
  within: Callable,
  system: str | None = None,
) -> list:
  """Holds a conversation; gives its messages.

  Args:
    lines: what the user says.
    say: writes to the terminal.
    answer: (messages, number of the turn) -> the answer's pieces.
    within: (messages) -> (those that fit, how many were dropped).
    system: what it stands under.
  """
  from input_pipeline.tokenizers.parts.chat_template import Message

  def begun(system):
    return [Message("system", system)] if system else []

  messages, told, turn = begun(system), False, 0
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
      say(f"(no command {cli.printable(command)}: {_HELP})\n")
    else:
      said = Message("user", line)
      try:
        messages, dropped = within([*messages, said])
      except ValueError as error:
        say(f"({cli.printable(str(error))})\n")
        continue
      if dropped and not told:
        told = True
        say("(the conversation has outgrown the window: its oldest turns are")
        say(" forgotten, from here on without a word)\n")
      messages.append(Message("assistant", _heard(answer(messages, turn), say)))
      turn += 1
  return messages


def _heard(pieces: Iterator[str], say: Callable[[str], None]) -> str:
  """The answer, said as it comes; Ctrl-C ends it."""
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
  """The text without a terminal's commands."""
  return "\n".join(
    cli.printable(part).replace("\\x09", "\t") for part in text.split("\n")
  )


def saved(path: str, messages: list) -> str:
  """Writes the conversation into a new file; tells what became of it."""
  if not path:
    return "/save FILE: which file?"
  record = {"messages": [message._asdict() for message in messages]}
  try:
    with open(path, "x", encoding="utf-8") as file:
      file.write(json.dumps(record, ensure_ascii=False) + "\n")
  except (OSError, ValueError) as error:
    reason = getattr(error, "strerror", None) or str(error)
    return f"{cli.printable(path)}: {reason}"
  return f"{len(messages)} messages in {cli.printable(path)}"


def _lines() -> Iterator[str]:
  """What is typed, message by message, until Ctrl-D."""
  prompt = "> " if sys.stdin.isatty() else ""
  if prompt:
    import readline  # noqa: F401  (input() then edits lines and remembers them)
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
      _say("\n(/quit or Ctrl-D leaves)\n")
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
