"""When checkpoints are saved, and which stay: config.checkpoint."""

from typing import NamedTuple

from common.errors import UserError


class Settings(NamedTuple):
  """The keys of config.checkpoint.

  every_steps: a checkpoint every so many steps; 0 for none by steps.
  every_minutes: a checkpoint when so many minutes have passed since the last
    one; 0 for none by time. There is always one at the end.
  keep: the number of checkpoints that stay, the latest ones.
  keep_best: a figure of an evaluator, such as "val/loss", whose best
    checkpoint stays as well; or None.
  on_error: "stop" where a checkpoint cannot be written, or "continue".
  """

  every_steps: int = 0
  every_minutes: float = 10.0
  keep: int = 2
  keep_best: str | None = None
  on_error: str = "stop"

  def stops(self) -> bool:
    """Whether an error of a save ends the run.

    Raises:
      UserError: `on_error` is neither.
    """
    if self.on_error not in ("stop", "continue"):
      raise UserError(
        f"config.checkpoint.on_error={self.on_error!r}: is neither 'stop' nor"
        " 'continue'"
      )
    return self.on_error == "stop"


class Kept:
  """Which checkpoints Orbax lets stay: the latest, and the best."""

  def __init__(self, latest: int):
    """`latest`: how many stay; `best`: the step of the best, or None."""
    self.latest, self.best = latest, None

  def should_preserve(self, checkpoints, *, context) -> list[bool]:
    """One answer for each checkpoint, oldest first."""
    del context
    first = len(checkpoints) - self.latest
    return [
      i >= first or each.step == self.best for i, each in enumerate(checkpoints)
    ]
