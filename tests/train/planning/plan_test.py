"""Plans: formulas by hand, figures of compilers, and the command itself."""

import json
import os
import pathlib
import subprocess
import sys
import types

import experiments
import forkserver
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from specs import shapes

from common import errors
from common.leaf import Leaf
from models.vision import resnet
from train import assembly
from train.measuring import flops, hardware
from train.planning import (
  analytic,
  batch_spec,
  collectives,
  compile_ahead,
  roofline,
  search,
  summary,
  topology,
)

pytestmark = pytest.mark.optimized

ROOT = pathlib.Path(__file__).parents[3]


def config_of(name: str, arg: str = "", **settings) -> dict:
  """A complete config; settings are written section_key=value."""
  config = assembly.complete(experiments.config_of(name, arg))
  for key, value in settings.items():
    section, _, inner = key.partition("_")
    if isinstance(config.get(section), dict) and inner:
      config[section][inner] = value
    else:
      config[key] = value
  return config


def small_decoder(**settings):
  config = config_of("lm_stdlib", "smoke", **settings)
  return compile_ahead.experiment(config, jax.devices()[:8])


def test_triples_are_planned_without_their_data():
  parts = compile_ahead.experiment(config_of("transe_umls"), jax.devices()[:8])
  _, state = assembly.state_of(parts)
  assert state.variables.params["entities"].shape == (135, 100)
  assert state.variables.params["relations"].shape == (46, 100)
  wrong = config_of("transe_umls")
  wrong["planned"]["sizes"]["entities"] = "many"
  with pytest.raises(errors.UserError, match="planned.sizes.entities='many'"):
    assembly.complete(wrong)


# Floating-point operations.


