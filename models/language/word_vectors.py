"""Two tables of vectors, whose products tell which words stand together.

The shape legend stands in models/layers/basic.py.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.layers.basic import float_dtype


class WordVectors(nnx.Module):
  """The input and the output vectors of each word.

  Attributes:
    input: [V, D], uniform within 1 / 2D of 0.
    output: [V, D]; zeros, but drawn as the input is where there are biases.
    input_bias: [V], zeros; None without.
    output_bias: [V], likewise.
  """

  def __init__(self, vocab_size, dim, *, bias, param_dtype, rngs):
    shape = (vocab_size, dim)

    def drawn():
      unit = jax.random.uniform(rngs.params(), shape, param_dtype)
      return nnx.Param((unit - 0.5) / dim)

    self.input = drawn()
    self.output = drawn() if bias else nnx.Param(jnp.zeros(shape, param_dtype))
    for name in ("input_bias", "output_bias"):
      table = nnx.Param(jnp.zeros(vocab_size, param_dtype)) if bias else None
      setattr(self, name, nnx.data(table))

  def __call__(self, i: jax.Array, j: jax.Array) -> jax.Array:
    """What the words of ids i and j, of one shape, say of each other.

    The product of i's input and j's output vector, plus a bias of each.
    """
    score = jnp.sum(self.inputs(i) * self.outputs(j), -1)
    if self.input_bias is None:
      return score
    return score + self.input_bias[...][i] + self.output_bias[...][j]

  def inputs(self, ids: jax.Array) -> jax.Array:
    """Input vectors, [..., D]."""
    return self.input[...][ids]

  def outputs(self, ids: jax.Array) -> jax.Array:
    """Output vectors, [..., D]."""
    return self.output[...][ids]

  def tables(self) -> tuple[jax.Array, jax.Array]:
    """(input_VD, output_VD)."""
    return self.input[...], self.output[...]


def word_vectors(
  *,
  vocab_size: int,
  dim: int = 100,
  bias: bool = False,
  param_dtype: str = "float32",
) -> Model:
  """Vectors of words: (ids, ids) -> scores, of word2vec or of GloVe.

  Its methods "inputs" and "outputs" give the vectors of ids, "tables" all of
  them.

  Args:
    vocab_size: V.
    dim: D.
    bias: a bias of each word in either table, as GloVe has; the output vectors
      are then drawn, too, where word2vec's begin at 0.
    param_dtype: of the tables, and of the computation.
  """
  dtype = float_dtype("param_dtype", param_dtype)
  return pure(
    lambda rngs: WordVectors(
      vocab_size, dim, bias=bias, param_dtype=dtype, rngs=rngs
    )
  )


SHARDING = [
  (r"(input|output)$", P("tensor", None)),
  (r"(input|output)_bias$", P("tensor")),
]
