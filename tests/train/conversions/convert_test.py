import hashlib
import json
import re
import tracemalloc

import forkserver
import jax
import numpy as np
import pytest
import safetensors_by_hand as by_hand

from common.errors import UserError
from common.names import find
from models.layers import attention
from models.vision.vit import vit
from train import build, trained
from train.checkpointing import checkpoint
from train.conversions.dinov2 import dinov2
from train.conversions.parts import family, layout, runs, weights


@pytest.fixture
def gpt2(tmp_path):
  return by_hand.folder(tmp_path / "gpt2", by_hand.GPT2, by_hand.gpt2())


@pytest.fixture
def llama(tmp_path):
  return by_hand.folder(tmp_path / "llama", by_hand.LLAMA, by_hand.llama())


def model_of(found):
  settings = {k: v for k, v in found.model.items() if k != "name"}
  return find("models", found.model["name"], "model")(**settings)


def changed(folder, **keys):
  """The folder, whose config.json has these keys."""
  config = json.loads((folder / "config.json").read_text())
  (folder / "config.json").write_text(json.dumps({**config, **keys}))
  return folder


def refused(path, *, sha256=None) -> str:
  """The one line with which the folder is refused."""
  with pytest.raises(UserError) as error:
    weights.read(str(path), sha256)
  line = str(error.value)
  assert "\n" not in line and 0 < len(line) < 600
  return line


def quiet(line):
  del line


@pytest.mark.parametrize(
  ("way", "shape", "known"),
  [
    ("OI->IO", (3, 5), {}),
    ("OIHW->HWIO", (3, 5, 2, 4), {}),
    ("OIHW->(HWI)O", (3, 5, 2, 4), {"H": 2, "W": 4}),
    ("I(SO)->SIO", (5, 12), {"S": 3}),
  ],
)
def test_a_layout_read_backwards_is_its_inverse(way, shape, known):
  x = np.arange(np.prod(shape)).reshape(shape)
  there = layout.turned(x, way, known)
  back = "->".join(reversed(way.split("->")))
  np.testing.assert_array_equal(layout.turned(there, back, known), x)
  left, right = way.split("->")
  plain = (left + "->" + right).replace("(", "").replace(")", "")
  if "(SO)" not in way:
    want = np.einsum(plain, x)
    np.testing.assert_array_equal(there.reshape(want.shape), want)


def test_gpt2_lies_where_it_should(gpt2):
  tensors = by_hand.gpt2()
  found = weights.read(str(gpt2))
  blocks = found.params["blocks"]
  start = "transformer.h.1."
  qkv = np.split(tensors[f"{start}attn.c_attn.weight"], 3, axis=1)
  biases = np.split(tensors[f"{start}attn.c_attn.bias"], 3)
  for name, weight, bias in zip(
    ("query", "key", "value"), qkv, biases, strict=True
  ):
    part = blocks["attention"][name]
    np.testing.assert_array_equal(part["kernel"][1], weight)
    np.testing.assert_array_equal(part["bias"][1], bias)
  np.testing.assert_array_equal(
    blocks["feed_forward"]["down"]["kernel"][1],
    tensors[f"{start}mlp.c_proj.weight"],
  )
  np.testing.assert_array_equal(
    blocks["attention_norm"]["scale"][1], tensors[f"{start}ln_1.weight"]
  )
  assert found.model["activation"] == "gelu"
  assert found.model["hidden"] == 24
  assert found.notes == []


