"""Image classification: one label out of C."""

import jax
import jax.numpy as jnp

from models import Model
from train import types
from train.objectives import losses, metrics

# What the axes of the fields mean; see common/leaf.py.
AXES = {"image": ("height", "width", "channel"), "x": ("feature",)}


def image_classification(
  model: Model,
  *,
  label_smoothing: float = 0.0,
  mixup: float = 0.0,
  inkey: str = "image",
) -> types.Task:
  """Cross-entropy of the label.

  Batch: image [B, H, W, C] float; label [B] int32, or [B, C] float, the share
  of each class if the input pipeline mixes images; mask [B].

  Args:
    model: image_BHWC -> logits_BC. The loss takes logits: a softmax in the
      model would be applied twice. Its methods "features" and "distilled", if
      it has them, compute the predictions of these names.
    label_smoothing: share of the target that is spread over the classes, in
      training only (Szegedy et al. 2016).
    mixup: alpha of the distribution Beta(alpha, alpha) from which a mixing
      weight is drawn for each batch, in training only (Zhang et al. 2018); 0
      mixes nothing. Image i is mixed with image B - 1 - i, so training batches
      should have no padding.
    inkey: the field that the model reads; "x" for rows of numbers.
  """

  def apply(variables, image_BHWC, rng=None, train=False, method=None):
    return model.apply(
      variables.params,
      variables.model_state,
      image_BHWC,
      rng=rng,
      train=train,
      method=method,
    )

  def loss(variables, batch, context):
    rng, train = context.rng, context.train
    image_BHWC, label_B = batch[inkey], batch["label"]
    mixing = train and mixup > 0
    lam: jax.Array | float = 1.0
    if mixing:
      lam_rng, rng = jax.random.split(rng)
      lam = jax.random.beta(lam_rng, mixup, mixup)
      image_BHWC = lam * image_BHWC + (1 - lam) * image_BHWC[::-1]
    logits_BC, model_state = apply(variables, image_BHWC, rng, train)

    def nats_of(smoothing):
      nats_B = losses.cross_entropy(
        logits_BC, label_B, label_smoothing=smoothing
      )
      if not mixing:
        return nats_B
      # The loss is linear in the target: mixing losses mixes labels.
      return lam * nats_B + (1 - lam) * losses.cross_entropy(
        logits_BC, label_B[::-1], label_smoothing=smoothing
      )

    nats_B, found = nats_of(label_smoothing if train else 0.0), {}
    if train and label_smoothing:
      found["loss_unsmoothed"] = types.mean_of(nats_of(0.0), batch["mask"])
    # The class with the largest share of a mixture counts as its label.
    soft = jnp.issubdtype(label_B.dtype, jnp.floating)
    class_B = jnp.argmax(label_B, axis=-1) if soft else label_B
    correct_B = metrics.accuracy(logits_BC, class_B)
    accuracy = types.mean_of(correct_B, batch["mask"])
    mean = types.mean_of(nats_B, batch["mask"])
    return mean, types.Aux(model_state, {"accuracy": accuracy, **found})

  def logits(variables, batch, rng):
    del rng
    return apply(variables, batch[inkey])[0]

  def features(variables, batch, rng):
    del rng
    return apply(variables, batch[inkey], method="features")[0]

  def distilled(variables, batch, rng):
    del rng
    return apply(variables, batch[inkey], method="distilled")[0]

  predict = {"logits": logits, "features": features, "distilled": distilled}
  return types.Task(types.init_of(model), {"loss": loss}, predict)
