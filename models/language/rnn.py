"""Recurrent language models: Elman's network, LSTM and GRU.

The shape legend is in models/layers/basic.py; here H is a layer's state, and G
all its gates together.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from models import Model, pure
from models.layers.basic import (
  Dense,
  Embedding,
  along_last,
  choose,
  dropout_layer,
  float_dtype,
)

# A layer's state, h first; float32 [B, H] each.
Carry = tuple[jax.Array, ...]


def _elman(x_BG, h_BG, carry: Carry) -> Carry:
  """h <- tanh(x + h) (Elman, 1990)."""
  del carry
  return (jnp.tanh(x_BG + h_BG),)


def _lstm(x_BG, h_BG, carry: Carry) -> Carry:
  """c <- f c + i g; h <- o tanh(c) (Gers et al., 2000); gates i, f, g, o."""
  i, f, g, o = jnp.split(x_BG + h_BG, 4, axis=-1)
  c_BH = jax.nn.sigmoid(f) * carry[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
  return jax.nn.sigmoid(o) * jnp.tanh(c_BH), c_BH


def _gru(x_BG, h_BG, carry: Carry) -> Carry:
  """h <- (1 - z) n + z h (arXiv:1406.1078); gates r, z, n.

  The reset gate multiplies the product with h, as cuDNN and PyTorch have it.
  """
  (rx, zx, nx), (rh, zh, nh) = (jnp.split(y, 3, -1) for y in (x_BG, h_BG))
  z_BH = jax.nn.sigmoid(zx + zh)
  n_BH = jnp.tanh(nx + jax.nn.sigmoid(rx + rh) * nh)
  return ((1 - z_BH) * n_BH + z_BH * carry[0],)


class Cell(NamedTuple):
  """One step of a recurrent layer.

  update: (x_BG, h_BG, carry) -> carry, elementwise; x_BG is the product with
    the input and h_BG that with the last h, biases included.
  gates: G / H.
  states: the number of arrays in a carry.
  """

  update: Callable[[jax.Array, jax.Array, Carry], Carry]
  gates: int
  states: int


CELLS = {
  "elman": Cell(_elman, 1, 1),
  "lstm": Cell(_lstm, 4, 2),
  "gru": Cell(_gru, 3, 1),
}


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def recurrence(
  update: Callable,
  kernel_HG: jax.Array,
  bias_G: jax.Array,
  x_TBG: jax.Array,
  keep_TB: jax.Array,
  carry: Carry,
) -> tuple[jax.Array, Carry]:
  """Runs a cell over time: (h_TBH, the last carry), float32.

  Its gradient saves the products of all steps, so that the kernel's gradient is
  one product at the end rather than a sum of one product per step.

  Args:
    update: a Cell's.
    kernel_HG: the kernel that multiplies h, in the dtype of the computation.
    bias_G: added to that product, float32.
    x_TBG: the products with the inputs, float32.
    keep_TB: 0 where a row is reset, else 1; float32.
    carry: before the first step.
  """
  return _forward(update, kernel_HG, bias_G, x_TBG, keep_TB, carry)[0]


def _forward(update, kernel_HG, bias_G, x_TBG, keep_TB, carry):
  def step(carry, inputs):
    x_BG, keep_B = inputs
    carry = tuple(s * keep_B[:, None] for s in carry)
    h_BG = _product(carry[0], kernel_HG) + bias_G[None]
    new = update(x_BG, h_BG, carry)
    return new, (new[0], carry, h_BG)

  last, (h_TBH, carries, h_TBG) = jax.lax.scan(step, carry, (x_TBG, keep_TB))
  return (h_TBH, last), (kernel_HG, x_TBG, keep_TB, carries, h_TBG)


def _backward(update, saved, given):
  kernel_HG, x_TBG, keep_TB, carries, h_TBG = saved
  dh_TBH, dlast = given

  def step(dcarry, inputs):
    dh_BH, x_BG, h_BG, keep_B, carry = inputs
    dcarry = (dcarry[0] + dh_BH, *dcarry[1:])
    _, pull = jax.vjp(update, x_BG, h_BG, carry)
    dx_BG, dproduct_BG, dbefore = pull(dcarry)
    dh_BH = dbefore[0] + _product(dproduct_BG, kernel_HG.T)
    dbefore = tuple(s * keep_B[:, None] for s in (dh_BH, *dbefore[1:]))
    return dbefore, (dx_BG, dproduct_BG)

  inputs = dh_TBH, x_TBG, h_TBG, keep_TB, carries
  dcarry, (dx_TBG, dproduct_TBG) = jax.lax.scan(
    step, dlast, inputs, reverse=True
  )
  T, B, H = carries[0].shape
  dkernel_HG = _product(
    carries[0].reshape(T * B, H).T,
    dproduct_TBG.reshape(T * B, -1),
    kernel_HG.dtype,
  ).astype(kernel_HG.dtype)
  dbias_G = jnp.sum(dproduct_TBG, (0, 1))
  return dkernel_HG, dbias_G, dx_TBG, jnp.zeros_like(keep_TB), dcarry


recurrence.defvjp(_forward, _backward)


def _product(a, b, dtype=None):
  """Returns a matrix product in b's dtype, or `dtype`, summed in float32."""
  dtype = dtype or b.dtype
  return jnp.matmul(
    a.astype(dtype), b.astype(dtype), preferred_element_type=jnp.float32
  )


