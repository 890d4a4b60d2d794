"""Digests see every change, and nothing but changes."""

import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from train import sharding
from train.checkpointing import digests

DTYPES = [
  *(np.float32, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn),
  *(np.int32, np.uint8, np.int16, np.bool_, np.complex64),
]


def by_hand(x: np.ndarray) -> str:
  """The digest of an array of 32-bit elements, in NumPy."""

  def fnv(text):
    h = 2166136261
    for byte in text.encode():
      h = ((h ^ byte) * 16777619) & 0xFFFFFFFF
    return np.uint32(h)

  def mixed(h):
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return h ^ (h >> np.uint32(16))

  def places(shape, lane):
    total = np.full(shape, fnv(f"lane {lane}"), np.uint32)
    for index in np.ndindex(*shape):
      for axis, i in enumerate(index):
        here = mixed(np.array(i, np.uint32) ^ fnv(f"{lane} {axis}"))
        total[index] += here
    return total

  with np.errstate(over="ignore"):
    words = mixed(x.view(np.uint32) ^ places(x.shape, 0))
    axes = tuple(range(x.ndim - 1))
    columns = words.sum(axis=axes, dtype=np.uint32)
    parts = [
      mixed(columns ^ places(columns.shape, lane)).sum(dtype=np.uint32)
      ^ fnv(f"{x.shape} {x.dtype} {lane}")
      for lane in (1, 2)
    ]
  return "".join(f"{int(part):08x}" for part in parts)


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4), (4, 1)])
def test_the_formula(shape):
  x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
  assert digests.of({"x": x}) == {"x": by_hand(x)}


@pytest.mark.parametrize("shape, block", [((7, 4, 6), 3), ((37, 5), 16)])
def test_large_arrays_are_summed_in_blocks(shape, block):
  x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
  found = digests._digest(jnp.asarray(x), 1, block)
  assert "".join(f"{int(part):08x}" for part in found) == by_hand(x)


@pytest.mark.parametrize("shape", [(32, 3), (2, 14, 5), (3, 17, 2), (12, 1)])
def test_the_formula_of_what_is_large(shape, monkeypatch):
  """Rows that are added to rows first: 16, 14, none, 12."""
  x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
  monkeypatch.setattr(digests, "_LARGE", 0)
  rows = shape[-2]
  assert digests._fold(jnp.asarray(x)) == {32: 16, 17: 1}.get(rows, rows)
  assert digests.of({"x": x}) == {"x": by_hand(x)}


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
def test_every_flipped_bit_is_seen(dtype):
  shape = (3, 5)
  size = np.dtype(dtype).itemsize
  rng = np.random.default_rng(1)
  data = rng.integers(0, 2 if dtype is np.bool_ else 256, (15 * size,))
  data = data.astype(np.uint8)
  found = {digests.of([data.view(dtype).reshape(shape)])["0"]}
  bits = [0] if dtype is np.bool_ else range(8)
  for byte in range(0, len(data), 1 if size < 4 else 3):
    for bit in bits:
      data[byte] ^= 1 << bit
      found.add(digests.of([data.view(dtype).reshape(shape)])["0"])
      data[byte] ^= 1 << bit
  assert len(found) == 1 + len(range(0, len(data), 1 if size < 4 else 3)) * (
    len(bits)
  )


def test_changes_of_many_elements_are_seen():
  """Also those that a sum of bits would miss."""
  x = np.random.default_rng(2).normal(size=(64, 64)).astype(np.float32)
  changed = [
    x,
    -x,
    x.T,
    x[::-1],
    np.roll(x, 1, 1),
    np.where(np.arange(64) < 2, -x, x),  # two signs a row
    np.where(np.arange(64)[:, None] < 2, -x, x),
    np.zeros_like(x),
    x.reshape(32, 128),
    x.view(np.int32),
    x[:, [1, 0, *range(2, 64)]],
  ]
  found = [digests.of([np.ascontiguousarray(c)])["0"] for c in changed]
  assert len(set(found)) == len(changed)


def test_zeros_and_nan_have_bits_too():
  nan = np.array([0x7FC00000, 0x7FC00001], np.uint32).view(np.float32)
  zero = np.array([0.0, -0.0], np.float32)
  for pair in (nan, zero):
    a, b = (digests.of([pair[i : i + 1]])["0"] for i in (0, 1))
    assert a != b


@pytest.mark.parametrize("large", [0, 2**18])
def test_it_does_not_depend_on_the_devices(large, monkeypatch):
  mesh = sharding.make_mesh({"fsdp": 4, "tensor": 2})
  x = np.random.default_rng(3).normal(size=(8, 6, 4)).astype(np.float32)
  expected = digests.of({"x": x})
  monkeypatch.setattr(digests, "_LARGE", large)
  for spec in (
    ("fsdp",),
    (None, "tensor"),
    (("fsdp", "tensor"),),
    ("fsdp", None, "tensor"),
  ):
    placed = jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))
    assert digests.of({"x": placed}) == expected


def test_no_rows_of_an_array_are_sent_to_another_device(monkeypatch):
  monkeypatch.setattr(digests, "_LARGE", 0)
  mesh = sharding.make_mesh({"fsdp": 4, "tensor": 2})
  for shape, fold in (((48, 64), 12), ((36, 64), 9), ((20, 64), 5)):
    x = jax.device_put(
      np.ones(shape, np.float32),
      NamedSharding(mesh, PartitionSpec("fsdp", "tensor")),
    )
    assert digests._fold(x) == fold
    program = digests._digest.lower(x, fold).compile().as_text()
    collectives = re.findall(r"(all-\w+|collective-\w+)\(", program)
    assert set(collectives) == {"all-reduce"}  # of the sums of columns


def test_names_and_keys():
  tree = {"a": (jnp.zeros(2), {"b": jax.random.key(3)}), "c": jnp.int32(4)}
  found = digests.of(tree)
  assert list(found) == ["a/0", "a/1/b", "c"]
  other = {**tree, "a": (jnp.zeros(2), {"b": jax.random.key(4)})}
  assert digests.differing(found, digests.of(other)) == ["a/1/b"]
  assert digests.differing(found, {"c": found["c"]}) == ["a/0", "a/1/b"]
