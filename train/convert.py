"""Converts Hugging Face folders to workdirs and back.

  python -m train.convert --from=HF_DIR --workdir=RUN
  python -m train.convert --workdir=RUN --to=HF_DIR

HF_DIR holds config.json, model.safetensors or its shards, and optionally
tokenizer.json. The supported model families are the files of
train/conversions. The resulting RUN can be used by train.generate,
train.evaluate and config.init_from. Pickle files are never read.
"""

import sys

from absl import flags

from common import cli


def define_flags() -> None:
  """The flags of this verb, apart from those of a module that imports it."""
  flags.DEFINE_string("from", None, "The folder or .safetensors file to read.")
  flags.DEFINE_string(
    "to", None, "The folder to write; must not exist, or be empty."
  )
  flags.DEFINE_string(
    "workdir",
    None,
    "With --from, the directory to create; with --to, the run to export.",
    required=True,
  )
  flags.DEFINE_string(
    "source",
    None,
    "With --from: the URI of the data that train.evaluate will read. Default: "
    "fake data.",
  )
  flags.DEFINE_string(
    "sha256",
    None,
    "With --from: the SHA-256 digest that the file of weights must have. "
    "Default: not checked.",
  )
  cli.define_step()
  flags.DEFINE_integer(
    "shard_bytes",
    None,
    "With --to: the greatest size of a file of weights, in bytes. Default: the "
    "files of the original folder if the run was converted from one, and "
    "5,000,000,000 otherwise.",
    1,
  )


FLAGS = flags.FLAGS


def main(argv) -> None:
  """Converts, and prints one line that describes the result."""
  del argv
  start = FLAGS["from"].value
  if (start is None) == (FLAGS.to is None):
    raise cli.UserError("give either --from or --to")
  for name, other in (("source", "from"), ("sha256", "from"), ("step", "to")):
    if FLAGS[name].value is not None and FLAGS[other].value is None:
      raise cli.UserError(f"--{name} needs --{other}")
  cli.start_jax()
  import jax

  # An accelerator of this machine may be in use by a run.
  jax.config.update("jax_platforms", "cpu")
  from train.conversions.parts import runs
  from train.workdir import bucket

  if FLAGS.to is None:
    with bucket.creating("--workdir", FLAGS.workdir) as workdir:
      runs.make(start, workdir, sha256=FLAGS.sha256, source=FLAGS.source)
    return
  with (
    bucket.reading(FLAGS.workdir) as workdir,
    bucket.creating("--to", FLAGS.to) as folder,
  ):
    runs.write(workdir, folder, step=FLAGS.step, most=FLAGS.shard_bytes)


if __name__ == "__main__":
  define_flags()
  sys.exit(cli.run(main))
