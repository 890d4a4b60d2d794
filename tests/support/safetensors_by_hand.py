"""Folders as Hugging Face's, written by NumPy alone, for tests."""

import json
import struct

import numpy as np

DTYPES = {"float32": "F32", "float16": "F16", "float64": "F64", "int64": "I64"}
GPT2 = {
  "model_type": "gpt2",
  "architectures": ["GPT2LMHeadModel"],
  "vocab_size": 17,
  "n_positions": 12,
  "n_embd": 8,
  "n_layer": 2,
  "n_head": 2,
  "n_inner": 24,
  "activation_function": "gelu_new",
  "layer_norm_epsilon": 1e-5,
}
LLAMA = {
  "model_type": "llama",
  "vocab_size": 17,
  "hidden_size": 8,
  "intermediate_size": 24,
  "num_hidden_layers": 2,
  "num_attention_heads": 4,
  "num_key_value_heads": 2,
  "tie_word_embeddings": False,
  "rms_norm_eps": 1e-5,
}


def header(tensors) -> dict:
  """What stands before the bytes of these arrays, one after another."""
  found, start = {}, 0
  for name, array in tensors.items():
    found[name] = {
      "dtype": DTYPES[str(array.dtype)],
      "shape": list(array.shape),
      "data_offsets": [start, start + array.nbytes],
    }
    start += array.nbytes
  return found


def write(path, tensors, head=None, size=None) -> None:
  """A .safetensors file; `head` and `size` in place of the right ones."""
  text = json.dumps(header(tensors)).encode() if head is None else head
  data = b"".join(np.ascontiguousarray(x).tobytes() for x in tensors.values())
  size = len(text) if size is None else size
  path.write_bytes(struct.pack("<Q", size) + text + data)


def read(path) -> dict[str, tuple]:
  """{name: (dtype, shape, bytes)} of a .safetensors file."""
  content = path.read_bytes()
  size = struct.unpack("<Q", content[:8])[0]
  data = content[8 + size :]
  return {
    name: (t["dtype"], t["shape"], data[slice(*t["data_offsets"])])
    for name, t in json.loads(content[8 : 8 + size]).items()
    if name != "__metadata__"
  }


def folder(path, config, tensors):
  """`path`, made a folder of a config and tensors."""
  path.mkdir(parents=True)
  (path / "config.json").write_text(json.dumps(config))
  write(path / "model.safetensors", tensors)
  return path


def _drawn(shapes, seed, dtype="float32"):
  rng = np.random.default_rng(seed)
  return {
    n: (0.3 * rng.normal(size=s)).astype(dtype) for n, s in shapes.items()
  }


def gpt2(seed=0, dtype="float32"):
  """Tensors of GPT2."""
  D, F = 8, 24
  shapes = {"wte.weight": (17, D), "wpe.weight": (12, D)}
  shapes |= {"ln_f.weight": (D,), "ln_f.bias": (D,)}
  for i in range(2):
    for name, shape in {
      "ln_1.weight": (D,),
      "ln_1.bias": (D,),
      "ln_2.weight": (D,),
      "ln_2.bias": (D,),
      "attn.c_attn.weight": (D, 3 * D),
      "attn.c_attn.bias": (3 * D,),
      "attn.c_proj.weight": (D, D),
      "attn.c_proj.bias": (D,),
      "mlp.c_fc.weight": (D, F),
      "mlp.c_fc.bias": (F,),
      "mlp.c_proj.weight": (F, D),
      "mlp.c_proj.bias": (D,),
    }.items():
      shapes[f"h.{i}.{name}"] = shape
  shapes = {f"transformer.{name}": shape for name, shape in shapes.items()}
  return _drawn(shapes, seed, dtype)


def llama(seed=0):
  """Tensors of LLAMA."""
  D, K, F = 8, 4, 24
  shapes = {"model.embed_tokens.weight": (17, D), "model.norm.weight": (D,)}
  shapes["lm_head.weight"] = (17, D)
  for i in range(2):
    for name, shape in {
      "input_layernorm": (D,),
      "post_attention_layernorm": (D,),
      "self_attn.q_proj": (D, D),
      "self_attn.k_proj": (K, D),
      "self_attn.v_proj": (K, D),
      "self_attn.o_proj": (D, D),
      "mlp.gate_proj": (F, D),
      "mlp.up_proj": (F, D),
      "mlp.down_proj": (D, F),
    }.items():
      shapes[f"model.layers.{i}.{name}.weight"] = shape
  return _drawn(shapes, seed)
