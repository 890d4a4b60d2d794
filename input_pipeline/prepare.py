r"""Raw records to a clean training set: `python -m input_pipeline.prepare`.

  python -m input_pipeline.prepare --config=configs/data/web_zh_en.py \
    --config.data.source='warc:crawl/*.warc.gz' --output=data/web

Leaves records that `prepared:DIR` reads (and jsonl:), tokens where the config
has a tokenizer, index.json, report.html and report.json. The same input and
config give the same bytes, for any number of workers. A run that was killed
goes on with the same command. Exit codes: 0 done, 2 bad arguments or data, 75 a
worker was lost.
"""

import sys

from absl import flags

from common import cli, config_keys
from common.errors import HostError

FLAGS = flags.FLAGS


def define_flags() -> None:
  """The verb's own: not those of who imports this."""
  cli.define_config()
  flags.declare_key_flag("config")
  flags.DEFINE_string("output", None, "The folder to fill; a new or empty one.")
  flags.DEFINE_bool(
    "documents",
    False,
    "Also writes documents.jsonl: every document that went out, with its id, "
    "text, language and what was counted in it.",
  )
  flags.DEFINE_integer(
    "workers", 1, "Processes on this machine; 0 as many as it has cores.", 0
  )
  flags.DEFINE_string(
    "runner",
    "DirectRunner",
    "Apache Beam's runner: DataflowRunner, FlinkRunner, SparkRunner … Input "
    "and output must be where all its workers reach them.",
  )
  flags.DEFINE_multi_string(
    "beam", [], "A flag for Beam, as in --beam=--project=NAME; may come again."
  )


def main(argv) -> None:
  """Prepares a data set."""
  del argv
  if FLAGS.config is None:
    raise cli.UserError("--config=configs/data/NAME.py is missing")
  if not FLAGS.output:
    raise cli.UserError("--output=DIR is missing")
  from input_pipeline.preparation import report_page, run, workers

  try:
    found = run.prepare(
      config_keys.plain(FLAGS.config),
      FLAGS.output,
      documents=FLAGS.documents,
      by=workers.Workers(FLAGS.workers, FLAGS.runner, tuple(FLAGS.beam)),
    )
  except ValueError as error:
    raise cli.UserError(str(error)) from None
  except workers.LostWorkersError as error:
    raise HostError(str(error)) from None
  for line in report_page.lines(found):
    print(line)
  print(f"report: {FLAGS.output.rstrip('/')}/report.html")


if __name__ == "__main__":
  define_flags()
  sys.exit(cli.run(main))
