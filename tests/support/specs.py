"""Shapes and types of the leaves of a batch, for comparison."""


def shapes(spec):
  """Returns {name: (shape, dtype)} of a pipeline.Data.spec."""
  return {name: (leaf.shape, leaf.dtype) for name, leaf in spec.items()}
