"""Estimates of wrong labels from out-of-fold predictions of a model.

Confident learning (Northcutt, Jiang and Chuang, 2021, arXiv:1911.00068, in
cleanlab) takes mistakes of a weak model for label errors: with a model that is
right for two thirds, it estimates a quarter of wrong labels where a tenth is.
Here the noise matrix is estimated from the given labels of the examples for
which the model is most certain of a class (anchor points: Liu and Tao, 2016,
arXiv:1411.7718; Patrini et al., 2017, arXiv:1609.03683). This depends only on
the ranking by the model, not on calibrated probabilities. Labels are ranked by
their posterior probability. What cleanlab finds is reported as well.
"""

from typing import NamedTuple

import numpy as np

# The share of a class that its anchor points make up; at least _LEAST, but at
# most half of the class.
_ANCHORS = 0.15
_LEAST = 50
# Constants of the ranking, chosen on CIFAR-10N. The exponent sharpens
# probabilities that noisy training labels have flattened; the smoothing allows
# for mistakes of the model that people do not make.
_EXPONENT = 2.0
_SMOOTHING = 0.2


class Errors(NamedTuple):
  """Estimates of which labels are wrong.

  wrong: bool [N], the labels that are probably wrong: those of the smallest
    quality, as many as are estimated to be wrong, with a quality below 0.5.
  suggested: int [N], the most probable class other than the given one.
  quality: float [N] from 0 to 1, the probability that the given label is right.
  joint: [C, C], the estimated share of examples with the given label of the row
    and the true label of the column.
  noise: [C, C], the estimated probability of the given label of the column for
    the true label of the row.
  confident: bool [N], the labels that cleanlab's find_label_issues finds.
  """

  wrong: np.ndarray
  suggested: np.ndarray
  quality: np.ndarray
  joint: np.ndarray
  noise: np.ndarray
  confident: np.ndarray

  def share(self) -> float:
    """The estimated share of wrong labels."""
    return 1 - float(np.trace(self.joint))


def find_errors(given: np.ndarray, probabilities: np.ndarray) -> Errors:
  """Returns the Errors of labels, given out-of-fold probabilities.

  Args:
    given: int [N], labels of at least two classes.
    probabilities: [N, C].
  """
  cleanlab = import_cleanlab()
  # Classes without examples are left out.
  present = np.unique(given)
  dense = np.searchsorted(present, given)
  p_NC = np.maximum(probabilities[:, present], 1e-12)
  p_NC = p_NC / p_NC.sum(1, keepdims=True)
  counts = cleanlab.count.compute_confident_joint(dense, p_NC)
  confident = cleanlab.filter.find_label_issues(
    dense, p_NC, confident_joint=counts, n_jobs=1
  )
  given_true_CC = noise_matrix(dense, p_NC)
  joint_CC = _joint(dense, given_true_CC)
  smooth_CC = given_true_CC * (1 - _SMOOTHING) + _SMOOTHING / len(present)
  ranked_NC = smooth_CC[dense] * p_NC**_EXPONENT
  ranked_NC /= ranked_NC.sum(1, keepdims=True)
  rows = np.arange(len(given))
  quality = ranked_NC[rows, dense].copy()
  ranked_NC[rows, dense] = -1
  wrong = np.zeros(len(given), bool)
  count = round((1 - np.trace(joint_CC)) * len(given))
  wrong[np.argsort(quality, kind="stable")[:count]] = True
  wrong &= quality < 0.5
  classes, where = probabilities.shape[1], np.ix_(present, present)
  joint, noise = np.zeros((classes, classes)), np.eye(classes)
  joint[where], noise[where] = joint_CC, given_true_CC.T
  return Errors(
    wrong,
    present[ranked_NC.argmax(1)],
    quality,
    joint,
    noise,
    np.asarray(confident, bool),
  )


def noise_matrix(given: np.ndarray, p_NC: np.ndarray) -> np.ndarray:
  """Returns P(given: row | true: column), [C, C], from anchor points."""
  classes = p_NC.shape[1]
  matrix = np.zeros((classes, classes))
  for true in range(classes):
    size = int((given == true).sum())
    count = max(1, min(size // 2, max(_LEAST, int(_ANCHORS * size))))
    anchors = np.argsort(-p_NC[:, true], kind="stable")[:count]
    matrix[:, true] = np.bincount(given[anchors], minlength=classes) / count
  return matrix


def _joint(given: np.ndarray, given_true_CC: np.ndarray) -> np.ndarray:
  """Returns shares of (given, true) with the margins of the given labels."""
  from scipy.optimize import nnls

  share_C = np.bincount(given, minlength=len(given_true_CC)) / len(given)
  true_C, _ = nnls(given_true_CC, share_C)
  joint_CC = given_true_CC * true_C
  # A given label that no true label explains is taken to be right.
  total_C1 = joint_CC.sum(1, keepdims=True)
  fallback_CC = np.eye(len(share_C))
  joint_CC = np.where(total_C1 > 0, joint_CC, fallback_CC)
  return joint_CC * share_C[:, None] / joint_CC.sum(1, keepdims=True)


def import_cleanlab():
  """The library; ValueError if it is not installed."""
  try:
    import cleanlab.count
    import cleanlab.filter
  except ImportError:
    raise ValueError(
      "label_errors needs cleanlab, which is not installed: "
      "pip install -e '.[judge]'"
    ) from None
  return cleanlab
