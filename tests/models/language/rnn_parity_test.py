"""Recurrent networks against PyTorch's, with the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.language.rnn import CELLS, rnn

V, D, H = 11, 6, 8


def theirs(cell, layers, seed=0):
  torch = pytest.importorskip("torch")
  torch.manual_seed(seed)
  nn = torch.nn
  kind = {"elman": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[cell]
  body = kind(D, H, num_layers=layers, batch_first=True)
  return nn.Embedding(V, D), body, nn.Linear(H, V)


def array(tensor):
  return jnp.asarray(tensor.detach().numpy())


def params_of(cell, embedding, body, head):
  """Their weights as ours; their second bias joins the first where it can."""
  layers = {}
  for i in range(body.num_layers):
    weight_x, weight_h, bias_x, bias_h = (
      array(getattr(body, f"{name}_l{i}"))
      for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    layer = {"kernel": weight_h.T}
    if cell == "gru":
      bias_x = bias_x.at[: 2 * H].add(bias_h[: 2 * H])
      layer["bias"] = bias_h[2 * H :]
    else:
      bias_x += bias_h
    layer["input"] = {"kernel": weight_x.T, "bias": bias_x}
    layers[str(i)] = layer
  return {
    "token_embedding": {"embedding": array(embedding.weight)},
    "layers": layers,
    "unembedding": {"embedding": array(head.weight)},
    "bias": array(head.bias),
  }


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("cell", sorted(CELLS))
def test_logits_and_gradients_are_pytorchs(cell, layers):
  torch = pytest.importorskip("torch")
  embedding, body, head = theirs(cell, layers)
  params = params_of(cell, embedding, body, head)
  model = rnn(vocab_size=V, cell=cell, layers=layers, dim=D, hidden=H)
  x, y = np.random.default_rng(0).integers(0, V, (2, 3, 7))
  logits = head(body(embedding(torch.tensor(x)))[0])
  loss = torch.nn.functional.cross_entropy(
    logits.reshape(-1, V), torch.tensor(y).reshape(-1)
  )
  loss.backward()

  def ours(params):
    logits_BTV, _ = model.apply(params, {}, jnp.asarray(x))
    at = jax.nn.one_hot(y, V)
    nats = -jnp.sum(jax.nn.log_softmax(logits_BTV) * at, -1)
    return jnp.mean(nats), logits_BTV

  (value, got), grads = jax.value_and_grad(ours, has_aux=True)(params)
  np.testing.assert_allclose(got, logits.detach().numpy(), atol=1e-5)
  np.testing.assert_allclose(value, loss.item(), atol=1e-6)
  # Both of their biases have the gradient of our one.
  for module in (embedding, body, head):
    for parameter in module.parameters():
      parameter.data = parameter.grad
  wanted = params_of(cell, embedding, body, head)
  for i in range(layers):
    size = 2 * H if cell == "gru" else CELLS[cell].gates * H
    bias = wanted["layers"][str(i)]["input"]["bias"]
    wanted["layers"][str(i)]["input"]["bias"] = bias.at[:size].divide(2)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), grads, wanted
  )
