"""The terminal's conversation: its answers, its commands, its window."""

import json
import os
import pathlib
import pty
import select
import subprocess
import sys

import forkserver
import pytest

from input_pipeline.tokenizers.parts.chat_template import Message
from train import chat, trained
from train.generation import replies, streaming

ROOT = str(pathlib.Path(__file__).parents[3])

# Runs a command whose standard input becomes the terminal that controls it.
OF_ITS_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def command(workdir, *flags):
  return [sys.executable, "-m", "train.chat", f"--workdir={workdir}", *flags]


def answers(speaker, said, **how):
  """The answers of a conversation of so many turns, by the library."""
  messages, found = [], []
  for turn, text in enumerate(said):
    messages.append(Message("user", text))
    options = streaming.Options(**how, seed=how.get("seed", 0) + turn)
    found.append("".join(replies.answer(speaker, messages, options)))
    messages.append(Message("assistant", found[-1]))
  return found


def held(lines, answer=None, within=None, **kwargs):
  """(the messages, what was said) of a conversation with a stand-in."""
  said, seen = [], []

  def echo(messages, turn):
    seen.append((list(messages), turn))
    yield from ("you said ", messages[-1].content)

  messages = chat.converse(
    lines,
    said.append,
    answer or echo,
    within or (lambda messages: (messages, 0)),
    **kwargs,
  )
  return messages, "".join(said), seen


@pytest.mark.slow
def test_the_command_answers_in_turn_and_remembers(speaker, chat_run, tmp_path):
  path = tmp_path / "said.jsonl"
  done = subprocess.run(
    command(chat_run, "--temperature=0", "--max_tokens=12"),
    input=f"ba\nce\n/save {path}\n/quit\nnot read\n",
    capture_output=True,
    text=True,
    cwd=ROOT,
    timeout=120,
  )
  assert done.returncode == 0, done.stderr
  first, second = answers(speaker, ["ba", "ce"], temperature=0.0, max_tokens=12)
  assert done.stdout == f"{first}\n{second}\n(saved 4 messages to {path})\n"
  assert json.loads(path.read_text()) == {
    "messages": [
      {"role": "user", "content": "ba"},
      {"role": "assistant", "content": first},
      {"role": "user", "content": "ce"},
      {"role": "assistant", "content": second},
    ]
  }


@pytest.mark.slow
def test_a_terminal_ctrl_c_and_ctrl_d(chat_run):
  ours, theirs = pty.openpty()
  process = forkserver.Popen(
    [sys.executable, "-c", OF_ITS_TERMINAL, *command(chat_run, "--seed=1")],
    stdin=theirs,
    stdout=theirs,
    stderr=subprocess.DEVNULL,
    cwd=ROOT,
  )
  os.close(theirs)
  seen = b""

  def until(text, again=b""):
    nonlocal seen
    for _ in range(120):
      if text in seen:
        seen = seen.split(text, 1)[1]
        return
      if select.select([ours], [], [], 1.0)[0]:
        seen += os.read(ours, 4096)
      else:
        os.write(ours, again)
    raise AssertionError(f"{text} did not come; {seen} did")

  try:
    until(b"> ")
    os.write(ours, b"half a li")
    until(b"half a li")
    # input() is deaf to a signal between its prompt and its wait for a key.
    until(b"(press Ctrl-D or type /quit to exit)", again=b"\x03")
    until(b"> ")
    os.write(ours, b"ba\n")
    until(b"> ")
    os.write(ours, b"\x04")
    assert process.wait(60) == 0
  finally:
    process.kill()
    process.wait()
    os.close(ours)


def test_ctrl_c_stops_the_answer_and_keeps_what_was_said():
  def stopped(messages, turn):
    del messages, turn
    yield "so far"
    raise KeyboardInterrupt

  messages, said, _ = held(["a", "b"], answer=stopped)
  assert said == "so far …\nso far …\n"
  assert [m.content for m in messages] == ["a", "so far", "b", "so far"]


def test_commands_change_the_conversation(tmp_path):
  path = tmp_path / "a.jsonl"
  path.write_text("mine")
  lines = [
    *("a", "/reset", "b", "/system be brief", "c", "", "/what", "/save"),
    *(f"/save {path}", "/quit", "d"),
  ]
  messages, said, seen = held(lines, system="S")
  system = Message("system", "S")
  assert [asked for asked, _ in seen] == [
    [system, Message("user", "a")],
    [system, Message("user", "b")],
    [Message("system", "be brief"), Message("user", "c")],
  ]
  assert [turn for _, turn in seen] == [0, 1, 2]
  assert [m.content for m in messages] == ["be brief", "c", "you said c"]
  assert "(unknown command /what: /reset, " in said
  assert "(/save needs a file name)" in said
  assert "File exists" in said
  assert path.read_text() == "mine"


def test_the_oldest_turns_are_dropped_with_one_notice():
  def within(messages):
    return messages[-1:], len(messages) - 1

  _, said, seen = held(["a", "b", "c"], within=within)
  assert [[m.content for m in asked] for asked, _ in seen] == [
    ["a"],
    ["b"],
    ["c"],
  ]
  assert said.count("longer than the context window") == 1


def test_an_answer_does_not_command_the_terminal():
  def evil(messages, turn):
    del messages, turn
    yield "a\x1b[2Jb\tc\nd\r\x07"

  messages, said, _ = held(["x"], answer=evil)
  assert said == "a\\x1b[2Jb\tc\nd\\x0d\\x07\n"
  assert messages[-1].content == "a\x1b[2Jb\tc\nd\r\x07"


@pytest.mark.slow
def test_a_history_is_cut_to_the_window(speaker):
  size = len(speaker.chat.prompt([Message("user", "")]))  # of a turn, and more
  system = Message("system", "s")
  talk = [
    system,
    Message("user", "1" * 20),
    Message("assistant", "2" * 20),
    Message("user", "3" * 20),
    Message("assistant", "4" * 20),
    Message("user", "5"),
  ]
  assert speaker.window == 128
  kept, dropped = replies.within(speaker, talk, 10)
  assert (kept, dropped) == ([system, *talk[3:]], 2)
  assert len(speaker.chat.prompt(kept)) <= 118
  kept, dropped = replies.within(speaker, talk, 60)
  assert (kept, dropped) == ([system, talk[-1]], 4)
  assert replies.within(speaker, talk[-1:], 10) == (talk[-1:], 0)
  with pytest.raises(ValueError, match=r"tokens are more than the 118"):
    replies.within(speaker, [Message("user", "x" * (119 - size))], 10)


@pytest.mark.slow
def test_a_plain_model_talks_plainly(tmp_path):
  from configs.language import lm_shakespeare
  from train import build, loop

  config = lm_shakespeare.get_config("smoke")
  config.data.update(tokenizer="byte", seq_len=48)
  config.evals, config.early_stopping = {}, {}
  config.checkpoint.keep_best = None
  workdir = str(tmp_path / "lm")
  list(loop.fit(build.run(config, workdir, say=lambda line: None)))
  speaker = replies.speaker(trained.load(workdir))
  assert speaker.template == "plain"
  options = streaming.Options(6, temperature=0.0)
  text = "".join(replies.answer(speaker, [Message("user", "a")], options))
  assert 0 < len(text) <= 6
  assert "\n\n" not in text
