"""Hugging Face data sets on disk, written by hand as `datasets` writes them."""

import json

import numpy as np
import pytest

from input_pipeline.batching import pipeline
from input_pipeline.sources import open_source

pa = pytest.importorskip("pyarrow")

FEATURES = {
  "label": {"names": ["cat", "dog"], "_type": "ClassLabel"},
  "text": {"dtype": "string", "_type": "Value"},
}
METADATA = {"huggingface": json.dumps({"info": {"features": FEATURES}})}


def table(start, n):
  i = range(start, start + n)
  columns = {
    "text": [f"text {k}" for k in i],
    "label": pa.array([k % 2 for k in i], pa.int64()),
    "pair": [[float(k), 0.5] for k in i],
    "audio": pa.array([[0.5] * (k % 3) for k in i], pa.list_(pa.float32())),
    "boxes": pa.array(
      [[[k, 1, 2, 3]] * (k % 2) for k in i], pa.list_(pa.list_(pa.int32()))
    ),
  }
  return pa.table(columns).replace_schema_metadata(METADATA)


def save(folder, *tables):
  folder.mkdir(parents=True)
  names = [f"data-{i:05}-of-{len(tables):05}.arrow" for i in range(len(tables))]
  for name, each in zip(names, tables, strict=True):
    # In batches of two rows, of the stream format.
    with pa.ipc.new_stream(folder / name, each.schema) as stream:
      stream.write_table(each, max_chunksize=2)
  state = {"_data_files": [{"filename": name} for name in names]}
  (folder / "state.json").write_text(json.dumps(state))
  (folder / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))


def assert_rows(source, count):
  assert source.length == count
  found = source.read(np.array([4, 0, 5]))
  assert found["text"].tolist() == ["text 4", "text 0", "text 5"]
  assert found["label"].tolist() == [0, 0, 1]
  np.testing.assert_array_equal(found["pair"][:, 0], [4, 0, 5])
  assert [x.tolist() for x in found["audio"]] == [[0.5], [], [0.5, 0.5]]
  assert [x.shape for x in found["boxes"]] == [(0, 4), (0, 4), (1, 4)]
  assert found["boxes"][2].dtype == np.int32
  assert found["audio"][0].dtype == np.float32
  assert source.class_names == ("cat", "dog")


def test_save_to_disk_of_one_and_of_several_splits(tmp_path):
  save(tmp_path / "one", table(0, 5), table(5, 3))
  source = open_source(f"hf:{tmp_path}/one", "all")
  assert_rows(source, 8)
  assert source.name(6).endswith("data-00001-of-00002.arrow:1")
  save(tmp_path / "two" / "train", table(0, 6))
  save(tmp_path / "two" / "test", table(6, 2))
  splits = {"splits": ["train", "test"]}
  (tmp_path / "two" / "dataset_dict.json").write_text(json.dumps(splits))
  assert_rows(open_source(f"hf:{tmp_path}/two", "train"), 6)
  assert open_source(f"hf:{tmp_path}/two", "test").length == 2


@pytest.mark.parametrize("place", ["", "data", "cache"])
def test_a_snapshot_of_the_hub(tmp_path, place):
  from pyarrow import parquet

  folder = tmp_path / place
  if place == "cache":
    folder = tmp_path / "snapshots" / "abc1234" / "data"
    (tmp_path / "refs").mkdir()
    (tmp_path / "refs" / "main").write_text("abc1234")
  folder.mkdir(parents=True, exist_ok=True)
  parquet.write_table(table(0, 5), folder / "train-00000-of-00002.parquet")
  parquet.write_table(table(5, 3), folder / "train-00001-of-00002.parquet")
  parquet.write_table(table(0, 2), folder / "validation.parquet")
  assert_rows(open_source(f"hf:{tmp_path}", "train"), 8)
  assert open_source(f"hf:{tmp_path}", "validation").length == 2


def test_ragged_columns_reach_a_batch(tmp_path):
  save(tmp_path / "saved", table(0, 8))
  data = pipeline.train(
    source=f"hf:{tmp_path}/saved",
    split="all",
    batch_size=4,
    shuffle=False,
    ops='pad(2, inkey="audio")|pad(1, inkey="boxes")',
  )
  stream = data.batches(0)
  batch = next(stream)
  stream.close()
  assert batch["audio_mask"].tolist() == [[0, 0], [1, 0], [1, 1], [0, 0]]
  assert batch["boxes"].tolist()[1] == [[1, 1, 2, 3]]


def test_what_cannot_be_read_is_one_line(tmp_path):
  with pytest.raises(ValueError, match="holds neither a data set of save_to"):
    open_source(f"hf:{tmp_path}")
  with pytest.raises(ValueError, match="needs the library datasets"):
    open_source("hf:nobody/nothing")
  save(tmp_path / "saved", table(0, 5))
  path = tmp_path / "saved" / "data-00000-of-00001.arrow"
  path.write_bytes(path.read_bytes()[:300])
  with pytest.raises(ValueError, match=r"00001\.arrow: broken Arrow file"):
    open_source(f"hf:{tmp_path}/saved")
  state = {"_data_files": [{"filename": "../secret.arrow"}]}
  (tmp_path / "saved" / "state.json").write_text(json.dumps(state))
  with pytest.raises(ValueError, match="names the file '../secret.arrow'"):
    open_source(f"hf:{tmp_path}/saved")
