"""Labels new data with a finished run: `python -m train.predict --workdir=…`.

For runs that classify texts, images or rows of a table, tag words, answer
questions about a text, or predict numbers. The data need no labels; labels that
they have are not used. Each record gives one line of --output, in the order of
the data: its file, line or row, and what the model predicts:

  classes    label, probability; with --top=K also label_2, probability_2, …
  tags       words, tags, spans
  questions  id, answer, score
  numbers    value, in the unit of the data

The data are prepared as in the evaluation of the run, by its tokenizer and the
statistics in its workdir. Only the workdir is needed.
"""

import contextlib
import json
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Iterator

from absl import flags

from common import cli, files, mirror, storage

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines the flags of this command."""
  define_data()
  flags.DEFINE_string(
    "output",
    "-",
    "The file to write, whose name ends in .jsonl (one JSON object a line) or "
    ".csv; an existing file is replaced. - prints JSON lines.",
  )
  flags.DEFINE_integer(
    "top", 1, "The number of classes or answers to write of each record.", 1
  )


def define_data() -> None:
  """Defines the flags of a run and of the data that are given to it."""
  flags.DEFINE_string(
    "workdir", None, "The directory of the run.", required=True
  )
  flags.DEFINE_string(
    "source",
    None,
    "The new data, as a URI of config.data.source: csv:new.csv, "
    "jsonl:new/*.jsonl, folder:photos, conll:sentences.conll, …",
  )
  flags.DEFINE_multi_string(
    "text",
    [],
    "A new text. May be given several times, in place of --source.",
  )
  flags.DEFINE_string(
    "images",
    None,
    "The new images, as a pattern or a folder: --images='photos/*.jpg' is "
    "short for --source='images:photos/*.jpg'.",
  )
  _define_how()
  cli.define_step()


def _define_how() -> None:
  """Defines the flags of how the data are read and predicted."""
  flags.DEFINE_integer(
    "batch",
    None,
    "The number of rows computed at a time, rounded up to a multiple of the "
    "devices. The predictions do not depend on it. Default: the batch size of "
    "the run, at most 256.",
    1,
  )
  flags.DEFINE_string(
    "split",
    "all",
    "The part of the source to read, in the syntax of config.data.split.",
  )
  flags.DEFINE_string(
    "text_key",
    None,
    "The field or column of the text. Default: that of the run.",
  )
  flags.DEFINE_string(
    "ops",
    None,
    "The preprocessing, in the syntax of config.data.ops. Default: that of the "
    "run's evaluation.",
  )
  flags.DEFINE_enum(
    "on_bad_record",
    None,
    ["stop", "skip"],
    "What happens at a record that cannot be read: stop ends the command and "
    "writes nothing, skip leaves the record out and counts it. Default: the "
    "setting of the run.",
  )
  flags.DEFINE_float(
    "max_bad_share",
    None,
    "The largest share of bad records that are skipped, from 0 to 1. Default: "
    "the setting of the run.",
    0.0,
    1.0,
  )


def main(argv) -> None:
  """Writes one line for each record."""
  del argv
  check((".jsonl", ".csv"))
  cli.start_jax()
  from train.prediction.parts import records, table
  from train.workdir import terminal

  start = time.perf_counter()
  with opened() as (found, workdir, wanted, named), contextlib.ExitStack() as s:
    bar = []
    made = records.predicted(
      found,
      workdir,
      wanted._replace(top=FLAGS.top),
      lambda line: say(named(line)),
      lambda rows: bar[0](rows),
    )
    mixed = FLAGS.output == "-" and sys.stdout.isatty()
    bar.append(s.enter_context(terminal.counted(made.rows, mixed)))
    written = _Counted(made.records, named)
    if FLAGS.output == "-":
      for line in table.jsonl(written):
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
      return
    with output() as path:
      files.write_atomically(path, table.lines(written, path))
  done(written.count, start)


@contextlib.contextmanager
def opened() -> Iterator[tuple]:
  """Yields (the Trained, its folder, the records.Wanted, see `_source`).

  Errors inside this context have the names of records that the user knows.
  """
  from train import trained
  from train.prediction.parts import records
  from train.workdir import bucket

  with contextlib.ExitStack() as held:
    workdir = held.enter_context(bucket.reading(FLAGS.workdir))
    found = trained.load(workdir, FLAGS.step, say)
    text_key = FLAGS.text_key or found.parts.config["data"].get("text_key")
    where, source, named = held.enter_context(_source(text_key or "text"))
    settings = {
      name: FLAGS[name].value
      for name in ("text_key", "ops", "on_bad_record", "max_bad_share")
      if FLAGS[name].value is not None
    }
    settings |= {"source": source, "split": FLAGS.split}
    held.enter_context(_renamed(named))
    wanted = records.Wanted(where, settings, FLAGS.batch)
    yield found, workdir, wanted, named


def done(count: int, start: float) -> None:
  """Prints the number of records that were written and the time it took."""
  what = f"{count:,} record{'s' * (count != 1)}"
  say(f"{what} in {time.perf_counter() - start:.1f} s: {FLAGS.output}")


class _Counted:
  """Records, counted and with their names as the user knows them."""

  def __init__(self, records, named):
    self.count = 0
    self._records, self._named = records, named

  def __iter__(self):
    for record in self._records:
      self.count += 1
      yield {**record, "record": self._named(record["record"])}


def say(line: str) -> None:
  """Prints a line to the standard error."""
  print(mirror.named(line), file=sys.stderr)


@contextlib.contextmanager
def output() -> Iterator[str]:
  """Yields the path of the output; UserError if it cannot be a file."""
  try:
    yield os.path.abspath(FLAGS.output)
  except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
    raise cli.UserError(f"--output={FLAGS.output}: {error.strerror}") from error


def check(endings: tuple[str, ...]) -> None:
  """Raises UserError for flags that contradict each other.

  Args:
    endings: of the names of files that can be written.
  """
  given = [f for f in ("source", "text", "images") if FLAGS[f].value]
  if len(given) != 1:
    what = " and ".join(f"--{f}" for f in given) or "none of them"
    raise cli.UserError(
      f"give exactly one of --source, --text and --images, not {what}"
    )
  if any(not text.strip() for text in FLAGS.text):
    raise cli.UserError("--text is empty")
  name = FLAGS.output
  if name == "-":
    return
  storage.check_local("--output", name)
  if not name.lower().endswith(endings):
    raise cli.UserError(f"--output={name}: end it in {' or '.join(endings)}")
  with output() as path:
    os.makedirs(os.path.dirname(path), exist_ok=True)
  if os.path.isdir(name):
    raise cli.UserError(f"--output={name} is a folder; name a file")
  read = (FLAGS.source or "").partition(":")[2].partition("?")[0]
  if read and os.path.realpath(os.path.expanduser(read)) == os.path.realpath(
    name
  ):
    raise cli.UserError(f"--output={name} is the data; name another file")


@contextlib.contextmanager
def _source(text_key: str) -> Iterator[tuple]:
  """Yields (the flag, the URI, (a record's name) -> the name to print)."""
  if FLAGS.source:
    yield "--source", FLAGS.source, str
    return
  if FLAGS.images:
    yield "--images", f"images:{FLAGS.images}", str
    return
  with tempfile.TemporaryDirectory(prefix="tessera-") as folder:
    path = str(pathlib.Path(folder).resolve() / "texts.jsonl")
    lines = [json.dumps({text_key: text}) for text in FLAGS.text]
    pathlib.Path(path).write_text("\n".join(lines) + "\n")
    uri = f"jsonl:{path}"

    def named(line: str) -> str:
      return line.replace(uri, "--text").replace(f"{path}:", "text ")

    yield "--text", uri, named


@contextlib.contextmanager
def _renamed(named) -> Iterator[None]:
  """Gives the records in an error's line the names that the user knows."""
  try:
    yield
  except cli.UserError as error:
    raise cli.UserError(named(str(error))) from error


if __name__ == "__main__":
  define_flags()
  sys.exit(cli.run(main))
