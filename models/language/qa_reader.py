"""A convolutional reader that finds the answer to a question in a text.

The shape legend is in models/layers/basic.py; here F counts features of a
token, and Q the positions of the question among T.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.layers import separable
from models.layers.basic import Dense, Embedding, dropout_layer, float_dtype


class Reader(nnx.Module):
  """Maps rows of question and text to logits; `qa_reader` has the arguments.

  Attributes:
    encoder: reads question and text alike.
    weigh: D to 1, the weight of a question's token in the question's vector.
    query, key: of the attention from the text to the question.
    merge: maps a token, its attention output, and their products to D.
    decoder, ending: the features that predict the start, and from it the end.
    start, end: D to D, of the question's vector.
  """

  def __init__(
    self, *, vocab_size, features, dim, encode, decode, width, dropout, **common
  ):
    rngs = common["rngs"]
    stack = {"width": width, "dropout": dropout, **common}
    dense = {"kernel_init": nnx.initializers.lecun_normal(), **common}
    self.token_embedding = Embedding(vocab_size, dim, **common)
    self.type_embedding = Embedding(2, dim, **common)
    self.told = nnx.data(Dense(features, dim, **dense) if features else None)
    self.encoder = separable.SeparableStack(dim, encode, **stack)
    self.weigh = Dense(dim, 1, **dense)
    self.query = Dense(dim, dim, **dense)
    self.key = Dense(dim, dim, **dense)
    self.merge = Dense(4 * dim + features, dim, **dense)
    self.decoder = separable.SeparableStack(dim, decode, **stack)
    self.ending = separable.SeparableStack(dim, (1, 2), **stack)
    self.start = Dense(dim, dim, **dense)
    self.end = Dense(dim, dim, **dense)
    self.dropout = nnx.data(dropout_layer(dropout, rngs))

  def __call__(self, tokens_BT, types_BT, segments_BT, features_BTF=None):
    """Returns (start_BT, end_BT), float32."""
    if (features_BTF is None) != (self.told is None):
      raise ValueError("features: the rows and the model differ; see qa_reader")
    real_BT1 = (segments_BT > 0)[..., None].astype(self.token_embedding.dtype)
    x_BTD = self.token_embedding(tokens_BT) + self.type_embedding(types_BT)
    x_BTD = self._dropped(10.0 * x_BTD)
    if self.told is not None:
      x_BTD += self.told(features_BTF)
    x_BTD = self._dropped(self.encoder(x_BTD * real_BT1, real_BT1))
    asked_BT = (types_BT == 0) & (segments_BT > 0)
    question_BD = self._summary(x_BTD, asked_BT)
    found_BTD = self._attended(x_BTD, asked_BT)
    parts = [x_BTD, found_BTD, x_BTD * found_BTD]
    parts.append(x_BTD * question_BD[:, None])
    if self.told is not None:
      parts.append(features_BTF.astype(x_BTD.dtype))
    x_BTD = self.merge(jnp.concatenate(parts, axis=-1)) * real_BT1
    first_BTD = self.decoder(x_BTD, real_BT1)
    last_BTD = self.ending(first_BTD, real_BT1)
    return tuple(
      jnp.einsum(
        "BTD,BD->BT",
        self._dropped(y_BTD),
        project(question_BD),
        preferred_element_type=jnp.float32,
      )
      for y_BTD, project in ((first_BTD, self.start), (last_BTD, self.end))
    )

  def _dropped(self, x):
    return x if self.dropout is None else self.dropout(x)

  def _summary(self, x_BTD, asked_BT):
    """Returns the question as one vector, x_BD."""
    scores_BT = self.weigh(x_BTD)[..., 0].astype(jnp.float32)
    weights_BT = jax.nn.softmax(jnp.where(asked_BT, scores_BT, -1e9), axis=-1)
    return jnp.einsum("BT,BTD->BD", weights_BT.astype(x_BTD.dtype), x_BTD)

  def _attended(self, x_BTD, asked_BT):
    """Returns each token's attention output over the question."""
    scores_BTS = jnp.einsum(
      "BTD,BSD->BTS",
      self.query(x_BTD) * x_BTD.shape[-1] ** -0.5,
      self.key(x_BTD),
      preferred_element_type=jnp.float32,
    )
    scores_BTS = jnp.where(asked_BT[:, None], scores_BTS, -1e9)
    weights_BTS = jax.nn.softmax(scores_BTS, axis=-1).astype(x_BTD.dtype)
    return jnp.einsum("BTS,BSD->BTD", weights_BTS, x_BTD)


def qa_reader(
  *,
  vocab_size: int,
  features: int = 12,
  dim: int = 128,
  encode: Sequence[int] = (1, 2, 4, 8),
  decode: Sequence[int] = (1, 2, 4, 8),
  width: int = 5,
  dropout: float = 0.3,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """A reader, rows of question and text -> (start_BT, end_BT) in float32.

  Dilated separable convolutions read both, as QANet's (arXiv:1804.09541); the
  text attends to the question, and the start and the end are scored by products
  with the question's vector, as in DrQA (arXiv:1704.00051), whose exact matches
  are among the features. The model is small, for little data.

  Args:
    vocab_size: V.
    features: F of features_BTF, see
      input_pipeline/rows/parts/match_features.py; 0 if the rows have none.
    dim: D.
    encode: dilations of the blocks that read question and text separately.
    decode: dilations of the blocks that read the text given the question.
    width: the number of positions in a convolution's kernel; odd.
    dropout: rate.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: the width is even, there is no dilation, or a dtype is unknown.
  """
  separable.check(width, encode)
  separable.check(width, decode)
  config = {
    "vocab_size": vocab_size,
    "features": features,
    "dim": dim,
    "encode": tuple(encode),
    "decode": tuple(decode),
    "width": width,
    "dropout": dropout,
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }
  return pure(lambda rngs: Reader(rngs=rngs, **config))


SHARDING = [(r"token_embedding/embedding", P("tensor", None))]
