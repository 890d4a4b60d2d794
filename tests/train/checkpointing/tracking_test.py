"""Saved before it is evaluated; the best is kept; a run stops early."""

import json
import math

import experiments
import jax
import numpy as np
import pytest
from tiers import slow_but

from common.errors import UserError
from train import build, loop, trained
from train.checkpointing import evaluated, tracking
from train.measuring import timing


class CrashError(Exception):
  pass


def scripted(values, asked, crash_at=None):
  """An evaluator whose figure is the next of `values`, by step."""

  def evaluate(variables, step):
    asked.append(step)
    if step == crash_at:
      raise CrashError
    return {"loss": values[step]}

  return evaluate


def run_of(workdir, evaluations, total_steps=8, **config):
  """A tiny run, one update a step, whose evaluators are replaced."""
  made = experiments.config_of("linear_regression")
  made.total_steps = total_steps
  made.log_every_steps = 2
  made.checkpoint = {}
  made.evals = {key: dict(name="mean", every_steps=2) for key in evaluations}
  made.update(config)
  run = build.run(made, str(workdir), say=lambda line: None)
  return run._replace(
    evaluations={k: loop.Evaluation(e, n) for k, (e, n) in evaluations.items()}
  )


def rows(workdir):
  """metrics.jsonl without what depends on the clock or the machine."""
  return [
    {k: v for k, v in json.loads(line).items() if k not in timing.CLOCK_KEYS}
    for line in (workdir / "metrics.jsonl").read_text().splitlines()
  ]


def saved(workdir):
  return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir())


VALUES = {2: 3.0, 4: 1.0, 6: 2.0, 8: 1.5, 10: 1.25, 12: 0.5, 14: 9.0}


def test_a_crash_in_the_last_evaluation_loses_no_step(tmp_path):
  straight = tmp_path / "straight"
  val, test = (scripted(VALUES, []), 2), (scripted({8: 7.0}, []), 0)
  list(loop.fit(run_of(straight, {"val": val, "test": test})))

  asked: list[int] = []
  run = run_of(
    tmp_path / "a",
    {"val": val, "test": (scripted({8: 7.0}, asked, crash_at=8), 0)},
  )
  with pytest.raises(CrashError):
    list(loop.fit(run))
  # By default there is no save but that at the end: it came first.
  assert saved(tmp_path / "a") == [8]

  # Of the last step, only the evaluation that failed is owed.
  again: list[int] = []
  evaluations = {"val": (scripted(VALUES, again), 2)}
  evaluations["test"] = (scripted({8: 7.0}, asked), 0)
  reports = list(loop.fit(run_of(tmp_path / "a", evaluations)))
  assert [r.scalars for r in reports] == [{"test/loss": 7.0}]
  assert again == [] and asked == [8, 8]
  assert rows(tmp_path / "a") == rows(straight)
  # The run is over: nothing is done again.
  assert list(loop.fit(run_of(tmp_path / "a", evaluations))) == []
  assert again == [] and asked == [8, 8]


def test_a_row_whose_mark_was_lost_is_not_written_twice(tmp_path):
  """A kill between the row of an evaluation and evaluated.json."""
  asked: list[int] = []
  evaluations = {"val": (scripted(VALUES, asked), 2)}
  list(loop.fit(run_of(tmp_path, evaluations)))
  before = rows(tmp_path)
  (tmp_path / "evaluated.json").unlink()
  list(loop.fit(run_of(tmp_path, evaluations)))
  assert asked == [2, 4, 6, 8, 8]
  assert rows(tmp_path) == before


def test_the_best_checkpoint_stays(tmp_path):
  evaluations = {"val": (scripted(VALUES, []), 2)}
  best = dict(keep=1, keep_best="val/loss")
  list(loop.fit(run_of(tmp_path, evaluations, 10, checkpoint=best)))
  assert saved(tmp_path) == [4, 10]
  assert trained.load(str(tmp_path), "best").step == 4
  assert trained.load(str(tmp_path)).step == 10
  # Trained on, it is replaced by a better one.
  list(loop.fit(run_of(tmp_path, evaluations, 14, checkpoint=best)))
  assert saved(tmp_path) == [12, 14]
  assert trained.load(str(tmp_path), "best").step == 12


def test_without_keep_best_there_is_no_best(tmp_path):
  list(loop.fit(run_of(tmp_path, {"val": (scripted(VALUES, []), 2)})))
  with pytest.raises(UserError, match="no best checkpoint is recorded"):
    trained.load(str(tmp_path), "best")


STOPPING = dict(metric="val/loss", patience=2)


def stopping_run(workdir, asked, measured=None):
  evaluations = {"val": (scripted(VALUES, asked), 2)}
  test = scripted({8: 7.0}, asked)

  def tested(variables, step):
    if measured is not None:
      measured.append(jax.device_get(variables.params))
    return test(variables, step)

  evaluations["test"] = (tested, 0)
  return run_of(
    workdir,
    evaluations,
    14,
    checkpoint=dict(every_steps=3, keep=9, keep_best="val/loss"),
    early_stopping=STOPPING,
  )


