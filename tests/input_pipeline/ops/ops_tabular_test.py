import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from input_pipeline import ops  # noqa: E402
from input_pipeline.ops.parts import scaling  # noqa: E402

_COLUMNS = {
  "age": scaling.Column(9, 1, 38.6, 13.7, 17.0, 90.0),
  "gain": scaling.Column(9, 1, 1077.3, 7385.1, 0.0, 99999.0),
  "same": scaling.Column(9, 0, 7.0, 0.0, 7.0, 7.0),
}


@pytest.fixture(params=["z_score", "min_max"])
def statistics(request, tmp_path):
  known = scaling.Scaling(request.param, "mean", -1.0, 1.0, _COLUMNS)
  path = tmp_path / "statistics.json"
  path.write_bytes(scaling.dump(known))
  return str(path), request.param


def expected(kind, name, x):
  column = _COLUMNS[name]
  x = np.where(np.isnan(x), column.mean, x)
  if kind == "z_score":
    return (x - column.mean) / (column.std or 1)
  return -1 + 2 * (x - column.min) / ((column.max - column.min) or 1)


def apply(path, **fields):
  example = {name: tf.constant(value) for name, value in fields.items()}
  seed = tf.constant([0, 0], tf.int64)
  return ops.compile(f"standardize({path!r})")(example, seed)


def test_new_data_are_scaled_by_what_was_fitted(statistics):
  path, kind = statistics
  ages = np.array([17, 90, 200, -5])
  gains = np.array([0.0, 5e4, np.nan, 1e6])
  same = np.array([7, 7, 8, 7], np.int32)
  found = apply(path, age=ages, gain=gains, same=same, label=3)
  for name, values in {"age": ages, "gain": gains, "same": same}.items():
    wanted = expected(kind, name, values.astype(float))
    np.testing.assert_allclose(found[name], wanted, 1e-6, 1e-6)
    assert found[name].dtype == tf.float32
  assert found["label"].numpy() == 3


def test_a_missing_value_may_be_spelled(statistics):
  path, kind = statistics
  words = np.array(["39", "?", " ?", "", "4.5"])
  numbers = np.array([39, np.nan, np.nan, np.nan, 4.5])
  found = apply(path, age=words, gain=1.0, same=7)["age"]
  np.testing.assert_allclose(found, expected(kind, "age", numbers), 1e-6)


def test_what_is_missing_stays_nan_where_it_is_kept(tmp_path):
  known = scaling.Scaling("z_score", "kept", 0.0, 1.0, _COLUMNS)
  path = tmp_path / "s.json"
  path.write_bytes(scaling.dump(known))
  found = apply(str(path), age="?", gain=np.nan, same=7)
  assert np.isnan(found["age"]) and np.isnan(found["gain"])
  assert found["same"].numpy() == 0


def test_eager_tf_data_and_the_stage_agree_to_the_bit(statistics):
  path, _ = statistics
  rng = np.random.default_rng(0)
  table = {
    "age": rng.integers(0, 99, 300),
    "gain": rng.lognormal(5, 3, 300),
    "same": rng.integers(0, 9, 300).astype(np.float32),
  }
  function = ops.compile(f"standardize({path!r})")
  seed = tf.constant([0, 0], tf.int64)
  dataset = tf.data.Dataset.from_tensor_slices(table)
  mapped = list(dataset.map(lambda x: function(x, seed)).as_numpy_iterator())
  known = scaling.terms(scaling.read(path))
  for i, row in enumerate(mapped):
    fields = {name: values[i].item() for name, values in table.items()}
    eager = function({n: tf.constant(v[i]) for n, v in table.items()}, seed)
    staged = scaling.scale(known, scaling.Document("a", "", fields))
    for name in table:
      assert row[name] == eager[name].numpy()
      assert row[name] == np.float32(staged.fields[name])


def test_what_is_wrong_is_named(statistics, tmp_path):
  path, _ = statistics
  with pytest.raises(ValueError, match="op 'standardize': no field 'gain'"):
    apply(path, age=1, same=2)
  with pytest.raises(ValueError, match="field 'gain' is bool, not a number"):
    apply(path, age=1, gain=True, same=2)
  with pytest.raises(ValueError, match="/nowhere: No such file"):
    apply("/nowhere", age=1)
  bad = tmp_path / "bad.json"
  bad.write_text("{}")
  with pytest.raises(ValueError, match="bad.json: not statistics of a scaling"):
    apply(str(bad), age=1)


def test_statistics_that_are_replaced_are_read_again(tmp_path):
  path, found = tmp_path / "s.json", []
  for mean in (10.0, 123.0):
    column = scaling.Column(1, 0, mean, 1.0, 0.0, 1.0)
    known = scaling.Scaling("z_score", "kept", 0.0, 1.0, {"age": column})
    path.write_bytes(scaling.dump(known))
    found.append(apply(str(path), age=0)["age"].numpy())
  assert found == [-10, -123]
