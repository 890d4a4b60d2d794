"""Errors that are reported in one line, without a traceback."""

CTRL_C = "Ctrl-C"  # the reason to stop when it was pressed


class UserError(ValueError):
  """An error that the user can fix: printed as one line; exit code 2."""

  code = 2


class HostError(RuntimeError):
  """Another process of the run is missing or was lost; exit code 75.

  In sysexits.h this is "temporary failure": the same command may succeed.
  """

  code = 75


class SaveError(RuntimeError):
  """A checkpoint cannot be written; exit code 74, "I/O error" of sysexits.h."""

  code = 74


class BucketError(OSError):
  """A bucket cannot be read or written; exit code 74, as for SaveError."""

  code = 74


class CorruptionError(RuntimeError):
  """A step gave two different results from one state; exit code 70."""

  code = 70


class Preempted(BaseException):
  """A run stopped on request after saving; exit code 85, or 130 for Ctrl-C.

  Not an Exception, like KeyboardInterrupt, so that handlers of errors do not
  catch it.
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
      " same command resumes from there"
    )


def shown(value: object) -> str:
  """Returns the repr of a value, cut to 60 characters, for an error line."""
  try:
    text = repr(value)
  except ValueError:  # an integer of too many digits
    return "…"
  return text if len(text) <= 60 else f"{text[:59]}…"
