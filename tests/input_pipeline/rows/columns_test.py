"""Columns of a table as features, against values worked out by hand."""

import json

import numpy as np
import pytest

from input_pipeline.batching import pipeline
from input_pipeline.rows.parts import column_statistics

TABLE = """age,job,hours,pay,who
20,clerk,?,low,a
30,nurse,10,high,b
40,clerk,30,low,c
,?,20,high,d
"""


@pytest.fixture
def table(tmp_path):
  path = tmp_path / "table.csv"
  path.write_text(TABLE)
  return f"csv:{path}"


@pytest.fixture(autouse=True)
def whole_table(tmp_path):
  (tmp_path / "whole.csv").write_text(
    "age,job,hours,pay,who\n20,x,5,low,a\n30,y,10,high,b\n40,x,30,low,c\n"
  )


def whole(source, workdir=None, **rows):
  """(x, the other leaves) of all rows in order, and the Data."""
  rows.setdefault("exclude", ["who"])
  data = pipeline.train(
    source=source,
    split="all",
    rows=dict(name="columns", **rows),
    batch_size="all",
    workdir=workdir and str(workdir),
  )
  return next(data.batches(0)), data


def z(*values):
  """By NumPy, what is missing taken for the mean."""
  found = np.array(values, float)
  scaled = (found - np.nanmean(found)) / np.nanstd(found)
  return np.nan_to_num(scaled)


def test_numbers_indicators_and_categories(table):
  batch, data = whole(table, label="pay")
  expected = np.stack(
    [
      z(20, 30, 40, np.nan),
      z(np.nan, 10, 30, 20),
      [0, 0, 0, 1],  # age is missing
      [1, 0, 0, 0],  # hours are missing
      [0, 0, 0, 1],  # job: missing, clerk, nurse
      [1, 0, 1, 0],
      [0, 1, 0, 0],
    ],
    axis=1,
  )
  np.testing.assert_allclose(batch["x"], expected, atol=1e-6)
  assert batch["x"].dtype == np.float32
  # Sorted: high is 0.
  np.testing.assert_array_equal(batch["label"], [1, 0, 1, 0])
  assert data.class_names == ("high", "low")
  assert data.num_classes == 2
  assert "7 features of 3 columns, 2 classes" in data.note


def test_chosen_columns_min_max_and_no_indicators(table):
  batch, _ = whole(
    table.replace("table", "whole"),
    target="hours",
    numeric=["age"],
    categorical=["pay"],
    scaling="min_max",
    indicators=False,
  )
  np.testing.assert_allclose(
    batch["x"], [[0, 0, 1], [0.5, 1, 0], [1, 0, 1]], atol=1e-6
  )
  np.testing.assert_array_equal(batch["y"], [[5], [10], [30]])


def test_given_scales_and_a_scaled_target(table):
  batch, _ = whole(
    table.replace("table", "whole"),
    target="hours",
    numeric=["age"],
    scales=[["age", 25, 5]],
    scale_target=True,
  )
  np.testing.assert_allclose(batch["x"], [[-1], [1], [3]])
  np.testing.assert_allclose(batch["y"][:, 0], z(5, 10, 30), rtol=1e-6)


def test_bins_are_linear_between_quantiles_of_distinct_numbers(tmp_path):
  pays = [0] * 90 + [1, 2, 4, 8]
  (tmp_path / "pays.csv").write_text(
    "pay,sex\n" + "".join(f"{pay},{i % 2}\n" for i, pay in enumerate(pays))
  )
  settings = dict(label="sex", bins=2, exclude=())
  whole(f"csv:{tmp_path}/pays.csv", tmp_path / "run", **settings)
  (tmp_path / "new.csv").write_text("pay,sex\n-1,0\n1,0\n2,1\n5,1\n9,1\n")
  batch, data = whole(
    f"csv:{tmp_path}/new.csv", tmp_path / "run", **settings
  )  # the edges are 0, 2, 8
  np.testing.assert_allclose(
    batch["x"][:, 1:], [[0, 0], [0.5, 0], [1, 0], [1, 0.5], [1, 1]]
  )
  assert "3 features of 1 columns" in data.note


def test_an_evaluation_needs_no_training_data(table, tmp_path):
  workdir = tmp_path / "run"
  train, _ = whole(table, workdir, label="pay", unseen="column")
  (tmp_path / "new.csv").write_text(
    "hours,age,job,pay,who\n10,40,smith,low,x\n,,nurse,high,y\n"
  )
  (tmp_path / "table.csv").unlink()
  data = pipeline.evaluation(
    source=f"csv:{tmp_path}/new.csv",
    split="all",
    rows=dict(name="columns", label="pay", unseen="column", exclude=["who"]),
    batch_size=2,
    workdir=str(workdir),
  )
  batch = next(data.batches(0))
  age, hours = z(20, 30, 40, np.nan), z(np.nan, 10, 30, 20)
  np.testing.assert_allclose(
    batch["x"],
    [
      [age[2], hours[1], 0, 0, 0, 0, 0, 1],
      [0, 0, 1, 1, 0, 0, 1, 0],
    ],
    atol=1e-6,
  )
  np.testing.assert_array_equal(batch["label"], [1, 0])
  assert train["x"].shape[1] == 8 and not train["x"][:, -1].any()


def test_an_unseen_category_is_zeros_unless_it_has_a_column(table, tmp_path):
  whole(table, tmp_path / "run", label="pay")
  (tmp_path / "new.csv").write_text(
    "age,job,hours,pay,who\n30,smith,20,low,x\n"
  )
  batch, _ = whole(f"csv:{tmp_path}/new.csv", tmp_path / "run", label="pay")
  np.testing.assert_allclose(batch["x"], np.zeros((1, 7)), atol=1e-6)


