"""Shards of other libraries, written by hand in their documented layouts."""

import io
import json
import struct
import tarfile

import numpy as np
import pytest

from input_pipeline.bad_records import Policy
from input_pipeline.sources import open_source


def npy(array):
  out = io.BytesIO()
  np.save(out, array)
  return out.getvalue()


def tar(path, files):
  with tarfile.open(path, "w") as archive:
    for name, content in files:
      info = tarfile.TarInfo(name)
      info.size = len(content)
      archive.addfile(info, io.BytesIO(content))


def sample(i):
  meta = {"size": i, "score": i / 2, "who": f"w{i}", "x": [1], "text": "no"}
  return [
    (f"a/s{i}.JPG", b"image %d" % i),
    (f"a/s{i}.cls", b"%d\n" % (i % 3)),
    (f"a/s{i}.txt", f"ä{i}".encode()),
    (f"a/s{i}.json", json.dumps(meta).encode()),
    (f"a/s{i}.npy", npy(np.arange(2 * i, dtype=np.int32).reshape(i, 2))),
    (f"a/s{i}.mask.png", b"mask %d" % i),
    (f"a/s{i}.fixed.npy", npy(np.asfortranarray(np.eye(2) * i))),
  ]


def test_webdataset(tmp_path):
  tar(tmp_path / "0.tar", [("README", b""), *sample(0), *sample(1)])
  tar(tmp_path / "1.tar", sample(2) + sample(3))
  source = open_source(f"webdataset:{tmp_path}/*.tar", "all")
  assert (source.length, source.num_classes) == (4, 3)
  assert source.name(2) == f"{tmp_path}/1.tar: a/s2"
  rows = source.read(np.array([3, 0, 2]))
  assert rows["image"].tolist() == [b"image 3", b"image 0", b"image 2"]
  assert rows["mask"].tolist() == [b"mask 3", b"mask 0", b"mask 2"]
  assert rows["label"].tolist() == [0, 0, 2]
  assert rows["text"].tolist() == ["ä3", "ä0", "ä2"]
  assert rows["size"].dtype == np.int64 and rows["size"].tolist() == [3, 0, 2]
  assert rows["score"].tolist() == [1.5, 0, 1]
  assert rows["who"].tolist() == ["w3", "w0", "w2"] and "x" not in rows
  assert [x.shape for x in rows["npy"]] == [(3, 2), (0, 2), (2, 2)]
  assert rows["npy"][2].tolist() == [[0, 1], [2, 3]]
  np.testing.assert_array_equal(rows["fixed"][0], np.eye(2) * 3)
  assert rows["fixed"].shape == (3, 2, 2)


@pytest.mark.parametrize(
  ("name", "content", "error"),
  [
    ("a/s1.cls", b"cat", r"a/s1\.cls: b'cat' is not the number of a class"),
    ("a/s1.txt", b"\xff", r"a/s1\.txt: not UTF-8 at byte 0"),
    ("a/s1.json", b"[" * 10**5, r"a/s1\.json: not JSON"),
    ("a/s1.npy", npy(np.zeros(9))[:-8], r"a/s1\.npy: an array of 64 bytes, no"),
    ("a/s1.npy", b"x", r"a/s1\.npy: not an array in the format"),
    ("a/s1.fixed.npy", npy(np.zeros(1, "U3")), "an array of <U3, not of num"),
  ],
)
def test_a_damaged_member_is_named(tmp_path, name, content, error):
  files = [(n, content if n == name else c) for n, c in sample(1)]
  tar(tmp_path / "0.tar", sample(0) + files)
  source = open_source(f"webdataset:{tmp_path}/0.tar", "all")
  source.read(np.array([0]))
  with pytest.raises(ValueError, match=error) as found:
    source.read(np.array([0, 1]))
  assert str(found.value).startswith(f"{tmp_path}/0.tar: a/s1")
  assert "\n" not in str(found.value)


def test_a_sample_may_lack_a_file_and_an_archive_may_be_damaged(tmp_path):
  tar(tmp_path / "0.tar", sample(1) + sample(2)[1:])
  source = open_source(f"webdataset:{tmp_path}/0.tar", "all")
  rows = source.read(np.arange(2))
  assert rows["image"].tolist() == [b"image 1", None]
  tar(tmp_path / "1.tar", [*sample(1), *sample(1)[:1], *sample(1)[:1]])
  with pytest.raises(ValueError, match="two files of 'image'"):
    open_source(f"webdataset:{tmp_path}/1.tar", "all")
  (tmp_path / "2.tar").write_bytes(b"x" * 512)
  with pytest.raises(ValueError, match="2.tar: damaged"):
    open_source(f"webdataset:{tmp_path}/2.tar", "all")
  uri = f"webdataset:{tmp_path}/[02].tar"
  skipped = open_source(uri, "all", Policy(skip=True))
  assert skipped.length == 3
  with pytest.raises(ValueError, match="2.tar: damaged"):
    skipped.read(np.array([2]))
