"""Shows a batch before it is trained on.

  python -m input_pipeline.preview --config=configs/NAME.py [--step=0]
    [--count=16] [--output=preview] [--config.data.KEY=VALUE]

Prints the leaves of the batch and its first rows: windows of tokens decoded,
with their special tokens, what is to be predicted, and the pieces of packed
rows. Of images it writes OUTPUT/contact_sheet.png, each as it was read beside
what its ops have made of it.
"""

import pathlib
import sys

from absl import flags

from common import cli, storage

FLAGS = flags.FLAGS


def define_flags() -> None:
  """The verb's own: not those of who imports this."""
  cli.define_config()
  flags.declare_key_flag("config")
  flags.DEFINE_integer("step", 0, "Which batch of the run.", 0)
  flags.DEFINE_integer("count", 16, "How many rows of it.", 1)
  flags.DEFINE_string("output", "preview", "The folder of the contact sheet.")


def main(argv) -> None:
  """Prints the batch of one step, and draws its images."""
  del argv
  if FLAGS.config is None:
    raise cli.UserError("--config=configs/NAME.py is missing")
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
  """The lines that tell of a batch; writes the contact sheet.

  Args:
    config: complete.
    step: of the batch.
    count: of rows.
    output: a folder, made where it is not there.

  Raises:
    ValueError: the data is wrong; one line.
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
  yield f"batch {step} of {data.num_examples:,} examples an epoch"
  yield from preview_text.leaves(data.spec, data.batch_size)
  batch = next(data.batches(step))
  if len(data.spec.get("image", ((),))[0]) == 3:
    yield _draw(settings, step, batch, count, output)
  else:
    yield from preview_text.rows(batch, data.tokenizer, count)
  news = data.news()
  if news:
    yield news


def _shares(batch_size, count: int) -> int:
  """Into how many shares a batch is cut, so that the first holds the rows."""
  if not isinstance(batch_size, int) or batch_size < 1:
    return 1
  return next(
    n for n in range(max(1, batch_size // count), 0, -1) if batch_size % n == 0
  )


def _draw(settings, step: int, batch, count: int, output: str) -> str:
  """Writes the contact sheet; returns a line that says so."""
  from input_pipeline.reporting import preview_images
  from input_pipeline.reporting.contact_sheet import contact_sheet

  ops = settings.get("ops", "")
  rows = [i for i, index in enumerate(batch["index"]) if index >= 0][:count]
  if not rows:
    return "no image of the batch can be read"
  read = preview_images.originals(
    preview_images.examples(settings), batch["index"][rows], ops
  )
  pairs, captions, told = [], [], True
  for i, original in zip(rows, read, strict=True):
    before, _ = preview_images.shown(original)
    after, known = preview_images.shown(batch["image"][i], ops)
    pairs.append((before, after))
    told &= known
    text = f"example {batch['index'][i]}"
    if "label" in batch:
      text += f"   {preview_images.label(batch['label'][i])}"
    captions.append(text)
  title = f"step {step}: as read, and after {ops or 'no ops'}"
  path = pathlib.Path(output) / "contact_sheet.png"
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(contact_sheet(pairs, captions, title))
  note = "" if told else "; each stretched, as no op tells the range of values"
  return f"{len(rows)} images before and after: {path}{note}"


if __name__ == "__main__":
  define_flags()
  sys.exit(cli.run(main))
