"""Digests of arrays: 64 bits that tell whether any element has changed.

The bits of each element are mixed with its place in the array and summed,
modulo 2^32, over all dimensions but the last; the sums are mixed and summed
likewise, twice. Sums of integers are exact in any order, so a digest does not
depend on the devices that hold the array: it is computed where the array
lives, and compared on another mesh.

A change of one element is always seen, for the mixing is a bijection; changes
of many cancel with a chance of about 2^-32. This guards against errors, not
against an adversary, who can compute digests too.
"""

import functools

import jax
import jax.numpy as jnp

from train.types import PyTree

# Elements from which on the time of a sum counts, and not that of its compiler.
_LARGE = 2**18


def of(tree: PyTree) -> dict[str, str]:
  """{path of a leaf: 16 hexadecimal digits}; every process must call it."""
  leaves = named(tree)
  # A program a shape: one of all leaves takes a CPU's compiler seconds. There
  # one runs at a time: many in flight may wait for each other's threads.
  serial = jax.default_backend() == "cpu"
  found = []
  for _, leaf in leaves:
    x = _numbers(leaf)
    found.append(_digest(x, _fold(x)))
    if serial:
      found[-1].block_until_ready()
  found = jax.device_get(found)
  return {
    path: "".join(f"{int(part):08x}" for part in digest)
    for (path, _), digest in zip(leaves, found, strict=True)
  }


def named(tree: PyTree) -> list[tuple[str, jax.Array]]:
  """(path, leaf) of each leaf, such as ("variables/params/w", …)."""
  return [
    (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  ]


def differing(found: dict[str, str], wanted: dict[str, str]) -> list[str]:
  """Paths, sorted, whose digests differ or that only one of them has."""
  return sorted(
    path
    for path in found.keys() | wanted.keys()
    if found.get(path) != wanted.get(path)
  )


def _numbers(x):
  """An array of numbers on the device; keys of random numbers have some."""
  x = jnp.asarray(x)
  memory = next(iter(x.sharding.device_set)).default_memory().kind
  if x.sharding.memory_kind not in (None, memory):
    x = jax.device_put(x, x.sharding.with_memory_kind(memory))
  if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
    return jax.random.key_data(x)
  return x


def _fold(x) -> int:
  """How many rows of `x` are added to one another before the rest.

  A CPU adds rows to rows as fast as it reads them, and sums a column at less
  than half of that. Rows of one shard only: others would have to be sent.
  """
  if x.ndim < 2 or x.size < _LARGE:
    return 1
  rows = x.sharding.shard_shape(x.shape)[-2]
  return max(n for n in range(1, 17) if rows % n == 0)


@functools.partial(jax.jit, static_argnums=1)
def _digest(x, fold: int):
  """The digest of an array of numbers, uint32 [2]; the same for any `fold`."""
  words = _words(x)
  mixed = _mixed(words ^ _places(words.shape, 0))
  if fold > 1 and words.ndim == x.ndim:
    *outer, rows, columns = mixed.shape
    parts = mixed.reshape(*outer, rows // fold, fold, columns)
    mixed = sum(parts[..., i, :] for i in range(fold))
  columns = _sum_all_but_last(mixed)
  return jnp.stack(
    [
      jnp.sum(_mixed(columns ^ _places(columns.shape, lane)), dtype=jnp.uint32)
      ^ jnp.uint32(_hash(f"{x.shape} {x.dtype} {lane}"))
      for lane in (1, 2)
    ]
  )


def _sum_all_but_last(words):
  axes = tuple(range(words.ndim - 1))
  return jnp.sum(jnp.atleast_1d(words), axis=axes, dtype=jnp.uint32)


def _places(shape, lane):
  """A number for each place, as pseudo-random uint32; broadcasts to `shape`."""
  places = jnp.uint32(_hash(f"lane {lane}"))
  # A dimension at a time: the product of all may pass 2^32.
  for axis, size in enumerate(shape):
    along = _mixed(
      jnp.arange(size, dtype=jnp.uint32) ^ jnp.uint32(_hash(f"{lane} {axis}"))
    )
    places = places + along.reshape(
      [size if i == axis else 1 for i in range(len(shape))]
    )
  return places


def _words(x):
  """The bits of each element as uint32, in one more dimension where 64."""
  if x.dtype == jnp.bool_:
    return x.astype(jnp.uint32)
  if jnp.issubdtype(x.dtype, jnp.complexfloating):
    x = jnp.stack([x.real, x.imag], axis=-1)
  if x.dtype.itemsize == 8:
    return jax.lax.bitcast_convert_type(x, jnp.uint32)
  unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
  return jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)


def _mixed(h):
  """A bijection of uint32; MurmurHash3's finaliser (Appleby, 2011)."""
  h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
  h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
  return h ^ (h >> 16)


def _hash(text: str) -> int:
  """32 bits of a text: FNV-1a."""
  h = 2166136261
  for byte in text.encode():
    h = (h ^ byte) * 16777619 % 2**32
  return h
