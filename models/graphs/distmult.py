"""DistMult: a relation weighs the products of its head's and tail's features.

The shape legend is in models/graphs/transe.py.
"""

import jax.numpy as jnp

from models import Model, pure
from models.graphs import transe
from models.layers.basic import float_dtype


class DistMult(transe.Triples):
  """Scores a triple by the sum of h * r * t."""

  def __call__(self, head, relation, tail):
    """The scores of triples, higher where likelier: int32 [...] -> [...]."""
    left = self.vectors(head) * self.relation(relation)
    return jnp.sum(left * self.vectors(tail), -1)

  def tails(self, head, relation):
    """The score of each entity as the tail: int32 [B], [B] -> [B, E]."""
    return (self.vectors(head) * self.relation(relation)) @ self.every().T

  def heads(self, relation, tail):
    """The score of each entity as the head: int32 [B], [B] -> [B, E]."""
    return self.tails(tail, relation)


def distmult(
  *,
  entities: int,
  relations: int,
  dim: int = 50,
  param_dtype: str = "float32",
) -> Model:
  """DistMult (Yang et al., arXiv:1412.6575): (head, relation, tail) -> scores.

  The score is the sum over features of h * r * t, with vectors of entities of
  norm 1. Its methods are those of `transe`. A triple and its inverse have the
  same score.

  Args:
    entities: E.
    relations: R.
    dim: D.
    param_dtype: of the vectors, and of the computation.

  Raises:
    ValueError: the dtype is unknown.
  """
  dtype = float_dtype("param_dtype", param_dtype)
  return pure(
    lambda rngs: DistMult(
      entities, relations, dim, param_dtype=dtype, rngs=rngs
    )
  )


SHARDING = transe.SHARDING
