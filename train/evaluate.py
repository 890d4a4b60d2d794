"""Evaluates a finished run: `python -m train.evaluate --workdir=…`.

Reads the last checkpoint (or --step's) and prints every figure of the run's
evaluators as one JSON object; the run itself is not changed. The workdir is
enough: the config, the tokenizer and the weights are in it.
"""

import json
import sys

from absl import flags

from common import cli
from train.hosts import flags as host_flags

FLAGS = flags.FLAGS
host_flags.define()
flags.DEFINE_string("workdir", None, "Where the run lives.", required=True)
cli.define_step()
flags.DEFINE_list("evals", None, "Keys of config.evals; all by default.")


def main(argv) -> None:
  """Prints one JSON object of figures."""
  del argv
  cli.start_jax()
  with host_flags.joined():
    _evaluate()


def _evaluate() -> None:
  from train import build, trained
  from train.hosts import distributed

  found = trained.load(FLAGS.workdir, FLAGS.step)
  evaluators = build.evaluators(found, FLAGS.workdir)
  unknown = set(FLAGS.evals or ()) - set(evaluators)
  if unknown:
    raise cli.UserError(
      f"--evals: no {sorted(unknown)[0]!r} in config.evals (there are:"
      f" {', '.join(evaluators)})"
    )
  figures = {"step": found.step}
  for key in FLAGS.evals or evaluators:
    for name, value in evaluators[key](found.variables, found.step).items():
      figures[f"{key}/{name}"] = value
  if distributed.first():
    print(json.dumps(figures))


if __name__ == "__main__":
  sys.exit(cli.run(main))
