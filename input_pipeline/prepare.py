r"""Raw records to a clean training set: `python -m input_pipeline.prepare`.

  python -m input_pipeline.prepare --config=configs/data/web_zh_en.py \
    --config.data.source='warc:crawl/*.warc.gz' --output=data/web

Writes records that `prepared:DIR` and `jsonl:` read, tokens if the config names
a tokenizer, index.json, report.html and report.json. The same input and config
give the same bytes for any number of workers. A run that was killed is
resumed by the same command. Exit codes: 0 for success, 2 for wrong arguments or
data, 75 if a worker was lost.
"""

import sys

from absl import flags

from common import cli, config_keys
from common.errors import HostError

FLAGS = flags.FLAGS


def define_flags() -> None:
  """Defines the flags, for a run as a program and not on import."""
  cli.define_config()
  flags.declare_key_flag("config")
  flags.DEFINE_string(
    "output", None, "The folder to write to; it must be new or empty."
  )
  flags.DEFINE_bool(
    "documents",
    False,
    "Also write documents.jsonl: every document of the output with its id, "
    "text, language and counts. Default: false.",
  )
  flags.DEFINE_integer(
    "workers",
    1,
    "The number of processes on this machine; 0 starts one for each core.",
    0,
  )
  flags.DEFINE_string(
    "runner",
    "DirectRunner",
    "The Apache Beam runner, such as DataflowRunner, FlinkRunner or "
    "SparkRunner. All of its workers must be able to reach input and output.",
  )
  flags.DEFINE_multi_string(
    "beam", [], "A flag for Beam, as in --beam=--project=NAME. May be repeated."
  )


def main(argv) -> None:
  """Prepares a data set."""
  if FLAGS.config is None:
    raise cli.missing("config", argv, "classification_text")
  if not FLAGS.output:
    raise cli.missing("output", argv, "prepared")
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
