"""Tables under tasks: any column name works or is reported in one line."""

import json

import numpy as np
import pytest

from common.errors import UserError
from configs.tabular import adult
from configs.textbook import linear_regression
from train import build, loop, trained

NAMES = (
  "x",
  "y",
  "label",
  "image",
  "inputs",
  "tokens",
  "targets",
  "chosen_inputs",
  "mask",
  "index",
  "bytes",
)
MODELS = {
  "regression": ("mlp", {"hidden": ()}),
  "binary_classification": ("mlp", {"hidden": (), "out_features": 1}),
  "image_classification": ("conv", {}),
  "text_classification": ("text_cnn", {}),
  "language_modeling": ("bengio", {}),
  "token_classification": ("tagger", {}),
}


def config_of(path, task="regression", **model):
  config = linear_regression.get_config("smoke")
  config.total_steps = 2
  config.evals = {}
  config.task = dict(name=task)
  name, settings = MODELS[task]
  config.model = dict(name=name, **settings, **model)
  config.data = dict(source=f"csv:{path}", split="all")
  config.mesh = dict(data=1, tensor=-1)
  return config


def table(tmp_path, **columns):
  path = tmp_path / "table.csv"
  rows = zip(*columns.values(), strict=True)
  lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
  path.write_text("\n".join(lines))
  return path


def test_columns_x_and_y_are_regressed(tmp_path):
  """Whole numbers in the table are numbers, too."""
  path = table(tmp_path, x=[0, 1, 2, 3], y=[1, 3, 5, 7])
  config = config_of(path)
  config.total_steps = 200
  config.optimizer.lr = 0.1
  reports = list(loop.fit(build.run(config, None, say=lambda line: None)))
  assert reports[-1].scalars["train/loss"] < 1e-4


@pytest.mark.parametrize("task", sorted(MODELS))
@pytest.mark.parametrize("name", NAMES)
def test_a_column_of_any_name_works_or_is_one_line(tmp_path, name, task):
  path = table(tmp_path, **{name: [0, 1, 1, 0], "other": [1, 2, 3, 4]})
  with pytest.raises(UserError) as error:  # no task reads one column alone
    list(loop.fit(build.run(config_of(path, task), None, say=str)))
  assert "\n" not in str(error.value)
  assert "config" in str(error.value)


def test_a_missing_field_is_named_with_those_there_are(tmp_path):
  path = table(tmp_path, X=[0, 1], y=[0, 1])
  config = config_of(path, in_features=1)
  with pytest.raises(UserError, match="field 'x', and the data have X, index"):
    list(loop.fit(build.run(config, None, say=str)))


def test_outputs_of_another_shape_than_the_target_are_one_line(tmp_path):
  path = table(tmp_path, x=[0, 1], y=[0, 1])
  config = config_of(path, out_features=3)
  with pytest.raises(UserError, match=r"predictions have shape \(2, 3\)"):
    list(loop.fit(build.run(config, None, say=str)))


def test_a_column_index_is_not_the_place_in_the_source(tmp_path):
  path = table(tmp_path, x=[0, 1, 2], y=[0, 1, 2], index=[0.5, 7.5, 9.5])
  run = build.run(config_of(path), None, say=str)
  batch = next(run.batches(0))
  assert batch["index"].dtype == np.int32
  np.testing.assert_array_equal(batch["index"], [0, 1, 2])


def test_a_run_of_columns_is_evaluated_without_its_data(tmp_path):
  """And the figures are those of the run, from the workdir's statistics."""
  config = adult.get_config("smoke")
  workdir = tmp_path / "run"
  (tmp_path / "train.csv").write_text(
    "age,job,income\n"
    + "".join(
      f"{20 + i},{('clerk', 'nurse', '?')[i % 3]},{('low', 'high')[i // 16]}\n"
      for i in range(32)
    )
  )
  (tmp_path / "held.csv").write_text(
    "age,job,income\n25,smith,low\n45,?,high\n"
  )
  config.data.update(source=f"csv:{tmp_path}/train.csv", split="all")
  config.data.rows.exclude = ()
  config.mesh = dict(data=1, tensor=-1)
  config.evals.val.update(source=f"csv:{tmp_path}/held.csv", split="all")
  run = build.run(config, str(workdir), say=str)
  scalars = list(loop.fit(run))[-1].scalars
  kept = json.loads((workdir / "columns.json").read_text())
  assert kept["categories"] == {"job": ["", "clerk", "nurse"]}
  assert kept["classes"] == ["high", "low"]
  (tmp_path / "train.csv").unlink()
  found = trained.load(str(workdir))
  again = build.evaluators(found, str(workdir), say=str)["val"]
  for metric, value in again(found.variables, found.step).items():
    assert scalars[f"val/{metric}"] == value
