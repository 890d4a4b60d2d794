"""Writes vectors of new data by a run: `python -m train.embed --workdir=…`.

For runs whose task predicts "embeddings", as metric learning and
self-supervision do, or "features", as classifiers do. The data need no labels.
--output=FILE.npy is one array, float32 [records, D], in the order of the data;
--output=FILE.parquet also has the name of each record: its file, line or row.

The data are prepared as in the evaluation of the run. Only the workdir is
needed. In Python, the rows that are most similar to the first one:

  x = numpy.load("vectors.npy")
  nearest = numpy.argsort(-x @ x[0])

Embeddings have the length 1; features should be divided by their length first.
"""

import contextlib
import sys
import time

from absl import flags

from common import cli, files
from train import predict

FLAGS = flags.FLAGS
ENDINGS = (".npy", ".parquet")


def define_flags() -> None:
  """Defines the flags of this command."""
  predict.define_data()
  flags.DEFINE_string(
    "output",
    None,
    "The file to write, whose name ends in .npy or .parquet; an existing file "
    "is replaced.",
    required=True,
  )
  flags.DEFINE_string(
    "of",
    None,
    "The prediction that is written, such as embeddings or features. Default: "
    "the first of these two that the task has.",
  )


def main(argv) -> None:
  """Writes one vector for each record."""
  del argv
  predict.check_data(("source", "text", "images"))
  predict.check_output(ENDINGS)
  cli.start_jax()
  from train.prediction.parts import vectors
  from train.workdir import terminal

  start, rows, bar = time.perf_counter(), [0], []

  def advance(count: int) -> None:
    rows[0] += count
    bar[0](count)

  with contextlib.ExitStack() as held:
    found, workdir = held.enter_context(predict.opened())
    wanted, named = predict.new_data(found, held)
    made = vectors.embedded(
      found,
      workdir,
      wanted,
      FLAGS.of,
      lambda line: predict.say(named(line)),
      advance,
    )
    bar.append(held.enter_context(terminal.counted(made.rows, False)))
    with predict.output() as path:
      files.write_atomically(path, vectors.content(made, path))
  predict.done(rows[0], start)


if __name__ == "__main__":
  define_flags()
  sys.exit(cli.run(main))
