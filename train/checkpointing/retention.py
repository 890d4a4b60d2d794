"""When checkpoints are saved and which are kept: config.checkpoint."""

from typing import NamedTuple

from common.errors import UserError


class Settings(NamedTuple):
  """The keys of config.checkpoint.

  every_steps: the number of steps between checkpoints; 0 disables these. The
    last step is always saved.
  every_minutes: the number of minutes between checkpoints; 0 disables these.
  keep: the number of latest checkpoints that are kept.
  keep_best: a metric of an evaluator, such as "val/loss", whose best checkpoint
    is kept as well; or None.
  on_error: "stop" or "continue" when a checkpoint cannot be written.
  """

  every_steps: int = 0
  every_minutes: float = 10.0
  keep: int = 2
  keep_best: str | None = None
  on_error: str = "stop"

  def stops(self) -> bool:
    """Returns whether an error of a save ends the run.

    Raises:
      UserError: `on_error` is neither "stop" nor "continue".
    """
    if self.on_error not in ("stop", "continue"):
      raise UserError(
        f"config.checkpoint.on_error={self.on_error!r} is neither 'stop' nor"
        " 'continue'"
      )
    return self.on_error == "stop"


class Kept:
  """Orbax's policy: keeps the latest checkpoints and the best one."""

  def __init__(self, latest: int):
    """Keeps `latest` checkpoints; `best` is the best one's step, or None."""
    self.latest, self.best = latest, None

  def should_preserve(self, checkpoints, *, context) -> list[bool]:
    """Returns whether to keep each checkpoint, oldest first."""
    del context
    first = len(checkpoints) - self.latest
    return [
      i >= first or each.step == self.best for i, each in enumerate(checkpoints)
    ]
