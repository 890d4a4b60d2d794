"""Digests of arrays: 64 bits that detect a change of any element.

The bits of each element are mixed with its position in the array and summed
modulo 2^32 over all dimensions but the last. The sums are mixed and summed in
the same way, twice with different constants. Integer sums are exact in any
order, so a digest does not depend on the devices that hold the array: it is
computed where the array is, and can be compared on another mesh.

A change of one element is always detected, since the mixing is a bijection.
Changes of several elements cancel with a probability of about 2^-32. Digests
detect errors; they do not protect against an adversary, who can compute them
too.
"""

import functools

import jax
import jax.numpy as jnp

from train.types import PyTree

# The number of elements above which summing takes longer than compiling.
_LARGE = 2**18
# Larger arrays are summed in blocks, whose size bounds the temporary memory.
_MOST_AT_ONCE, _BLOCK = 2**24, 2**22  # bytes


def of(tree: PyTree) -> dict[str, str]:
  """Returns {path of a leaf: 16 hex digits}; every process must call it."""
  leaves = named(tree)
  # One program per shape: compiling one for all leaves takes seconds on a CPU.
  # On a CPU they run one at a time, since concurrent ones may block each other.
  serial = jax.default_backend() == "cpu"
  found = []
  for _, leaf in leaves:
    x = _numbers(leaf)
    found.append(_digest(x, _fold(x), _block(x)))
    if serial:
      found[-1].block_until_ready()
  found = jax.device_get(found)
  return {
    path: "".join(f"{int(part):08x}" for part in digest)
    for (path, _), digest in zip(leaves, found, strict=True)
  }


def named(tree: PyTree) -> list[tuple[str, jax.Array]]:
  """Returns (path, leaf) of each leaf, such as ("variables/params/w", …)."""
  return [
    (path_of(path), leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  ]


def path_of(keys: tuple) -> str:
  """Returns a key path of jax.tree_util as "variables/params/w"."""
  return jax.tree_util.keystr(keys, simple=True, separator="/")


def differing(found: dict[str, str], wanted: dict[str, str]) -> list[str]:
  """Returns the sorted paths with different or missing digests."""
  return sorted(
    path
    for path in found.keys() | wanted.keys()
    if found.get(path) != wanted.get(path)
  )


def _numbers(x):
  """Returns the array in device memory, and random keys as their data."""
  x = jnp.asarray(x)
  memory = next(iter(x.sharding.device_set)).default_memory().kind
  if x.sharding.memory_kind not in (None, memory):
    x = jax.device_put(x, x.sharding.with_memory_kind(memory))
  if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
    return jax.random.key_data(x)
  return x


def _fold(x) -> int:
  """Returns how many rows of `x` are added before the columns are summed.

  A CPU adds rows at the speed of its memory, but sums columns at less than half
  that speed. Only rows of the same shard are added, which needs no
  communication.
  """
  if x.ndim < 2 or x.size < _LARGE:
    return 1
  return _divisor(x.sharding.shard_shape(x.shape)[-2])


def _divisor(rows: int) -> int:
  """Returns the largest divisor of at most 16."""
  return max(n for n in range(1, 17) if rows % n == 0)


def _block(x) -> int:
  """Returns how many entries of the first axis are summed at a time.

  The result is 0 for arrays that are summed at once: small ones, and those of
  accelerators or several devices, whose compiler needs no temporary memory.
  """
  (device, *more) = x.sharding.device_set
  if more or device.platform != "cpu" or x.nbytes <= _MOST_AT_ONCE:
    return 0
  if x.ndim < 2:
    return 0
  entries = max(1, _BLOCK * x.shape[0] // x.nbytes)
  if x.ndim == 2:  # a multiple of what `_fold` adds
    entries = -(-entries // 16) * 16
  return entries if entries < x.shape[0] else 0


@functools.partial(jax.jit, static_argnums=(1, 2))
def _digest(x, fold: int, block: int = 0):
  """The digest of an array, uint32 [2]; it depends on neither integer."""
  if block:
    count = x.shape[0] // block
    fold = _divisor(x.shape[-2] if x.ndim > 2 else block)

    def add(i, total):
      part = jax.lax.dynamic_slice_in_dim(x, i * block, block)
      return total + _columns(part, fold, i * block)

    columns = jax.lax.fori_loop(1, count, add, _columns(x[:block], fold))
    if x.shape[0] % block:
      rest = x[count * block :]
      columns += _columns(rest, fold if x.ndim > 2 else 1, count * block)
  else:
    columns = _columns(x, fold)
  return jnp.stack(
    [
      jnp.sum(_mixed(columns ^ _places(columns.shape, lane)), dtype=jnp.uint32)
      ^ jnp.uint32(_hash(f"{x.shape} {x.dtype} {lane}"))
      for lane in (1, 2)
    ]
  )


def _columns(x, fold: int, first=0):
  """The sums over all axes but the last; `first` is the place of x[0]."""
  words = _words(x)
  mixed = _mixed(words ^ _places(words.shape, 0, first))
  if fold > 1 and words.ndim == x.ndim:
    *outer, rows, columns = mixed.shape
    parts = mixed.reshape(*outer, rows // fold, fold, columns)
    mixed = sum(parts[..., i, :] for i in range(fold))
  return _sum_all_but_last(mixed)


def _sum_all_but_last(words):
  axes = tuple(range(words.ndim - 1))
  return jnp.sum(jnp.atleast_1d(words), axis=axes, dtype=jnp.uint32)


def _places(shape, lane, first=0):
  """A pseudo-random uint32 for each position; broadcasts to `shape`.

  `first` is the position of the first entry along the first axis.
  """
  places = jnp.uint32(_hash(f"lane {lane}"))
  # One dimension at a time, since their product may exceed 2^32.
  for axis, size in enumerate(shape):
    along = _mixed(
      (jnp.arange(size, dtype=jnp.uint32) + jnp.uint32(0 if axis else first))
      ^ jnp.uint32(_hash(f"{lane} {axis}"))
    )
    places = places + along.reshape(
      [size if i == axis else 1 for i in range(len(shape))]
    )
  return places


def _words(x):
  """The bits of each element as uint32; 64 bits add a dimension."""
  if x.dtype == jnp.bool_:
    return x.astype(jnp.uint32)
  if jnp.issubdtype(x.dtype, jnp.complexfloating):
    x = jnp.stack([x.real, x.imag], axis=-1)
  if x.dtype.itemsize == 8:
    return jax.lax.bitcast_convert_type(x, jnp.uint32)
  unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
  return jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)


def _mixed(h):
  """A bijection of uint32: the finalizer of MurmurHash3 (Appleby, 2011)."""
  h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
  h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
  return h ^ (h >> 16)


def _hash(text: str) -> int:
  """A 32-bit hash of a text: FNV-1a."""
  h = 2166136261
  for byte in text.encode():
    h = (h ^ byte) * 16777619 % 2**32
  return h
