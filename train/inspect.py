"""What is in a workdir, and whether it is whole: `python -m train.inspect`.

  python -m train.inspect runs/a           # checkpoints, held against digests
  python -m train.inspect runs/a runs/b    # and how the two differ

Needs neither the model, the data nor the devices of the run, takes no lock and
changes nothing. --json prints one object. Exit codes: 0 all is whole, 1
something is damaged, 2 bad arguments.
"""

import json
import sys

from absl import flags, logging

from common import cli

FLAGS = flags.FLAGS
flags.DEFINE_bool("json", False, "Print one JSON object in place of a table.")


def main(argv) -> int:
  """Prints what there is; 1 where something is damaged."""
  workdirs = argv[1:]
  if not 1 <= len(workdirs) <= 2:
    raise cli.UserError(
      "give one workdir or two: train.inspect WORKDIR [OTHER]"
    )
  if not FLAGS["verbosity"].present:
    # Orbax warns of files that no checkpoint of ours has.
    logging.set_verbosity(logging.ERROR)
  cli.start_jax()
  import jax

  # An accelerator here may be at work for the very run.
  jax.config.update("jax_platforms", "cpu")
  from train.workdir import inspection

  runs = [inspection.run(workdir) for workdir in workdirs]
  facts = {"runs": runs}
  if len(runs) == 2:
    facts["differences"] = inspection.differences(*runs)
  if FLAGS.json:
    print(json.dumps(facts))
  else:
    for line in inspection.lines(facts):
      print(cli.printable(line))
  return 1 if any(run["damaged"] for run in runs) else 0


if __name__ == "__main__":
  sys.exit(cli.run(main))
