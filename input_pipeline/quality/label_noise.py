"""How wrong the labels of a data set are, from what a model says of them.

Confident learning (Northcutt, Jiang and Chuang, 2021, arXiv:1911.00068, by
cleanlab) takes a weak model's own mistakes for errors of the labels: with a
model that tells two thirds of them, it finds a quarter wrong where a tenth is.
So the noise matrix is read off where the model is most sure of a class (anchor
points: Liu and Tao, 2016, arXiv:1411.7718; Patrini et al., 2017,
arXiv:1609.03683): the given labels there are the noise. It needs the model's
ranking alone, not that its probabilities are calibrated. Labels are ranked by
their probability after Bayes' rule. What cleanlab finds is told beside it.
"""

from typing import NamedTuple

import numpy as np

# Of a class: those that its model is most sure of, but no fewer than _LEAST
# where half of the class has as many.
_ANCHORS = 0.15
_LEAST = 50
# How labels are ranked, as suits those of CIFAR-10N. The model was trained on
# labels whose noise has flattened what it tells; and its mistakes are of more
# kinds than people's.
_EXPONENT = 2.0
_SMOOTHING = 0.2


class Errors(NamedTuple):
  """What is believed of labels.

  wrong: bool [N], the labels that are probably wrong: as many of the smallest
    quality as are estimated to be wrong, if it is below a half.
  suggested: int [N], the most probable class other than the given one.
  quality: float [N] in 0..1, the probability that the given label is right;
    the smaller, the more suspect.
  joint: [C, C], share of the examples with the row's given label and the
    column's true one, estimated.
  noise: [C, C], probability of the column's given label where the row's is
    true, estimated.
  confident: bool [N], the labels that cleanlab's find_label_issues finds.
  """

  wrong: np.ndarray
  suggested: np.ndarray
  quality: np.ndarray
  joint: np.ndarray
  noise: np.ndarray
  confident: np.ndarray

  def share(self) -> float:
    """Of the labels that are wrong, estimated."""
    return 1 - float(np.trace(self.joint))


def find_errors(given: np.ndarray, probabilities: np.ndarray) -> Errors:
  """The Errors of labels, by probabilities of a model that has not seen them.

  Args:
    given: int [N], of at least two classes.
    probabilities: [N, C], out of fold.
  """
  cleanlab = import_cleanlab()
  # Nothing can be learned of a class without examples.
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
  """P(given: row | true: column), [C, C], from each class's anchor points."""
  classes = p_NC.shape[1]
  matrix = np.zeros((classes, classes))
  for true in range(classes):
    size = int((given == true).sum())
    count = max(1, min(size // 2, max(_LEAST, int(_ANCHORS * size))))
    anchors = np.argsort(-p_NC[:, true], kind="stable")[:count]
    matrix[:, true] = np.bincount(given[anchors], minlength=classes) / count
  return matrix


def _joint(given: np.ndarray, given_true_CC: np.ndarray) -> np.ndarray:
  """Shares of (given, true), that the noise makes the given labels' shares."""
  from scipy.optimize import nnls

  share_C = np.bincount(given, minlength=len(given_true_CC)) / len(given)
  true_C, _ = nnls(given_true_CC, share_C)
  joint_CC = given_true_CC * true_C
  # Where no shares of true labels give the given ones, the latter are right.
  total_C1 = joint_CC.sum(1, keepdims=True)
  fallback_CC = np.eye(len(share_C))
  joint_CC = np.where(total_C1 > 0, joint_CC, fallback_CC)
  return joint_CC * share_C[:, None] / joint_CC.sum(1, keepdims=True)


def import_cleanlab():
  """The library; ValueError where it is not installed."""
  try:
    import cleanlab.count
    import cleanlab.filter
  except ImportError:
    raise ValueError(
      "label_errors needs cleanlab, which is not installed: "
      "pip install -e '.[judge]'"
    ) from None
  return cleanlab