def test_a_trace_agrees_with_the_decoders_formula():
  parts = small_decoder(model_dim=32, model_heads=4, model_layers=3)
  B, T, layers, dim = 8, 16, 3, 32
  # Of two products, queries by keys and weights by values, forward and twice
  # that backward, the trace counts the square and the formula the triangle.
  unseen = 2 * 2 * dim * (T * T - T * (T + 1) // 2) * layers * B * 3
  assert flops.traced(parts) - flops.step(parts) == unseen
  # By hand: 12 dim^2 weights a layer and the unembedding, 2 a multiply-add.
  weights = layers * 12 * dim**2 + dim * 256
  pairs = T * (T + 1) // 2
  by_hand = 2 * B * (T * weights + 2 * layers * dim * pairs)
  assert flops.step(parts) == 3 * by_hand


def test_what_is_computed_again_counts_only_when_asked():
  none = small_decoder(model_remat="none", model_scan=True)
  full = small_decoder(model_remat="full", model_scan=True)
  once = flops.traced(none)
  assert flops.traced(full) == once
  assert flops.traced(none, recomputed=True) == once
  # A layer's forward pass again, but for its last product, 4 dim^2 weights,
  # whose result no gradient needs.
  B, T, layers, dim = 8, 16, 2, 16
  layer = 2 * B * T * (8 * dim**2 + 2 * dim * T)
  assert flops.traced(full, recomputed=True) - once == layers * layer


def test_resnet_18_has_the_published_count():
  # torchvision: 1.81 billion multiply-adds at 224 x 224.
  model = resnet.resnet(num_classes=1000, depth=18)
  params, state = jax.eval_shape(model.init, jax.random.key(0))
  image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
  traced = jax.make_jaxpr(lambda *a: model.apply(*a)[0])(params, state, image)
  assert flops.count(traced.jaxpr) / 2 == pytest.approx(1.814e9, rel=1e-3)


def test_a_strided_convolutions_gradient_costs_twice_its_forward():
  def loss(w, x):
    numbers = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(
      x, w, (2, 2), ((1, 1), (1, 1)), dimension_numbers=numbers
    )
    return jnp.sum(y)

  w, x = jnp.ones((3, 3, 4, 6)), jnp.ones((2, 8, 8, 4))
  forward = flops.count(jax.make_jaxpr(loss)(w, x).jaxpr)
  assert forward == 2 * (2 * 4 * 4 * 6) * (3 * 3 * 4)
  both = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(w, x)
  assert flops.count(both.jaxpr) == 3 * forward


def test_ragged_products_count_each_row_once():
  x, w = jnp.ones((12, 5)), jnp.ones((3, 5, 7))
  sizes = jnp.array([2, 4, 6])

  def loss(x, w):
    return jnp.sum(jax.lax.ragged_dot(x, w, sizes))

  forward = flops.count(jax.make_jaxpr(loss)(x, w).jaxpr)
  assert forward == 2 * 12 * 5 * 7
  both = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(x, w)
  assert flops.count(both.jaxpr) == 3 * forward


# Chips, rooflines and machines.


@pytest.mark.parametrize(
  ("kind", "name", "teraflops"),
  [
    ("TPU v4", "v4", 275),
    ("TPU v5 lite", "v5e", 197),
    ("TPU v5", "v5p", 459),
    ("TPU v6 lite", "v6e", 918),
    ("NVIDIA A100-SXM4-80GB", "a100", 312),
    ("NVIDIA H100 80GB HBM3", "h100", 989.4),
    ("NVIDIA H200", "h200", 989.4),
    ("NVIDIA B200", "b200", 2250),
  ],
)
def test_chips_by_the_names_that_jax_gives(kind, name, teraflops):
  chip = hardware.chip(kind)
  assert chip.name == name
  assert chip.peak_flops["bfloat16"] == teraflops * 1e12


@pytest.mark.parametrize("kind", ["cpu", "NVIDIA H100 PCIe", "NVIDIA GH200"])
def test_other_chips_are_unknown(kind):
  assert hardware.chip(kind) is None


def test_the_bound_is_the_greatest_time():
  chip = hardware.CHIPS["v5e"]
  found = roofline.bound(
    chip,
    chips=4,
    dtype="bfloat16",
    model_flops=4 * 197e12,
    executed_flops=4 * 197e12 * 4 / 3,
    hbm_bytes=819e9,
    interconnect={"fsdp": 0.25, "data": 0.25},
  )
  assert found.compute == pytest.approx(4 / 3)
  assert found.hbm == pytest.approx(1)
  assert (found.limit, found.step) == ("compute", found.compute)
  assert found.mfu == pytest.approx(3 / 4)
  run = roofline.whole_run(1.5, 2400, chips=8, watts=250, price=2.0)
  assert run == {"hours": 1, "chip_hours": 8, "kwh": 2, "money": 16}


def device(i, x, y, slice_index=0):
  return types.SimpleNamespace(id=i, coords=(x, y, 0), slice_index=slice_index)


def gather(members, payload=16e9) -> collectives.Collective:
  return collectives.Collective(
    "", "all-gather", ("fsdp",), len(members), payload, 2, tuple(members)
  )


def test_interconnect_of_rings_lines_and_slices():
  v5e = hardware.CHIPS["v5e"]  # 200 GB/s in 4 links: 100 a dimension
  pod = [device(16 * x + y, x, y) for x in range(16) for y in range(16)]

  def seconds(members, devices, host, torus):
    found = roofline.interconnect([gather(members)], v5e, devices, host, torus)
    return found["fsdp"]

  sent = 2 * 16e9  # twice a step
  row, whole = list(range(16)), list(range(256))
  ring = seconds(row, pod, 256, (16, 16))
  assert ring == pytest.approx(sent * 15 / 16 / 100e9)
  # Both dimensions together, and half a ring: a line of 8.
  both = seconds(whole, pod, 256, (16, 16))
  assert both == pytest.approx(sent * 255 / 256 / 200e9)
  line = seconds(row[:8], pod, 256, (16, 16))
  assert line == pytest.approx(sent * 7 / 8 / 50e9)
  # Two slices of four: what crosses goes over the slow network, a fourth each.
  two = [device(i, i % 4 // 2, i % 2, i // 4) for i in range(8)]
  slow = seconds(list(range(8)), two, 4, (2, 2))
  assert slow == pytest.approx(sent / 2 / 4 / v5e.dcn_bandwidth)


def test_hbm_bytes_of_a_text_by_hand():
  text = """HloModule jit_f

%fused (p: f32[4,8], i: s32[]) -> f32[1,8] {
  %p = f32[4,8]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %z = s32[] constant(0)
  ROOT %s = f32[1,8]{1,0} dynamic-slice(%p, %i, %z), dynamic_slice_sizes={1,8}
}

%written (q: f32[4,8], row: f32[1,8], j: s32[]) -> f32[4,8] {
  %q = f32[4,8]{1,0} parameter(0)
  %row = f32[1,8]{1,0} parameter(1)
  %j = s32[] parameter(2)
  %o = s32[] constant(0)
  ROOT %u = f32[4,8]{1,0} dynamic-update-slice(%q, %row, %j, %o)
}

ENTRY %main (a: f32[4,8], k: s32[]) -> f32[4,8] {
  %a = f32[4,8]{1,0} parameter(0)
  %k = s32[] parameter(1)
  %cut = f32[1,8]{1,0} fusion(%a, %k), kind=kLoop, calls=%fused
  %near = f32[1,8]{1,0:T(8,128)S(1)} negate(%cut)
  %far = f32[1,8]{1,0} exponential(%near)
  ROOT %put = f32[4,8]{1,0} fusion(%a, %far, %k), kind=kLoop, calls=%written
}
"""
  row, index = 8 * 4, 4
  reads = (row + index) + row + 0 + (row + index)
  writes = row + 0 + row + row  # `near` lives in the memory on the chip
  assert roofline.hbm_bytes(text) == reads + writes


@pytest.mark.parametrize(
  ("text", "said"),
  [
    ("h1oo:8x8", 'did you mean "h100"'),
    ("v5e", "not CHIP:SIZE"),
    ("v5e:4x4x4", "2 sizes"),
    ("v5e:32x32", "at most 256"),
    ("v5p:4x4", "3 sizes"),
    ("h100:2x8x2", "HOSTSxGPUS"),
    ("cpu:0", "a size is 0"),
    ("cpu:512", "8 CPU devices"),
  ],
)
def test_mistyped_topologies(text, said):
  with pytest.raises(errors.UserError, match="--topology") as error:
    topology.find(text)
  assert said in str(error.value)
  assert "\n" not in str(error.value)


# Data that is not there.


def test_fake_data_is_planned_as_it_is():
  config = config_of("resnet_cifar10", "smoke")
  from input_pipeline.batching import pipeline

  real = pipeline.train(**config["data"], batch_size=8, seed=0)
  planned = batch_spec.of_config(config)
  assert shapes(planned.spec) == shapes(real.spec)
  assert planned.num_classes == real.num_classes


def test_the_batches_of_other_data_by_a_fake_source_of_its_fields():
  pytest.importorskip("tensorflow")
  spec = batch_spec.of_config(config_of("digits_fsdd")).spec
  assert spec["audio"] == Leaf((96, 40), np.dtype("f4"), ("frame", "feature"))
  for name, size in (
    ("deeplab_cityscapes", 769),
    ("stylegan2_ffhq256", 256),
    ("faster_rcnn_r50_coco", 1088),
  ):
    spec = batch_spec.of_config(config_of(name)).spec
    assert spec["image"].shape == (size, size, 3)


def test_the_batches_of_text_and_images_by_their_config():
  spec = batch_spec.of_config(config_of("gpt2_124m")).spec
  real = {  # input_pipeline/batching/pipeline.py
    "inputs": ((1024,), np.int32),
    "targets": ((1024,), np.int32),
    "mask": ((1024,), np.float32),
    "bytes": ((), np.float32),
    "index": ((), np.int32),
  }
  assert shapes(spec) == {k: (s, np.dtype(d)) for k, (s, d) in real.items()}
  for name, size, classes in (
    ("resnet50_imagenet", (224, 224, 3), 1000),
    ("vit_l16_imagenet", (224, 224, 3), 1000),
    ("resnet_cifar10", (32, 32, 3), 10),
    ("conv_fashion_mnist", (28, 28, 1), 10),
  ):
    data = batch_spec.of_config(config_of(name))
    assert data.spec["image"][0] == size
    assert data.num_classes == classes


@pytest.mark.parametrize(
  "ops",
  [
    "drop_tokens|swap_tokens",
    "mask_tokens",
    "span_corruption",
    "span_corruption(0.5, mean_span=2.0)",
    "blank_infilling",
    "blank_infilling(0.5, mean_span=2.0, long=0.1)",
    "trailing_blank",
  ],
)
def test_windows_after_ops_are_planned_as_they_are(ops):
  pytest.importorskip("tensorflow")
  from input_pipeline.batching import pipeline

  config = config_of("gpt2_124m")
  config["data"] = dict(tokenizer="byte", seq_len=60, ops=ops)
  real = pipeline.train(**config["data"], source="fake:text", batch_size=8)
  config["data"]["source"] = "text:/nowhere/*.txt"
  assert shapes(batch_spec.of_config(config).spec) == shapes(real.spec)
  assert batch_spec.vocabulary(config) == real.tokenizer.vocab_size


@pytest.mark.parametrize(
  "name", ["bert_base", "bert_small", "cls_sst2_vectors"]
)
def test_rows_are_planned_as_they_are(name):
  pytest.importorskip("tensorflow")
  from input_pipeline.batching import pipeline

  config = config_of(name, "smoke")
  real = pipeline.train(**config["data"], batch_size=8)
  config["data"]["source"] = "text:/nowhere/*.txt"
  planned = batch_spec.of_config(config)
  assert shapes(planned.spec) == shapes(real.spec)
  assert planned.num_classes == real.num_classes
  assert batch_spec.vocabulary(config) == real.tokenizer.vocab_size


def test_mixed_labels_are_planned_as_shares():
  pytest.importorskip("tensorflow")
  from input_pipeline.batching import pipeline

  config = config_of("resnet_cifar10")
  config["data"]["ops"] += "|cutmix"
  source = "fake:image?size=32&channels=3&dtype=uint8"
  real = pipeline.train(source=source, ops=config["data"]["ops"], batch_size=8)
  assert shapes(batch_spec.of_config(config).spec) == shapes(real.spec)


def test_a_packed_mixture_is_planned_as_it_is():
  config = config_of("gpt2_124m")
  sources = ("fake:text?documents=90", "fake:text?seed=1")
  config["data"] = dict(tokenizer="byte", seq_len=1024, packing=True)
  mixtures = [
    [dict(source=uri.replace(old, new)) for uri in sources]
    for old, new in (("", ""), ("fake:text", "text:/nowhere/*.txt"))
  ]
  from input_pipeline.batching import pipeline

  real = pipeline.train(**config["data"], mixture=mixtures[0], batch_size=8)
  for mixture in mixtures:
    config["data"]["mixture"] = mixture
    assert shapes(batch_spec.of_config(config).spec) == shapes(real.spec)
  config["data"]["source"] = "fake:text"
  with pytest.raises(errors.UserError, match="config.data: .* both are given"):
    batch_spec.of_config(config)


def test_what_a_config_does_not_tell_is_asked_for():
  config = config_of("resnet_cifar10", data_ops="decode(3)|flip")
  with pytest.raises(errors.UserError, match="image_size"):
    batch_spec.of_config(config)
  config = config_of("lm_shakespeare")  # its characters are not known
  with pytest.raises(errors.UserError, match="vocab_size"):
    compile_ahead.experiment(config, jax.devices()[:1])


# Memory.


def test_parameters_and_moments_fall_as_one_over_n():
  held = []
  for devices in (1, 2, 4, 8):
    config = config_of(
      "llama_1b", model_layers=8, batch_size=8, mesh={"fsdp": -1}
    )
    where = topology.find(f"h100:1x{devices}")
    parts = compile_ahead.experiment(config, where.devices)
    _, state = assembly.state_of(parts)
    held.append(compile_ahead.held(state))
  params = jax.tree.leaves(state.variables.params)
  count = sum(x.size for x in params)
  assert held[0] == pytest.approx(3 * 4 * count, rel=1e-6)
  for i, n in enumerate((1, 2, 4, 8)):
    assert held[i] == pytest.approx(held[0] / n, rel=1e-6)


def test_what_the_compiler_says_of_too_little_memory():
  memory, largest = compile_ahead.exhausted(
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required"
    " for HLO temporaries (20.50G) exceeds available HBM (15.75G).",
    arguments=2**30,
  )
  assert memory.temporaries == 20.5 * 2**30
  assert memory.peak == 21.5 * 2**30
  assert memory.limit == 15.75 * 2**30
  assert largest == []
  memory, largest = compile_ahead.exhausted(
    """RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 17.50G of
15.75G hbm. Exceeded hbm capacity by 1.75G.
  Largest program allocations in hbm:

  1. Size: 4.00G
     Operator: op_name="jit(step)/jvp()/dot_general" source_file="x.py"
     Shape: f32[32768,32768]{1,0:T(8,128)}
     Unpadded size: 4.00G
     Allocation type: HLO temp
     ==========================

  2. Size: 512.00M
     Shape: bf16[16384,16384]{1,0:T(8,128)(2,1)}
""".replace("of\n", "of "),
    arguments=2**30,
  )
  assert memory.peak == 17.5 * 2**30
  assert [t.nbytes for t in largest] == [4 * 2**30, 512 * 2**20]
  assert largest[0].shape == "f32[32768,32768]"
  assert largest[0].operation == "jit(step)/jvp()/dot_general"


def test_what_the_backward_pass_keeps_by_remat_policy():
  def kept(remat):
    parts = small_decoder(
      model_remat=remat, model_scan=True, model_layers=4, data_seq_len=32
    )
    return sum(x.size * x.dtype.itemsize for x in analytic.residuals(parts))

  everything, layers_inputs = kept("none"), kept("full")
  assert everything > 2 * layers_inputs
  B, T, D, L = 8, 32, 16, 4
  assert layers_inputs > L * B * T * D * 4


def test_a_gpu_plan_is_by_formula_and_says_so():
  config = config_of(
    "lm_stdlib",
    "smoke",
    mesh={"data": 2, "fsdp": -1},
    sharding=[[".*", "fsdp"]],
  )
  where = topology.find("h100:2x4")
  figures = summary.plan(config, where, watts=500, price=3.0)
  assert figures["by"] == "formula"
  assert figures["fits"]
  params = figures["parameters"]
  table = figures["collectives"]
  # bfloat16, forward and backward; float32 gradients of a fourth, twice data.
  assert table["fsdp"]["all-gather"]["bytes"] == 2 * 2 * params
  assert table["data"]["all-reduce"]["bytes"] == 4 * params / 4
  run = figures["run"]
  assert run["kwh"] == pytest.approx(run["chip_hours"] * 0.5)
  assert run["money"] == pytest.approx(run["chip_hours"] * 3)
  assert run["watts_are"] == "given"
  assert json.loads(json.dumps(figures)) == figures


@pytest.mark.slow
def test_search_ranks_those_that_fit_by_their_bound():
  config = config_of("lm_stdlib", "smoke", batch_size=64)
  where = topology.find("h100:1x8")
  said = []
  rows = search.search(config, where, 6, said.append)
  assert len(rows) == 6
  assert all(row["fits"] for row in rows)
  seconds = [row["step_seconds"] for row in rows]
  assert seconds == sorted(seconds)
  assert all("config." in row["knob"] for row in rows)
  assert said


@pytest.mark.slow
def test_every_knob_is_tried():
  config = config_of("llama_8b", mesh={"data": -1}, sharding=[])
  config["model"].update(layers=2, remat="none")
  where = topology.find("a100:1x8")
  figures = summary.plan(config, where)
  assert not figures["fits"]
  assert figures["largest"]
  rows = search.tried(config, where, lambda line: None)
  peaks = {row["knob"]: row["memory"]["peak"] for row in rows}
  before = figures["memory"]["peak"]
  assert peaks["config.model.remat = 'full'"] < before
  together = list(peaks.values())[-1]
  assert together == min(peaks.values())


# The command.


def plan(*arguments) -> subprocess.CompletedProcess:
  environment = {**os.environ, "PYTHONPATH": str(ROOT)}
  environment.pop("XLA_FLAGS", None)
  return forkserver.run(
    [sys.executable, "-m", "train.plan", *arguments],
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
  )


@pytest.mark.slow
def test_the_command_prints_one_json_object():
  done = plan(
    "--config=configs/language/lm_stdlib.py:smoke", "--topology=cpu:4", "--json"
  )
  assert done.returncode == 0, done.stderr
  figures = json.loads(done.stdout)
  assert figures["devices"] == 4
  assert figures["mesh"] == {"data": 4}
  assert figures["by"] == "the compiler"
  memory = figures["memory"]
  # Float32 parameters and two moments; a batch of 8 rows over 4 devices.
  state = 3 * 4 * figures["parameters"]
  assert state < memory["arguments"] < state + 2000
  assert memory["aliased"] >= state
  table = figures["collectives"]
  assert list(table) == ["data"]
  assert table["data"]["all-reduce"]["bytes"] >= 4 * figures["parameters"]
  assert figures["flops"]["model"] > 0


def test_wrong_arguments_are_one_line():
  for wrong, said in (
    (["--topology=h1oo:8x8"], "h100"),
    (["--topology=cpu:3"], "config.batch_size"),
    ([], "--topology is missing"),
  ):
    done = plan("--config=configs/language/lm_stdlib.py:smoke", *wrong)
    assert done.returncode == 2
    errors_said = done.stderr.strip().splitlines()
    assert errors_said[-1].startswith("error: ")
    assert said in errors_said[-1]
    assert "Traceback" not in done.stderr


def test_a_tpu_program_without_a_tpu():
  pytest.importorskip("libtpu")
  done = plan(
    "--config=configs/textbook/linear_regression.py",
    "--topology=v5e:2x2",
    "--json",
  )
  assert done.returncode == 0, done.stderr
  figures = json.loads(done.stdout)
  assert figures["chip"] == "v5e"
  assert figures["by"] == "the compiler"
  assert figures["devices"] == 4
  sums = figures["collectives"]["data"]["all-reduce"]
  assert sums["bytes"] >= 4 * figures["parameters"]
  assert figures["roofline"]["step_seconds"] > 0
