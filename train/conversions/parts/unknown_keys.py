"""Keys of config.json that a family does not define: which may be passed over.

A model's code in transformers reads the keys of its own family only. Published
files also hold keys of the library, of trainers, of converters and of other
families. Such a key is refused if its name belongs to the arithmetic of
transformers and its value asks for something; every other key is passed over.
"""

import re
from collections.abc import Mapping
from typing import Any

# Names that never reach the forward pass: which kernel computes it, how it was
# trained or packaged, how texts are generated.
_HARMLESS = re.compile(
  r"""
  implementation | flash | sdpa | xformers | triton | fused | fuse_ | compile
  | dropout | drop_?(rate|path|prob|out) | pdrop$ | deterministic | ^seed$
  | _token(_ids?)?$ | (suppress|special|additional|added|extra)_tokens$
  | max_(new_|prompt_|input_)?tokens$ | tokenizer | template | ^prompt | prefix
  | version | ^transformers | unsloth | ^auto_map$ | ^custom_ | name_or_path
  | ^is_\w+_config$ | commit | revision | licen[cs]e | author | dataset | ^task
  | ^library | ^sentence_transformers | similarity | matryoshka | ^pipeline_tag
  | cache | (^|_)init(ializer|_std|_method|_range|ialization)?(_|$)
  | (^|_)loss(_|$) | freeze | frozen | ^tune_ | trainable | ^lr_ | batch_size
  | learning_rate | weight_decay | neftune | label | ^gradient | checkpoint
  | ^output_(attentions|hidden_states|scores|logits|past|router|loading)
  | ^(return|use_return)_ | ^(torch|tf|onnx|hf|bnb|flax|zero)_ | upcast
  | (^|_)dtype$ | ^pretrain | _tp$ | tensor_parallel | ^model_parallel
  | ^(pooler|pooling|summary|mm|vision|image|video|audio)_ | classif
  | ^(tie|share)_encoder_decoder$ | ^cross_attention_hidden_size$
  | ^(?!.*relative)(original_)?(max|seq|sequence|context|model|train|n)(_\w*)?
    (len|length|lengths|positions|position_embeddings|ctx|context)$
  | ^(context_size|block_size|n_special|predict_special_tokens)$
  | sampling | beam | penalty | no_repeat | ^stop | ^remove_invalid
  | vocab_(pad|size_mult|mult) | pad_vocab | memory_?efficient
  | ^local_(files|rank)
  """,
  re.VERBOSE | re.IGNORECASE,
)
# Names that describe the arithmetic.
_ARITHMETIC = re.compile(
  r"""
  rope | rotary | yarn | (^|_)ntk | alibi | position | relative | window
  | sliding | sparse | dilat | stride | chunk | attn | attention
  | head(?!er) | query | key_?value | kv | qk | lora | adapter | (^|_)ia3
  | prun | norm | (^|_)eps(ilon)?$ | bias | activation | (^|_)act(_|$)
  | hidden | glu(_|$) | gat(e|ed|ing)(_|$) | mlp | ffn | feed_?forward
  | scal | mult | factor | cap(_|$|ping) | clip | clamp | temperature
  | softmax | logit | residual | skip_conn | parallel | shared? | (^|_)tied?_
  | expert | moe | rout | quant | (^|_)bits | compress | mup | nope
  | layer | block | (^|_)stages? | depth | width | dim | embed | embd | size
  | kernel | (^|_)conv\d?d?(_|$) | convolution | patch | pool | registers?_
  | downsample | groups | channels | causal | bidirectional | decoder | encoder
  | cross | recurr | (^|_)ssm | mamba | interleav | theta | alpha$ | ^n_ | ^d_
  """,
  re.VERBOSE | re.IGNORECASE,
)
# A factor of 1, a share of 1.
_UNIT = re.compile(
  r"scal|mult|factor|pct|ratio|fraction|temperature|alpha$|groups|dilat",
  re.IGNORECASE,
)
# Different names of one setting. A key that repeats the value of the family's
# own setting changes nothing.
_NAMES = (
  ("hidden_size", "n_embd", "d_model", "dim", "embed_dim", "embedding_size"),
  ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
  ("num_attention_heads", "n_head", "n_heads", "num_heads"),
  ("num_key_value_heads", "n_kv_heads", "num_kv_heads"),
  ("intermediate_size", "n_inner", "d_ff", "ffn_dim", "hidden_dim"),
  ("rms_norm_eps", "norm_eps", "layer_norm_eps", "layer_norm_epsilon"),
  ("hidden_act", "activation_function", "hidden_activation", "act_fn"),
  ("head_dim", "d_kv", "attention_head_size"),
)


def refused(key: str, config: Mapping[str, Any]) -> bool:
  """Whether a key that the family does not define may change the outputs.

  Args:
    key: the key, as config.json spells it.
    config: config.json.
  """
  value = config[key]
  if _neutral(key, value) or _HARMLESS.search(key):
    return False
  return _ARITHMETIC.search(key) is not None and not _repeats(key, config)


def passed_over(key: str, config: Mapping[str, Any]) -> bool:
  """Whether the key is neither known to be harmless nor refused."""
  known = _neutral(key, config[key]) or _HARMLESS.search(key) is not None
  return not (known or _repeats(key, config) or refused(key, config))


def _neutral(key: str, value: Any) -> bool:
  """Whether a value asks for nothing: absent, off, empty, or a factor of 1."""
  if value is None or value is False or value in ({}, [], "", "none"):
    return True
  if type(value) in (int, float):
    if value == 0:
      return True
    return value == 1 and _UNIT.search(key) is not None
  if key == "layer_types" and isinstance(value, list):
    return all(each == "full_attention" for each in value)
  return False


def _repeats(key: str, config: Mapping[str, Any]) -> bool:
  """Whether the key's value equals that of the same setting's usual name."""
  for names in _NAMES:
    if key in names:
      others = [config[n] for n in names if n != key and n in config]
      return bool(others) and all(each == config[key] for each in others)
  return False


def switched_off(config: Mapping[str, Any]) -> set[str]:
  """Returns keys that another key of the file switches off."""
  if config.get("use_sliding_window") is False:
    return {"sliding_window", "max_window_layers", "sliding_window_pattern"}
  return set()
