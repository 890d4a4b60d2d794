"""Plans a run before it is paid for: `python -m train.plan --config=… `.

Compiles the step that the loop would run for machines that need not be there,
and says whether it fits, how fast it can be, and what the whole run costs:

  python -m train.plan --config=configs/language/llama_8b.py \
      --topology=v5e:16x16

A topology is a TPU slice (v4:4x4x4, v5e:16x16, v5p:4x4x4, v6e:8x8; --slices=2
for two of them), GPUs as HOSTSxGPUS (h100:8x8; by formula) or simulated CPU
devices (cpu:8). TPUs need the extra `plan`, which brings their compiler. Exit
codes: 0 it fits, 1 it does not, 2 bad arguments.
"""

import json
import sys

from absl import flags

from common import cli
from train.planning import topology

FLAGS = flags.FLAGS
cli.define_config()
flags.declare_key_flag("config")
flags.DEFINE_string("topology", None, "The machine, e.g. v5e:16x16.")
flags.DEFINE_integer("slices", 1, "How many such TPU slices.", 1)
flags.DEFINE_bool("json", False, "Print one JSON object in place of tables.")
flags.DEFINE_bool(
  "search", False, "Try meshes, remat policies and microbatches as well."
)
flags.DEFINE_integer("search_compiles", 4, "How many of them to compile.", 1)
flags.DEFINE_bool("knobs", True, "Try what would help if it does not fit.")
flags.DEFINE_float("watts", None, "That a chip draws; a table's by default.")
flags.DEFINE_float("price_per_chip_hour", None, "For the cost of the run.")


def main(argv) -> int:
  """Plans one run; see the module."""
  del argv
  config = FLAGS.config
  if config is None:
    raise cli.UserError("--config=configs/NAME.py is missing")
  if FLAGS.topology is None:
    raise cli.UserError("--topology is missing, e.g. --topology=v5e:16x16")
  topology.prepare(FLAGS.topology)
  cli.start_jax()
  from train.planning import report, search, summary

  where = topology.find(FLAGS.topology, FLAGS.slices)
  with report.progress() as say:
    say(f"{cli.config_stem()} on {where.name}")
    figures = {"config": cli.config_stem()} | summary.plan(
      config, where, watts=FLAGS.watts, price=FLAGS.price_per_chip_hour
    )
    if not figures["fits"] and FLAGS.knobs:
      figures["knobs"] = search.tried(config, where, say)
    if FLAGS.search:
      figures["search"] = search.search(
        config, where, FLAGS.search_compiles, say
      )
  if FLAGS.json:
    print(json.dumps(figures))
  else:
    report.show(figures)
  return 0 if figures["fits"] else 1


if __name__ == "__main__":
  sys.exit(cli.run(main))
