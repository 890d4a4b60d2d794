"""TransE: a relation translates the vector of its head to that of its tail.

The shape legend is in models/layers/basic.py; here E counts entities and R
relations.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.layers.basic import choose, float_dtype

# The number of heads or tails that are compared with all entities at a time.
_TOGETHER = 16


def _l1(x):
  return jnp.sum(jnp.abs(x), -1)


def _l2(x):
  # The gradient of the root is not finite at 0.
  return jnp.sqrt(jnp.sum(x * x, -1) + 1e-12)


NORMS = {"l1": _l1, "l2": _l2}


class Triples(nnx.Module):
  """Vectors of entities and relations; a subclass scores triples with them.

  Attributes:
    entities: [E, D], uniform within 6 / sqrt(D) of 0.
    relations: [R, D], initialized like the entities, with norm 1.
  """

  def __init__(self, entities, relations, dim, *, param_dtype, rngs):
    bound = 6 / dim**0.5

    def drawn(count):
      unit = jax.random.uniform(rngs.params(), (count, dim), param_dtype)
      return (2 * unit - 1) * bound

    self.entities = nnx.Param(drawn(entities))
    self.relations = nnx.Param(_unit(drawn(relations)))

  def vectors(self, ids):
    """The vectors of entities, of norm 1: int32 [...] -> [..., D]."""
    return _unit(self.entities[...][ids])

  def every(self):
    """The vectors of all entities, of norm 1: [E, D]."""
    return _unit(self.entities[...])

  def relation(self, ids):
    """The vectors of relations: int32 [...] -> [..., D]."""
    return self.relations[...][ids]


def _unit(x):
  return x / jnp.sqrt(jnp.sum(x * x, -1, keepdims=True) + 1e-12)


class TransE(Triples):
  """Scores a triple by -||h + r - t||."""

  def __init__(self, *args, norm, **kwargs):
    super().__init__(*args, **kwargs)
    self.norm = norm

  def __call__(self, head, relation, tail):
    """The scores of triples, higher where likelier: int32 [...] -> [...]."""
    moved = self.vectors(head) + self.relation(relation)
    return -NORMS[self.norm](moved - self.vectors(tail))

  def tails(self, head, relation):
    """The score of each entity as the tail: int32 [B], [B] -> [B, E]."""
    return self._nearness(self.vectors(head) + self.relation(relation))

  def heads(self, relation, tail):
    """The score of each entity as the head: int32 [B], [B] -> [B, E]."""
    return self._nearness(self.vectors(tail) - self.relation(relation))

  def _nearness(self, x_BD):
    every_ED = self.every()
    # In parts, since all differences are [B, E, D].
    return jax.lax.map(
      lambda x_D: -NORMS[self.norm](x_D[None] - every_ED),
      x_BD,
      batch_size=_TOGETHER,
    )


def transe(
  *,
  entities: int,
  relations: int,
  dim: int = 50,
  norm: str = "l1",
  param_dtype: str = "float32",
) -> Model:
  """TransE (Bordes et al., NeurIPS 2013): (head, relation, tail) -> scores.

  The score is -||h + r - t||. The vectors of entities have norm 1: they are
  divided by their norms when they are read, where the paper divides the
  parameters before each step. The methods "tails" and "heads" return the scores
  of all entities in one place of a triple.

  Args:
    entities: E.
    relations: R.
    dim: D.
    norm: "l1" or "l2".
    param_dtype: of the vectors, and of the computation.

  Raises:
    ValueError: the norm or the dtype is unknown.
  """
  choose("norm", norm, NORMS)
  dtype = float_dtype("param_dtype", param_dtype)
  return pure(
    lambda rngs: TransE(
      entities, relations, dim, norm=norm, param_dtype=dtype, rngs=rngs
    )
  )


SHARDING = [(r"entities$", P("tensor", None))]
