import copy
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import peers
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

from common.names import find  # noqa: E402
from input_pipeline import tokenizers as tokenizer_lib  # noqa: E402
from train import trained  # noqa: E402
from train.conversions.parts import folder as folder_lib  # noqa: E402
from train.conversions.parts import runs, weights  # noqa: E402
from train.optimization import parameter_rules  # noqa: E402

ROOT = pathlib.Path(__file__).parents[3]
V, T = 19, 9
TRANSFORMERS = ("vit", "deit", "dinov2")
IMAGES = (*TRANSFORMERS, "resnet", "convnext")
_rng = np.random.default_rng(0)
TOKENS, TARGETS = _rng.integers(0, V, (2, T)), _rng.integers(0, V, (2, 5))
TYPES = np.repeat((np.arange(T) > 4).astype(int)[None], 2, axis=0)
GPT2 = {"vocab_size": V, "n_positions": 12, "n_embd": 16, "n_layer": 3}
GPT2 |= {"n_head": 4, "bos_token_id": 1, "eos_token_id": 2}
LLAMA = {"vocab_size": V, "hidden_size": 16, "intermediate_size": 40}
LLAMA |= {"num_hidden_layers": 3, "num_attention_heads": 4}
LLAMA3 = {
  "rope_type": "llama3",
  "factor": 8.0,
  "low_freq_factor": 1.0,
  "high_freq_factor": 4.0,
  "original_max_position_embeddings": 16,
}
VIT = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4}
VIT |= {"intermediate_size": 32, "image_size": 12, "patch_size": 4}
DINOV2 = {k: v for k, v in VIT.items() if k != "intermediate_size"}
DINOV2 |= {"mlp_ratio": 2, "num_labels": 5}
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16, 32, 64]}
RESNET |= {"depths": [2, 2, 2, 2], "layer_type": "basic"}
RESNET50 = {"embedding_size": 8, "hidden_sizes": [32, 64, 128, 256]}
RESNET50 |= {"depths": [3, 4, 6, 3], "layer_type": "bottleneck"}
CONVNEXT = {"hidden_sizes": [8, 12, 16, 24], "depths": [1, 2, 1, 1]}
BERT = {"vocab_size": V, "hidden_size": 16, "num_hidden_layers": 3}
BERT |= {"num_attention_heads": 4, "intermediate_size": 32}
BERT |= {"max_position_embeddings": 12}
T5 = {"vocab_size": V, "d_model": 16, "d_kv": 6, "d_ff": 32, "num_layers": 2}
T5 |= {"num_heads": 4, "decoder_start_token_id": 0}
V11 = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
# name -> (class, config)
CASES = {
  "gpt2": ("GPT2LMHeadModel", GPT2),
  "gpt2_untied": (
    "GPT2LMHeadModel",
    {**GPT2, "tie_word_embeddings": False, "activation_function": "gelu"},
  ),
  "gpt2_hidden": ("GPT2LMHeadModel", {**GPT2, "n_inner": 24}),
  "llama": ("LlamaForCausalLM", LLAMA),
  "llama_grouped_tied": (
    "LlamaForCausalLM",
    {**LLAMA, "num_key_value_heads": 2, "tie_word_embeddings": True},
  ),
  "llama_one_key": (
    "LlamaForCausalLM",
    {**LLAMA, "num_key_value_heads": 1, "head_dim": 6, "rms_norm_eps": 1e-5},
  ),
  "llama_rope_theta": ("LlamaForCausalLM", {**LLAMA, "rope_theta": 500.0}),
  "llama_linear": (
    "LlamaForCausalLM",
    {**LLAMA, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
  ),
  "llama3": (
    "LlamaForCausalLM",
    {**LLAMA, "rope_scaling": LLAMA3, "num_key_value_heads": 2},
  ),
  "vit": ("ViTForImageClassification", {**VIT, "num_labels": 5}),
  "vit_tanh": (
    "ViTForImageClassification",
    {**VIT, "hidden_act": "gelu_new", "layer_norm_eps": 1e-6},
  ),
  "resnet18": ("ResNetForImageClassification", {**RESNET, "num_labels": 5}),
  "resnet50": ("ResNetForImageClassification", RESNET50),
  "deit": ("DeiTForImageClassificationWithTeacher", {**VIT, "num_labels": 5}),
  "dinov2": (
    "Dinov2ForImageClassification",
    {**DINOV2, "use_mask_token": False, "layerscale_value": 0.5},
  ),
  "dinov2_gated": (
    "Dinov2ForImageClassification",
    {**DINOV2, "use_mask_token": False, "use_swiglu_ffn": True},
  ),
  "convnext": (
    "ConvNextForImageClassification",
    {**CONVNEXT, "num_labels": 5, "patch_size": 2},
  ),
  "bert_mlm": ("BertForMaskedLM", BERT),
  "bert_pretraining": ("BertForPreTraining", BERT),
  "bert_classes": ("BertForSequenceClassification", {**BERT, "num_labels": 3}),
  "bert_tokens": ("BertForTokenClassification", {**BERT, "num_labels": 3}),
  "bert_span": ("BertForQuestionAnswering", BERT),
  "t5": ("T5ForConditionalGeneration", T5),
  "t5_v11": (
    "T5ForConditionalGeneration",
    {**T5, **V11, "num_decoder_layers": 3},
  ),
}


def made(name, dtype=None, **changes):
  """A model of transformers' with random weights, no two alike."""
  kind, settings = CASES[name]
  kind = getattr(transformers, kind)
  torch.manual_seed(0)
  settings = copy.deepcopy({**settings, **changes})  # it writes into them
  model = kind(kind.config_class(**settings))
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.add_(0.1 * torch.randn_like(parameter))
    for buffer, value in model.named_buffers():
      if buffer.endswith("running_mean"):
        value.copy_(0.3 * torch.randn_like(value))
      if buffer.endswith("running_var"):
        value.copy_(0.5 + torch.rand_like(value))
    basic = getattr(model.config, "layer_type", None) == "basic"
    last = 1 if basic else 2
    for block, module in model.named_modules():
      # So many random layers would blow the logits up.
      if block.endswith(f".layer.{last}.normalization"):
        module.weight.mul_(0.2)
  return model.eval().to(dtype or torch.float32)


def image(model):
  size = 12 if model.config.model_type in TRANSFORMERS else 64
  shape = (3, size, size, 3)
  return np.random.default_rng(1).normal(size=shape).astype("float32")


def theirs(model):
  """Every output, as a list."""
  kind = model.config.model_type
  with torch.no_grad():
    if kind in ("gpt2", "llama"):
      found = [model(torch.tensor(TOKENS)).logits]
    elif kind in IMAGES:
      x = torch.tensor(image(model).transpose(0, 3, 1, 2))
      found = [model(x.to(model.dtype)).logits]
    elif kind == "t5":
      found = [
        model(
          input_ids=torch.tensor(TOKENS),
          decoder_input_ids=torch.tensor(TARGETS),
        ).logits
      ]
    else:
      out = model(torch.tensor(TOKENS), token_type_ids=torch.tensor(TYPES))
      found = list(out.to_tuple())
  return [x.float().numpy() for x in found]


def ours(model, found, **changes):
  section = {**found.model, **changes}
  settings = {k: v for k, v in section.items() if k != "name"}
  network = find("models", found.model["name"], "model")(**settings)
  kind, how = model.config.model_type, {}
  inputs = (TOKENS,)
  if kind in IMAGES:
    inputs = (image(model),)
  if kind == "t5":
    inputs = (TOKENS, TARGETS)
  if kind == "bert":
    how = {"types_BT": TYPES}
    if section["next_sentence"]:
      how["method"] = "pretrain"

  def apply(params, state):
    return network.apply(params, state, *inputs, **how)[0]

  return jax.tree.leaves(jax.jit(apply)(found.params, found.model_state))


def written(found, path, most=5 * 10**9):
  """The folder of a model that was read, without a run between."""
  arrays = parameter_rules.flat(
    {"params": found.params, "model_state": found.model_state}
  )
  shapes = {key: x.shape for key, x in arrays.items()}
  family, config, full = weights.writable(found.model, shapes)
  path.mkdir()
  tensors = weights.tensors(family, full, arrays)
  folder_lib.write(path, tensors, most)
  folder_lib.write_json(path / "config.json", config)
  return path


@pytest.mark.parametrize("name", CASES)
def test_logits_are_theirs_and_every_byte_comes_back(name, tmp_path):
  model = made(name)
  model.save_pretrained(tmp_path / "hf")
  found = weights.read(str(tmp_path / "hf"))
  assert found.notes == []
  wanted, got = theirs(model), ours(model, found)
  assert len(wanted) == len(got)
  for want, mine in zip(wanted, got, strict=True):
    assert want.std() > 0.02
    np.testing.assert_allclose(mine, want, atol=1e-4)
  back = written(found, tmp_path / "back")
  first, second = (
    (tmp_path / where / "model.safetensors").read_bytes()
    for where in ("hf", "back")
  )
  assert first == second
  # transformers opens what was written, of which it knows the config too.
  again = type(model).from_pretrained(back)
  for want, mine in zip(wanted, theirs(again), strict=True):
    np.testing.assert_allclose(mine, want, atol=1e-6)


@pytest.mark.parametrize("kind", ["Dinov2", "Dinov2WithRegisters"])
def test_tokens_of_a_published_dinov2_are_theirs(kind, tmp_path):
  # Without a head, and with the token of masked patches.
  torch.manual_seed(0)
  config = getattr(transformers, f"{kind}Config")(**DINOV2)
  model = getattr(transformers, f"{kind}Model")(config).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.add_(0.1 * torch.randn_like(parameter))
  model.save_pretrained(tmp_path / "hf")
  found = weights.read(str(tmp_path / "hf"))
  assert "mask_token" in found.notes[1]
  section = {k: v for k, v in found.model.items() if k != "name"}
  network = find("models", "vit", "model")(**section)
  # That with registers interpolates positions in another way.
  for size in ((12, 12), (16, 20))[: 1 if found.model.get("registers") else 2]:
    x = np.random.default_rng(1).normal(size=(2, *size, 3)).astype("float32")
    got, _ = network.apply(found.params, {}, x, method="tokens")
    with torch.no_grad():
      out = model(torch.tensor(x.transpose(0, 3, 1, 2)))
    want = out.last_hidden_state.numpy()
    assert want.std() > 0.02
    np.testing.assert_allclose(got, want, atol=1e-4)
  back = written(found, tmp_path / "back")
  again = type(model).from_pretrained(back).state_dict()
  for key, tensor in model.state_dict().items():
    assert "mask_token" in key or torch.equal(again[key], tensor), key


@pytest.mark.parametrize("kind", ["BasicBlock", "Bottleneck"])
def test_a_file_in_torchvisions_layout_needs_no_config(kind, tmp_path):
  resnet = peers.torchvision().models.resnet
  safetensors = pytest.importorskip("safetensors.torch")
  depths = [2, 2, 2, 2] if kind == "BasicBlock" else [3, 4, 6, 3]
  torch.manual_seed(0)
  model = resnet.ResNet(getattr(resnet, kind), depths, num_classes=5).eval()
  with torch.no_grad():
    for tensor in model.state_dict().values():
      if tensor.is_floating_point() and tensor.ndim == 1:
        tensor.add_(0.2 * torch.rand_like(tensor))
  path = tmp_path / "resnet.safetensors"
  safetensors.save_file(model.state_dict(), path)
  found = weights.read(str(path), unnamed=True)
  network = find("models", "resnet", "model")(
    **{k: v for k, v in found.model.items() if k != "name"}
  )
  x = np.random.default_rng(1).normal(size=(2, 32, 32, 3)).astype("float32")
  with torch.no_grad():
    want = model(torch.tensor(x.transpose(0, 3, 1, 2))).numpy()
  got, _ = jax.jit(network.apply)(found.params, found.model_state, x)
  scale = np.abs(want).max()
  np.testing.assert_allclose(got / scale, want / scale, atol=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["gpt2", "llama3", "vit", "resnet18", "t5"])
def test_half_precision_comes_back_as_it_was(name, dtype, tmp_path):
  model = made(name, getattr(torch, dtype))
  model.save_pretrained(tmp_path / "hf")
  found = weights.read(str(tmp_path / "hf"))
  assert found.model["param_dtype"] == dtype
  assert {str(x.dtype) for x in jax.tree.leaves(found.params)} == {dtype}
  # Compared in float32, of the same rounded weights.
  exact = type(model).from_pretrained(tmp_path / "hf", dtype=torch.float32)
  for want, mine in zip(theirs(exact), ours(model, found), strict=True):
    np.testing.assert_allclose(mine, want, atol=1e-4)
  back = written(found, tmp_path / "back")
  first, second = (
    (tmp_path / where / "model.safetensors").read_bytes()
    for where in ("hf", "back")
  )
  assert first == second
  again = type(model).from_pretrained(back, dtype="auto")
  assert str(again.dtype) == f"torch.{dtype}"


@pytest.mark.parametrize("name", ["llama", "bert_mlm", "t5_v11"])
def test_parts_are_read_and_written(name, tmp_path):
  model = made(name)
  model.save_pretrained(tmp_path / "hf", max_shard_size="8KB")
  assert len(list((tmp_path / "hf").glob("model-*.safetensors"))) > 1
  found = weights.read(str(tmp_path / "hf"))
  for want, mine in zip(theirs(model), ours(model, found), strict=True):
    np.testing.assert_allclose(mine, want, atol=1e-4)
  back = written(found, tmp_path / "back", most=9000)
  assert len(list(back.glob("model-*.safetensors"))) > 1
  again = type(model).from_pretrained(back)
  for key, want in model.state_dict().items():
    assert torch.equal(again.state_dict()[key], want), key


def test_a_separate_table_before_t5s_logits(tmp_path):
  # As files of T5 1.1 have it; transformers now ties what it makes itself.
  model = made("t5_v11")
  model.lm_head.weight = torch.nn.Parameter(
    0.3 * torch.randn_like(model.shared.weight)
  )
  model.config.tie_word_embeddings = False
  want = theirs(model)[0]
  model.save_pretrained(tmp_path / "hf")
  found = weights.read(str(tmp_path / "hf"))
  assert not found.model["tie_embeddings"]
  np.testing.assert_allclose(ours(model, found)[0], want, atol=1e-4)
  written(found, tmp_path / "back")
  first, second = (
    (tmp_path / where / "model.safetensors").read_bytes()
    for where in ("hf", "back")
  )
  assert first == second


def test_a_bare_bert_is_a_body_under_an_empty_head(tmp_path):
  torch.manual_seed(0)
  model = transformers.BertModel(transformers.BertConfig(**BERT)).eval()
  model.save_pretrained(tmp_path / "hf")
  found = weights.read(str(tmp_path / "hf"))
  assert "classifier.weight" in found.notes[0]
  section = {k: v for k, v in found.model.items() if k != "name"}
  network = find("models", "bert", "model")(**section)
  got, _ = network.apply(
    found.params, {}, TOKENS, types_BT=TYPES, method="features"
  )
  out = model(torch.tensor(TOKENS), token_type_ids=torch.tensor(TYPES))
  want = out.last_hidden_state.detach().numpy()
  np.testing.assert_allclose(got, want, atol=1e-4)
  config = json.loads((tmp_path / "hf" / "config.json").read_text())
  (tmp_path / "hf" / "config.json").write_text(
    json.dumps({**config, "num_labels": 2**30})
  )
  with pytest.raises(ValueError, match="classifier.weight is missing"):
    weights.read(str(tmp_path / "hf"))
  back = written(found, tmp_path / "back")
  again = transformers.BertModel.from_pretrained(back).state_dict()
  for key, tensor in model.state_dict().items():
    assert torch.equal(again[key], tensor), key


def test_berts_first_spelling_of_norms(tmp_path):
  model = made("bert_pretraining")
  model.save_pretrained(tmp_path / "hf")
  from safetensors.torch import load_file, save_file

  path = tmp_path / "hf" / "model.safetensors"
  old = {}
  for key, value in load_file(path).items():
    if "LayerNorm" in key:
      key = key.replace(".weight", ".gamma").replace(".bias", ".beta")
    old[key] = value
  tied = old["bert.embeddings.word_embeddings.weight"].clone()
  old["cls.predictions.decoder.weight"] = tied
  save_file(old, path)
  found = weights.read(str(tmp_path / "hf"))
  for want, mine in zip(theirs(model), ours(model, found), strict=True):
    np.testing.assert_allclose(mine, want, atol=1e-4)


def bpe(kind):
  """A byte-level tokenizer, split as GPT-2's or Llama 3's are."""
  tokenizers = pytest.importorskip("tokenizers")
  from tokenizers import Regex, decoders, pre_tokenizers, processors

  found = tokenizers.Tokenizer(tokenizers.models.BPE())
  special = ["<|endoftext|>"]
  if kind == "gpt2":
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  else:
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
    words = (
      r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
      r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    found.pre_tokenizer = pre_tokenizers.Sequence(
      [
        pre_tokenizers.Split(Regex(words), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
      ]
    )
  found.decoder = decoders.ByteLevel()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=330,
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  text = (ROOT / "LICENSE").read_text()
  found.train_from_iterator(text.splitlines(keepends=True), trainer)
  found.add_special_tokens(special)
  if kind == "llama3":
    start = found.token_to_id(special[0])
    found.post_processor = processors.TemplateProcessing(
      single=f"{special[0]} $A", special_tokens=[(special[0], start)]
    )
  return found


AWKWARD = [
  "",
  " ",
  "  two  spaces\tand\ttabs \n\n\r\n end ",
  "It's we'll THEY'RE don't",
  "naïve café Å ñ — “quotes” … ½",
  "猫が好き。你好，世界！ 안녕",
  "\U0001f408\U0001f469\u200d\U0001f469\u200d\U0001f467 \ufeff\u00a0\u3000x",
  "12345678 3.14 1e-10 0x1F",
  "a\u0301 \u00e1 zero\u0000byte \u202e rtl",
  "<|endoftext|> <|begin_of_text|><|eot_id|>",
  "def f(x):\n    return x  # y\n",
]


@pytest.mark.parametrize("kind", ["gpt2", "llama3"])
def test_a_tokenizer_json_is_read_as_transformers_reads_it(kind, tmp_path):
  path = tmp_path / "tokenizer.json"
  bpe(kind).save(str(path))
  their = transformers.PreTrainedTokenizerFast(tokenizer_file=str(path))
  mine = tokenizer_lib.get_tokenizer(f"tokenizers:{path}", "fake:text")
  assert mine.vocab_size == len(their)
  end = "<|endoftext|>" if kind == "gpt2" else "<|end_of_text|>"
  assert mine.eos == their.convert_tokens_to_ids(end)
  for text in AWKWARD:
    want = their.encode(
      text, add_special_tokens=False, split_special_tokens=True
    )
    got = mine.encode(text).tolist()
    assert got == want, text
    assert mine.decode(got) == text
    decoded = their.decode(want, clean_up_tokenization_spaces=False)
    assert mine.decode(got) == decoded
  special = [mine.eos, *mine.encode(" a").tolist(), mine.vocab_size - 1]
  assert mine.decode(special) == their.decode(
    special, clean_up_tokenization_spaces=False
  )


def test_what_ends_a_text_is_found_in_the_config(tmp_path):
  """Where the tokenizer has no token of a known name."""
  tokenizers = pytest.importorskip("tokenizers")
  words = tokenizers.Tokenizer(
    tokenizers.models.WordLevel({"<unk>": 0, "a": 1, "STOP": 2}, "<unk>")
  )
  words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  made("gpt2").save_pretrained(tmp_path / "hf")
  words.save(str(tmp_path / "hf" / "tokenizer.json"))
  (tmp_path / "hf" / "generation_config.json").write_text(
    json.dumps({"eos_token_id": [2, 1]})
  )
  runs.make(str(tmp_path / "hf"), str(tmp_path / "run"), say=lambda line: None)
  found = trained.load(str(tmp_path / "run"))
  assert found.parts.data.tokenizer.eos == 2


@pytest.mark.parametrize("kind", ["gpt2", "llama3"])
def test_a_converted_run_writes_what_transformers_writes(kind, tmp_path):
  words = bpe(kind)
  size = words.get_vocab_size()
  changes = {"vocab_size": size, "initializer_range": 0.8}
  if kind == "gpt2":
    changes["n_positions"] = 64
  model = made(kind, **changes)
  model.generation_config.eos_token_id = None
  hf, run = tmp_path / "hf", tmp_path / "run"
  model.save_pretrained(hf)
  words.save(str(hf / "tokenizer.json"))
  (hf / "tokenizer_config.json").write_text('{"chat_template": "x"}')
  prompt = "def split(batch"
  ids = words.encode(prompt).ids  # Llama's begins with <|begin_of_text|>
  out = model.generate(
    torch.tensor([ids]),
    attention_mask=torch.ones((1, len(ids)), dtype=torch.long),
    max_new_tokens=24,
    do_sample=False,
    pad_token_id=0,
  )[0].tolist()
  assert len(set(out[len(ids) :])) > 5  # it says something
  said = out[kind == "llama3" :]
  want = words.decode(said, skip_special_tokens=False)

  def verb(name, *arguments):
    return subprocess.run(
      [sys.executable, "-m", f"train.{name}", *arguments],
      cwd=ROOT,
      env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"},
      capture_output=True,
      text=True,
      check=True,
    ).stdout

  verb("convert", f"--from={hf}", f"--workdir={run}")
  got = verb(
    "generate",
    f"--workdir={run}",
    f"--prompt={prompt}",
    "--temperature=0",
    "--max_tokens=24",
  )
  # Ours leaves out a character that the last token has begun.
  assert got.rstrip("\n\ufffd") == want.rstrip("\ufffd")
  assert "verified" in verb("inspect", str(run))
  figures = json.loads(verb("evaluate", f"--workdir={run}").splitlines()[-1])
  assert np.isfinite(figures["val/loss"])
  back = tmp_path / "back"
  verb("convert", f"--workdir={run}", f"--to={back}")
  for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json"):
    assert (back / name).read_bytes() == (hf / name).read_bytes(), name
  before = json.loads((hf / "config.json").read_text())
  assert json.loads((back / "config.json").read_text()) == before
