"""Fréchet distance between generated and real images in a feature space."""

import jax
import jax.numpy as jnp

from train import types
from train.objectives import metrics


def frechet(
  context: types.EvalContext, *, classifier: str = "", num_samples: int = 10000
) -> types.Evaluator:
  """The distance between Gaussians fitted to features (Heusel et al. 2017).

  frechet_distance = |m - m'|^2 + tr(S + S' - 2 (S S')^(1/2)), where m and S are
  the mean and covariance of the features of the split's images, and m' and S'
  those of as many generated images.

  Args:
    context: of the run; its task predicts "samples" in [-1, 1].
    classifier: workdir of an image classifier trained by this code on images in
      [-1, 1]; its prediction "features" are the features. "" takes the pixels.
    num_samples: number of real and of generated images, rounded up to whole
      batches and limited by the size of the split.

  Raises:
    ValueError: the task does not predict samples.
  """
  if "samples" not in context.task.predict:
    raise ValueError("frechet needs a task that predicts samples")
  if classifier:
    judge, judge_variables = context.load(classifier)
    embed = judge.predict["features"]
  else:
    judge_variables = None

    def embed(variables, batch, rng):
      del variables, rng
      return batch["image"]

  @jax.jit
  def features(variables, batch, rng):
    feature = embed(variables, batch, rng)
    return feature.reshape(feature.shape[0], -1).astype(jnp.float32)

  draw = jax.jit(context.task.predict["samples"])
  real: list = []  # computed once: the real images do not change

  def moments(images):
    """metrics.Moments of the features of (image, mask) pairs."""
    merged = None
    for image_BHWC, mask_B in images:
      feature_BF = features(judge_variables, {"image": image_BHWC}, context.rng)
      found = metrics.moments_of(*context.fetch((feature_BF, mask_B)))
      merged = found if merged is None else merged + found
    return merged.mean, merged.covariance()

  def evaluate(variables, step):
    del step
    if not real:
      real.append(
        moments((b["image"], b["mask"]) for b in _limit(context, num_samples))
      )
    fakes = (
      (draw(variables, b, jax.random.fold_in(context.rng, i)), b["mask"])
      for i, b in enumerate(_limit(context, num_samples))
    )
    distance = metrics.frechet_distance(*real[0], *moments(fakes))
    return {"frechet_distance": float(distance)}

  return types.Measuring(evaluate, lambda variables: ("frechet_distance",))


def _limit(context, num_samples):
  """Batches until they hold `num_samples` rows."""
  passed = 0
  for batch in context.batches():
    yield batch
    passed += len(batch["mask"])
    if passed >= num_samples:
      return
