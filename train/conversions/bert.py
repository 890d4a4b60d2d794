"""BERT (arXiv:1810.04805) and models/language/bert.py, with their heads.

The names of the tensors determine the head:
  cls.predictions: BertForMaskedLM; with cls.seq_relationship,
    BertForPreTraining.
  classifier: BertForSequenceClassification; without a pooler,
    BertForTokenClassification.
  qa_outputs: BertForQuestionAnswering.
A BertModel without a head is read as a sequence classifier (without a pooler,
a token classifier) whose output layer is 0.
"""

from common.errors import UserError
from train.conversions.parts.family import Family, Size, counted_labels, labels
from train.conversions.parts.layout import Row

_NORMS = {
  "attention.output.LayerNorm": "attention_norm",
  "output.LayerNorm": "feed_forward_norm",
}
_DENSE = {
  "attention.self.query": "attention/query",
  "attention.self.key": "attention/key",
  "attention.self.value": "attention/value",
  "attention.output.dense": "attention/out",
  "intermediate.dense": "feed_forward/up",
  "output.dense": "feed_forward/down",
}
_EMBEDDINGS = {
  "word_embeddings": "token_embedding",
  "position_embeddings": "position_embedding",
  "token_type_embeddings": "type_embedding",
}
_ACTIVATIONS = {
  "gelu": "gelu_exact",
  "gelu_new": "gelu",
  "gelu_pytorch_tanh": "gelu",
}
_CLASSES = {
  "mlm": "BertForMaskedLM",
  "classes": "BertForSequenceClassification",
  "tokens": "BertForTokenClassification",
  "span": "BertForQuestionAnswering",
}


_TASKS = {
  "mlm": "masked_language_modeling",
  "classes": "text_classification",
  "tokens": "token_classification",
  "span": "question_answering",
}


def _dense(theirs: str, ours: str, layers: int = 0) -> list[Row]:
  return [
    Row(f"{theirs}.weight", f"{ours}/kernel", "OI->IO", layers),
    Row(f"{theirs}.bias", f"{ours}/bias", "", layers),
  ]


def _norm(theirs: str, ours: str, layers: int = 0) -> list[Row]:
  return [
    Row(f"{theirs}.weight", f"{ours}/scale", "", layers),
    Row(f"{theirs}.bias", f"{ours}/bias", "", layers),
  ]


def _head(section) -> list[Row]:
  if section["head"] == "span":
    return _dense("qa_outputs", "head/output")
  if section["head"] == "tokens":
    return _dense("classifier", "head/output")
  if section["head"] == "classes":
    return [
      *_dense("bert.pooler.dense", "head/pooler"),
      *_dense("classifier", "head/output"),
    ]
  start = "cls.predictions."
  rows = [
    Row(f"{start}bias", "head/bias"),
    *_dense(f"{start}transform.dense", "head/transform"),
    *_norm(f"{start}transform.LayerNorm", "head/norm"),
  ]
  if section["next_sentence"]:
    rows += _dense("bert.pooler.dense", "head/next_sentence/pooler")
    rows += _dense("cls.seq_relationship", "head/next_sentence/output")
  return rows


def _table(section) -> list[Row]:
  L, block = section["layers"], "bert.encoder.layer.{}."
  rows = _norm("bert.embeddings.LayerNorm", "embedding_norm") + _head(section)
  for theirs, ours in _EMBEDDINGS.items():
    rows.append(Row(f"bert.embeddings.{theirs}.weight", f"{ours}/embedding"))
  for theirs, ours in _NORMS.items():
    rows += _norm(f"{block}{theirs}", f"blocks/{ours}", L)
  for theirs, ours in _DENSE.items():
    rows += _dense(f"{block}{theirs}", f"blocks/{ours}", L)
  return rows


def _copies(section) -> dict[str, str]:
  if section["head"] != "mlm":
    return {}
  return {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
  }


def _spelling(name: str) -> str:
  """Renames LayerNorm's gamma and beta, the TensorFlow names of old files."""
  if name.endswith("LayerNorm.gamma"):
    return f"{name.removesuffix('gamma')}weight"
  if name.endswith("LayerNorm.beta"):
    return f"{name.removesuffix('beta')}bias"
  return name


def _tidy(config, names):
  config = counted_labels(config)
  config["_next_sentence"] = "cls.seq_relationship.weight" in names
  pooled = "bert.pooler.dense.weight" in names
  if "cls.predictions.bias" in names:
    config["_head"] = "mlm"
  elif "qa_outputs.weight" in names:
    config["_head"] = "span"
  else:
    config["_head"] = "classes" if pooled else "tokens"
  if config["_head"] in ("mlm", "span"):
    config["num_labels"] = None
  # Only this head has weights that can be tied; a copy of them is compared.
  if config["_head"] != "mlm" or "cls.predictions.decoder.weight" in names:
    config.pop("tie_word_embeddings", None)
  act = config.get("hidden_act", "gelu")
  if config["_head"] == "mlm" and act != "gelu":
    raise UserError(
      f"hidden_act = {act!r}: the masked language model head needs 'gelu'"
    )
  return config


def _filled(section, shapes):
  hidden = shapes["params/blocks/feed_forward/up/kernel"][-1]
  outputs = section["head"] in ("classes", "tokens")
  if section["head"] == "mlm" and section["activation"] != "gelu_exact":
    raise UserError(
      f"config.model.activation is {section['activation']!r}, but BERT's masked"
      " language model head needs 'gelu_exact'"
    )
  classes = section["num_classes"] if outputs else None
  return {**section, "hidden": hidden, "num_classes": classes}


def _architecture(section) -> str:
  if section["next_sentence"]:
    return "BertForPreTraining"
  return _CLASSES[section["head"]]


bert = Family(
  model="bert",
  task=lambda section, config: {"name": _TASKS[section["head"]]},
  sizes=(
    Size("vocab_size", "vocab_size", 30522),
    Size("hidden_size", "dim", 768),
    Size("num_hidden_layers", "layers", 12),
    Size("num_attention_heads", "heads", 12),
    Size("intermediate_size", "hidden", 3072),
    Size("max_position_embeddings", "max_len", 512),
    Size("type_vocab_size", "types", 2),
    Size("layer_norm_eps", "norm_eps", 1e-12, float),
    Size("hidden_act", "activation", "gelu", str, _ACTIVATIONS),
    Size("num_labels", "num_classes", None),
    Size("_head", "head", "mlm", str),
    Size("_next_sentence", "next_sentence", False, bool),
  ),
  ours={"positions": "learned", "norm": "layernorm", "norm_first": False},
  fixed={
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
  },
  ignored=frozenset(
    {
      *("attention_probs_dropout_prob", "hidden_dropout_prob"),
      *("classifier_dropout", "directionality", "pooler_fc_size"),
      *("pooler_num_attention_heads", "pooler_num_fc_layers"),
      *("pooler_size_per_head", "pooler_type"),
    }
  ),
  table=_table,
  architecture=_architecture,
  stem="Bert",
  prefix="bert.",
  spelling=_spelling,
  tidy=_tidy,
  filled=_filled,
  written=lambda section: labels(section) if section["num_classes"] else {},
  copies=_copies,
  dropped=r"bert\.(embeddings\.position_ids|pooler\.dense\.(weight|bias))",
  optional=r"classifier\.(weight|bias)",
)
