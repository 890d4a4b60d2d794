"""Extractive question answering: exact match and F1."""

import json
import pathlib
from typing import NamedTuple

import jax
import numpy as np

from train import types
from train.objectives import squad_metrics


class Answered(NamedTuple):
  """The answers to a question from all windows of its text.

  best: [(score, answer)] of the best spans, in descending order.
  null: the lowest score of "no answer" over the windows.
  """

  identity: str
  references: list[str]
  best: list[tuple[float, str]]
  null: float


def question_answering(
  context: types.EvalContext,
  *,
  max_answer: int = 30,
  n_best: int = 1,
  null_threshold: float | None = None,
  language: str = "en",
) -> types.Evaluator:
  """Measures exact_match and f1 in per cent, as SQuAD's script does, and loss.

  The answer is the span with the highest sum of start and end logits in any
  window of the text (Devlin et al., arXiv:1810.04805, section 4.3). Where the
  data has questions without an answer, the rules of version 2 apply, and
  best_f1 is f1 at the threshold that maximizes it, best_threshold.

  WORKDIR/<key>_predictions.json is {id: answer}, the input of SQuAD's script.
  With n_best > 1, <key>_nbest.json has the best answers with their scores.

  Args:
    context: of the run.
    max_answer: largest number of tokens in an answer.
    n_best: number of answers to write.
    null_threshold: the answer is "" if the lowest score of "no answer", at the
      [CLS] of a window, exceeds that of the best span by more than this; None
      always gives an answer.
    language: "zh" compares characters, see train/objectives/squad_metrics.py.

  Raises:
    ValueError: a setting is wrong, the task does not predict a span, or the
      rows are not questions.
  """
  if "span" not in context.task.predict or not context.texts:
    raise ValueError(
      "question_answering needs data.rows=dict(name='questions') and a task"
      " that predicts a span"
    )
  if max_answer < 1 or n_best < 1 or language not in ("en", "zh"):
    raise ValueError(
      f"max_answer={max_answer} and n_best={n_best} must be at least 1, and"
      f" language={language!r} must be en or zh"
    )

  @jax.jit
  def predict(variables, batch, at):
    loss, _ = context.task.losses["loss"](variables, batch, at)
    return loss, context.task.predict["span"](variables, batch, at.rng)

  def evaluate(variables, step):
    at = types.Context(context.rng, np.int32(step), train=False)
    total, answered = np.zeros(2), {}
    for batch in context.batches():
      loss, (start_BT, end_BT) = context.fetch(predict(variables, batch, at))
      total += [float(loss.total), float(loss.weight)]
      index_B = context.fetch(batch["index"])
      real = np.flatnonzero(index_B >= 0)
      texts = context.texts(index_B[real])
      for i, row in enumerate(real):
        one = {name: values[i] for name, values in texts.items()}
        logits = (start_BT[row], end_BT[row])
        found = of_window(*logits, one, max_answer, n_best)
        record = int(one["record"])
        before = answered.get(record)
        answered[record] = merged(before, found, n_best) if before else found
    ordered = [answered[record] for record in sorted(answered)]
    answers = [chosen(each, null_threshold) for each in ordered]
    if context.workdir and jax.process_index() == 0:
      _write(context, ordered, answers, n_best)
    references = [each.references for each in ordered]
    mixed = language == "zh"
    found = squad_metrics.score(answers, references, mixed)
    if squad_metrics.version_of(references) == 2:
      found |= best_threshold(ordered, mixed)
    return {"loss": float(total[0] / max(total[1], 1)), **found}

  return evaluate


def of_window(
  start_T: np.ndarray,
  end_T: np.ndarray,
  texts: dict,
  max_answer: int,
  n_best: int,
) -> Answered:
  """Returns the best spans of one window that lie in the text."""
  places = np.flatnonzero(texts["ends"] >= 0)
  first, last = places[0], places[-1] + 1
  null = float(start_T[0]) + float(end_T[0])
  start_T, end_T = (x[first:last].astype(np.float64) for x in (start_T, end_T))
  T = len(start_T)
  longest = min(max_answer, T)
  scores_KT = np.full((longest, T), -np.inf)
  for k in range(longest):
    scores_KT[k, : T - k] = start_T[: T - k] + end_T[k:]
  flat = scores_KT.ravel()
  # Among equal scores, the shorter span, then the earlier one.
  some = np.argsort(-flat, kind="stable")[:n_best]
  best = []
  for place in some[np.isfinite(flat[some])]:
    k, i = divmod(int(place), T)
    begin, end = texts["starts"][first + i], texts["ends"][first + i + k]
    best.append((float(flat[place]), texts["context"][begin:end]))
  references = list(texts["answers"].get("text", []))
  return Answered(str(texts["id"]), references, best, null)


def merged(a: Answered, b: Answered, n_best: int) -> Answered:
  """Merges the answers of two windows of one text."""
  best = sorted(a.best + b.best, key=lambda each: -each[0])[:n_best]
  return a._replace(best=best, null=min(a.null, b.null))


def chosen(answered: Answered, threshold: float | None) -> str:
  """Returns the answer, or "" if "no answer" has a better score."""
  score, text = answered.best[0]
  if threshold is not None and answered.null - score > threshold:
    return ""
  return text


def best_threshold(answered: list[Answered], mixed: bool) -> dict[str, float]:
  """{"best_f1", "best_threshold"}: the largest F1 in per cent, and where it is.

  The thresholds tried are those at which one more question is answered.
  """
  doubts = np.array([each.null - each.best[0][0] for each in answered])
  order = np.argsort(doubts, kind="stable")
  empty = [squad_metrics.best("", a.references, mixed, 2)[1] for a in answered]
  chosen = [
    squad_metrics.best(a.best[0][1], a.references, mixed, 2)[1]
    for a in answered
  ]
  gains = np.array([chosen[i] - empty[i] for i in order])
  sums = sum(empty) + np.concatenate([[0.0], np.cumsum(gains)])
  # No threshold separates two questions with the same difference.
  ends = np.append(np.diff(doubts[order]) > 0, True)
  allowed = np.concatenate([[True], ends])
  count = int(np.argmax(np.where(allowed, sums, -np.inf)))
  threshold = doubts[order[count - 1]] if count else doubts.min() - 1.0
  return {
    "best_f1": float(100 * sums[count] / len(answered)),
    "best_threshold": float(threshold),
  }


def _write(context, ordered: list[Answered], chosen: list[str], n_best: int):
  folder = pathlib.Path(context.workdir)
  answers = {a.identity: text for a, text in zip(ordered, chosen, strict=True)}
  files = {"predictions": answers}
  if n_best > 1:
    files["nbest"] = {
      a.identity: [{"text": text, "score": s} for s, text in a.best]
      for a in ordered
    }
  for name, content in files.items():
    path = folder / f"{context.key}_{name}.json"
    path.write_text(
      json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8"
    )