def test_llama_is_transposed_and_its_queries_are_grouped(llama):
  tensors = by_hand.llama()
  found = weights.read(str(llama))
  part = found.params["blocks"]["attention"]["key"]["kernel"]
  assert part.shape == (2, 8, 4)
  name = "model.layers.1.self_attn.k_proj.weight"
  np.testing.assert_array_equal(part[1], tensors[name].T)
  np.testing.assert_array_equal(
    found.params["unembedding"]["embedding"], tensors["lm_head.weight"]
  )
  assert found.model["kv_heads"] == 2


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("most", [5 * 10**9, 3000])
def test_there_and_back_every_byte_is_the_same(kind, most, tmp_path, request):
  folder = request.getfixturevalue(kind)
  run, back = str(tmp_path / "run"), tmp_path / "back"
  runs.make(str(folder), run, say=quiet)
  runs.write(run, str(back), most=most, say=quiet)
  files = sorted(back.glob("*.safetensors"))
  if most == 3000:
    assert len(files) > 2
    index = json.loads((back / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {f.name for f in files}
  got = {k: v for f in files for k, v in by_hand.read(f).items()}
  assert got == by_hand.read(folder / "model.safetensors")
  before = json.loads((folder / "config.json").read_text())
  assert json.loads((back / "config.json").read_text()) == before
  # And from the parts as from the whole.
  one, two = weights.read(str(folder)), weights.read(str(back))
  jax.tree.map(np.testing.assert_array_equal, one.params, two.params)


def test_a_workdir_is_whole_and_can_be_read_as_a_run(gpt2, tmp_path):
  run = tmp_path / "run"
  said = []
  runs.make(str(gpt2), str(run), say=said.append)
  assert "no tokenizer" in said[0]
  found = trained.load(str(run), say=quiet)
  assert found.step == 0
  assert checkpoint.verify(run / "checkpoints", 0) == []
  want = weights.read(str(gpt2))
  jax.tree.map(
    np.testing.assert_array_equal, found.variables.params, want.params
  )
  params, _ = build.weights(str(gpt2))
  jax.tree.map(np.testing.assert_array_equal, params, want.params)
  assert sorted(p.name for p in tmp_path.iterdir()) == ["gpt2", "run"]


def lm_config(**changes):
  config = {
    "total_steps": 0,
    "batch_size": 8,
    "task": {"name": "language_modeling"},
    "model": {
      "name": "decoder",
      "vocab_size": 256,
      "layers": 2,
      "dim": 8,
      "heads": 2,
      "hidden": 24,
    },
    "learner": {"name": "supervised"},
    "optimizer": {"name": "adamw", "lr": 1e-3},
    "data": {"source": "fake:text", "tokenizer": "byte", "seq_len": 12},
  }
  return {**config, **changes}


def test_a_run_begins_from_a_folder(gpt2):
  config = lm_config(
    init_from={
      "path": str(gpt2),
      "skip": ["token_embedding"],
    }
  )
  state = build.run(config, None, say=quiet).init()
  want = weights.read(str(gpt2)).params
  got = state.variables.params
  for name in ("blocks", "position_embedding", "final_norm"):
    jax.tree.map(np.testing.assert_array_equal, got[name], want[name])


@pytest.mark.slow
def test_a_trained_run_is_written_as_the_family_that_can_say_it(tmp_path):
  config = lm_config()
  config["model"] |= {"activation": "swiglu", "norm": "rmsnorm"}
  config["model"] |= {"positions": "rotary", "bias": False, "kv_heads": 1}
  run = str(tmp_path / "run")
  made = build.run(config, run, say=quiet)
  record = {"position": 0, "evaluated": False, "health": {}, "rollbacks": 0}
  checkpoint.save(made.checkpoints, 3, made.init(), record)
  made.checkpoints.close()
  runs.write(run, str(tmp_path / "out"), say=quiet)
  found = weights.read(str(tmp_path / "out"))
  assert found.config["model_type"] == "llama"
  assert found.config["num_key_value_heads"] == 1
  # What is left out, transformers fills in with other tokens of its own.
  ids = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": None}
  assert ids.items() <= found.config.items()
  told = json.loads((tmp_path / "out" / "generation_config.json").read_text())
  assert told == ids
  params, _ = build.weights(run)
  jax.tree.map(np.testing.assert_array_equal, found.params, params)


def test_what_no_family_has_is_not_written():
  model = {"name": "decoder", "vocab_size": 17, "layers": 2, "dim": 8}
  shapes = {"params/blocks/feed_forward/up/kernel": (2, 8, 32)}
  family, config, _ = weights.writable(model, shapes)
  assert config["model_type"] == "gpt2" and config["n_positions"] == 1024
  for change, told in (
    ({"window": 4}, "as gpt2: config.model.window is 4, not None"),
    ({"experts": 2}, "config.model.experts is 2"),
    ({"kv_heads": 2}, "as gpt2: config.model.kv_heads is 2"),
    ({"bias": False}, "as gpt2: config.model.bias is False, not True"),
    ({"positions": "rotary"}, "as llama: config.model.norm is 'layernorm'"),
  ):
    with pytest.raises(UserError) as error:
      weights.writable({**model, **change}, shapes)
    assert told in str(error.value)
  with pytest.raises(
    UserError, match="no family of pretrained weights uses the model 'mlp'"
  ):
    weights.writable({"name": "mlp"}, {})


@pytest.mark.parametrize("bare", [True, False])
def test_names_without_a_prefix_and_old_masks(bare, tmp_path):
  tensors = by_hand.gpt2()
  names = {n.removeprefix("transformer.") if bare else n: n for n in tensors}
  given = {name: tensors[full] for name, full in names.items()}
  mask = ("" if bare else "transformer.") + "h.0.attn.bias"
  given[mask] = np.zeros((1, 1, 12, 12), np.float32)
  folder = by_hand.folder(tmp_path / "hf", by_hand.GPT2, given)
  found = weights.read(str(folder))
  np.testing.assert_array_equal(
    found.params["token_embedding"]["embedding"],
    tensors["transformer.wte.weight"],
  )
  assert "1 tensors such as" in found.notes[0]


def test_a_copy_of_the_embedding_must_be_one(tmp_path):
  tensors = by_hand.gpt2()
  same = {**tensors, "lm_head.weight": tensors["transformer.wte.weight"]}
  found = weights.read(str(by_hand.folder(tmp_path / "a", by_hand.GPT2, same)))
  assert "unembedding" not in found.params
  other = {**same, "lm_head.weight": same["lm_head.weight"] + 1}
  folder = by_hand.folder(tmp_path / "b", by_hand.GPT2, other)
  assert "differs from transformer.wte.weight" in refused(folder)


def test_dtypes_are_kept_and_mixed_ones_told(tmp_path):
  half = by_hand.gpt2(dtype="float16")
  folder = by_hand.folder(tmp_path / "half", by_hand.GPT2, half)
  found = weights.read(str(folder))
  assert found.model["param_dtype"] == "float16"
  assert {x.dtype for x in jax.tree.leaves(found.params)} == {
    np.dtype("float16")
  }
  mixed = by_hand.gpt2() | {
    k: v for k, v in half.items() if k.startswith("transformer.h.0")
  }
  folder = by_hand.folder(tmp_path / "mixed", by_hand.GPT2, mixed)
  found = weights.read(str(folder))
  assert found.model["param_dtype"] == "float32"
  assert "F16 and F32" in found.notes[0]


def test_what_is_not_finite_is_told(tmp_path):
  tensors = by_hand.gpt2()
  tensors["transformer.wpe.weight"][3, 2] = np.nan
  folder = by_hand.folder(tmp_path / "hf", by_hand.GPT2, tensors)
  assert "transformer.wpe.weight" in weights.read(str(folder)).notes[0]


@pytest.mark.parametrize(
  ("keys", "told"),
  [
    ({"attention_bias": True}, "attention_bias = True"),
    ({"mlp_bias": True}, "mlp_bias = True"),
    ({"hidden_act": "relu"}, "hidden_act = 'relu'"),
    (
      {"rope_scaling": {"type": "yarn", "factor": 2.0}},
      "rope_type = 'yarn' is none of",
    ),
    (
      {"rope_scaling": {"rope_type": "linear", "factor": 2.0, "beta": 1}},
      "rope_scaling.beta: unknown",
    ),
    (
      {"rope_scaling": {"rope_type": "llama3", "factor": 2.0}},
      "rope_scaling.high_freq_factor: missing",
    ),
    ({"rope_scaling": "linear"}, "rope_scaling = 'linear'"),
    ({"rope_scaling": {"rope_type": [1], "factor": 2}}, "rope_type = [1]"),
    ({"quantization_config": {"bits": 4}}, "quantization_config"),
    ({"sliding_window": 128}, "sliding_window = 128"),
    ({"num_hidden_layers": 10**9}, "fewer tensors than that"),
    ({"num_hidden_layers": 1}, "layers.1"),
    ({"num_hidden_layers": "2"}, "num_hidden_layers = '2'"),
    ({"hidden_size": -8}, "hidden_size = -8"),
    ({"vocab_size": 2**30}, "[17, 8], but by config.json [1073741824, 8]"),
    ({"hidden_size": 2**30}, "by config.json"),
    ({"vocab_size": 10**30}, "is not a valid value"),
    ({"vocab_size": True}, "is not a valid value"),
    ({"rms_norm_eps": 1e400}, "is not a valid value"),
    ({"num_key_value_heads": 3}, "not a multiple of kv_heads"),
    ({"model_type": "mistral"}, "'mistral': this family is not supported"),
    ({"model_type": "../gpt2"}, "is not a family's name"),
    ({"model_type": "mt5"}, "the supported ones are: bert, convnext"),
    (
      {"architectures": ["MistralForCausalLM"]},
      "is not a class of the family 'llama'",
    ),
    ({"model_type": None}, "is not a family's name"),
    ({"tie_word_embeddings": True}, "lm_head.weight differs"),
    ({"intermediate_size": 25}, "by config.json [25, 8]"),
    ({"head_dim": 2**31 - 1, "num_attention_heads": 2**31 - 4}, "config.json"),
    (
      {"num_hidden_layers": json.loads("[" * 900 + "]" * 900)},
      "is not a valid value",
    ),
  ],
)
def test_what_a_config_says_is_never_passed_over(keys, told, llama):
  tracemalloc.start()
  assert told in refused(changed(llama, **keys))
  assert tracemalloc.get_traced_memory()[1] < 2**26
  tracemalloc.stop()


@pytest.mark.parametrize(
  "key", ["odd_scale", "num_hidden_layers", "rope_scaling"]
)
def test_a_config_nested_deep(key, llama):
  config = {k: v for k, v in by_hand.LLAMA.items() if k != key}
  text = json.dumps(config).removesuffix("}")
  for depth in (100, 800, 900, 950, 980, 10**5):
    deep = "[" * depth + "]" * depth
    (llama / "config.json").write_text(f'{text}, "{key}": {deep}}}')
    assert "config.json: " in refused(llama)


def test_a_tensor_too_many_or_too_few(tmp_path):
  tensors = by_hand.llama()
  more = {**tensors, "model.layers.0.extra": np.ones(3, np.float32)}
  folder = by_hand.folder(tmp_path / "more", by_hand.LLAMA, more)
  assert "'model.layers.0.extra' is not part of the model" in refused(folder)
  tensors.pop("model.norm.weight")
  folder = by_hand.folder(tmp_path / "less", by_hand.LLAMA, tensors)
  assert "tensor model.norm.weight is missing" in refused(folder)
  double = by_hand.llama()
  double["model.norm.weight"] = double["model.norm.weight"].astype("float64")
  folder = by_hand.folder(tmp_path / "double", by_hand.LLAMA, double)
  assert "model.norm.weight is 'F64', not one of: F32" in refused(folder)


def test_pickles_are_not_read(gpt2):
  (gpt2 / "model.safetensors").rename(gpt2 / "pytorch_model.bin")
  assert "pytorch_model.bin, and pickles" in refused(gpt2)
  (gpt2 / "pytorch_model.bin").unlink()
  assert "has neither model.safetensors nor" in refused(gpt2)
  assert "no such folder" in refused(gpt2 / "nowhere")


def shards(folder):
  """Parts of the folder's weights in the place of one file; their index."""
  tensors = by_hand.gpt2()
  names = sorted(tensors)
  halves = {"a.safetensors": names[:9], "b.safetensors": names[9:]}
  for part, held in halves.items():
    by_hand.write(folder / part, {n: tensors[n] for n in held})
  (folder / "model.safetensors").unlink()
  index = {n: part for part, held in halves.items() for n in held}
  write_index(folder, index)
  return index


def write_index(folder, index):
  path = folder / "model.safetensors.index.json"
  path.write_text(json.dumps({"weight_map": index}))


def test_an_index_leads_nowhere_else(gpt2, tmp_path):
  whole = weights.read(str(gpt2)).params
  index = shards(gpt2)
  found = weights.read(str(gpt2)).params
  jax.tree.map(np.testing.assert_array_equal, whole, found)
  first = min(index)
  by_hand.write(tmp_path / "x.safetensors", by_hand.gpt2())
  for part in (
    "../x.safetensors",
    str(tmp_path / "x.safetensors"),
    "a/../a.safetensors",
    "b.bin",
    7,
  ):
    write_index(gpt2, {**index, first: part})
    assert "which is not a .safetensors file in this folder" in refused(gpt2)
  write_index(gpt2, {**index, first: "c.safetensors"})
  assert "c.safetensors: missing" in refused(gpt2)
  write_index(gpt2, {**index, first: "b.safetensors"})
  assert "the index lists it in b.safetensors" in refused(gpt2)
  del index[first]
  write_index(gpt2, index)
  assert "the index lists it in no file" in refused(gpt2)
  write_index(gpt2, {})
  assert "has no weight_map" in refused(gpt2)


def test_a_tensor_in_two_parts(gpt2):
  index = shards(gpt2)
  tensors = by_hand.gpt2()
  held = [n for n, part in index.items() if part == "b.safetensors"]
  both = {n: tensors[n] for n in [*held, "transformer.h.0.ln_1.bias"]}
  by_hand.write(gpt2 / "b.safetensors", both)
  assert "is in a.safetensors as well" in refused(gpt2)


@pytest.mark.parametrize(
  ("head", "size", "told"),
  [
    (None, 2**40, "1,099,511,627,776 bytes"),
    (None, 0, "0 bytes"),
    (b"[1]", None, "not a JSON object"),
    (b"{", None, "not JSON"),
    (b'{"a": 1}', None, "'a' has no dtype or shape"),
    (b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}", None, "damaged"),
    (
      b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
      None,
      "'a' has no dtype or shape",
    ),
    (
      b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},'
      b' "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
      None,
      "'a' occurs twice",
    ),
  ],
)
def test_a_header_that_makes_no_sense(head, size, told, gpt2):
  by_hand.write(gpt2 / "model.safetensors", by_hand.gpt2(), head, size)
  assert told in refused(gpt2)


def test_a_config_that_makes_no_sense(gpt2):
  config = gpt2 / "config.json"
  for content, told in (
    (b"{" + b" " * 2**23 + b"}", "more than the limit"),
    (b"[" * 10**5, "not JSON"),
    (b"\xff", "not JSON"),
    (b"[]", "not a JSON object"),
  ):
    config.write_bytes(content)
    assert told in refused(gpt2)
  config.unlink()
  assert "has no config.json" in refused(gpt2)
  config.mkdir()
  assert "not a regular file" in refused(gpt2)


def test_digests(gpt2):
  path = gpt2 / "model.safetensors"
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  assert "the given SHA-256" in weights.read(str(gpt2), digest).notes[0]
  assert "its SHA-256 is" in refused(gpt2, sha256="0" * 64)
  assert "64 hexadecimal digits" in refused(gpt2, sha256="12")
  sums = gpt2 / "SHA256SUMS"
  sums.write_text(f"{digest}  model.safetensors\n")
  assert "1 files match SHA256SUMS" in weights.read(str(gpt2)).notes[0]
  sums.write_text(f"{'1' * 64}  model.safetensors\n")
  assert "its SHA-256 is" in refused(gpt2)
  sums.write_text(f"{digest}  ../gpt2/model.safetensors\n")
  assert "SHA256SUMS:1: is not a digest" in refused(gpt2)
  sums.write_text(f"{digest}  other.txt\n")
  assert "has no line for model.safetensors" in refused(gpt2)


def test_whatever_is_changed_ends_as_before_or_in_one_line(gpt2):
  path = gpt2 / "model.safetensors"
  whole = path.read_bytes()
  want = jax.tree.leaves(weights.read(str(gpt2)).params)
  rng = np.random.default_rng(0)
  size = int.from_bytes(whole[:8], "little")

  def outcome(content):
    path.write_bytes(content)
    try:
      found = weights.read(str(gpt2))
    except UserError as error:
      assert len(str(error).splitlines()) == 1
      return "told"
    got = jax.tree.leaves(found.params)
    assert [x.shape for x in got] == [x.shape for x in want]
    same = all(map(np.array_equal, got, want))
    return "same" if same else "other"

  seen = []
  for at in sorted(rng.choice(8 + size, 150, replace=False)):
    changed_byte = bytes([whole[at] ^ int(rng.integers(1, 256))])
    seen.append(outcome(whole[:at] + changed_byte + whole[at + 1 :]))
  assert seen.count("told") > 100 and "other" not in seen
  for at in sorted(rng.choice(len(whole), 40, replace=False)):
    assert outcome(whole[:at]) == "told"
  assert outcome(whole + b"\0") == "told"
  # What only a digest can tell.
  sums = f"{hashlib.sha256(whole).hexdigest()}  model.safetensors\n"
  (gpt2 / "SHA256SUMS").write_text(sums)
  for at in rng.choice(np.arange(8 + size, len(whole)), 10, replace=False):
    flipped = bytes([whole[at] ^ 1])
    assert outcome(whole[:at] + flipped + whole[at + 1 :]) == "told"
  assert outcome(whole) == "same"


def test_a_place_in_use(gpt2, tmp_path):
  run = tmp_path / "run"
  runs.make(str(gpt2), str(run), say=quiet)
  with pytest.raises(UserError, match="is in use: it has a config.json"):
    runs.make(str(gpt2), str(run), say=quiet)
  with pytest.raises(UserError, match="is in use"):
    runs.write(str(run), str(gpt2), say=quiet)
  file = tmp_path / "file"
  file.write_text("")
  with pytest.raises(UserError, match="is not a folder"):
    runs.make(str(gpt2), str(file), say=quiet)
  empty = tmp_path / "empty"
  empty.mkdir()
  runs.make(str(gpt2), str(empty), say=quiet)
  assert (empty / "config.json").exists()


def test_a_kept_file_leads_nowhere_else(gpt2, tmp_path):
  secret = tmp_path / "secret"
  secret.write_text("{}")
  run = tmp_path / "run"
  runs.make(str(gpt2), str(run), say=quiet)
  (run / "hugging_face" / "tokenizer_config.json").symlink_to(secret)
  with pytest.raises(UserError, match="is a symbolic link"):
    runs.write(str(run), str(tmp_path / "out"), say=quiet)
  assert not (tmp_path / "out").exists()


def test_rotary_scaling_by_its_formula():
  half, theta, original = 8, 10000.0, 64
  plain = theta ** (-np.arange(half) / half)
  linear = attention.rope_scaling({"rope_type": "linear", "factor": 4.0})
  got = attention.rotary_frequencies(half, theta, linear)
  np.testing.assert_allclose(got, plain / 4, rtol=1e-6)
  llama3 = attention.rope_scaling(
    {
      "rope_type": "llama3",
      "factor": 8.0,
      "low_freq_factor": 1.0,
      "high_freq_factor": 4.0,
      "original_max_position_embeddings": original,
    }
  )
  want = []
  for frequency in plain:
    wave = 2 * np.pi / frequency
    if wave < original / 4:
      want.append(frequency)
    elif wave > original / 1:
      want.append(frequency / 8)
    else:
      smooth = (original / wave - 1) / (4 - 1)
      want.append((1 - smooth) * frequency / 8 + smooth * frequency)
  assert len(set(np.round(np.array(want) / plain, 3))) > 2
  got = attention.rotary_frequencies(half, theta, llama3)
  np.testing.assert_allclose(got, want, rtol=1e-5)
  assert attention.rope_scaling(None) is None


@pytest.mark.slow
def test_words_of_the_flags(gpt2, tmp_path):
  import os
  import pathlib
  import sys

  root = pathlib.Path(__file__).parents[3]

  def told(*arguments):
    done = forkserver.run(
      [sys.executable, "-m", "train.convert", *arguments],
      cwd=root,
      env={**os.environ, "PYTHONPATH": str(root)},
      capture_output=True,
      text=True,
    )
    lines = [x for x in done.stderr.splitlines() if x.startswith("error")]
    assert done.returncode == 2 and len(lines) == 1, done.stderr
    return lines[0]

  run = f"--workdir={tmp_path / 'run'}"
  assert "either --from or --to" in told(run)
  assert "either" in told(run, f"--from={gpt2}", "--to=x")
  assert "no such folder" in told(run, "--from=nowhere")
  assert re.search("--sha256 needs --from", told(run, "--to=x", "--sha256=1"))


def test_the_hidden_sizes_of_dinov2():
  # Of the published sizes S, L and g; the last one is gated.
  for dim, gated, hidden in (
    (384, False, 1536),
    (1024, False, 4096),
    (1536, True, 4096),
  ):
    config = {"hidden_size": dim, "use_swiglu_ffn": gated, "num_labels": 5}
    section = family.section_of(dinov2, config, [])
    assert (section["hidden"], section["layer_scale"]) == (hidden, 1.0)
    shapes = {"params/blocks/feed_forward/up/kernel": (12, dim, hidden)}
    back, _ = family.config_of(dinov2, vit, section, shapes)
    assert {k: back[k] for k in config} == config and back["mlp_ratio"] == 4
  with pytest.raises(UserError, match="mlp_ratio = '4': is not a valid"):
    family.section_of(dinov2, {"mlp_ratio": "4"}, [])
  section = {"name": "vit", "num_classes": 5, "pool": "cls_gap"}
  with pytest.raises(UserError, match="layer_scale is None"):
    family.config_of(dinov2, vit, section, shapes)
