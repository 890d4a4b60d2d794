"""Evaluates a finished run: `python -m train.evaluate --workdir=…`.

Restores a checkpoint of the run, by default the last one, runs the evaluators
of its config and prints their metrics as one JSON object; every other line goes
to stderr. The config, metrics and checkpoints of the run are not changed, but
evaluators that write files, such as `samples`, write them to the workdir again.
Only the workdir is needed: it holds the config, the tokenizer and the weights.
"""

import json
import sys

from absl import flags

from common import cli, mirror
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
  from train import trained
  from train.workdir import bucket

  with bucket.reading(FLAGS.workdir, outputs=True) as workdir:
    _measure(trained.load(workdir, FLAGS.step, _say), workdir)


def _say(line: str) -> None:
  print(mirror.named(line), file=sys.stderr)


def _measure(found, workdir: str) -> None:
  from train import build
  from train.hosts import distributed

  evaluators = build.evaluators(found, workdir, _say)
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
