"""Continues prompts: `python -m train.generate --workdir=… --prompt=…`.

A single text is printed token by token. Of several texts, each is printed when
it is complete.
"""

import itertools
import sys
import time

from absl import flags

from common import cli
from train.generation import sampling_flags

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "The directory of the run.", required=True)
cli.define_step()
flags.DEFINE_multi_string(
  "prompt",
  [],
  "The text to continue. May be given several times. Default: a newline.",
)
flags.DEFINE_string(
  "prompts_file", None, "A UTF-8 file of further prompts, one per line."
)
flags.DEFINE_integer(
  "num_samples", 1, "The number of texts to generate for each prompt.", 1
)
flags.DEFINE_integer(
  "batch_size", 16, "The number of texts generated at a time.", 1
)
flags.DEFINE_integer(
  "max_tokens", 200, "The greatest number of tokens to generate.", 1
)
sampling_flags.define()
flags.DEFINE_integer(
  "seed", 0, "The random seed of the first text; text i uses seed + i."
)
flags.DEFINE_string(
  "draft_workdir",
  None,
  "The directory of the run of a smaller model with the same tokenizer. It "
  "drafts tokens that the model accepts or rejects (speculative decoding), "
  "which is faster and does not change the distribution of the texts. "
  "Default: no draft model.",
)
flags.DEFINE_integer(
  "draft_tokens", 4, "The number of tokens drafted at a time.", 1
)


def main(argv) -> None:
  """Prints each prompt and its continuations."""
  del argv
  prompts = _prompts()
  cli.start_jax()
  from train import trained
  from train.generation import streaming

  found = trained.load(FLAGS.workdir, FLAGS.step)
  draft = trained.load(FLAGS.draft_workdir) if FLAGS.draft_workdir else None
  alone = len(prompts) * FLAGS.num_samples == 1
  chunk = FLAGS.draft_tokens + 1 if draft else 1 if alone else 8
  write = streaming.writer(
    streaming.inference(found), chunk, draft and streaming.inference(draft)
  )
  words = found.parts.data.tokenizer
  ids = [_encoded(words, prompt) for prompt in prompts]
  rows = list(itertools.product(range(len(prompts)), range(FLAGS.num_samples)))
  texts = enumerate(rows)
  count, start = 0, time.perf_counter()
  while batch := list(itertools.islice(texts, FLAGS.batch_size)):
    shown = [prompts[prompt] for _, (prompt, _) in batch]
    try:
      pieces = write(
        [ids[prompt] for _, (prompt, _) in batch],
        [sampling_flags.options(FLAGS.seed + number) for number, _ in batch],
      )
    except ValueError as error:
      raise cli.UserError(str(error)) from error
    if alone:
      count += _show(shown[0], pieces)
    else:
      titles = [f"prompt {p + 1}, text {s + 1}" for _, (p, s) in batch]
      count += _show_each(titles, shown, pieces)
  seconds = time.perf_counter() - start
  print(
    f"{count} tokens in {seconds:.1f} s, {count / seconds:.1f} tokens/s,"
    " including compilation",
    file=sys.stderr,
  )


def _prompts() -> list[str]:
  """The prompts given by the flags, or a newline if there are none."""
  prompts = list(FLAGS.prompt)
  if FLAGS.prompts_file is not None:
    try:
      with open(FLAGS.prompts_file, encoding="utf-8") as file:
        lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
      reason = getattr(error, "strerror", None) or "not UTF-8"
      path = FLAGS.prompts_file
      raise cli.UserError(f"--prompts_file={path}: {reason}") from error
    prompts += [line for line in lines if line]
    if not prompts:
      raise cli.UserError(
        f"--prompts_file={FLAGS.prompts_file}: contains no prompt"
      )
  return prompts or ["\n"]


def _encoded(words, prompt: str) -> list[int]:
  """The token ids of a prompt, with the token that begins a text, if any.

  Raises:
    UserError: the prompt is empty, or the vocabulary lacks one of its
      characters.
  """
  try:
    ids = [int(i) for i in words.begun(prompt)]
    if not ids:
      raise ValueError("is empty")
  except ValueError as error:
    raise cli.UserError(f"--prompt: {error}") from error
  return ids


def _show(prompt: str, pieces) -> int:
  """Prints one text as it is generated; returns its number of tokens."""
  count = 0
  print(prompt, end="", flush=True)
  for piece in pieces:
    print(piece.text, end="", flush=True)
    count += len(piece.tokens)
  print()
  return count


def _show_each(titles: list[str], prompts: list[str], pieces) -> int:
  """Prints each text when it is complete; returns the number of tokens."""
  count, texts = 0, list(prompts)
  for piece in pieces:
    texts[piece.row] += piece.text
    count += len(piece.tokens)
    if piece.finish:
      print(f"--- {titles[piece.row]}\n{texts[piece.row]}", flush=True)
  return count


if __name__ == "__main__":
  sys.exit(cli.run(main))