def test_statistics_are_of_the_training_split_alone(table, tmp_path):
  lines = TABLE.splitlines()
  (tmp_path / "many.csv").write_text(
    "\n".join([lines[0], *(f"{n},clerk,{n},low,a" for n in range(20))])
  )
  pipeline.train(
    source=f"csv:{tmp_path}/many.csv",
    rows=dict(name="columns", target="hours", numeric=["age"]),
    batch_size=2,
    workdir=str(tmp_path / "run"),
  )
  kept = json.loads((tmp_path / "run" / "columns.json").read_text())
  assert kept["scaling"]["columns"]["age"]["count"] == 18


def test_statistics_of_a_mixture_are_of_all_components(tmp_path):
  for i, ages in enumerate([(1, 2, 3), (7, 8, 9)]):
    rows = "".join(f"{age},{age}\n" for age in ages)
    (tmp_path / f"part{i}.csv").write_text("age,pay\n" + rows)
  data = pipeline.train(
    mixture=[
      dict(source=f"csv:{tmp_path}/part{i}.csv", split="all") for i in range(2)
    ],
    rows=dict(name="columns", target="pay"),
    batch_size="all",
  )
  x = next(data.batches(0))["x"][:, 0]
  np.testing.assert_allclose(x, z(1, 2, 3, 7, 8, 9), rtol=1e-6)


def test_moments_in_parts_are_those_of_the_whole():
  values = np.random.default_rng(0).normal(1e3, 2, 300)
  seen = column_statistics._Seen()
  for part in np.split(values, 3):
    seen.add(part, keep=5)
  column = seen.column()
  assert column.count == 300
  np.testing.assert_allclose(column.mean, values.mean(), rtol=1e-12)
  np.testing.assert_allclose(column.std, values.std(), rtol=1e-9)
  assert (column.min, column.max) == (values.min(), values.max())


@pytest.mark.parametrize(
  ("rows", "said"),
  [
    (dict(label="pya"), ["'pya'", '"pay"', "table.csv"]),
    (dict(label="pay", numeric=["agee"]), ["'agee'", '"age"']),
    (dict(label="pay", target="age"), ["label", "target"]),
    (dict(), ["label", "target"]),
    (dict(label="pay", numeric=["job"]), ["'job'", "categorical"]),
    (dict(label="pay", numeric="age"), ["numeric='age'", "list"]),
    (dict(label="pay", scaling="zscore"), ["zscore", "z_score"]),
    (dict(label="pay", scales=[["age", 0, 0]]), ["deviation above 0"]),
    (dict(label="pay", unseen="drop"), ["unseen='drop'", "zeros"]),
    (dict(label="pay", max_categories=1), ["'job'", "more than 1", "exclude"]),
    (dict(label="pay", bins=-1), ["bins=-1", "count"]),
    (dict(label="pay", lable="x"), ["rows.lable", '"label"']),
    (dict(target="age"), ["table.csv:5", "'age' is missing"]),
  ],
)
def test_what_is_wrong_is_one_line(table, rows, said):
  with pytest.raises(ValueError) as error:
    whole(table, **rows)
  text = str(error.value)
  assert "\n" not in text
  for each in said:
    assert each in text


def test_a_new_class_and_a_word_for_a_number_name_the_row(table, tmp_path):
  whole(table, tmp_path / "run", label="pay")
  for row, said in (
    ("30,nurse,20,middling,x", "pay='middling' is not a class"),
    ("old,nurse,20,low,x", "column 'age' holds 'old'"),
  ):
    (tmp_path / "new.csv").write_text(f"age,job,hours,pay,who\n{row}\n")
    with pytest.raises(ValueError, match=f"new.csv:2.*{said}"):
      whole(f"csv:{tmp_path}/new.csv", tmp_path / "run", label="pay")


def test_an_evaluation_without_statistics_is_refused(table):
  with pytest.raises(ValueError, match="evaluation reads the statistics"):
    pipeline.evaluation(
      source=table,
      split="all",
      rows=dict(name="columns", label="pay"),
      batch_size=2,
    )


@pytest.mark.parametrize(
  "change",
  [
    lambda kept: kept.pop("classes"),
    lambda kept: kept["scaling"]["columns"]["age"].update(std="1"),
    lambda kept: kept["categories"].update(job=[1]),
    lambda kept: kept["categories"].update(job=["a", "a"]),
    lambda kept: kept.update(indicators=["nobody"]),
    lambda kept: kept.update(target={"mean": 0}),
    lambda kept: kept["edges"].update(age=[2, 1]),
    lambda kept: kept["edges"].update(job=[1, 2]),
  ],
)
def test_damaged_statistics_are_one_line(table, tmp_path, change):
  whole(table, tmp_path, label="pay", bins=2)
  path = tmp_path / "columns.json"
  kept = json.loads(path.read_text())
  change(kept)
  path.write_text(json.dumps(kept))
  with pytest.raises(ValueError, match=r"columns\.json: not statistics"):
    whole(table, tmp_path, label="pay", bins=2)


def test_statistics_survive_their_file(table, tmp_path):
  whole(table, tmp_path, label="pay", bins=2)
  path = tmp_path / "columns.json"
  known = column_statistics.read(str(path))
  assert column_statistics.parse(column_statistics.dump(known)) == known
