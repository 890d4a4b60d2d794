import decimal
import json
import math
import pickle
import statistics

import numpy as np
import pytest

from input_pipeline.cleaning.min_max import min_max
from input_pipeline.cleaning.z_score import z_score
from input_pipeline.document import Counted, Document, Dropped
from input_pipeline.ops.parts import scaling

_STAGES = {"z_score": z_score, "min_max": min_max}


def rows(columns):
  names, n = list(columns), len(next(iter(columns.values())))
  return [
    Document(str(i), "", {name: columns[name][i] for name in names})
    for i in range(n)
  ]


def cut(documents, sizes):
  found = []
  for size in sizes:
    found.append(documents[:size])
    documents = documents[size:]
  assert not documents
  return found


def run(stage, documents, sizes=None):
  """(results, Conclusion), every part sent through pickle, as Beam does."""
  shards = cut(documents, sizes or [len(documents)])
  stage = pickle.loads(pickle.dumps(stage))
  seen = [stage.summarize(iter(shard)) for shard in shards]
  partitions = [
    stage.combine(p, [each[p] for each in seen])
    for p in range(stage.partitions)
  ]
  conclusion = stage.conclude(partitions, [len(shard) for shard in shards])
  results = []
  for verdict, shard in zip(conclusion.verdicts, shards, strict=True):
    judge = stage.judge(verdict)
    results += [judge(i, document) for i, document in enumerate(shard)]
  return results, conclusion


def column(results, name):
  return [
    (r.document if isinstance(r, Counted) else r).fields[name] for r in results
  ]


@pytest.fixture
def table():
  rng = np.random.default_rng(0)
  return {
    "age": rng.integers(17, 90, 50).tolist(),
    "gain": (rng.lognormal(8, 3, 50)).tolist(),
    "label": rng.integers(0, 2, 50).tolist(),
    "work": ["x" if i % 3 else 3 for i in range(50)],
    "same": [7] * 50,
  }


@pytest.mark.parametrize("kind", ["z_score", "min_max"])
def test_as_scikit_learn(kind, table):
  preprocessing = pytest.importorskip("sklearn.preprocessing")
  scaler = {
    "z_score": preprocessing.StandardScaler(),
    "min_max": preprocessing.MinMaxScaler(),
  }[kind]
  names = ["age", "gain", "same"]
  expected = scaler.fit_transform(np.array([table[n] for n in names], float).T)
  results, conclusion = run(_STAGES[kind](), rows(table))
  for name, wanted in zip(names, expected.T, strict=True):
    np.testing.assert_allclose(column(results, name), wanted, 1e-12, 1e-14)
  # What is no column of numbers alone, or the label, is left.
  assert column(results, "work") == table["work"]
  assert column(results, "label") == table["label"]
  assert list(conclusion.summary["columns"]) == names
  assert list(conclusion.files) == [f"{kind}.json"]


def test_another_range(table):
  results, _ = run(min_max(["age"], low=-1, high=3), rows(table))
  found = column(results, "age")
  assert min(found) == -1 and max(found) == pytest.approx(3, abs=1e-15)
  age = table["age"][0]
  low, high = min(table["age"]), max(table["age"])
  assert found[0] == pytest.approx(-1 + 4 * (age - low) / (high - low))
  constant, _ = run(min_max(["same"], low=-1), rows(table))
  assert set(column(constant, "same")) == {-1.0}


def test_moments_are_exact_where_floats_cancel():
  # In floats, E[x^2] - E[x]^2 is 0 or worse here.
  values = [1e15 + i for i in (1, 2, 3, 4)] + [1e-300, -1e15 - 7]
  _, conclusion = run(z_score(), rows({"x": values}))
  found = conclusion.summary["columns"]["x"]
  with decimal.localcontext(prec=700):
    exact = [decimal.Decimal(v) for v in values]
    mean = sum(exact) / 6
    deviation = (sum((v - mean) ** 2 for v in exact) / 6).sqrt()
    assert found["mean"] == float(mean)
    assert found["std"] == float(deviation)
  near = [2.0**52 + i for i in (0, 1, 1, 2)]
  _, conclusion = run(z_score(), rows({"x": near}))
  found = conclusion.summary["columns"]["x"]
  assert found["std"] == statistics.pstdev([0, 1, 1, 2])


