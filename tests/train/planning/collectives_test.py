"""Bytes of collectives: of a text by hand, of programs with known theory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from train.planning import collectives, hlo

pytestmark = pytest.mark.optimized

MESH = {"data": 2, "fsdp": 4}
# Two loops, one with its count noted and one with a condition to read, each
# collective once in some form that a compiler prints.
TEXT = """HloModule jit_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%condition.1 (state: (s32[], bf16[8,128])) -> pred[] {
  %limit = s32[]{:T(128)} constant(5)
  %state = (s32[]{:T(128)}, bf16[8,128]{1,0:T(8,128)(2,1)}) parameter(0)
  %index = s32[]{:T(128)} get-tuple-element(%state), index=0
  ROOT %less = pred[]{:T(512)} compare(%index, %limit), direction=LT
}

%all-reduce-scatter.7 (input: bf16[16,128]) -> bf16[4,128] {
  %input = bf16[16,128]{1,0:T(8,128)(2,1)} parameter(0)
  %all-reduce.1 = bf16[16,128]{1,0} all-reduce(%input), channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}, use_global_device_ids=true, to_apply=%add
  %zero = u32[] constant(0)
  ROOT %part = bf16[4,128]{1,0} dynamic-slice(%all-reduce.1, %zero, %zero), dynamic_slice_sizes={4,128}
}

%chained.1 (p: bf16[2,128]) -> bf16[8,128] {
  %p = bf16[2,128]{1,0} parameter(0)
  ROOT %all-gather.8 = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} all-gather(%p), channel_id=8, replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, dimensions={0}, frontend_attributes={chain_id="6"}
}

%chained.2 (p.1: bf16[2,128]) -> bf16[8,128] {
  %p.1 = bf16[2,128]{1,0} parameter(0)
  ROOT %all-gather.9 = bf16[8,128]{1,0} all-gather(%p.1), channel_id=8, replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, dimensions={0}, frontend_attributes={chain_id="6"}
}

%body.1 (state.1: (s32[], bf16[8,128])) -> (s32[], bf16[8,128]) {
  %state.1 = (s32[], bf16[8,128]{1,0}) parameter(0)
  %index.1 = s32[] get-tuple-element(%state.1), index=0
  %x.1 = bf16[8,128]{1,0} get-tuple-element(%state.1), index=1
  %kernel = bf16[16,128]{1,0} custom-call(%x.1), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
"xprof_metadata":"{(block_q: 1024}"
}}, metadata={op_name="x"}
  %scattered = bf16[4,128]{1,0} fusion(%kernel), kind=kCustom, calls=%all-reduce-scatter.7
  %shard = bf16[2,128]{1,0} slice(%scattered), slice={[0:2], [0:128]}
  %start = bf16[8,128]{1,0} fusion(%shard), kind=kCustom, calls=%chained.1
  %going = bf16[8,128]{1,0} fusion(%shard), kind=kOutput, calls=%chained.2
  ROOT %next = (s32[], bf16[8,128]{1,0}) tuple(%index.1, %going)
}

%body.2 (state.2: (s32[], f32[8])) -> (s32[], f32[8]) {
  %state.2 = (s32[], f32[8]{0}) parameter(0)
  %index.2 = s32[] get-tuple-element(%state.2), index=0
  %x.2 = f32[8]{0} get-tuple-element(%state.2), index=1
  %sent = (f32[8]{0}, f32[8]{0}, u32[], u32[]) collective-permute-start(%x.2), channel_id=4, source_target_pairs={{0,1},{1,2},{2,3},{3,0},{4,5},{5,6},{6,7},{7,4}}
  %received = f32[8]{0} collective-permute-done(%sent)
  ROOT %next.2 = (s32[], f32[8]{0}) tuple(%index.2, %received)
}

%condition.2 (state.3: (s32[], f32[8])) -> pred[] {
  %state.3 = (s32[], f32[8]{0}) parameter(0)
  ROOT %always = pred[] constant(true)
}

