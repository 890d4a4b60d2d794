"""Trains what a config describes: `python -m train.main --config=… `.

Resumes from the last checkpoint in --workdir. Exit codes: 0 done, 1 a run that
went wrong, 2 bad arguments, 70 hardware that computes wrongly, 74 a checkpoint
that cannot be written, 75 another process of the run was lost or the run did no
step for long, 85 told to stop (SIGTERM, a maintenance notice) and saved, 130
Ctrl-C, likewise saved. After 74, once mended, 75, 85 and 130 the same command
goes on.
"""

import contextlib
import os
import sys
import time

from absl import flags

from common import cli
from train.hosts import flags as host_flags

FLAGS = flags.FLAGS
cli.define_config()
host_flags.define()
flags.declare_key_flag("config")
flags.DEFINE_string(
  "workdir",
  None,
  "Where the run lives; a run that was stopped goes on from here. "
  "Default: runs/<config>-<date>.",
)
flags.DEFINE_string(
  "init_from",
  None,
  "Begins with the parameters of this WORKDIR, or of this file or folder of "
  "weights: config.init_from, or its path where the config says the rest.",
)
flags.DEFINE_string(
  "profile",
  None,
  "START:STEPS: traces so many steps from START on into WORKDIR/profile, which "
  "TensorBoard and XProf open.",
)
flags.DEFINE_float(
  "peak_flops",
  None,
  "FLOP/s of one device, for `mfu` where the device is not a known one.",
  lower_bound=1,
)
flags.DEFINE_float(
  "watts",
  None,
  "Power of one device, for an estimate of energy where it cannot be read.",
  lower_bound=0,
)
flags.DEFINE_bool(
  "strict",
  False,
  "Refuses to go on where the last checkpoint is damaged, instead of going on "
  "from the one before.",
)
flags.DEFINE_integer(
  "check_determinism",
  0,
  "Every so many steps, takes a step twice and stops where the two differ: "
  "hardware that computes wrongly. 0 never.",
  lower_bound=0,
)


def main(argv) -> None:
  """Runs one experiment to its end."""
  del argv
  config = FLAGS.config
  if config is None:
    raise cli.UserError("--config=configs/NAME.py is missing")
  cli.start_jax()
  from train.hosts import preemption

  with contextlib.ExitStack() as outermost, host_flags.joined() as watcher:
    # Until the others have left too: a second SIGTERM must not end this one.
    outermost.enter_context(preemption.heeded(watcher.agreement))
    _train(config, _workdir(), watcher.agreement.stop)


def _workdir() -> str:
  import jax

  if FLAGS.workdir is None and jax.process_count() > 1:
    raise cli.UserError(
      "--workdir is missing: a folder that all processes of the run share"
    )
  return FLAGS.workdir or os.path.join(
    "runs", f"{cli.config_stem()}-{time.strftime('%Y%m%d-%H%M%S')}"
  )


def _train(config, workdir, stop) -> None:
  from train import build, loop
  from train.hosts import distributed
  from train.workdir import run_lock, writer

  if FLAGS.init_from:
    begin = config.get("init_from")
    whole = not begin or isinstance(begin, str)
    begin = FLAGS.init_from if whole else {**begin, "path": FLAGS.init_from}
    config = {**config, "init_from": begin}
  total_steps = int(config.get("total_steps", 0))
  trace = _trace(FLAGS.profile, total_steps, workdir)
  terminal = writer.Terminal(total_steps, quiet=not distributed.first())
  with run_lock.claimed(workdir):
    run = build.run(config, workdir, say=terminal.say)
    run = _watched(run, trace)._replace(stop=stop)
    terminal.say(_describe(run, workdir))
    with terminal:
      for report in loop.fit(run):
        terminal.show(report.step, report.scalars)
  if FLAGS.profile:
    terminal.say(trace.describe())
  if distributed.first():
    _summarize(workdir, terminal.say)


def _trace(text, total_steps, workdir):
  """The profile.Trace of --profile."""
  from train.measuring import profile

  if text is None:
    return profile.Trace()
  directory = os.path.join(workdir, "profile")
  return profile.Trace(directory, *profile.parse(text, total_steps))


def _watched(run, trace):
  """The run, with what the command line says of how it is measured."""
  from train.measuring import goodput

  costs = run.costs._replace(
    peak_flops=FLAGS.peak_flops or run.costs.peak_flops,
    watts=FLAGS.watts or run.costs.watts,
  )
  started = goodput.process_start()
  return run._replace(
    costs=costs,
    trace=trace,
    started=started,
    strict=FLAGS.strict,
    twice_every=FLAGS.check_determinism,
  )


def _describe(run, workdir) -> str:
  import jax

  from train import sharding

  params = sharding.count(run.abstract_state.variables.params)
  device = jax.devices()[0].device_kind
  resumed = run.checkpoints.latest_step()
  saved = f"; last saved at step {resumed}" if resumed is not None else ""
  return (
    f"{params:,} parameters, {jax.device_count()} x {device}, {workdir}{saved}"
  )


def _summarize(workdir, say) -> None:
  """The last figure of each evaluator, the time, where the curves are."""
  from train.measuring import goodput
  from train.workdir import writer

  last = {}
  for row in writer.read_metrics(workdir):
    for key, value in row.items():
      if key == "step" or key.startswith("train/") or "/" not in key:
        continue
      last[key] = f"{key} {value:.4f} (step {row['step']})"
  for line in last.values():
    say(line)
  for line in goodput.describe(os.path.join(workdir, "goodput.jsonl")):
    say(line)
  path = writer.draw_curves(workdir)
  if path:
    say(f"curves   {path}")


if __name__ == "__main__":
  sys.exit(cli.run(main))
