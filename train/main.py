"""Trains what a config describes: `python -m train.main --config=… `.

Resumes from the last checkpoint in --workdir. Exit codes: 0 done, 1 a run that
went wrong, 2 bad arguments.
"""

import os
import sys
import time

from absl import flags

from train import cli

FLAGS = flags.FLAGS
cli.define_config()
flags.declare_key_flag("config")
flags.DEFINE_string(
  "workdir",
  None,
  "Where the run lives; a run that was stopped goes on from here. "
  "Default: runs/<config>-<date>.",
)


def main(argv) -> None:
  """Runs one experiment to its end."""
  del argv
  config = FLAGS.config
  if config is None:
    raise cli.UserError("--config=configs/NAME.py is missing")
  workdir = FLAGS.workdir or os.path.join(
    "runs", f"{cli.config_stem()}-{time.strftime('%Y%m%d-%H%M%S')}"
  )
  cli.start_jax()
  from train import build, loop, writer

  terminal = writer.Terminal(int(config.get("total_steps", 0)))
  run = build.run(config, workdir, say=terminal.say)
  terminal.say(_describe(run, workdir))
  with terminal:
    for report in loop.fit(run):
      terminal.show(report.step, report.scalars)
  _summarize(workdir, terminal.say)


def _describe(run, workdir) -> str:
  import jax

  from train import sharding

  params = sharding.count(run.abstract_state.variables.params)
  device = jax.devices()[0].device_kind
  resumed = run.checkpoints.latest_step()
  going_on = f"; goes on from step {resumed}" if resumed is not None else ""
  return (
    f"{params:,} parameters, {jax.device_count()} x {device}, {workdir}"
    f"{going_on}"
  )


def _summarize(workdir, say) -> None:
  """The last figure of each evaluator, and where the curves are."""
  from train import writer

  last = {}
  for row in writer.read_metrics(workdir):
    for key, value in row.items():
      if key == "step" or key.startswith("train/") or "/" not in key:
        continue
      last[key] = f"{key} {value:.4f} (step {row['step']})"
  for line in last.values():
    say(line)
  path = writer.draw_curves(workdir)
  if path:
    say(f"curves   {path}")


if __name__ == "__main__":
  sys.exit(cli.run(main))