@pytest.mark.parametrize("kind", ["z_score", "min_max"])
def test_the_cut_and_the_order_change_no_bit(kind, table):
  documents = rows(table)
  whole, expected = run(_STAGES[kind](missing="mean"), documents)
  for sizes in ([1] * 50, [0, 17, 0, 33], [49, 1]):
    results, conclusion = run(_STAGES[kind](missing="mean"), documents, sizes)
    assert conclusion.files == expected.files
    assert results == whole
  shuffled = np.random.default_rng(1).permutation(50)
  _, conclusion = run(
    _STAGES[kind](missing="mean"), [documents[i] for i in shuffled]
  )
  found, wanted = (
    json.loads(c.files[f"{kind}.json"]) for c in (conclusion, expected)
  )
  assert found == wanted


def test_the_largest_and_the_least_numbers():
  results, _ = run(z_score(), rows({"x": [1e300, -1e300], "y": [0, 1e-200]}))
  assert column(results, "x") == [1, -1]
  np.testing.assert_allclose(column(results, "y"), [-1, 1], 1e-15)
  with pytest.raises(ValueError, match="min_max: column 'x' is .* too wide"):
    run(min_max(), rows({"x": [1.5e308, -1.5e308]}))
  stage = z_score(["x"])
  results, _ = run(stage, rows({"x": [1.7e308, -1.7e308, -1.7e308]}))
  assert results[0] == Dropped("not_a_number")  # its distance is no float


_HOLES = {"x": [1, None, 3, "?", float("nan"), 8, " "], "y": [1.0] * 7}


def test_what_is_missing_is_kept():
  results, conclusion = run(z_score(), rows(_HOLES))
  found = column(results, "x")
  assert found[1] is None and found[3] == "?" and found[6] == " "
  mean, std = 4, statistics.pstdev([1, 3, 8])
  assert found[5] == pytest.approx((8 - mean) / std)
  assert conclusion.summary["columns"]["x"]["missing"] == 4
  assert conclusion.summary["columns"]["x"]["count"] == 3


@pytest.mark.parametrize(("kind", "fill"), [("z_score", 0), ("min_max", 3 / 7)])
def test_what_is_missing_takes_the_mean(kind, fill):
  results, _ = run(_STAGES[kind](missing="mean"), rows(_HOLES))
  assert results[1].counts == {"filled": 1}
  for i in (1, 3, 4, 6):
    assert column(results, "x")[i] == pytest.approx(fill)
  assert not isinstance(results[0], Counted)


def test_a_column_that_is_asked_for_drops_what_is_no_number():
  documents = rows({"x": [1, "two", True, 4, math.inf, 10**400]})
  results, conclusion = run(z_score(["x"]), documents)
  dropped = [r for r in results if isinstance(r, Dropped)]
  assert dropped == [Dropped("not_a_number")] * 4
  assert conclusion.summary["columns"]["x"]["count"] == 2
  assert conclusion.summary["columns"]["x"]["missing"] == 0


@pytest.mark.parametrize("kind", ["z_score", "min_max"])
def test_statistics_are_reused(kind, table, tmp_path):
  results, conclusion = run(_STAGES[kind](missing="mean"), rows(table))
  path = tmp_path / f"{kind}.json"
  path.write_bytes(conclusion.files[f"{kind}.json"])
  stage = pickle.loads(pickle.dumps(_STAGES[kind](statistics=str(path))))
  assert [stage(document) for document in rows(table)] == results
  new = stage(Document("n", "", {"age": 1000, "gain": "?", "same": 8}))
  ages, gains = table["age"], table["gain"]
  spread = max(ages) - min(ages)
  expected = {
    "z_score": [
      (1000 - np.mean(ages)) / np.std(ages),
      0,
      1,
    ],
    "min_max": [
      (1000 - min(ages)) / spread,
      (np.mean(gains) - min(gains)) / (max(gains) - min(gains)),
      1,
    ],
  }[kind]
  found = [new.document.fields[name] for name in ("age", "gain", "same")]
  np.testing.assert_allclose(found, expected, 1e-12)
  assert new.counts == {"filled": 1}


