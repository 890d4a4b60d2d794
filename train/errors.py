"""The one error that is the user's to mend."""


class UserError(ValueError):
  """main prints it as one line and exits with 2."""
