"""A weighted sum of the probabilities of two language models."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline.cleaning.parts import ngram
from input_pipeline.sources import open_source
from train import types

_WEIGHTS = np.linspace(0.0, 1.0, 41)
_CHUNK = 1024  # texts that are read at once to count


def interpolation(
  context: types.EvalContext,
  *,
  counted: str = "",
  counted_split: str = "train",
  text_key: str = "text",
  order: int = 6,
  other: str = "",
) -> types.Evaluator:
  """Measures (1 - w) p(token) + w q(token), with q of a second model.

  q is an n-gram model (interpolated Kneser-Ney), which is counted when it is
  first needed on the tokens of `counted`, the training text; or the model of
  another finished run. An n-gram model and a neural one make different errors,
  so that their mixture is often better than both (Jelinek and Mercer, 1980).

  The weight w is one number among 0, 1/40, …, 1. It is chosen on the rows of
  the split with an even index for the odd ones, and the other way round, so
  that no row is measured with a weight that was chosen on it.

  Metrics: "loss", nats per token of the mixture; "bits_per_byte" of text;
  "weight", the mean of both weights; "loss_alone" and "loss_other", of each
  model by itself.

  Args:
    context: of the run; its task predicts logits of the next token.
    counted: the URI of the text that the n-gram model counts, such as
      config.data.source.
    counted_split: of that text.
    text_key: the field of its records.
    order: n.
    other: in place of `counted`, the workdir of a finished run whose model has
      the same tokens.

  Raises:
    ValueError: not exactly one of `counted` and `other` is given, or a task
      does not predict next tokens.
  """
  if bool(counted) == bool(other):
    raise ValueError(
      'interpolation takes counted="URI" of the training text, or'
      ' other="WORKDIR" of a finished run'
    )
  if "logits" not in context.task.predict:
    raise ValueError("interpolation: the task does not predict logits")
  if other:
    second = _of_run(context, other)
  else:
    second = _of_counts(context, counted, counted_split, text_key, order)

  @jax.jit
  def first(variables, batch, rng):
    return _log_probs(context.task, variables, batch, rng)

  def evaluate(variables, step):
    del step
    nats_FW = np.zeros((2, len(_WEIGHTS)))
    tokens_F, bytes_F = np.zeros(2), np.zeros(2)
    for batch in context.batches():
      log_p_BT, size = first(variables, batch, context.rng)
      log_p_BT = np.asarray(context.fetch(log_p_BT), np.float64)
      log_q_BT = second(batch, size.shape[0])
      leaves = {k: batch[k] for k in ("mask", "index", "bytes") if k in batch}
      held = {k: np.asarray(v) for k, v in context.fetch(leaves).items()}
      for fold in (0, 1):
        rows_B = held["index"] % 2 == fold
        real_BT = (held["mask"] > 0) & rows_B[:, None]
        p_Q, q_Q = np.exp(log_p_BT[real_BT]), np.exp(log_q_BT[real_BT])
        nats_FW[fold] -= [
          np.log((1 - w) * p_Q + w * q_Q).sum() for w in _WEIGHTS
        ]
        tokens_F[fold] += real_BT.sum()
        bytes_F[fold] += held.get("bytes", np.zeros(len(rows_B)))[rows_B].sum()
    return _chosen(nats_FW, tokens_F, bytes_F)

  return evaluate


def _log_probs(task: types.Task, variables, batch, rng):
  """Returns (log p of the targets [B, T], zeros [V])."""
  if "targets" not in batch or batch["mask"].ndim != 2:
    raise ValueError("interpolation needs batches of tokens to predict")
  logits_BTV = task.predict["logits"](variables, batch, rng)
  log_BTV = jax.nn.log_softmax(logits_BTV.astype(jnp.float32))
  log_p_BT1 = jnp.take_along_axis(log_BTV, batch["targets"][..., None], -1)
  return log_p_BT1[..., 0], jnp.zeros(logits_BTV.shape[-1])


def _of_run(context: types.EvalContext, other: str):
  """Returns (batch, V) -> log q [B, T] of another run's model."""
  task, variables = context.load(other)
  if "logits" not in task.predict:
    raise ValueError(f"interpolation: {other} does not predict logits")
  apply = jax.jit(lambda batch: _log_probs(task, variables, batch, context.rng))

  def second(batch, vocab_size: int) -> np.ndarray:
    log_q_BT, size = apply(batch)
    if size.shape[0] != vocab_size:
      raise ValueError(
        f"interpolation: {other} predicts {size.shape[0]} tokens, and this run"
        f" {vocab_size}: both need the same tokenizer"
      )
    return np.asarray(context.fetch(log_q_BT), np.float64)

  return second


def _of_counts(context, counted, split, text_key, order):
  """Returns (batch, V) -> log q [B, T] of n-grams of a text."""
  if context.encode is None:
    raise ValueError("interpolation needs a tokenizer: set data.tokenizer")
  source = open_source(counted, split)
  end = [] if context.eos is None else [context.eos]
  held: list[ngram.NGram] = []

  def documents():
    for start in range(0, source.length, _CHUNK):
      rows = np.arange(start, min(start + _CHUNK, source.length))
      found = source.read(rows)
      if text_key not in found:
        raise ValueError(
          f"{counted} has no field {text_key!r}; valid: {', '.join(found)}"
        )
      for text in found[text_key]:
        yield np.concatenate([np.asarray(context.encode(text)), end])

  def second(batch, vocab_size: int) -> np.ndarray:
    if not held:
      held.append(ngram.fit(documents(), order, vocab_size))
    names = ("inputs", "targets", "segments", "index")
    leaves = {k: batch[k] for k in names if k in batch}
    leaves = {k: np.asarray(v) for k, v in context.fetch(leaves).items()}
    return of_rows(held[0], **leaves)

  return second


def of_rows(
  model: ngram.NGram,
  inputs: np.ndarray,
  targets: np.ndarray,
  index: np.ndarray,
  segments: np.ndarray | None = None,
) -> np.ndarray:
  """Returns ln q of targets, [B, T].

  A row that continues the one before it, as windows of a text do, has that
  row's last tokens as its context. Segments are documents of their own.
  """
  found = np.zeros(targets.shape)
  for b, (row, after) in enumerate(zip(inputs, targets, strict=True)):
    if segments is not None:
      for segment in np.unique(segments[b]):
        at = np.flatnonzero(segments[b] == segment)
        ids = np.concatenate([row[at[:1]], after[at]])
        found[b, at] = ngram.log_prob(model, ids)[1:]
      continue
    before = row[:1]
    if b and index[b] == index[b - 1] + 1 and targets[b - 1, -1] == row[0]:
      before = targets[b - 1][-model.order :]
    ids = np.concatenate([before, after])
    found[b] = ngram.log_prob(model, ids)[len(before) :]
  return found


def _chosen(nats_FW, tokens_F, bytes_F) -> dict[str, float]:
  """Measures each fold with the weight that suits the other one."""
  best_F = nats_FW[::-1].argmin(axis=1)
  if not tokens_F.all():  # a single row
    best_F = np.full(2, nats_FW.sum(0).argmin())
  tokens = tokens_F.sum()
  nats = nats_FW[[0, 1], best_F].sum()
  found = {
    "loss": nats / tokens,
    "weight": _WEIGHTS[best_F].mean(),
    "loss_alone": nats_FW[:, 0].sum() / tokens,
    "loss_other": nats_FW[:, -1].sum() / tokens,
  }
  if bytes_F.sum():
    found["bits_per_byte"] = nats / math.log(2) / bytes_F.sum()
  return {name: float(value) for name, value in found.items()}