class Layer(nnx.Module):
  """A recurrent layer, x_BTI -> h_BTH.

  Attributes:
    input: I to G, with all biases except the GRU's second.
    kernel: [H, G].
    bias: [H], of the candidate, inside the reset gate; only for a GRU, else
      None.
  """

  def __init__(self, inputs, hidden, *, cell, dtype, param_dtype, rngs):
    self.cell, self.dtype = cell, dtype
    G, bound = CELLS[cell].gates * hidden, hidden**-0.5

    def uniform(key, shape, dtype):
      return jax.random.uniform(key, shape, dtype, -bound, bound)

    self.input = Dense(
      inputs,
      G,
      kernel_init=uniform,
      axes="IG",
      dtype=dtype,
      param_dtype=param_dtype,
      rngs=rngs,
    )
    self.kernel = nnx.Param(uniform(rngs.params(), (hidden, G), param_dtype))
    self.bias = nnx.data(
      nnx.Param(jnp.zeros((hidden,), param_dtype)) if cell == "gru" else None
    )

  def __call__(self, x_BTI, keep_TB, carry: Carry) -> tuple[jax.Array, Carry]:
    """Returns (h_BTH in the dtype of the computation, the last carry)."""
    x_TBG = self.input(x_BTI).astype(jnp.float32).swapaxes(0, 1)
    bias_G = jnp.zeros((x_TBG.shape[-1],), jnp.float32)
    if self.bias is not None:
      H = self.bias.shape[0]
      bias_G = bias_G.at[-H:].set(self.bias[...].astype(jnp.float32))
    h_TBH, carry = recurrence(
      CELLS[self.cell].update,
      self.kernel[...].astype(self.dtype),
      bias_G,
      x_TBG,
      keep_TB,
      carry,
    )
    return h_TBH.astype(self.dtype).swapaxes(0, 1), carry


