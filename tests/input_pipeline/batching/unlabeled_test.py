"""Records without labels, as a prediction reads them."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from input_pipeline.bad_records import Policy
from input_pipeline.batching import pipeline
from input_pipeline.batching.unlabeled import Unlabeled
from input_pipeline.sources import open_source

POLICY = Policy(labels=False)
KNOWN = Unlabeled({"label": ((), np.int32)}, 3, ("1", "2", "x"))


def png(value):
  stream = io.BytesIO()
  Image.fromarray(np.full((2, 3), value, np.uint8)).save(stream, "PNG")
  return stream.getvalue()


def read(uri):
  source = open_source(uri, "all", POLICY)
  return source, source.read(np.arange(source.length))


def test_archives_and_folders_need_no_classes(tmp_path):
  names = ("b.png", "deep/a.png", "deep/er/c.png")
  with tarfile.open(tmp_path / "new.tar", "w") as archive:
    for value, name in enumerate(names):
      path = tmp_path / "new" / name
      path.parent.mkdir(exist_ok=True, parents=True)
      path.write_bytes(png(value))
      archive.add(path, name)
  for uri in ("tar:{}/new.tar", "folder:{}/new", "images:{}/new"):
    source, rows = read(uri.format(tmp_path))
    assert list(rows["image"]) == [png(value) for value in range(3)]
    ends = [source.name(i).rpartition("new")[2] for i in range(3)]
    assert all(map(str.endswith, ends, names))
  for name in ("x.txt", "notes.doc"):  # only the latter may be data
    (tmp_path / "new" / name).write_text("x")
  with pytest.raises(ValueError, match=r"1 of 4 files are not read: 1 .doc"):
    read(f"images:{tmp_path}/new/**")
  with pytest.raises(ValueError, match="holds no file of: .jpg"):
    read(f"images:{tmp_path}/new/*.txt")


def test_idx_files_of_images_alone(tmp_path):
  image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
  header = np.array([0x803, 2, 2, 3], ">i4").tobytes()
  (tmp_path / "t10k-images-idx3-ubyte").write_bytes(header + image.tobytes())
  _, rows = read(f"idx:{tmp_path}")
  np.testing.assert_array_equal(rows["image"][..., 0], image)
  with pytest.raises(ValueError, match="no t10k-labels"):
    open_source(f"idx:{tmp_path}", "test")


def evaluation(path, records, **settings):
  path.write_text("".join(json.dumps(each) + "\n" for each in records))
  data = pipeline.evaluation(
    source=f"jsonl:{path}",
    split="all",
    batch_size=2,
    unlabeled=KNOWN,
    **settings,
  )
  return data, next(data.batches(0))


@pytest.mark.parametrize("labels", [None, ("1", "2", "x")])
def test_labelled_rows_without_labels(labels, tmp_path):
  """Classes that are named by numbers, given by the config or by the run."""
  rows = dict(name="labeled", **({"labels": labels} if labels else {}))
  path = tmp_path / "new.jsonl"
  given = {"tokenizer": "byte", "seq_len": 8, "rows": rows}
  texts = [{"text": "ab"}, {"text": "c"}]
  data, batch = evaluation(path, texts, **given)
  assert (data.num_classes, data.class_names) == (3, ("1", "2", "x"))
  assert data.record(1) == f"{path}:2"
  texts[1]["label"] = "unheard of"
  again = evaluation(path, texts, **given)[1]
  assert batch.keys() == again.keys()
  for leaf in batch:
    np.testing.assert_array_equal(batch[leaf], again[leaf])


def test_without_rows_a_label_is_zero(tmp_path):
  found = [{"x": [1.0, 2.0]}, {"x": [3.0, 4.0], "label": "unheard of"}]
  data, batch = evaluation(tmp_path / "new.jsonl", found)
  assert data.spec["label"][:2] == ((), np.dtype(np.int32))
  np.testing.assert_array_equal(batch["x"], [[1, 2], [3, 4]])
  np.testing.assert_array_equal(batch["label"], [0, 0])
