"""Plans a run before it is paid for: `python -m train.plan --config=…`.

Compiles the training step for hardware that need not be present, and reports
whether it fits into memory, how fast it can be, and what the whole run costs:

  python -m train.plan --config=configs/language/llama_8b.py \
      --topology=v5e:16x16

A topology is a TPU slice (v4:4x4x4, v5e:16x16, v5p:4x4x4, v6e:8x8; --slices=2
for two of them), GPUs as HOSTSxGPUS (h100:8x8; estimated by formula) or
simulated CPU devices (cpu:8). TPUs need the extra `plan`, which contains their
compiler. Exit codes: 0 the run fits, 1 it does not, 2 bad arguments.
"""

import json
import sys

from absl import flags

from common import cli
from train.planning import topology

FLAGS = flags.FLAGS
cli.define_config()
flags.declare_key_flag("config")
flags.DEFINE_string(
  "topology", None, "The hardware, such as v5e:16x16 or h100:8x8."
)
flags.DEFINE_integer(
  "slices", 1, "The number of TPU slices of that topology.", 1
)
flags.DEFINE_bool("json", False, "Print one JSON object instead of tables.")
flags.DEFINE_bool(
  "search",
  False,
  "Also search over meshes, remat policies and microbatches.",
)
flags.DEFINE_integer(
  "search_compiles",
  4,
  "With --search: the number of candidates to compile.",
  1,
)
flags.DEFINE_bool(
  "knobs",
  True,
  "If the run does not fit, try the settings that would make it fit.",
)
flags.DEFINE_float(
  "watts",
  None,
  "The power of one chip, in watts. Default: from a table of chips.",
)
flags.DEFINE_float(
  "price_per_chip_hour",
  None,
  "The price of one chip for an hour, for the cost of the run.",
)


def main(argv) -> int:
  """Plans one run and prints the plan; returns 1 if it does not fit."""
  config = FLAGS.config
  if config is None:
    raise cli.missing("config", argv, "llama_8b")
  if FLAGS.topology is None:
    raise cli.missing("topology", argv, "v5e:16x16")
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
