"""A label for each token: named entities, parts of speech."""

import jax.numpy as jnp

from models import Model
from train import types
from train.objectives import crf as crf_lib
from train.objectives import losses


def token_classification(
  model: Model,
  *,
  num_classes: int | None = None,
  crf: bool = False,
  label_smoothing: float = 0.0,
) -> types.Task:
  """Cross-entropy of the labels, averaged over the tokens whose mask is 1.

  Batch: tokens int32 [B, T], or [B, T, F] for hashed words; segments int32
  [B, T], targets int32 [B, T], mask [B, T]; see input_pipeline/rows/tagged.py.

  With `crf` the logits are the emissions of a linear-chain conditional random
  field over the tokens whose mask is 1, and the loss is its negative
  log-likelihood per token (Lample et al., arXiv:1603.01360, section 2.2). The
  parameters "crf" hold its transitions.

  Args:
    model: (tokens_BT, segments_BT=…) -> logits_BTC.
    num_classes: C.
    crf: whether to use a conditional random field.
    label_smoothing: share of the target that is spread over the labels, in
      training only; not with a CRF.

  Raises:
    ValueError: the number of labels is unknown, or label_smoothing is set with
      a CRF.
  """
  if num_classes is None:
    raise ValueError("token_classification needs labels: set data.rows.labels")
  if crf and label_smoothing:
    raise ValueError(
      "label_smoothing is not supported with crf=True: remove one of them"
    )

  def init(rng, batch):
    del batch
    params, model_state = model.init(rng)
    if crf:
      # Zeros make all chains equally likely; their gradient is not zero.
      params = {
        **params,
        "crf": {
          "start": jnp.zeros((num_classes,)),
          "transitions": jnp.zeros((num_classes, num_classes)),
          "end": jnp.zeros((num_classes,)),
        },
      }
    return types.Variables(params, model_state)

  def apply(variables, batch, rng=None, train=False):
    """Returns (logits_BTC, model_state, the chain or None)."""
    params, chain = dict(variables.params), None
    if crf:
      held = params.pop("crf")
      chain = crf_lib.Chain(held["start"], held["transitions"], held["end"])
    logits_BTC, model_state = model.apply(
      params,
      variables.model_state,
      batch["tokens"],
      segments_BT=batch["segments"],
      rng=rng,
      train=train,
    )
    return logits_BTC, model_state, chain

  def loss(variables, batch, context):
    logits_BTC, model_state, chain = apply(
      variables, batch, context.rng, context.train
    )
    tags_BT, mask_BT = batch["targets"], batch["mask"]
    found = {}
    if chain is None:
      smoothing = label_smoothing if context.train else 0.0
      if smoothing:
        plain_BT = losses.cross_entropy(logits_BTC, tags_BT)
        found["loss_unsmoothed"] = types.mean_of(plain_BT, mask_BT)
      nats_BT = losses.cross_entropy(
        logits_BTC, tags_BT, label_smoothing=smoothing
      )
      mean = types.mean_of(nats_BT, mask_BT)
      best_BT = jnp.argmax(logits_BTC, axis=-1)
    else:
      nats_B = -crf_lib.log_likelihood(chain, logits_BTC, tags_BT, mask_BT)
      weight = jnp.sum(mask_BT.astype(jnp.float32))
      mean = types.Mean(jnp.sum(nats_B), weight)
      best_BT = crf_lib.viterbi(chain, logits_BTC, mask_BT)
    accuracy = types.mean_of(best_BT == tags_BT, mask_BT)
    return mean, types.Aux(model_state, {"accuracy": accuracy, **found})

  def labels(variables, batch, rng):
    """Returns the best label of each token, int32 [B, T]."""
    del rng
    logits_BTC, _, chain = apply(variables, batch)
    if chain is None:
      return jnp.argmax(logits_BTC, axis=-1).astype(jnp.int32)
    return crf_lib.viterbi(chain, logits_BTC, batch["mask"])

  def logits(variables, batch, rng):
    del rng
    return apply(variables, batch)[0]

  return types.Task(init, {"loss": loss}, {"labels": labels, "logits": logits})
