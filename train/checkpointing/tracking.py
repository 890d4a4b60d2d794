"""The best value of a metric so far: which checkpoint to keep, when to stop."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from common.errors import UserError

# Suffixes of metrics whose direction is known, so that they need no prefix.
_LOWER = re.compile(
  r"(loss|perplexity|nats|bits_per_\w+|error|distance|wer|cer|rmse|mae|mase)$"
)
_HIGHER = re.compile(
  r"(accuracy|top5|f1|precision|recall|auc|bleu|chrf|rouge\w*|exact_match|map)$"
)


class Metric(NamedTuple):
  """A metric of an evaluator and its direction.

  name: "KEY/NAME", as in metrics.jsonl.
  lower: whether lower values are better.
  where: the key of the config that names it, for error messages.
  """

  name: str
  lower: bool
  where: str = ""

  @property
  def evaluator(self) -> str:
    """The key of the evaluator in config.evals."""
    return self.name.partition("/")[0]


class Rules(NamedTuple):
  """The metrics that are tracked.

  keep_best: the metric whose best checkpoint is kept; or None.
  stop: the metric that ends the run when it stops improving; or None.
  patience: the number of evaluations without improvement that end the run.
  min_delta: by how much a value must be better to count as an improvement.
  """

  keep_best: Metric | None = None
  stop: Metric | None = None
  patience: int = 5
  min_delta: float = 0.0


class Best(NamedTuple):
  """The best value of one metric.

  value: None before the first evaluation.
  step: the step of the state with this value.
  since: the number of evaluations after it.
  """

  value: float | None = None
  step: int = 0
  since: int = 0


class Tracked(NamedTuple):
  """The state of `Rules`; part of a checkpoint's record."""

  keep_best: Best = Best()
  stop: Best = Best()


def metric(text: Any, where: str, evaluations: dict[str, int]) -> Metric:
  """Parses a metric: "val/loss", "min:val/score" or "max:val/score".

  Args:
    text: the value in the config.
    where: its key, for error messages.
    evaluations: {key of config.evals: every_steps}.

  Raises:
    UserError: the value has another format, its direction is unknown, or no
      evaluator of that key runs during training.
  """
  match = re.fullmatch(r"(?:(min|max):)?(([^/]+)/.+)", str(text))
  if not match:
    raise UserError(f'{where}={text!r}: expected a metric such as "val/loss"')
  direction, name, key = match.groups()
  if key not in evaluations:
    have = ", ".join(sorted(evaluations)) or "none"
    raise UserError(
      f"{where}={text!r}: config.evals has no {key!r} (valid: {have})"
    )
  if not evaluations[key]:
    raise UserError(
      f"{where}={text!r}: set config.evals.{key}.every_steps, so that the"
      " metric is measured during training"
    )
  if direction is None:
    if not (_LOWER.search(name) or _HIGHER.search(name)):
      raise UserError(
        f"{where}={text!r}: write min:{name} or max:{name}, since the direction"
        " of this metric is unknown"
      )
    direction = "min" if _LOWER.search(name) else "max"
  return Metric(name, direction == "min", where)


def early_stopping(
  *, metric: str, patience: int = 5, min_delta: float = 0.0
) -> dict[str, Any]:
  """Checks and returns the section config.early_stopping.

  Args:
    metric: the metric that must keep improving, such as "val/loss".
    patience: the number of consecutive evaluations without improvement after
      which the run ends.
    min_delta: by how much a value must be better to count as an improvement.

  Raises:
    ValueError: a value is out of range.
  """
  if type(patience) is not int or patience < 1:
    raise ValueError(f"patience={patience!r} is not a positive integer")
  number = isinstance(min_delta, (int, float)) and min_delta >= 0
  if not number or not math.isfinite(min_delta):
    raise ValueError(
      f"min_delta={min_delta!r} is not a finite number of at least 0"
    )
  return dict(metric=metric, patience=patience, min_delta=float(min_delta))


def check_measured(wanted: Metric, measured: Iterable[str]) -> None:
  """Checks that an evaluator returns a metric.

  Args:
    wanted: the metric.
    measured: the names that its evaluator returns.

  Raises:
    UserError: it does not return this one.
  """
  name, names = wanted.name.partition("/")[2], sorted(measured)
  if name not in names:
    asked = f"{wanted.where}={wanted.name!r}" if wanted.where else wanted.name
    raise UserError(
      f"{asked}: config.evals.{wanted.evaluator} does not return {name!r}"
      f" (valid: {', '.join(names) or 'none'})"
    )


def saved_first(rules: Rules, tracked: Tracked, due: Sequence[str]) -> bool:
  """Returns whether the evaluations that are due need the state to be saved.

  It may become the best one; and the first evaluation that early stopping reads
  may turn out not to return its metric, which ends the run.
  """
  best, stop, first = rules.keep_best, rules.stop, tracked.stop == Best()
  return bool(best and best.evaluator in due) or bool(
    first and stop and stop.evaluator in due
  )


def observe(
  rules: Rules, tracked: Tracked, step: int, key: str, figures: dict[str, float]
) -> Tracked:
  """Updates `tracked` by the results of evaluator `key` at `step`.

  Raises:
    UserError: the evaluator does not return the tracked metric.
  """
  best = _observed(rules.keep_best, tracked.keep_best, step, key, figures, 0.0)
  stop = _observed(
    rules.stop, tracked.stop, step, key, figures, rules.min_delta
  )
  return Tracked(best, stop)


def _observed(wanted, best: Best, step, key, figures, min_delta) -> Best:
  if wanted is None or wanted.evaluator != key:
    return best
  check_measured(wanted, figures)
  value = float(figures[wanted.name.partition("/")[2]])
  gain = -math.inf
  if math.isfinite(value):
    gain = math.inf if best.value is None else best.value - value
    if best.value is not None and not wanted.lower:
      gain = -gain
  if gain > min_delta:
    return Best(value, step, 0)
  return best._replace(since=best.since + 1)


def ends(rules: Rules, tracked: Tracked) -> bool:
  """Returns whether the run ends because its metric stopped improving."""
  return rules.stop is not None and tracked.stop.since >= rules.patience


def of_best(rules: Rules, every_steps: int) -> bool:
  """Returns whether an evaluation measures the best state, not the last one.

  Those at the end only do, of a run that stops early and keeps its best
  checkpoint: its last state is by definition not the best one.
  """
  return None not in (rules.stop, rules.keep_best) and not every_steps


def ordered(rules: Rules, evaluations: Any, due: list[str]) -> list[str]:
  """Returns the keys that are due, those that measure the best state last.

  Args:
    rules: of the run.
    evaluations: {key: with its every_steps}.
    due: keys.
  """
  return sorted(
    due, key=lambda key: of_best(rules, evaluations[key].every_steps)
  )


def described(rules: Rules, tracked: Tracked) -> str:
  """Returns why the run ends, for people."""
  best = tracked.stop
  known = "unknown"
  if best.value is not None:
    known = f"{best.value:.6g} at step {best.step}"
  return (
    f"{rules.stop.name} has not improved for {best.since} evaluations; its best"
    f" is {known}"
  )


def read(record: dict[str, Any]) -> Tracked:
  """Reads the Tracked that `written` stored in a checkpoint's record."""
  found = record.get("tracked", {})
  return Tracked(**{key: Best(*best) for key, best in found.items()})


def written(tracked: Tracked) -> dict[str, list]:
  """Returns a Tracked as JSON."""
  return {key: list(best) for key, best in tracked._asdict().items()}
