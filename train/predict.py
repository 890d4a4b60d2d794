r"""Labels new data with a finished run: `python -m train.predict --workdir=…`.

For runs that classify texts, images or rows of a table, tag words, answer
questions about a text, predict numbers, or find objects in pictures, the
classes of their pixels, or what they are without noise. The data need no
labels; labels that they have are not used. Each record gives one line of
--output, in the order of the data: its file, line or row, and what the model
predicts:

  classes    label, probability; with --top=K also label_2, probability_2, …
  tags       words, tags, spans
  questions  id, answer, score
  numbers    value, in the unit of the data
  objects    width, height, and objects: label, score, bbox, segmentation

If --output is a folder, it receives predictions.json, for objects in the format
of COCO's results, and pictures: NAME_boxes.png, NAME_mask.png with
NAME_overlay.png, NAME_denoised.png or NAME_reconstruction.png.

  python -m train.predict --workdir=runs/yolo --images='photos/*.jpg' \
    --output=found

Pictures larger than the crops of training may be segmented in overlapping
--window=512,512. A run that generates pictures draws --number=16 of them into
--output, of a class (--label) or a text (--prompt) if it was trained on these.

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
ENDINGS = (".jsonl", ".csv")
# Sources of files of pictures, which may have any size.
_FILES = tuple("images folder coco labelme masks tar voc yolo".split())


def define_flags() -> None:
  """Defines the flags of this command."""
  define_data()
  flags.DEFINE_string(
    "output",
    "-",
    "The file to write, whose name ends in .jsonl (one JSON object a line) or "
    ".csv, or a folder, for predictions.json and pictures; existing files are "
    "replaced. - prints JSON lines.",
  )
  flags.DEFINE_integer(
    "top", 1, "The number of classes or answers to write of each record.", 1
  )
  _pictures().define()


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
    "short for --source='images:photos/*.jpg', and leaves out files that are "
    "no readable picture, unless --on_bad_record=stop.",
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
  _check()
  cli.start_jax()
  from train.workdir import terminal

  start = time.perf_counter()
  with contextlib.ExitStack() as held:
    found, workdir = held.enter_context(opened())
    bar = []
    made, named = _predicted(found, workdir, held, lambda n: bar[0](n))
    if made.rendering.pictures and not _is_folder():
      raise cli.UserError(
        f"--output={FLAGS.output}: this run makes pictures; name a folder"
      )
    with contextlib.ExitStack() as shown:
      mixed = FLAGS.output == "-" and sys.stdout.isatty()
      bar.append(shown.enter_context(terminal.counted(made.rows, mixed)))
      written = _Counted(made.records, named)
      _write(written, made.rendering)
  if FLAGS.output != "-":
    done(written.count, start)


@contextlib.contextmanager
def opened() -> Iterator[tuple]:
  """Yields (the Trained of --workdir, its folder)."""
  from train import trained
  from train.workdir import bucket

  with bucket.reading(FLAGS.workdir) as workdir:
    yield trained.load(workdir, FLAGS.step, say), workdir


def new_data(found, held: contextlib.ExitStack) -> tuple:
  """Returns (preparation.Wanted, (a record's name) -> the name to print).

  Until `held` ends, errors have the names of records that the user knows.
  """
  from train.prediction.parts import preparation

  text_key = FLAGS.text_key or found.parts.config["data"].get("text_key")
  where, source, named = held.enter_context(_source(text_key or "text"))
  settings = {
    name: FLAGS[name].value
    for name in ("text_key", "ops", "on_bad_record", "max_bad_share")
    if FLAGS[name].value is not None
  }
  if FLAGS.images and FLAGS.on_bad_record is None:
    settings = {"on_bad_record": "skip", "max_bad_share": 1.0, **settings}
  settings |= {"source": source, "split": FLAGS.split}
  held.enter_context(_renamed(named))
  wanted = preparation.Wanted(
    where,
    settings,
    FLAGS.batch,
    files=source.partition(":")[0] in _FILES,
  )
  return wanted, named


def done(count: int, start: float) -> None:
  """Prints the number of records that were written and the time it took."""
  what = f"{count:,} record{'s' * (count != 1)}"
  say(f"{what} in {time.perf_counter() - start:.1f} s: {FLAGS.output}")


def _predicted(found, workdir: str, held: contextlib.ExitStack, advance):
  """Returns (records.Predicted, (a record's name) -> the name to print)."""
  from train.prediction.parts import drawn, records

  picture_flags = _pictures()
  if picture_flags.draws():
    drawing = picture_flags.drawing(FLAGS.batch)
    return drawn.drawn(found, drawing, advance), str
  wanted, named = new_data(found, held)
  wanted = wanted._replace(top=FLAGS.top, options=picture_flags.options())

  def say_named(line: str) -> None:
    say(named(line))

  return records.predicted(found, workdir, wanted, say_named, advance), named


def _write(written: "_Counted", rendering) -> None:
  """Writes the records to --output."""
  from train.prediction.parts import folder, table

  if FLAGS.output == "-":
    for line in table.jsonl(folder.without_pictures(written)):
      sys.stdout.buffer.write(line)
      sys.stdout.buffer.flush()
    return
  with output() as path:
    if _is_folder():
      folder.write(written, rendering, path)
    else:
      lines = table.lines(folder.without_pictures(written), path)
      files.write_atomically(path, lines)


def _is_folder() -> bool:
  """Whether --output names a folder."""
  return FLAGS.output != "-" and not FLAGS.output.lower().endswith(ENDINGS)


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


def _pictures():
  """The flags of pictures, whose package needs NumPy."""
  from train.prediction.parts import picture_flags

  return picture_flags


def _check() -> None:
  """Raises UserError for flags that contradict each other."""
  picture_flags = _pictures()
  if not (picture_flags.draws() and FLAGS.prompt):
    check_data(("source", "text", "images", "number"))
  picture_flags.options()  # before a large model is loaded
  if FLAGS.output != "-":
    check_output(ENDINGS, folders=True)


def check_data(ways: tuple[str, ...]) -> None:
  """Raises UserError unless just one of the flags `ways` is given."""
  given = [f for f in ways if FLAGS[f].value]
  if len(given) != 1:
    what = " and ".join(f"--{f}" for f in given) or "none of them"
    *most, last = [f"--{f}" for f in ways]
    raise cli.UserError(
      f"give exactly one of {', '.join(most)} and {last}, not {what}"
    )
  if any(not text.strip() for text in FLAGS.text):
    raise cli.UserError("--text is empty")


def check_output(endings: tuple[str, ...], folders: bool = False) -> None:
  """Raises UserError for an --output that cannot be written.

  Args:
    endings: of the names of files.
    folders: whether it may be a folder.
  """
  name = FLAGS.output
  storage.check_local("--output", name)
  is_folder = not name.lower().endswith(endings)
  new = os.path.splitext(name)[1] and not os.path.isdir(name)
  if is_folder and (new or not folders):
    or_folder = ", or name a folder" * folders
    raise cli.UserError(
      f"--output={name}: end it in {' or '.join(endings)}{or_folder}"
    )
  with output() as path:
    os.makedirs(os.path.dirname(path), exist_ok=True)
  if os.path.exists(name) and os.path.isdir(name) != is_folder:
    other = "file; name a folder" if is_folder else "folder; name a file"
    raise cli.UserError(f"--output={name} is a {other}")
  read = (FLAGS.source or "").partition(":")[2].partition("?")[0]
  if FLAGS.images:
    read = FLAGS.images
    if is_folder and not os.path.isdir(read):
      read = os.path.dirname(read) or "."
  if read and os.path.realpath(os.path.expanduser(read)) == os.path.realpath(
    name
  ):
    raise cli.UserError(f"--output={name} is the data; name another one")


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
