"""Translates lines: `python -m train.translate --workdir=… < lines`.

For runs of the task sequence_to_sequence, such as translation and
summarization. Each input line gives one output line, in the same order; an
empty line stays empty.
"""

import sys
from collections.abc import Iterable, Iterator

from absl import flags

from common import cli

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines the flags of this command."""
  flags.DEFINE_string(
    "workdir", None, "The directory of the run.", required=True
  )
  flags.DEFINE_string(
    "input", "-", "The UTF-8 file of lines to read, or - for stdin."
  )
  flags.DEFINE_integer(
    "beams", 4, "The width of the beam search; 0 decodes greedily.", 0
  )
  flags.DEFINE_float("alpha", 0.6, "The exponent of the length penalty.", 0.0)
  flags.DEFINE_integer(
    "max_tokens",
    None,
    "The greatest number of tokens per output line. Default: the length of the "
    "targets that the model was trained on.",
    1,
  )
  flags.DEFINE_integer("batch", 16, "The number of lines decoded at a time.", 1)
  cli.define_step()


def main(argv) -> None:
  """Prints one output line for each input line."""
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
  """(lines, rows) -> lines, for at most `rows` lines at a time.

  Args:
    found: the trained.Trained of a sequence_to_sequence run.
    beams: the width of the beam search; 0 decodes greedily.
    alpha: the exponent of the length penalty.
    max_tokens: the greatest number of tokens per line; None is the length of
      the run's targets.

  Raises:
    UserError: the run has another task, or no tokenizer.
  """
  import jax
  import jax.numpy as jnp
  import numpy as np

  config, data = found.parts.config, found.parts.data
  predict = found.parts.task.predict
  if config["task"]["name"] != "sequence_to_sequence" or not data.tokenizer:
    raise cli.UserError(
      f"--workdir: the task of this run is {config['task']['name']}, not"
      " sequence_to_sequence"
    )
  if "samples" not in predict:
    raise cli.UserError("--workdir: this run has no token that ends a text")
  from train import run_data

  tokenizer, eos = data.tokenizer, run_data.sizes(data)["eos"]
  prefix = (config["data"].get("rows") or {}).get("prefix", "")
  S, T = (data.spec[name].shape[0] for name in ("inputs", "targets"))
  how = {"length": max_tokens or T, "temperature": 0.0}
  if beams:
    how |= {"beams": beams, "alpha": alpha}

  @jax.jit
  def write(variables, batch):
    rng = jax.random.key(0)  # decoding is deterministic
    return predict["samples"](variables, {**batch, **how}, rng)

  def translate(lines: list[str], rows: int) -> list[str]:
    ids = []
    for line in lines:
      try:
        ids.append([*tokenizer.encode(prefix + line)[: S - 1], eos])
      except ValueError as error:
        raise cli.UserError(f"--input: {line[:60]!r}: {error}") from error
    # Lengths are rounded up, so that few programs are compiled.
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
