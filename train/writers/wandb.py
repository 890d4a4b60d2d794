"""Weights & Biases."""

import html
import pathlib
import sys
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np

from train.writers.parts import run_id, writer


def wandb(
  workdir: str,
  config: Mapping[str, Any],
  *,
  project: str | None = None,
  entity: str | None = None,
  group: str | None = None,
  mode: str | None = None,
  histograms_every: int = 0,
) -> writer.Writer:
  """Logs scalars, histograms, images and text to one run per workdir.

  The run's id is kept in WORKDIR/wandb_run_id, and a resumed run continues the
  same W&B run. W&B only appends: steps that a resumed run repeats keep the
  values that were logged first, and evaluations of its first step that a kill
  prevented are missing there. W&B's files are in WORKDIR/wandb; in mode
  "offline" `wandb sync` uploads them later.

  Args:
    workdir: its last part is the display name of the run.
    config: logged as the run's config.
    project: W&B's project; None leaves it to W&B (WANDB_PROJECT).
    entity: a user or team; None leaves it to W&B (WANDB_ENTITY).
    group: groups runs; None groups none.
    mode: "online", "offline" or "disabled"; None leaves it to W&B (WANDB_MODE).
    histograms_every: the number of steps between histograms of parameters and
      gradients; 0, the default, writes none.

  Raises:
    UserError: the library is not installed.
    ValueError: `mode` is unknown.
  """
  if mode not in (None, "online", "offline", "disabled"):
    raise ValueError(f'mode={mode!r} is not "online", "offline" or "disabled"')
  writer.need("wandb")
  opened: dict[str, Any] = {}

  def start(step):
    del step  # W&B stores the last logged step
    if opened:
      return  # the run rolled back to a checkpoint
    import wandb

    found = run_id.read(workdir, "wandb") or uuid.uuid4().hex[:12]
    run_id.write(workdir, "wandb", found)
    opened["run"] = wandb.init(
      id=found,
      resume="allow",
      dir=workdir,
      name=pathlib.Path(workdir).resolve().name,
      config=dict(config),
      project=project,
      entity=entity,
      group=group,
      mode=mode,
      # The terminal belongs to the progress bar, nobody may be there to answer
      # a login prompt, and a dead network must not hold up the run.
      settings=wandb.Settings(
        silent=True,
        console="off",
        login_timeout=10,
        init_timeout=30,
        finish_timeout=60,
        finish_timeout_raises=True,
      ),
    )

  def write(step, values):
    if step >= opened["run"].step:  # W&B drops earlier steps with a warning
      opened["run"].log(values, step=step)

  def histograms(step, found):
    import wandb

    write(
      step,
      {
        tag: wandb.Histogram(
          np_histogram=(
            np.asarray(h.counts),
            np.linspace(float(h.low), float(h.high), len(h.counts) + 1),
          )
        )
        for tag, h in found.items()
      },
    )

  def images(step, found):
    import wandb

    write(step, {tag: wandb.Image(x) for tag, x in found.items()})

  def text(step, found):
    import wandb

    write(
      step,
      {t: wandb.Html(f"<pre>{html.escape(x)}</pre>") for t, x in found.items()},
    )

  def close():
    if opened:
      failed = (
        sys.exc_info()[0] is not None
      )  # called while the exception propagates
      opened.pop("run").finish(exit_code=int(failed))

  return writer.Writer(
    start, write, histograms, images, text, close, histograms_every
  )