class RNN(nnx.Module):
  """Maps tokens to logits; `rnn` documents the arguments."""

  def __init__(
    self,
    *,
    vocab_size,
    cell,
    layers,
    dim,
    hidden,
    dropout,
    tie_embeddings,
    rngs,
    **common,
  ):
    self.hidden, self.states = hidden, CELLS[cell].states
    self.token_embedding = Embedding(vocab_size, dim, rngs=rngs, **common)
    self.dropout = nnx.data(dropout_layer(dropout, rngs))
    self.layers = nnx.List(
      Layer(inputs, hidden, cell=cell, rngs=rngs, **common)
      for inputs in [dim] + [hidden] * (layers - 1)
    )
    self.unembedding = nnx.data(
      None
      if tie_embeddings
      else Embedding(vocab_size, hidden, rngs=rngs, **common)
    )
    self.bias = nnx.Param(jnp.zeros((vocab_size,), common["param_dtype"]))

  def __call__(self, tokens_BT, cache=None, segments_BT=None, **where):
    """Returns logits_BTV float32; with a cache, (logits_BTV, the new cache)."""
    x_BTH, cache = self._read(tokens_BT, cache, segments_BT, **where)
    logits_BTV = (self.unembedding or self.token_embedding).attend(x_BTH)
    logits_BTV += along_last(self.bias[...].astype(jnp.float32), 3)
    return logits_BTV if cache is None else (logits_BTV, cache)

  def features(self, tokens_BT, **where):
    """Returns the outputs of the last layer, x_BTH."""
    return self._read(tokens_BT, **where)[0]

  def _read(self, tokens_BT, cache=None, segments_BT=None, positions_BT=None):
    del positions_BT  # of packed rows; a state has no other use for positions
    B, T = tokens_BT.shape
    keep_TB = jnp.ones((T, B), jnp.float32)
    if segments_BT is not None:
      same_BT = segments_BT[:, 1:] == segments_BT[:, :-1]
      keep_TB = keep_TB.at[1:].set(same_BT.T.astype(jnp.float32))
    drop = self.dropout or (lambda x: x)
    x_BT, after = drop(self.token_embedding(tokens_BT)), []
    for i, layer in enumerate(self.layers):
      zeros = jnp.zeros((B, self.hidden), jnp.float32)
      carry = (zeros,) * self.states
      if cache is not None:
        carry = tuple(cache[name][i] for name in ("h", "c")[: self.states])
      x_BT, carry = layer(x_BT, keep_TB, carry)
      x_BT = drop(x_BT)
      after.append(carry)
    if cache is None:
      return x_BT, None
    names = ("h", "c")[: self.states]
    stacked = map(jnp.stack, zip(*after, strict=True))
    return x_BT, dict(zip(names, stacked, strict=True))


def rnn(
  *,
  vocab_size: int,
  cell: str = "lstm",
  layers: int = 1,
  dim: int = 128,
  hidden: int | None = None,
  dropout: float = 0.0,
  tie_embeddings: bool = False,
  dtype: str = "float32",
  param_dtype: str = "float32",
) -> Model:
  """A recurrent language model, tokens_BT -> logits_BTV in float32.

  Each row, and each segment of a packed row, begins with a state of zeros.
  Kernels are initialized from uniform(-1 / sqrt(H), 1 / sqrt(H)), biases with
  zeros, and embeddings from normal(0.02). The cells equal PyTorch's up to
  rounding, with one bias where its second is redundant. Dropout is that of
  arXiv:1409.2329, and never applied between time steps. Products are in
  `dtype`, the state is in float32.

  The cache is "h", and for an LSTM also "c", float32 [L, B, H].

  Args:
    vocab_size: V.
    cell: "elman", "lstm" or "gru".
    layers: L, stacked.
    dim: D, of the embedding.
    hidden: H of every layer; D if None.
    dropout: rate for embeddings and for the outputs of each layer.
    tie_embeddings: unembed with the token embedding; H must equal D.
    dtype: of the computation.
    param_dtype: of the parameters.

  Raises:
    ValueError: a choice is unknown, or embeddings are tied and H is not D.
  """
  choose("cell", cell, CELLS)
  hidden = hidden or dim
  if layers < 1:
    raise ValueError(f"layers = {layers} is not positive")
  if tie_embeddings and hidden != dim:
    raise ValueError(f"tied embeddings need hidden = {hidden} = dim = {dim}")
  config = {
    "vocab_size": vocab_size,
    "cell": cell,
    "layers": layers,
    "dim": dim,
    "hidden": hidden,
    "dropout": dropout,
    "tie_embeddings": tie_embeddings,
    "dtype": float_dtype("dtype", dtype),
    "param_dtype": float_dtype("param_dtype", param_dtype),
  }

  def init_cache(batch_size, length, dtype=jnp.float32):
    del length, dtype
    names = ("h", "c")[: CELLS[cell].states]
    shape = (layers, batch_size, hidden)
    return {name: jnp.zeros(shape, jnp.float32) for name in names}

  def flops(T):
    """Counts 2 per multiply-add."""
    G = CELLS[cell].gates * hidden
    inputs = dim + (layers - 1) * hidden
    return 2 * T * (G * (inputs + layers * hidden) + hidden * vocab_size)

  model = pure(lambda rngs: RNN(rngs=rngs, **config), init_cache)
  return model._replace(flops=flops)


SHARDING = [
  (r"(token_embedding|unembedding)/embedding", P("tensor", None)),
  (r"layers/\d+/", P()),
]
