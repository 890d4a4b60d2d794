"""Prints and draws a batch of a config's data, before a training run.

  python -m input_pipeline.preview --config=configs/NAME.py [--step=0]
    [--count=16] [--output=preview] [--config.data.KEY=VALUE]

Prints the leaves of the batch and its first rows: decoded windows of tokens
with their special tokens, the targets, and the pieces of packed rows. For
images it writes OUTPUT/contact_sheet.png, which shows each image as it was read
beside the result of the ops, with its boxes and their classes, or in the
colours of its mask.
"""

import pathlib
import sys

from absl import flags

from common import cli, storage

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines the flags, for a run as a program and not on import."""
  cli.define_config()
  flags.declare_key_flag("config")
  flags.DEFINE_integer("step", 0, "The step whose batch is shown, from 0.", 0)
  flags.DEFINE_integer("count", 16, "The number of rows to show.", 1)
  flags.DEFINE_string(
    "output", "preview", "The folder to write the contact sheet of images to."
  )


def main(argv) -> None:
  """Prints the batch of one step, and draws its images."""
  if FLAGS.config is None:
    raise cli.missing("config", argv, "lm_stdlib")
  storage.check_local("--output", FLAGS.output)
  from common import config_keys

  config = config_keys.complete(FLAGS.config)
  try:
    for line in preview(config, FLAGS.step, FLAGS.count, FLAGS.output):
      print(cli.printable(line))
  except cli.UserError:
    raise
  except ValueError as error:
    raise cli.UserError(f"config.data: {error}") from error
  except OSError as error:
    raise cli.UserError(f"--output={FLAGS.output}: {error.strerror}") from error


def preview(config: dict, step: int, count: int, output: str):
  """Yields lines that describe a batch, and writes the contact sheet.

  Args:
    config: a complete config.
    step: the step whose batch is shown.
    count: the number of rows.
    output: the folder for the contact sheet; created if it does not exist.

  Raises:
    ValueError: the data is wrong; the message is one line.
  """
  from common import names
  from input_pipeline.batching import pipeline
  from input_pipeline.reporting import preview_text

  batch_size, settings = config["batch_size"], config["data"]
  data = names.call(
    pipeline.train,
    where="config.data",
    settings=settings,
    offered={
      "batch_size": batch_size,
      "seed": config["seed"],
      "host_count": _shares(batch_size, count),
    },
  )
  yield f"batch {step} of {data.num_examples:,} examples per epoch"
  yield from preview_text.leaves(data.spec, data.batch_size)
  batch = next(data.batches(step))
  if "image" in data.spec and len(data.spec["image"].shape) == 3:
    yield _draw(settings, step, batch, count, output, data.class_names)
  else:
    yield from preview_text.rows(batch, data.tokenizer, count)
  news = data.news()
  if news:
    yield news


def _shares(batch_size, count: int) -> int:
  """The number of hosts among which the first one's share has `count` rows."""
  if not isinstance(batch_size, int) or batch_size < 1:
    return 1
  return next(
    n for n in range(max(1, batch_size // count), 0, -1) if batch_size % n == 0
  )


def _draw(
  settings, step: int, batch, count: int, output: str, class_names
) -> str:
  """Writes the contact sheet and returns a line that describes it."""
  from input_pipeline.reporting import marks, preview_images
  from input_pipeline.reporting.contact_sheet import contact_sheet

  ops = settings.get("ops", "")
  rows = [i for i, index in enumerate(batch["index"]) if index >= 0][:count]
  if not rows:
    return "no image of the batch could be read"
  records = preview_images.examples(settings).read(batch["index"][rows])
  read = preview_images.decoded(records, ops)
  pairs, captions, all_known, drawn = [], [], True, []
  for place, (i, original) in enumerate(zip(rows, read, strict=True)):
    before, _ = preview_images.shown(original)
    after, known = preview_images.shown(batch["image"][i], ops)
    pairs.append((before, after))
    all_known &= known
    text = f"example {batch['index'][i]}"
    if "label" in batch:
      text += f"   {preview_images.label(batch['label'][i])}"
    captions.append(text)
    each = (
      {name: leaf[place] for name, leaf in records.items()},
      {name: leaf[i] for name, leaf in batch.items()},
    )
    drawn.append(tuple(marks.found(row, class_names) for row in each))
  title = f"step {step}: as read, and after the ops {ops or '(none)'}"
  path = pathlib.Path(output) / "contact_sheet.png"
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(contact_sheet(pairs, captions, title, drawn))
  note = (
    "; the ops set no range of values, so each image was rescaled to its own"
  )
  note = "" if all_known else note
  return f"{len(rows)} images before and after: {path}{note}"


if __name__ == "__main__":
  define_flags()
  sys.exit(cli.run(main))
