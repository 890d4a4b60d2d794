"""Lists and verifies the contents of workdirs: `python -m train.inspect`.

  python -m train.inspect runs/a           # verifies checkpoints by digest
  python -m train.inspect runs/a runs/b    # and shows how two runs differ

Needs neither the model, the data nor the devices of the run, takes no lock and
changes nothing. Exit codes: 0 nothing is damaged, 1 something is damaged, 2 bad
arguments.
"""

import json
import sys

from absl import flags, logging

from common import cli

FLAGS = flags.FLAGS
flags.DEFINE_bool("json", False, "Print one JSON object instead of tables.")


def main(argv) -> int:
  """Prints the contents; returns 1 if something is damaged."""
  workdirs = argv[1:]
  if not 1 <= len(workdirs) <= 2:
    raise cli.UserError(
      "give one or two workdirs: train.inspect WORKDIR [OTHER]"
    )
  if not FLAGS["verbosity"].present:
    # Orbax warns about files that our checkpoints do not have.
    logging.set_verbosity(logging.ERROR)
  cli.start_jax()
  import jax

  # An accelerator of this machine may be in use by this very run.
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
  sys.exit(cli.run(main, positional=True))
