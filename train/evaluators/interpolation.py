"""A weighted sum of the probabilities of two language models."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from train import types

_WEIGHTS = np.linspace(0.0, 1.0, 41)


def interpolation(context: types.EvalContext, *, other: str) -> types.Evaluator:
  """Measures (1 - w) p(token) + w q(token), with q of another finished run.

  An n-gram model and a neural one make different errors, so that their mixture
  is often better than both (Jelinek and Mercer, 1980). The weight w is one
  number in 0, 1/40, …, 1. It is chosen on the rows of the split with an even
  index for the odd ones, and the other way round, so that no row is measured
  with a weight that was chosen on it.

  Metrics: "loss", nats per token of the mixture; "bits_per_byte" of text;
  "weight", the mean of both weights; "loss_alone" and "loss_other", of each
  model by itself.

  Args:
    context: of the run; its task predicts logits of the next token.
    other: the workdir of a finished run whose model has the same tokens, such
      as one of configs/language/char_ngram.py on the same data.

  Raises:
    ValueError: `other` is missing, or a task does not predict next tokens.
  """
  if not other:
    raise ValueError('interpolation needs other="WORKDIR" of a finished run')
  second, second_variables = context.load(other)
  for title, task in (("this run", context.task), (other, second)):
    if "logits" not in task.predict:
      raise ValueError(f"interpolation: {title} does not predict logits")
  weight_W1 = jnp.asarray(_WEIGHTS, jnp.float32)[:, None]

  @jax.jit
  def sums(variables, second_variables, batch, rng):
    """(nats [2, W], tokens [2], bytes [2]) of the even and the odd rows."""
    if "targets" not in batch or batch["mask"].ndim != 2:
      raise ValueError("interpolation needs batches of tokens to predict")
    first_BTV = context.task.predict["logits"](variables, batch, rng)
    second_BTV = second.predict["logits"](second_variables, batch, rng)
    if first_BTV.shape != second_BTV.shape:
      raise ValueError(
        f"interpolation: {other} predicts {second_BTV.shape[-1]} tokens, and"
        f" this run {first_BTV.shape[-1]}: both need the same tokenizer"
      )
    log_p_BT, log_q_BT = (
      _of_targets(logits_BTV, batch["targets"])
      for logits_BTV in (first_BTV, second_BTV)
    )
    index_B = batch.get("index", jnp.arange(len(batch["mask"])))
    nats_FW, tokens_F, bytes_F = [], [], []
    for fold in (0, 1):
      mask_BT = batch["mask"] * (index_B % 2 == fold)[:, None]
      nats_FW.append(
        jax.lax.map(
          lambda w, mask_BT=mask_BT: jnp.sum(
            jnp.where(mask_BT > 0, -_mixed(log_p_BT, log_q_BT, w), 0.0)
          ),
          weight_W1[:, 0],
        )
      )
      tokens_F.append(jnp.sum(mask_BT > 0))
      size_B = batch.get("bytes", jnp.zeros(len(index_B)))
      bytes_F.append(jnp.sum(size_B * (index_B % 2 == fold)))
    return tuple(jnp.stack(each) for each in (nats_FW, tokens_F, bytes_F))

  def evaluate(variables, step):
    del step
    merged = None
    for batch in context.batches():
      found = context.fetch(
        sums(variables, second_variables, batch, context.rng)
      )
      found = [np.asarray(each, np.float64) for each in found]
      merged = found if merged is None else map(np.add, merged, found)
      merged = list(merged)
    return _chosen(*merged)

  return evaluate


def _of_targets(logits_BTV, targets_BT):
  log_BTV = jax.nn.log_softmax(logits_BTV.astype(jnp.float32))
  return jnp.take_along_axis(log_BTV, targets_BT[..., None], -1)[..., 0]


def _mixed(log_p, log_q, w):
  """Returns log((1 - w) p + w q); exact where w is 0 or 1."""
  return jnp.logaddexp(log_p + jnp.log1p(-w), log_q + jnp.log(w))


def _chosen(nats_FW, tokens_F, bytes_F) -> dict[str, float]:
  """Measures each fold with the weight that suits the other one."""
  best_F = nats_FW[::-1].argmin(axis=1)
  if not tokens_F.all():  # a single row
    best_F = np.full(2, nats_FW.sum(0).argmin())
  nats, tokens = (
    sum(nats_FW[f, best] for f, best in enumerate(best_F)),
    (tokens_F.sum()),
  )
  found = {
    "loss": nats / tokens,
    "weight": float(_WEIGHTS[best_F].mean()),
    "loss_alone": nats_FW[:, 0].sum() / tokens,
    "loss_other": nats_FW[:, -1].sum() / tokens,
  }
  if bytes_F.sum():
    found["bits_per_byte"] = nats / math.log(2) / bytes_F.sum()
  return {name: float(value) for name, value in found.items()}
