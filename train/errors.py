"""Errors that are told in one line, without a traceback."""


class UserError(ValueError):
  """The user's to mend: main prints it as one line and exits with 2."""

  code = 2


class HostError(RuntimeError):
  """Another process of the run is missing or gone; exit code 75.

  The code is sysexits' "temporary failure": the same command may succeed.
  """

  code = 75
