"""Masked language modelling and text classification, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models import Model
from train import types
from train.tasks.masked_language_modeling import masked_language_modeling
from train.tasks.text_classification import text_classification

V, C = 11, 4


def log_softmax(x):
  x = np.asarray(x, float)
  x = x - x.max(-1, keepdims=True)
  return x - np.log(np.exp(x).sum(-1, keepdims=True))


def reader():
  """Each token, with its type, tells its logits by a table.

  "pretrain" gives those of the row as well, from its first token; places are
  honoured, and what the task passes on besides is kept in `seen`.
  """
  seen = {}

  def init(rng):
    tokens, rows = jax.random.split(rng)
    return {
      "tokens": jax.random.normal(tokens, (2, V, V)),
      "rows": jax.random.normal(rows, (V, 2)),
    }, {}

  def apply(params, state, x, types_BT=None, method=None, **where):
    seen.update(where)
    kinds = jnp.zeros_like(x) if types_BT is None else types_BT
    logits = params["tokens"][kinds, x]
    if where.get("places_BP") is not None:
      logits = jnp.take_along_axis(logits, where["places_BP"][..., None], 1)
    if method == "pretrain":
      return (logits, params["rows"][x[:, 0]]), state
    return logits, state

  return Model(init, apply), seen


def masked():
  """Three rows of six: with three, one and no token predicted; one padding."""
  rng = np.random.default_rng(0)
  mask = [[0, 1, 0, 1, 1, 0], [0, 0, 0, 0, 1, 0], [0] * 6, [0] * 6]
  segments = [[1] * 6, [1] * 5 + [0], [1] * 3 + [0] * 3, [0] * 6]
  return {
    "inputs": rng.integers(V, size=(4, 6)).astype(np.int32),
    "targets": rng.integers(V, size=(4, 6)).astype(np.int32),
    "types": np.array([[0, 0, 0, 1, 1, 1]] * 4, np.int32),
    "segments": np.array(segments, np.int32),
    "mask": np.array(mask, np.float32),
    "label": np.array([1, 0, 1, 0], np.int32),
  }


def of_tokens(params, batch):
  """(nats, whether it is right) of every token; [B, T]."""
  logits = np.asarray(params["tokens"])[batch["types"], batch["inputs"]]
  target = batch["targets"][..., None]
  nats = -np.take_along_axis(log_softmax(logits), target, -1)[..., 0]
  return nats, logits.argmax(-1) == batch["targets"]


@pytest.mark.parametrize("places", [0, 3, 4, 100])
def test_masked_tokens_are_numpys(places):
  model, seen = reader()
  task, batch = masked_language_modeling(model, places=places), masked()
  variables = task.init(jax.random.key(0), batch)
  mean, aux = task.losses["loss"](
    variables, batch, types.Context(jax.random.key(1), 0, True)
  )
  nats, right = of_tokens(variables.params, batch)
  chosen = batch["mask"] > 0
  np.testing.assert_allclose(mean.value(), nats[chosen].mean(), rtol=1e-5)
  assert mean.weight == 4
  np.testing.assert_allclose(
    aux.metrics["accuracy"].value(), right[chosen].mean(), rtol=1e-5
  )
  np.testing.assert_array_equal(seen["segments_BT"], batch["segments"])


def test_beyond_its_places_a_row_learns_its_first_tokens():
  model, _ = reader()
  task, batch = masked_language_modeling(model, places=2), masked()
  variables = task.init(jax.random.key(0), batch)
  mean, _ = task.losses["loss"](
    variables, batch, types.Context(jax.random.key(1), 0, True)
  )
  nats, _ = of_tokens(variables.params, batch)
  want = (nats[0, 1] + nats[0, 3] + nats[1, 4]) / 3
  np.testing.assert_allclose(mean.value(), want, rtol=1e-5)
  assert mean.weight == 3


@pytest.mark.parametrize("places", [0, 4])
def test_the_next_sentence_is_added(places):
  model, _ = reader()
  task = masked_language_modeling(model, next_sentence=True, places=places)
  batch = masked()
  variables = task.init(jax.random.key(0), batch)
  mean, aux = task.losses["loss"](
    variables, batch, types.Context(jax.random.key(1), 0, True)
  )
  nats, _ = of_tokens(variables.params, batch)
  row_logits = np.asarray(variables.params["rows"])[batch["inputs"][:, 0]]
  # The last row is padding.
  row = -log_softmax(row_logits)[np.arange(3), batch["label"][:3]]
  follows = row.mean()
  tokens = nats[batch["mask"] > 0].mean()
  np.testing.assert_allclose(mean.value(), tokens + follows, rtol=1e-5)
  found = {k: float(v.value()) for k, v in aux.metrics.items()}
  np.testing.assert_allclose(found["next_sentence_loss"], follows, rtol=1e-5)
  right = row_logits[:3].argmax(-1) == batch["label"][:3]
  assert found["next_sentence_accuracy"] == pytest.approx(right.mean())


def labeled():
  """Four rows, the last of which is padding."""
  rng = np.random.default_rng(1)
  return {
    "tokens": rng.integers(V, size=(4, 5)).astype(np.int32),
    "types": np.array([[0, 0, 0, 1, 1]] * 4, np.int32),
    "segments": np.array([[1] * 5, [1] * 3 + [0] * 2] * 2, np.int32),
    "label": np.array([3, 0, 1, 2], np.int32),
    "mask": np.array([1, 1, 1, 0], np.float32),
  }


def summed():
  """Logits are a table's rows, summed over what is real, by type."""

  def init(rng):
    return {"table": jax.random.normal(rng, (2, V, C))}, {}

  def apply(params, state, x, types_BT, segments_BT, method=None, **_):
    rows = params["table"][types_BT, x] * (segments_BT > 0)[..., None]
    if method == "features":
      return rows.sum((1, 2)), state
    return rows.sum(1), state

  return Model(init, apply)


@pytest.mark.parametrize("train", [False, True])
def test_text_classification_is_numpys(train):
  task, batch = text_classification(summed(), label_smoothing=0.2), labeled()
  variables = task.init(jax.random.key(0), batch)
  mean, aux = task.losses["loss"](
    variables, batch, types.Context(jax.random.key(1), 0, train)
  )
  table = np.asarray(variables.params["table"])
  rows = table[batch["types"], batch["tokens"]]
  logits = (rows * (batch["segments"] > 0)[..., None]).sum(1)
  smoothing = 0.2 if train else 0.0
  target = (1 - smoothing) * np.eye(C)[batch["label"]] + smoothing / C
  nats = -(target * log_softmax(logits)).sum(-1)
  np.testing.assert_allclose(mean.value(), nats[:3].mean(), rtol=1e-5)
  plain = -log_softmax(logits)[np.arange(len(logits)), batch["label"]]
  got = {k: v.value() for k, v in aux.metrics.items() if k != "accuracy"}
  wanted = {"loss_unsmoothed": plain[:3].mean()} if train else {}
  assert got == pytest.approx(wanted, rel=1e-5)
  right = (logits.argmax(-1) == batch["label"])[:3].mean()
  assert float(aux.metrics["accuracy"].value()) == pytest.approx(right)
  got = task.predict["logits"](variables, batch, None)
  np.testing.assert_allclose(got, logits, rtol=1e-5)
  features = task.predict["features"](variables, batch, None)
  np.testing.assert_allclose(features, logits.sum(-1), rtol=1e-4, atol=1e-5)
  assert isinstance(mean, types.Mean)
