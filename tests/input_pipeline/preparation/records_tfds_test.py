"""Records written for TFDS, read back by TFDS and by our own source."""

import hashlib
import json
import sys

import numpy as np
import pytest

from input_pipeline.preparation import records_tfds
from input_pipeline.sources import open_source

pytestmark = [
  pytest.mark.filterwarnings("ignore:label.. is deprecated"),
]

RECORDS = [
  {
    "id": f"page-{i}",
    "text": f"第{i}页 page {i}\n" * (i % 4),
    "tokens": 3 * i - 7,
    "score": i / 4,
    "kept": i % 2 == 0,
    "headers": {"b": [i], "a": None},
  }
  for i in range(23)
]


@pytest.fixture
def written(tmp_path):
  pytest.importorskip("tensorflow_datasets")
  pytest.importorskip("array_record")
  splits = {}
  for split, records, shards in (
    ("train", RECORDS[:17], 3),
    ("validation", RECORDS[17:], 1),
  ):
    told = []
    for s in range(shards):
      path = records_tfds.shard_path(
        str(tmp_path), "web_pages", "1.0.0", split, s, shards
      )
      told.append(records_tfds.write_shard(path, records[s::shards]))
    splits[split] = {
      "shard_lengths": [n for n, _ in told],
      "bytes": sum(size for _, size in told),
    }
  records_tfds.write_metadata(
    str(tmp_path), "web_pages", "1.0.0", splits, RECORDS[0]
  )
  return tmp_path


def test_what_is_written_is_read(written):
  uri = f"tfds:web_pages?data_dir={written}"
  source = open_source(uri, "train")
  wanted = [r for s in range(3) for r in RECORDS[:17][s::3]]
  places = np.array([16, 0, 5, 6, 12])
  found = source.read(places)
  for row, place in enumerate(places):
    record = wanted[place]
    assert found["id"][row].decode() == record["id"]
    assert found["text"][row].decode() == record["text"]
    assert found["tokens"][row] == record["tokens"]
    assert found["score"][row] == np.float32(record["score"])
    assert found["kept"][row] == record["kept"]
    assert json.loads(found["headers"][row]) == record["headers"]
  assert open_source(uri, "validation").length == 6
  import tensorflow_datasets as tfds

  info = tfds.builder("web_pages", data_dir=written).info
  assert info.splits["train"].shard_lengths == [6, 6, 5]
  assert info.splits["train"].num_bytes > 0


def digests(folder):
  return {
    str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  }


def test_the_same_records_are_the_same_bytes(written, tmp_path_factory):
  again = written.parent / "again"
  again.mkdir()
  path = records_tfds.shard_path(
    str(again), "web_pages", "1.0.0", "train", 0, 3
  )
  turned = ({k: r[k] for k in sorted(r)} for r in RECORDS[:17][0::3])
  records_tfds.write_shard(path, turned)
  (name, digest), *others = digests(again).items()
  assert not others
  assert digests(written)[name] == digest
  # Nothing of the metadata but the place of the data names a machine or a day.
  before = digests(written)
  splits = {
    "train": {"shard_lengths": [6, 6, 5], "bytes": 1},
    "validation": {"shard_lengths": [6], "bytes": 1},
  }
  args = (str(written), "web_pages", "1.0.0", splits, RECORDS[0])
  records_tfds.write_metadata(*args)
  once = digests(written)
  records_tfds.write_metadata(*args)
  assert digests(written) == once != before


@pytest.mark.parametrize(
  ("change", "named"),
  [
    ({"tokens": "7"}, "record 'x': the field 'tokens' is not int64"),
    ({"tokens": 2**63}, "record 'x': the field 'tokens' is not int64"),
    ({"score": 1e39}, "'score' is not float32"),
    ({"score": None}, "'score' is not float32"),
    ({"text": 3}, "'text' is not string"),
    ({"text": "\ud800"}, "'text' is not string"),
    ({"more": 3}, "'more' is not in all records"),
  ],
)
def test_a_record_unlike_the_others_is_named(change, named, tmp_path):
  pytest.importorskip("array_record")
  path = tmp_path / "a" / "shard"
  records = [RECORDS[0], {**RECORDS[1], "id": "x", **change}]
  with pytest.raises(ValueError, match=named) as error:
    records_tfds.write_shard(str(path), records)
  assert "\n" not in str(error.value)
  assert not list(path.parent.iterdir())


def test_what_tfds_would_not_find_is_refused(written):
  for name, version, split in (
    ("../up", "1.0.0", "train"),
    ("Web", "1.0.0", "train"),
    ("web", "1", "train"),
    ("web", "1.0.0", "a/b"),
  ):
    with pytest.raises(ValueError, match="does not match"):
      records_tfds.shard_path("d", name, version, split, 0, 1)
  splits = {"train": {"shard_lengths": [6, 6, 5, 1], "bytes": 1}}
  with pytest.raises(ValueError, match="00000-of-00004 does not exist"):
    records_tfds.write_metadata(
      str(written), "web_pages", "1.0.0", splits, RECORDS[0]
    )


def test_a_missing_extra_is_one_line(monkeypatch, tmp_path):
  monkeypatch.setitem(sys.modules, "array_record.python", None)
  with pytest.raises(ValueError, match=r"array_record.*pip install"):
    records_tfds.write_shard(str(tmp_path / "x"), RECORDS)
