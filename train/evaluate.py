"""Evaluates a finished run: `python -m train.evaluate --workdir=…`.

Restores a checkpoint of the run, by default the last one, runs the evaluators
of its config and prints their metrics as one JSON object. The run itself is not
changed. Only the workdir is needed: it holds the config, the tokenizer and the
weights.
"""

import json
import sys

from absl import flags

from common import cli
from train.hosts import flags as host_flags

FLAGS = flags.FLAGS
host_flags.define()
flags.DEFINE_string("workdir", None, "The directory of the run.", required=True)
cli.define_step()
flags.DEFINE_list(
  "evals",
  None,
  "The evaluators to run, as keys of config.evals separated by commas. "
  "Default: all of them.",
)


def main(argv) -> None:
  """Prints one JSON object of metrics."""
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
