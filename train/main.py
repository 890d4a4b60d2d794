"""Trains the experiment that a config describes.

  python -m train.main --config=configs/language/lm_stdlib.py --workdir=runs/a

Resumes from the last checkpoint in --workdir. Exit codes:

  0    the run is complete
  1    the run failed
  2    bad arguments
  70   the hardware computed a step wrongly (--check_determinism)
  74   a checkpoint could not be written or read back, or none is intact
  75   another process of the run was lost, or no step was done for too long
  85   stopped by SIGTERM or a maintenance notice, after saving
  130  stopped by Ctrl-C, after saving

After 74 (once the cause is fixed), 75, 85 and 130 the same command resumes the
run.
"""

import contextlib
import os
import sys
import time

from absl import flags

from common import cli, mirror
from train.hosts import flags as host_flags

FLAGS = flags.FLAGS
cli.define_config()
host_flags.define()
flags.declare_key_flag("config")
flags.DEFINE_string(
  "workdir",
  None,
  "The directory of the run, a local path or one such as gs://BUCKET/RUN; a "
  "run that was stopped resumes from it. Default: runs/<config>-<date>.",
)
flags.DEFINE_string(
  "init_from",
  None,
  "Initializes the parameters from this workdir, Hugging Face folder or "
  ".safetensors file; sets config.init_from, or its `path` if the config has "
  "further settings there. Default: random initialization.",
)
flags.DEFINE_bool(
  "init_from_anyway",
  False,
  "Begins with the parameters of config.init_from although its model has other "
  "settings that change what they compute, such as heads or rope_theta; sets "
  "config.init_from.anyway. Default: such a difference ends the run.",
)
flags.DEFINE_string(
  "profile",
  None,
  "START:STEPS, for example 100:5. Traces that many steps, beginning with step "
  "START, into WORKDIR/profile, for TensorBoard or XProf. Default: no trace.",
)
flags.DEFINE_float(
  "peak_flops",
  None,
  "The peak FLOP/s of one device, from which `mfu` is computed. Default: known "
  "for common TPUs and GPUs; otherwise `mfu` is not reported.",
  lower_bound=1,
)
flags.DEFINE_float(
  "watts",
  None,
  "The power of one device, in watts, from which the energy is estimated where "
  "it cannot be measured. Default: the maximum of a known device.",
  lower_bound=0,
)
flags.DEFINE_bool(
  "strict",
  False,
  "Stops if the last checkpoint is damaged, instead of resuming from the one "
  "before it.",
)
flags.DEFINE_integer(
  "check_determinism",
  0,
  "The interval, in steps, at which a step is computed twice. The run stops if "
  "the results differ, which indicates faulty hardware. Default: 0, never.",
  lower_bound=0,
)


def main(argv) -> None:
  """Runs one experiment to completion."""
  config = FLAGS.config
  if config is None:
    raise cli.missing("config", argv, "lm_stdlib")
  cli.start_jax()
  from train.hosts import preemption
  from train.workdir import bucket

  with contextlib.ExitStack() as outermost, host_flags.joined() as watcher:
    # In effect until all processes have left: a second SIGTERM must not end
    # this one before.
    outermost.enter_context(preemption.heeded(watcher.agreement))
    workdir = _workdir()
    with bucket.writing(workdir) as local:
      _train(config, local, watcher.agreement.stop)


def _workdir() -> str:
  import jax

  if FLAGS.workdir is None and jax.process_count() > 1:
    raise cli.UserError(
      "--workdir is missing: name a folder that all processes of the run share"
    )
  return FLAGS.workdir or os.path.join(
    "runs", f"{cli.config_stem()}-{time.strftime('%Y%m%d-%H%M%S')}"
  )


def _train(config, workdir, stop) -> None:
  from train import build, loop
  from train.hosts import distributed
  from train.workdir import run_lock
  from train.workdir import terminal as terminals

  config = {**config, "init_from": _begin(config.get("init_from"))}
  total_steps = int(config.get("total_steps", 0))
  trace = _trace(FLAGS.profile, total_steps, workdir)
  terminal = terminals.Terminal(total_steps, quiet=not distributed.first())

  def say(line):
    terminal.say(mirror.named(line))

  with run_lock.claimed(workdir):
    run = build.run(config, workdir, say=say)
    run = _watched(run, trace)._replace(stop=stop)
    say(_describe(run, workdir))
    with terminal:
      for report in loop.fit(run):
        terminal.show(report.step, report.scalars)
  if FLAGS.profile:
    say(trace.describe())
  if distributed.first():
    _summarize(workdir, say)


def _begin(given):
  """config.init_from with --init_from and --init_from_anyway, if given."""
  if FLAGS.init_from:
    whole = not given or isinstance(given, str)
    given = FLAGS.init_from if whole else {**given, "path": FLAGS.init_from}
  if FLAGS.init_from_anyway:
    if not given:
      raise cli.UserError("--init_from_anyway needs --init_from")
    section = {"path": given} if isinstance(given, str) else given
    given = {**section, "anyway": True}
  return given


def _trace(text, total_steps, workdir):
  """The profile.Trace of --profile."""
  from train.measuring import profile

  if text is None:
    return profile.Trace()
  directory = os.path.join(workdir, "profile")
  return profile.Trace(directory, *profile.parse(text, total_steps))


def _watched(run, trace):
  """The run, with the settings of the command line."""
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
  """Prints the last metrics of each evaluator, the time and the curves."""
  from train.measuring import goodput, timing
  from train.workdir import curves, metrics

  last = {}
  for row in metrics.read_metrics(workdir):
    for key, value in row.items():
      if key == "step" or key.startswith("train/") or "/" not in key:
        continue
      last[key] = f"{key} {value:.4f} (step {row['step']})"
  for line in last.values():
    say(line)
  for line in goodput.describe(os.path.join(workdir, "goodput.jsonl")):
    say(line)
  if memory := timing.describe_memory():
    say(memory)
  path = curves.draw_curves(workdir)
  if path:
    say(f"curves   {path}")


if __name__ == "__main__":
  sys.exit(cli.run(main))
