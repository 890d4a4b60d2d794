"""Translates lines: `python -m train.translate --workdir=… < lines`.

For a run of the task sequence_to_sequence, whatever it writes: translations,
summaries. For each line that is read one is written, in order, and empty ones
stay empty.
"""

import sys
from collections.abc import Iterable, Iterator

from absl import flags

from common import cli

FLAGS = flags.FLAGS


def define_flags() -> None:
  """The flags of the command."""
  flags.DEFINE_string("workdir", None, "Where the run lives.", required=True)
  flags.DEFINE_string("input", "-", "The file of lines, UTF-8; - for stdin.")
  flags.DEFINE_integer("beams", 4, "Of the search; 0 takes the best tokens.", 0)
  flags.DEFINE_float("alpha", 0.6, "Of the search's length penalty.", 0.0)
  flags.DEFINE_integer(
    "max_tokens", None, "Of a text; by default as many as it was trained on.", 1
  )
  flags.DEFINE_integer("batch", 16, "Lines that are written at a time.", 1)
  cli.define_step()


def main(argv) -> None:
  """Prints what the model writes for each line."""
  del argv
  cli.start_jax()
  from train import trained

  found = trained.load(FLAGS.workdir, FLAGS.step)
  how = {"beams": FLAGS.beams, "alpha": FLAGS.alpha}
  write = translator(found, max_tokens=FLAGS.max_tokens, **how)
  for batch in _batches(_lines(FLAGS.input), FLAGS.batch):
    for line in write(batch, FLAGS.batch):
      print(line, flush=True)


def translator(found, *, beams: int, alpha: float, max_tokens=None):
  """(lines, rows) -> lines: at most so many rows, which are one shape.

  Args:
    found: trained.Trained of a sequence_to_sequence run.
    beams: of a search; 0 is greedy.
    alpha: of its length penalty.
    max_tokens: of a text; by default those of a row of the run's targets.

  Raises:
    UserError: the run is of another task, or has no tokenizer.
  """
  import jax
  import jax.numpy as jnp
  import numpy as np

  config, data = found.parts.config, found.parts.data
  predict = found.parts.task.predict
  if config["task"]["name"] != "sequence_to_sequence" or not data.tokenizer:
    raise cli.UserError(
      f"--workdir: a run of {config['task']['name']} translates nothing"
    )
  if "samples" not in predict:
    raise cli.UserError("--workdir: this run knows no token that ends a text")
  from train import run_data

  tokenizer, eos = data.tokenizer, run_data.sizes(data)["eos"]
  prefix = (config["data"].get("rows") or {}).get("prefix", "")
  S, T = (data.spec[name][0][0] for name in ("inputs", "targets"))
  how = {"length": max_tokens or T, "temperature": 0.0}
  if beams:
    how |= {"beams": beams, "alpha": alpha}

  @jax.jit
  def write(variables, batch):
    rng = jax.random.key(0)  # nothing is drawn
    return predict["samples"](variables, {**batch, **how}, rng)

  def translate(lines: list[str], rows: int) -> list[str]:
    ids = []
    for line in lines:
      try:
        ids.append([*tokenizer.encode(prefix + line)[: S - 1], eos])
      except ValueError as error:
        raise cli.UserError(f"--input: {line[:60]!r}: {error}") from error
    # A few lengths, so that few programs are made.
    longest = min(S, -(-max(map(len, ids)) // 16) * 16)
    inputs = np.zeros((rows, longest), np.int32)
    real = np.zeros((rows, longest), np.int32)
    for i, each in enumerate(ids):
      inputs[i, : len(each)], real[i, : len(each)] = each, 1
    batch = {"inputs": jnp.asarray(inputs), "input_segments": jnp.asarray(real)}
    made = jax.device_get(write(found.variables, batch))
    texts = (
      tokenizer.decode(tokens[:length])
      for tokens, length in zip(made["tokens"], made["length"], strict=True)
    )
    return [
      " ".join(text.split()) if line.strip() else ""
      for line, text in zip(lines, texts, strict=False)
    ]

  return translate


def _lines(path: str) -> Iterator[str]:
  try:
    if path == "-":
      yield from _decoded(sys.stdin.buffer, "stdin")
      return
    with open(path, "rb") as file:
      yield from _decoded(file, path)
  except OSError as error:
    raise cli.UserError(f"--input: {path}: {error.strerror}") from error


def _decoded(file: Iterable[bytes], name: str) -> Iterator[str]:
  for number, line in enumerate(file, 1):
    try:
      yield line.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
      raise cli.UserError(
        f"--input: {name} line {number} is not UTF-8"
      ) from error


def _batches(lines: Iterable[str], size: int) -> Iterator[list[str]]:
  batch: list[str] = []
  for line in lines:
    batch.append(line)
    if len(batch) == size:
      yield batch
      batch = []
  if batch:
    yield batch


if __name__ == "__main__":
  define_flags()
  sys.exit(cli.run(main))
