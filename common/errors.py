"""Errors that are told in one line, without a traceback."""

CTRL_C = "Ctrl-C"  # the reason to stop of whoever presses it


class UserError(ValueError):
  """The user's to mend: main prints it as one line and exits with 2."""

  code = 2


class HostError(RuntimeError):
  """Another process of the run is missing or gone; exit code 75.

  The code is sysexits' "temporary failure": the same command may succeed.
  """

  code = 75


class SaveError(RuntimeError):
  """A checkpoint cannot be written; exit code 74, sysexits' "I/O error"."""

  code = 74


class BucketError(OSError):
  """A bucket cannot be read or written; exit code 74, as for SaveError."""

  code = 74


class CorruptionError(RuntimeError):
  """One step gave two results from the same state; exit code 70."""

  code = 70


class Preempted(BaseException):
  """A run was asked to stop, has saved, and leaves.

  No error: what catches those lets it pass, as it does KeyboardInterrupt. Exit
  code 85, or 130 after Ctrl-C.
  """

  code = 85

  def __init__(self, reason: str, step: int):
    super().__init__(reason, step)
    self.reason, self.step = reason, step
    if reason == CTRL_C:
      self.code = 130

  def __str__(self) -> str:
    return (
      f"stopped by {self.reason} after step {self.step}, which is saved; the"
      " same command goes on from there"
    )
