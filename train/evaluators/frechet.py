"""Fréchet distance between generated and real images in a feature space."""

import hashlib
import json
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from train import types
from train.objectives import metrics


def frechet(
  context: types.EvalContext,
  *,
  classifier: str = "",
  num_samples: int = 10000,
  metric: str = "frechet_distance",
) -> types.Evaluator:
  """The distance between Gaussians fitted to features (Heusel et al. 2017).

  frechet_distance = |m - m'|^2 + tr(S + S' - 2 (S S')^(1/2)), where m and S are
  the mean and covariance of the features of the split's images, and m' and S'
  those of as many generated images.

  Distances are comparable only if they have the same features, number of images
  and size of images. Each evaluation prints these, with a digest of the
  classifier's variables, and writes them to WORKDIR/<key>_frechet.json. Images
  are never resized here, so that the classifier must read images of their size.

  Args:
    context: of the run; its task predicts "samples" in [-1, 1].
    classifier: workdir of an image classifier trained by this code on images in
      [-1, 1]; its prediction "features" are the features. "" takes the pixels.
    num_samples: number of real and of generated images, rounded up to whole
      batches and limited by the size of the split.
    metric: the name of the distance in the results.

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
  # Computed once: neither the real images nor the classifier change.
  real: list = []
  stated: dict = {}

  def moments(images):
    """metrics.Moments of the features of (image, mask) pairs."""
    merged = None
    for image_BHWC, mask_B in images:
      feature_BF = features(judge_variables, {"image": image_BHWC}, context.rng)
      found = metrics.moments_of(*context.fetch((feature_BF, mask_B)))
      merged = found if merged is None else merged + found
    return merged

  def evaluate(variables, step):
    if not real:
      real.append(
        moments((b["image"], b["mask"]) for b in _limit(context, num_samples))
      )
    fakes = (
      (draw(variables, b, jax.random.fold_in(context.rng, i)), b["mask"])
      for i, b in enumerate(_limit(context, num_samples))
    )
    made = moments(fakes)
    distance = metrics.frechet_distance(
      *(
        part
        for each in (real[0], made)
        for part in (each.mean, each.covariance())
      )
    )
    if not stated:
      size = next(context.batches())["image"].shape[1:]
      stated.update(
        features=classifier or "pixels",
        feature_size=len(made.mean),
        digest=digest_of(judge_variables, context.fetch) if classifier else "",
        real_images=int(real[0].count),
        generated_images=int(made.count),
        image_size=list(size),
        resize="none",
      )
    _state(context, stated, step, distance)
    return {metric: float(distance)}

  return types.Measuring(evaluate, lambda variables: (metric,))


def digest_of(variables: types.PyTree, fetch: Callable = jax.device_get) -> str:
  """SHA-256 of a tree's paths, shapes and bytes, as 64 hexadecimal digits."""
  found = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
    array = np.asarray(fetch(leaf))
    name = f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n"
    found.update(name.encode())
    found.update(np.ascontiguousarray(array).tobytes())
  return found.hexdigest()


def _state(context, stated, step: int, distance: float) -> None:
  """Prints and writes what the distance was measured with."""
  height, width, channels = stated["image_size"]
  of = stated["features"]
  if stated["digest"]:
    of += f" (SHA-256 {stated['digest'][:12]}…)"
  context.say(
    f"{context.key}: Fréchet distance of {stated['generated_images']} generated"
    f" and {stated['real_images']} real images of {height} x {width} x"
    f" {channels}, not resized, in {stated['feature_size']} features of {of}"
  )
  if context.workdir is not None and jax.process_index() == 0:
    path = pathlib.Path(context.workdir) / f"{context.key}_frechet.json"
    found = {"step": step, "distance": distance, **stated}
    path.write_text(json.dumps(found, indent=2) + "\n")


def _limit(context, num_samples):
  """Batches until they hold `num_samples` rows."""
  passed = 0
  for batch in context.batches():
    yield batch
    passed += len(batch["mask"])
    if passed >= num_samples:
      return
