"""Two tables of word vectors, whose products predict which words co-occur.

The shape legend is in models/layers/basic.py.
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
    output: [V, D]; zeros, or initialized as the input if there are biases.
    input_bias: [V], zeros; None without biases.
    output_bias: [V], zeros; None without biases.
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
    """Returns the scores of word ids i and j, of one shape.

    A score is the product of i's input and j's output vector, plus the biases.
    """
    score = jnp.sum(self.inputs(i) * self.outputs(j), -1)
    if self.input_bias is None:
      return score
    return score + self.input_bias[...][i] + self.output_bias[...][j]

  def inputs(self, ids: jax.Array) -> jax.Array:
    """Returns input vectors, [..., D]."""
    return self.input[...][ids]

  def outputs(self, ids: jax.Array) -> jax.Array:
    """Returns output vectors, [..., D]."""
    return self.output[...][ids]

  def tables(self) -> tuple[jax.Array, jax.Array]:
    """Returns (input_VD, output_VD)."""
    return self.input[...], self.output[...]


def word_vectors(
  *,
  vocab_size: int,
  dim: int = 100,
  bias: bool = False,
  param_dtype: str = "float32",
) -> Model:
  """Vectors of words: (ids, ids) -> scores, as in word2vec or GloVe.

  The methods "inputs" and "outputs" return the vectors of ids, "tables" all
  vectors.

  Args:
    vocab_size: V.
    dim: D.
    bias: whether each word has a bias in either table, as in GloVe; the output
      vectors are then random initially, while word2vec's are 0.
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
