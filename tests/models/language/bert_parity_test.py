"""BERT against transformers' on the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.names import find

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = dict(vocab_size=19, layers=3, dim=16, heads=4, hidden=24, max_len=12)


def theirs(kind, **changes):
  """A model of transformers' in which every parameter is random."""
  config = transformers.BertConfig(
    vocab_size=19,
    num_hidden_layers=3,
    hidden_size=16,
    num_attention_heads=4,
    intermediate_size=24,
    max_position_embeddings=12,
    **changes,
  )
  torch.manual_seed(0)
  module = getattr(transformers, kind)(config)
  with torch.no_grad():
    for parameter in module.parameters():
      parameter.add_(0.1 * torch.randn_like(parameter))
  return module.eval()


def array(tensor):
  return jnp.asarray(tensor.detach().numpy())


def dense(module):
  return {"kernel": array(module.weight).T, "bias": array(module.bias)}


def norm(module):
  return {"scale": array(module.weight), "bias": array(module.bias)}


def body(bert):
  """Their BertModel's parameters by our names."""

  def layer(module):
    own, out = module.attention.self, module.attention.output
    return {
      "attention": {
        "query": dense(own.query),
        "key": dense(own.key),
        "value": dense(own.value),
        "out": dense(out.dense),
      },
      "attention_norm": norm(out.LayerNorm),
      "feed_forward": {
        "up": dense(module.intermediate.dense),
        "down": dense(module.output.dense),
      },
      "feed_forward_norm": norm(module.output.LayerNorm),
    }

  table = bert.embeddings
  return {
    "token_embedding": {"embedding": array(table.word_embeddings.weight)},
    "position_embedding": {
      "embedding": array(table.position_embeddings.weight)
    },
    "type_embedding": {"embedding": array(table.token_type_embeddings.weight)},
    "embedding_norm": norm(table.LayerNorm),
    "blocks": jax.tree.map(
      lambda *leaves: jnp.stack(leaves), *map(layer, bert.encoder.layer)
    ),
  }


def rows():
  """(tokens, types, segments) of two rows, of which one is padded."""
  tokens = np.random.default_rng(1).integers(0, 19, (2, 9))
  types = np.array([[0] * 4 + [1] * 5, [0] * 3 + [1] * 3 + [0] * 3])
  segments = np.array([[1] * 9, [1] * 6 + [0] * 3])
  return tokens, types, segments


def run_theirs(module):
  tokens, types, segments = map(torch.tensor, rows())
  with torch.no_grad():
    return module(tokens, token_type_ids=types, attention_mask=segments)


def run_ours(params, method=None, **changes):
  model = find("models", "bert", "")(**SIZES | changes)
  tokens, types, segments = rows()
  where = {"types_BT": types, "segments_BT": segments}
  return model.apply(params, {}, tokens, method=method, **where)[0]


def transform(heads):
  head = heads.transform
  return {
    "transform": dense(head.dense),
    "norm": norm(head.LayerNorm),
    "bias": array(heads.bias),
  }


def pooled(bert, output):
  return {"pooler": dense(bert.pooler.dense), "output": dense(output)}


@pytest.fixture(autouse=True)
def full_precision():
  with jax.default_matmul_precision("highest"):
    yield


def real(x):
  """The rows' real tokens: on padding they see text, and ours do not."""
  return np.asarray(x)[rows()[2] > 0]


def test_the_body_is_bert_model():
  module = theirs("BertModel")
  want = run_theirs(module).last_hidden_state
  head = {"output": {"kernel": jnp.zeros((16, 2)), "bias": jnp.zeros(2)}}
  got = run_ours(body(module) | {"head": head}, "features", head="span")
  np.testing.assert_allclose(real(got), real(want), atol=1e-5)


def test_masked_tokens_are_bert_for_masked_lm():
  module = theirs("BertForMaskedLM")
  params = body(module.bert) | {"head": transform(module.cls.predictions)}
  want = run_theirs(module).logits
  np.testing.assert_allclose(real(run_ours(params)), real(want), atol=1e-5)


def test_pretraining_is_bert_for_pre_training():
  module = theirs("BertForPreTraining")
  follows = pooled(module.bert, module.cls.seq_relationship)
  head = transform(module.cls.predictions) | {"next_sentence": follows}
  want = run_theirs(module)
  got = run_ours(
    body(module.bert) | {"head": head}, "pretrain", next_sentence=True
  )
  tokens, follows = want.prediction_logits, want.seq_relationship_logits
  np.testing.assert_allclose(real(got[0]), real(tokens), atol=1e-5)
  np.testing.assert_allclose(got[1], follows, atol=1e-5)


def test_classes_are_bert_for_sequence_classification():
  module = theirs("BertForSequenceClassification", num_labels=5)
  params = body(module.bert) | {"head": pooled(module.bert, module.classifier)}
  got = run_ours(params, head="classes", num_classes=5)
  np.testing.assert_allclose(got, run_theirs(module).logits, atol=1e-5)


def test_tokens_are_bert_for_token_classification():
  module = theirs("BertForTokenClassification", num_labels=5)
  head = {"output": dense(module.classifier)}
  got = run_ours(
    body(module.bert) | {"head": head}, head="tokens", num_classes=5
  )
  want = run_theirs(module).logits
  np.testing.assert_allclose(real(got), real(want), atol=1e-5)


def test_spans_are_bert_for_question_answering():
  module = theirs("BertForQuestionAnswering")
  head = {"output": dense(module.qa_outputs)}
  start, end = run_ours(body(module.bert) | {"head": head}, head="span")
  want = run_theirs(module)
  np.testing.assert_allclose(real(start), real(want.start_logits), atol=1e-5)
  np.testing.assert_allclose(real(end), real(want.end_logits), atol=1e-5)