def test_a_run_stops_early_and_evaluates_at_its_end(tmp_path):
  asked: list[int] = []
  lines: list[str] = []
  measured: list = []
  run = stopping_run(tmp_path, asked, measured)._replace(say=lines.append)
  reports = list(loop.fit(run))
  # 1.0 at step 4; neither 2.0 at 6 nor 1.5 at 8 is better.
  assert asked == [2, 4, 6, 8, 8]
  assert reports[-1].step == 8 and reports[-1].scalars == {"test/loss": 7.0}
  assert lines == [
    "stopped early at step 8: val/loss has not improved for 2 evaluations; its"
    " best is 1 at step 4",
    "test measures the best state, of step 4",
  ]
  assert saved(tmp_path)[-1] == 8
  best = trained.load(str(tmp_path), "best").variables.params
  last = trained.load(str(tmp_path)).variables.params
  assert jax.tree.all(jax.tree.map(np.array_equal, measured[0], best))
  assert not jax.tree.all(jax.tree.map(np.array_equal, measured[0], last))
  assert evaluated.local(tmp_path / "evaluated.json").best_step == 4
  # The same command again has nothing to do.
  assert list(loop.fit(stopping_run(tmp_path, asked))) == []
  assert len(asked) == 5


def test_a_metric_that_is_never_finite_stops_a_run(tmp_path):
  lines: list[str] = []
  nan = dict.fromkeys(VALUES, math.nan)
  run = run_of(
    tmp_path, {"val": (scripted(nan, []), 2)}, 14, early_stopping=STOPPING
  )
  list(loop.fit(run._replace(say=lines.append)))
  assert lines == [
    "stopped early at step 4: val/loss has not improved for 2 evaluations; its"
    " best is unknown"
  ]


@pytest.mark.parametrize("taken", slow_but([3, 7], range(1, 9)))
def test_stopped_at_any_report_and_resumed_it_ends_alike(tmp_path, taken):
  list(loop.fit(stopping_run(tmp_path / "straight", [])))
  reports = loop.fit(stopping_run(tmp_path / "a", []))
  for _ in range(taken):
    next(reports)
  reports.close()
  list(loop.fit(stopping_run(tmp_path / "a", [])))
  assert rows(tmp_path / "a") == rows(tmp_path / "straight")
  assert saved(tmp_path / "a")[-1] == 8
  assert trained.load(str(tmp_path / "a"), "best").step == 4


EVERY = {"val": 2, "test": 0}


@pytest.mark.parametrize(
  ("text", "lower"),
  [
    ("val/loss", True),
    ("val/bits_per_byte", True),
    ("val/accuracy", False),
    ("val/macro_f1", False),
    ("min:val/score", True),
    ("max:val/score", False),
    ("max:val/loss", False),
  ],
)
def test_which_way_is_better(text, lower):
  found = tracking.metric(text, "config.x", EVERY)
  assert found == tracking.Metric(text.rpartition(":")[2], lower, "config.x")
  assert found.evaluator == "val"


@pytest.mark.parametrize(
  ("text", "line"),
  [
    ("loss", 'expected a metric such as "val/loss"'),
    ("train/loss", "has no 'train'"),
    ("test/loss", "set config.evals.test.every_steps"),
    ("val/score", "write min:val/score or max:val/score"),
    (3, "expected a metric"),
  ],
)
def test_a_metric_that_cannot_be_tracked_is_named(text, line):
  with pytest.raises(UserError, match=line):
    tracking.metric(text, "config.x", EVERY)


def test_small_gains_and_what_is_not_finite_are_no_improvement():
  stop = tracking.Metric("val/loss", True)
  rules = tracking.Rules(stop=stop, patience=3, min_delta=0.1)
  tracked = tracking.Tracked()
  since = []
  for step, value in enumerate([math.nan, 1.0, 0.95, 0.85, math.inf, 0.8]):
    tracked = tracking.observe(rules, tracked, step, "val", {"loss": value})
    tracked = tracking.read({"tracked": tracking.written(tracked)})
    since.append(tracked.stop.since)
  assert since == [1, 0, 1, 0, 1, 2]
  assert tracked.stop.value == 0.85 and not tracking.ends(rules, tracked)
  tracked = tracking.observe(rules, tracked, 9, "val", {"loss": 1.0})
  assert tracking.ends(rules, tracked)


@pytest.mark.parametrize(
  ("config", "line"),
  [
    (dict(early_stopping=dict(metric="val/f2")), "val/f2"),
    (
      dict(early_stopping=dict(metric="max:val/f2")),
      r"config.early_stopping.metric='val/f2': .*\(valid: loss\)",
    ),
    (dict(checkpoint=dict(keep_best="val/map")), "return 'map'"),
    (dict(early_stopping=dict(metric="vall/loss")), "has no 'vall'"),
    (dict(early_stopping=dict(patience=2)), "early_stopping needs metric"),
    (dict(early_stopping=dict(metric="val/loss", patience=0)), "patience=0"),
    (dict(early_stopping=dict(metrik="val/loss")), 'did you mean "metric"'),
    (dict(checkpoint=dict(keep_best="loss")), "config.checkpoint.keep_best"),
  ],
)
def test_wrong_settings_are_named(tmp_path, config, line):
  with pytest.raises(UserError, match=line):
    run_of(tmp_path, {"val": (scripted(VALUES, []), 2)}, **config)


@pytest.mark.parametrize("name", tracking.Rules._fields[:2])
def test_a_figure_that_is_not_measured_is_named(tmp_path, name):
  where = f"config.{name}"
  wanted = tracking.Metric("val/accuracy", False, where)
  run = run_of(tmp_path, {"val": (scripted(VALUES, []), 2)})
  run = run._replace(rules=tracking.Rules(**{name: wanted}))
  line = f"{where}='val/accuracy': .* does not return 'accuracy'.*loss"
  with pytest.raises(UserError, match=line):
    list(loop.fit(run))
  assert saved(tmp_path) == [2]
