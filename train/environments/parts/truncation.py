"""The number of steps after which an episode is truncated."""


def check(most_steps: int) -> None:
  """Raises ValueError unless most_steps is a positive integer of 32 bits."""
  if not isinstance(most_steps, int) or not 0 < most_steps < 2**31:
    raise ValueError(
      f"most_steps={most_steps!r} is not a positive integer of 32 bits"
    )
