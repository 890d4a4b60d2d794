"""Networks as pure functions: keyword arguments in, a Model out.

A model's name is that of its file: "decoder" is
`models.language.decoder.decoder`. Only `pure` and the modules of this package
use Flax NNX; to the rest of the code a model is a pair of pure functions.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

PyTree = Any
# Folders of shared parts, which a config cannot name.
SHARED = ("layers",)


class Model(NamedTuple):
  """A network.

  init: (rng) -> (params, model_state), nested dicts of arrays with string
    keys. model_state holds what the forward pass writes, such as batch
    statistics; it is {} for most models.
  apply: (params, model_state, *inputs, rng=None, train=False, method=None,
    **kwargs) -> (outputs, new_model_state). `method` names a method of the
    module to call instead of __call__; `rng` is needed for dropout in training.
  init_cache: (batch_size, length, dtype) -> the cache that a model carries
    between the steps of decoding; None for a model that does not decode.
  max_len: the longest sequence that the model reads, or None.
  represents: whether it has the method "represent" of a language model, which
    returns a models.language.decoder.Representation, for losses that never
    materialize all logits.
  counts: whether `apply` takes targets_BT and mask_BT, counts them in
    model_state in training, and has the method "nats", which returns -ln p of
    the targets [B, T]; such a model needs no gradients.
  flops: (T) -> forward FLOPs of one sequence of T tokens, a causal triangle of
    attention counted as half; None where it takes a trace to find out.
  plain: for an adapted model, (params) -> params of the model underneath.
  fixed: for an adapted model, the top-level keys of params that training does
    not change.
  adapter: for an adapted model, the top-level key of params under which {}
    means that the model underneath is not adapted.
  unstacked: (params) -> (a model that computes the same, its params), in which
    every layer has its own arrays and its own cache, with the batch as the
    first axis, so that decoding step by step copies neither; None where layers
    are not stacked.
  """

  init: Callable[[jax.Array], tuple[PyTree, PyTree]]
  apply: Callable[..., tuple[PyTree, PyTree]]
  init_cache: Callable[..., PyTree] | None = None
  max_len: int | None = None
  represents: bool = False
  counts: bool = False
  flops: Callable[[int], float] | None = None
  plain: Callable[[PyTree], PyTree] | None = None
  unstacked: Callable[[PyTree], tuple["Model", PyTree]] | None = None
  fixed: tuple[str, ...] = ()
  adapter: str = ""


def pure(
  make_module: Callable[[nnx.Rngs], nnx.Module],
  init_cache: Callable[..., PyTree] | None = None,
) -> Model:
  """The Model of a Flax NNX module.

  `apply` merges the module from its arrays while it is traced, which costs the
  compiled program nothing. Training is passed to the module in the attributes
  `deterministic` (dropout) and `use_running_average` (batch statistics).

  Args:
    make_module: builds the module; it is called lazily, and only under tracing.
    init_cache: the field of the Model.

  Raises:
    ValueError: from `apply`, if params or model_state belong to another
      module, or the random key is missing.
  """

  @functools.lru_cache(maxsize=1)
  def split():
    module = nnx.eval_shape(lambda: make_module(nnx.Rngs(0)))
    return nnx.split(module, nnx.Param, nnx.RngState, ...)

  def init(rng):
    module = make_module(nnx.Rngs(rng))
    _, params, _, state = nnx.split(module, nnx.Param, nnx.RngState, ...)
    return _plain(params), _plain(state)

  def apply(
    params,
    model_state,
    *inputs,
    rng=None,
    train=False,
    method=None,
    **kwargs,
  ):
    graphdef, params_like, rngs_like, state_like = split()
    if rng is None and train and jax.tree.leaves(rngs_like):
      raise ValueError("this model draws random numbers in training; pass rng")
    module = nnx.merge(
      graphdef,
      _filled("params", params_like, params),
      _seeded(rngs_like, rng),
      _filled("model_state", state_like, model_state),
    )
    module.set_attributes(
      deterministic=not train,
      use_running_average=not train,
      raise_if_not_found=False,
    )
    outputs = getattr(module, method or "__call__")(*inputs, **kwargs)
    state = nnx.split(module, nnx.Param, nnx.RngState, ...)[3]
    return outputs, _plain(state)

  return Model(init, apply, init_cache)


def _plain(state: nnx.State) -> dict:
  """Nested dicts of arrays with string keys, the form of a checkpoint."""

  def strings(tree):
    if not isinstance(tree, dict):
      return tree
    return {str(key): strings(value) for key, value in tree.items()}

  return strings(nnx.to_pure_dict(state))


def _filled(what: str, like: nnx.State, values: PyTree) -> nnx.State:
  """A copy of `like` that holds `values`."""
  wanted, given = (
    {jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in flat}
    for flat in (
      jax.tree_util.tree_leaves_with_path(_plain(like)),
      jax.tree_util.tree_leaves_with_path(values),
    )
  )
  if wanted != given:
    raise ValueError(
      f"{what} belong to another model: missing {sorted(wanted - given)[:3]}, "
      f"unknown {sorted(given - wanted)[:3]}"
    )
  filled = jax.tree.map(lambda leaf: leaf, like)
  nnx.replace_by_pure_dict(filled, values)
  return filled


def _seeded(like: nnx.State, rng: jax.Array | None) -> nnx.State:
  """A copy of `like` in which every stream has its own key from `rng`."""
  if rng is None:
    rng = jax.random.key(0)
  elif not jnp.issubdtype(rng.dtype, jax.dtypes.prng_key):
    rng = jax.random.wrap_key_data(rng)
  leaves, treedef = jax.tree.flatten(like)
  seeded = []
  for index, leaf in enumerate(leaves):
    if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      seeded.append(jnp.zeros(leaf.shape, leaf.dtype))
      continue
    key = jax.random.fold_in(rng, index)
    seeded.append(jax.random.split(key, leaf.shape) if leaf.shape else key)
  return jax.tree.unflatten(treedef, seeded)
