"""Weights in and out: a Hugging Face folder to a workdir, and back.

  python -m train.convert --from=HF_DIR --workdir=RUN
  python -m train.convert --workdir=RUN --to=HF_DIR

The folder holds config.json, model.safetensors or its parts, and if there is
one tokenizer.json; the families are the files of train/conversions. RUN is then
for train.generate, train.evaluate and config.init_from. Pickles are not read.
"""

import sys

from absl import flags

from common import cli


def _define() -> None:
  flags.DEFINE_string(
    "from", None, "The folder to read, or a .safetensors file."
  )
  flags.DEFINE_string("to", None, "The folder to write.")
  flags.DEFINE_string("workdir", None, "Where the run lives.", required=True)
  flags.DEFINE_string(
    "source", None, "With --from: the data that train.evaluate reads."
  )
  flags.DEFINE_string(
    "sha256", None, "With --from: what the file of weights must have."
  )
  cli.define_step()
  flags.DEFINE_integer(
    "shard_bytes", 5 * 10**9, "With --to: of a file of weights at most.", 1
  )


FLAGS = flags.FLAGS


def main(argv) -> None:
  """Converts, and says in a line what was made."""
  if len(argv) > 1:
    raise cli.UserError(f"{argv[1]!r}: arguments are --from, --to, --workdir")
  start = FLAGS["from"].value
  if (start is None) == (FLAGS.to is None):
    raise cli.UserError("give either --from or --to")
  for name, other in (("source", "from"), ("sha256", "from"), ("step", "to")):
    if FLAGS[name].value is not None and FLAGS[other].value is None:
      raise cli.UserError(f"--{name} is of --{other}")
  cli.start_jax()
  import jax

  # An accelerator here may be at work for a run.
  jax.config.update("jax_platforms", "cpu")
  from train.conversions.parts import runs

  if FLAGS.to is None:
    runs.make(start, FLAGS.workdir, sha256=FLAGS.sha256, source=FLAGS.source)
  else:
    most = FLAGS.shard_bytes
    runs.write(FLAGS.workdir, FLAGS.to, step=FLAGS.step, most=most)


if __name__ == "__main__":
  _define()
  sys.exit(cli.run(main))
