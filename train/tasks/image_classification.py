"""Image classification: one label out of C."""

import jax
import jax.numpy as jnp

from models import Model
from train import types
from train.objectives import losses, metrics


def image_classification(
  model: Model,
  *,
  label_smoothing: float = 0.0,
  mixup: float = 0.0,
  inkey: str = "image",
) -> types.Task:
  """Cross-entropy of the label.

  Batch: image [B, H, W, C] float, label [B] int32, or float [B, C], the share
  of each class where the input pipeline has mixed images; mask [B].

  Args:
    model: image_BHWC -> logits_BC; its method "features" gives the prediction
      of that name.
    label_smoothing: share of the target spread over the classes, in training
      only (Szegedy et al. 2016).
    mixup: alpha of Beta(alpha, alpha), from which one mixing weight a batch is
      drawn, in training only (Zhang et al. 2018); 0 mixes nothing. Each image
      is mixed with its mirror in the batch: training batches should be full.
    inkey: the field that the model reads; "x" for rows of numbers.
  """

  def init(rng, batch):
    del batch
    return types.Variables(*model.init(rng))

  def apply(variables, image_BHWC, rng=None, train=False, method=None):
    return model.apply(
      variables.params,
      variables.model_state,
      image_BHWC,
      rng=rng,
      train=train,
      method=method,
    )

  def loss(variables, batch, rng, train):
    image_BHWC, label_B = batch[inkey], batch["label"]
    mixing = train and mixup > 0
    lam: jax.Array | float = 1.0
    if mixing:
      lam_rng, rng = jax.random.split(rng)
      lam = jax.random.beta(lam_rng, mixup, mixup)
      image_BHWC = lam * image_BHWC + (1 - lam) * image_BHWC[::-1]
    logits_BC, model_state = apply(variables, image_BHWC, rng, train)
    smoothing = label_smoothing if train else 0.0
    nats_B = losses.cross_entropy(logits_BC, label_B, label_smoothing=smoothing)
    if mixing:
      # Linear in the target: mixing the losses is mixing the labels.
      nats_B = lam * nats_B + (1 - lam) * losses.cross_entropy(
        logits_BC, label_B[::-1], label_smoothing=smoothing
      )
    # Of a mixture, the class with the greatest share counts as the label.
    soft = jnp.issubdtype(label_B.dtype, jnp.floating)
    class_B = jnp.argmax(label_B, axis=-1) if soft else label_B
    correct_B = metrics.accuracy(logits_BC, class_B)
    accuracy = types.mean_of(correct_B, batch["mask"])
    mean = types.mean_of(nats_B, batch["mask"])
    return mean, types.Aux(model_state, {"accuracy": accuracy})

  def logits(variables, batch, rng):
    del rng
    return apply(variables, batch[inkey])[0]

  def features(variables, batch, rng):
    del rng
    return apply(variables, batch[inkey], method="features")[0]

  predict = {"logits": logits, "features": features}
  return types.Task(init, {"loss": loss}, predict)