def test_no_rows_are_no_error():
  results, conclusion = run(z_score(), [], [0, 0])
  assert results == [] and conclusion.summary == {"columns": {}}
  assert len(conclusion.verdicts) == 2
  run(z_score(["x"]), [], [0])


@pytest.mark.parametrize(
  ("columns", "settings", "named"),
  [
    ({"x": ["a"]}, {}, "z_score: no column holds numbers only"),
    ({"x": [1]}, {"columns": ["y"]}, "z_score: no row has a number in .* 'y'"),
    ({"x": [0.0, 1e-310]}, {}, "z_score: column 'x' is too narrow"),
  ],
)
def test_what_cannot_be_fitted(columns, settings, named):
  with pytest.raises(ValueError, match=named) as error:
    run(z_score(**settings), rows(columns))
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("stage", "settings", "named"),
  [
    (z_score, {"columns": "age"}, "z_score: columns='age' is not a list"),
    (z_score, {"columns": []}, "is not a list of names"),
    (
      z_score,
      {"missing": "zero"},
      "missing='zero' is unknown; valid: kept, mean",
    ),
    (z_score, {"statistics": "/no.json"}, "/no.json: No such file"),
    (
      z_score,
      {"statistics": "/no.json", "columns": ["a"]},
      "columns or statistics, not both",
    ),
    (min_max, {"low": 1, "high": 1}, "min_max: low=1 is not a number below"),
    (min_max, {"low": "0"}, "min_max: low='0' is not a number"),
  ],
)
def test_wrong_settings(stage, settings, named):
  with pytest.raises(ValueError, match=named) as error:
    stage(**settings)
  assert "\n" not in str(error.value)


def changed(**changes):
  figures = scaling.Column(3, 0, 1.0, 2.0, 0.0, 3.0)
  known = scaling.Scaling("z_score", "kept", 0.0, 1.0, {"x": figures})
  return json.dumps({**json.loads(scaling.dump(known)), **changes})


@pytest.mark.parametrize(
  ("content", "named"),
  [
    ("", "not statistics of a scaling"),
    ("[" * 100_000, "not statistics of a scaling"),
    ("{}", "it does not hold kind"),
    (changed(kind="other"), "its kind or"),
    (changed(kind="min_max"), "was written by min_max"),
    (changed(columns=[]), "not an object"),
    (changed(columns={"x": {}}), "column 'x' lacks"),
    (changed(high=0), "low=0.0 is not a number below high=0"),
    (
      changed().replace('"std": 2.0', '"std": NaN'),
      "column 'x' has a statistic that is not a number",
    ),
    (
      changed().replace('"std": 2.0', '"std": 5e-324'),
      "column 'x' is too narrow",
    ),
  ],
)
def test_a_hostile_file_is_one_line(tmp_path, content, named):
  path = tmp_path / "z_score.json"
  path.write_text(content)
  with pytest.raises(ValueError, match=named) as error:
    z_score(statistics=str(path))
  assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.shared_data
def test_adult_as_scikit_learn(shared_data):
  preprocessing = pytest.importorskip("sklearn.preprocessing")
  lines = (shared_data / "tab_adult" / "adult.data").read_text().splitlines()
  cells = [line.split(", ") for line in lines[1:2001]]
  names = lines[0].split(", ")
  table = {
    name: [int(c[i]) if c[i].isdigit() else c[i] for c in cells]
    for i, name in enumerate(names)
  }
  results, conclusion = run(z_score(label="Salary"), rows(table), [700, 1300])
  numeric = [
    "age",
    "capital-gain",
    "capital-loss",
    "education-num",
    "fnlwgt",
    "hours-per-week",
  ]
  assert list(conclusion.summary["columns"]) == numeric
  values = np.array([table[name] for name in numeric], float).T
  expected = preprocessing.StandardScaler().fit_transform(values)
  for name, wanted in zip(numeric, expected.T, strict=True):
    np.testing.assert_allclose(column(results, name), wanted, 1e-10, 1e-12)
