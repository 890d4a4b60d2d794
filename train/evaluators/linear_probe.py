"""A linear classifier and nearest neighbours of frozen features."""

from train import types
from train.evaluators.parts import representations
from train.objectives import features as objective


def linear_probe(
  context: types.EvalContext,
  *,
  of: str = "features",
  fit: str = "train",
  examples: int | None = None,
  l2: float | None = None,
  neighbours: int = 20,
  temperature: float = 0.07,
) -> types.Evaluator:
  """Measures accuracy and knn_accuracy of features that are not trained on.

  Both classifiers know the features of the split `fit`, prepared by the ops of
  the evaluation. `accuracy` is that of logistic regression on standardized
  features, by L-BFGS. `knn_accuracy` is that of a vote of the nearest
  neighbours by cosine similarity, weighted by exp(similarity / temperature)
  (Wu et al., 2018, arXiv:1805.01978).

  Args:
    context: of the run; its data have labels.
    of: the prediction whose values are the features.
    fit: the split whose labels are known, such as "train".
    examples: the number of labels that are known, of the first examples of this
      split; None for all.
    l2: the strength of the classifier's weight decay; None takes the one of
      1e-4, 1e-3, 0.01 and 0.1 that classifies a fifth of the known examples
      best.
    neighbours: the number of neighbours that vote.
    temperature: of the votes.

  Raises:
    ValueError: the task has no such prediction, the data have no labels, or a
      number is out of range.
  """
  if neighbours < 1 or not temperature > 0 or (examples or 1) < 1:
    raise ValueError(
      f"neighbours={neighbours}, examples={examples} or"
      f" temperature={temperature} is not above 0"
    )
  read = representations.reader(context, of)
  known_batches = context.read(split=fit)
  strengths = (1e-4, 1e-3, 1e-2, 1e-1) if l2 is None else (l2,)

  def evaluate(variables, step):
    del step
    known = read(variables, known_batches, examples)
    asked = read(variables, context.batches)
    classes = context.num_classes
    guess_N = objective.linear_probe(
      known.x_NF, known.label_N, asked.x_NF, classes, strengths
    )
    places, similar = objective.neighbours(asked.x_NF, known.x_NF, neighbours)
    vote_N = objective.vote(
      places, similar, known.label_N, classes, temperature
    )
    return {
      "accuracy": float((guess_N == asked.label_N).mean()),
      "knn_accuracy": float((vote_N == asked.label_N).mean()),
    }

  return types.Measuring(evaluate, lambda variables: _NAMES)


_NAMES = ("accuracy", "knn_accuracy")
