"""What tests compare with, where it can be imported."""

import pytest


def torchvision():
  """Returns the module; skips where it is absent or made for another torch."""
  try:
    import torchvision
  except (ImportError, RuntimeError) as error:
    pytest.skip(f"torchvision: {error}", allow_module_level=True)
  return torchvision