ENTRY %main (w: bf16[8,128], v: f32[8]) -> f32[8] {
  %w = bf16[8,128]{1,0} parameter(0)
  %v = f32[8]{0} parameter(1)
  %c = s32[] constant(0)
  %init.1 = (s32[], bf16[8,128]{1,0}) tuple(%c, %w)
  %while.1 = (s32[], bf16[8,128]{1,0}) while(%init.1), condition=%condition.1, body=%body.1
  %init.2 = (s32[], f32[8]{0}) tuple(%c, %v)
  %while.2 = (s32[], f32[8]{0}) while(%init.2), condition=%condition.2, body=%body.2, backend_config={"known_trip_count":{"n":"3"}}
  %many = (f32[8]{0}, f32[8]{0}) all-reduce(%v, %v), channel_id=2, replica_groups=[4,2]<=[2,4]T(1,0), use_global_device_ids=true, to_apply=%add
  %exchanged = f32[8]{0} all-to-all(%v), channel_id=3, replica_groups=[1,8]<=[8], dimensions={0}
  ROOT %out = f32[8]{0} get-tuple-element(%while.2), index=1
}
"""  # noqa: E501


def test_a_text_by_hand():
  found = {c.name: c for c in collectives.of_program(TEXT, MESH)}
  # By hand: bytes of the whole tensor, and how often it is exchanged.
  expected = {
    "all-reduce.1": ("reduce-scatter", ("fsdp",), 4, 16 * 128 * 2, 5),
    "all-gather.8": ("all-gather", ("fsdp",), 4, 8 * 128 * 2, 5),
    "sent": ("collective-permute", ("fsdp",), 2, 8 * 4, 3),
    "many": ("all-reduce", ("data",), 2, 2 * 8 * 4, 1),
    "exchanged": ("all-to-all", ("data", "fsdp"), 8, 8 * 4, 1),
  }
  assert {n: tuple(c)[1:6] for n, c in found.items()} == expected
  assert found["all-gather.8"].sent == 3 / 4 * 8 * 128 * 2
  assert found["many"].sent == 2 * 1 / 2 * 64
  table = collectives.by_axis(list(found.values()))
  assert table["fsdp"]["all-gather"] == {
    "count": 5,
    "bytes": 5 * 2048,
    "sent_bytes": 5 * 1536,
  }


@pytest.mark.parametrize(
  ("attributes", "groups"),
  [
    ("replica_groups={{0,2},{1,3}}", [[0, 2], [1, 3]]),
    ("replica_groups={}", [[0, 1, 2, 3, 4, 5, 6, 7]]),
    ("replica_groups=[2,4]<=[8]", [[0, 1, 2, 3], [4, 5, 6, 7]]),
    (
      "replica_groups=[4,2]<=[2,4]T(1,0)",
      [[0, 4], [1, 5], [2, 6], [3, 7]],
    ),
    (
      "replica_groups=mesh['a'=2,'b'=4] {'a'}",
      [[0, 4], [1, 5], [2, 6], [3, 7]],
    ),
    (
      "replica_groups=mesh['a'=1,'b'=4,'c'=2], device_ids=([2,4]T(1,0)) {'b'}",
      [[0, 1, 2, 3], [4, 5, 6, 7]],
    ),
    (
      "replica_groups=mesh['a'=8] {'a':(2)4}",
      [[0, 1, 2, 3], [4, 5, 6, 7]],
    ),
    ("replica_groups=mesh['a'=8] {'a':(1)2}", [[0, 4], [1, 5], [2, 6], [3, 7]]),
  ],
)
def test_every_spelling_of_groups(attributes, groups):
  assert collectives.replica_groups(attributes, MESH) == groups


def mesh_of(**axes) -> Mesh:
  devices = np.array(jax.devices()[:8]).reshape(tuple(axes.values()))
  return Mesh(devices, tuple(axes))


def compiled_gradient(mesh, weights, batch, loss):
  """The text of the gradient by weights, which keep their own sharding."""

  def struct(shape, spec):
    sharding = NamedSharding(mesh, P(*spec))
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)

  w, x = struct(*weights), struct(*batch)
  gradient = jax.jit(jax.grad(loss), out_shardings=w.sharding)
  return gradient.lower(w, x).compile().as_text()


def test_data_parallel_gradients_are_summed_once():
  mesh = mesh_of(data=8)
  text = compiled_gradient(
    mesh,
    ((16, 32), ()),
    ((64, 16), ("data",)),
    lambda w, x: jnp.sum(jnp.square(x @ w)),
  )
  table = collectives.by_axis(collectives.of_program(text, {"data": 8}))
  assert list(table) == ["data"]
  assert list(table["data"]) == ["all-reduce"]
  assert table["data"]["all-reduce"]["bytes"] == 4 * 16 * 32
  assert table["data"]["all-reduce"]["sent_bytes"] == 2 * 7 / 8 * 4 * 16 * 32


def test_sharded_weights_are_gathered_in_every_turn_of_a_scan():
  layers, dim = 5, 16

  def loss(w_LDD, x_BD):
    def layer(x_BD, w_DD):
      w_DD = jax.lax.with_sharding_constraint(w_DD, NamedSharding(mesh, P()))
      return jnp.tanh(x_BD @ w_DD), None

    layer = jax.checkpoint(layer, prevent_cse=False)
    return jnp.sum(jax.lax.scan(layer, x_BD, w_LDD)[0])

  mesh = mesh_of(data=2, fsdp=4)
  text = compiled_gradient(
    mesh,
    ((layers, dim, dim), (None, "fsdp")),
    ((64, dim), (("data", "fsdp"),)),
    loss,
  )
  shape = {"data": 2, "fsdp": 4}
  table = collectives.by_axis(collectives.of_program(text, shape))
  # Gathered for the forward pass and again for the backward one.
  assert table["fsdp"]["all-gather"]["bytes"] == 2 * 4 * layers * dim * dim
  gathered = table["fsdp"]["all-gather"]
  assert gathered["sent_bytes"] == 3 / 4 * gathered["bytes"]
  summed = [
    row["bytes"]
    for axis in table
    for kind, row in table[axis].items()
    if kind in ("all-reduce", "reduce-scatter") and "data" in axis
  ]
  assert sum(summed) >= 4 * layers * dim * dim / 4


def test_how_often_computations_run():
  program = hlo.parse(TEXT)
  times = {name: n for name, n, _ in hlo.executed(program)}
  assert times["body.1"] == times["chained.1"] == 5
  assert times["body.2"] == 3
  assert times["main"] == 1
  assert "add" not in times
  with pytest.raises(ValueError, match="ENTRY"):
    hlo.parse("HloModule nothing\n")
