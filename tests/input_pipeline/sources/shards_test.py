"""Shards of other libraries, written by hand in their documented layouts."""

import io
import json
import struct
import tarfile

import numpy as np
import pytest
from PIL import Image

from input_pipeline.bad_records import Policy
from input_pipeline.packing.token_file import token_file
from input_pipeline.sources import open_source
from input_pipeline.sources.parts import mds_values as mds_values_lib
from input_pipeline.sources.parts import tf_example
from input_pipeline.tokenizers import get_tokenizer


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


COLUMNS = {
  "any": "ndarray",
  "f": "float32",
  "fixed": "ndarray:int16:2,2",
  "i": "int",
  "j": "json",
  "jpg": "jpeg:90",
  "s": "str",
  "u": "uint8",
  "var": "ndarray:uint32",
}


def mds_values(i):
  """The encoded values of a sample, in the order of COLUMNS."""
  return {
    # float64 (66), 1 axis with a size of a byte (1 << 2 | 0).
    "any": struct.pack("<BBB2d", 66, 4, 2, i, 0.5),
    "f": struct.pack("<f", i / 2),
    "fixed": struct.pack("<4h", i, 1, 2, 3),
    "i": struct.pack("<q", -i),
    "j": json.dumps({"k": i}).encode(),
    "jpg": b"picture %d" % i,
    "s": f"ß{i}".encode(),
    "u": struct.pack("<B", 200 + i),
    # 2 axes with sizes of two bytes (2 << 2 | 1).
    "var": struct.pack(f"<BHH{2 * i + 2}I", 9, i + 1, 2, *range(2 * i + 2)),
  }


def mds_shard(numbers, edit=lambda values: values):
  data = []
  for i in numbers:
    values = edit(mds_values(i))
    fixed = ("f", "fixed", "i", "u")
    sizes = [len(v) for k, v in values.items() if k not in fixed]
    data.append(
      struct.pack(f"<{len(sizes)}I", *sizes) + b"".join(values.values())
    )
  # As Streaming writes it, with the configuration between offsets and samples.
  config = b'{"format": "mds"}'
  at = 4 * (2 + len(data)) + len(config)
  offsets = np.cumsum([at, *map(len, data)]).tolist()
  head = struct.pack(f"<{1 + len(offsets)}I", len(data), *offsets)
  return head + config + b"".join(data)


def mds(folder, shards, packed=False, **changes):
  folder.mkdir(parents=True, exist_ok=True)
  listed = []
  for n, (count, content) in enumerate(shards):
    raw = {"basename": f"shard.{n:05}.mds", "bytes": len(content), "hashes": {}}
    zipped = None
    if packed:
      zstandard = pytest.importorskip("zstandard")
      content = zstandard.ZstdCompressor().compress(content)
      zipped = {**raw, "basename": f"{raw['basename']}.zstd"}
    (folder / (zipped or raw)["basename"]).write_bytes(content)
    shard = {
      "column_encodings": list(COLUMNS.values()),
      "column_names": list(COLUMNS),
      "compression": "zstd:3" if packed else None,
      "format": "mds",
      "raw_data": raw,
      "samples": count,
      "version": 2,
      "zip_data": zipped,
    }
    listed.append({**shard, **changes})
  index = {"shards": listed, "version": 2}
  (folder / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "1", "I;16"])
def test_a_picture_of_mds_is_a_png(mode):
  """Its raw form is that of Pillow's tobytes, after sizes and mode."""
  rng = np.random.default_rng(0)
  picture = Image.fromarray(rng.integers(0, 256, (5, 7, 4), np.uint8))
  if mode == "I;16":
    picture = Image.fromarray(rng.integers(0, 2**16, (5, 7)).astype(np.uint16))
  picture = picture.convert(mode)
  name = picture.mode.encode()
  head = struct.pack("<III", 7, 5, len(name)) + name
  (column,) = mds_values_lib.columns(["x"], ["pil"], "index.json")
  found = Image.open(io.BytesIO(column.decode(head + picture.tobytes())))
  assert found.format == "PNG" and found.size == (7, 5)
  np.testing.assert_array_equal(np.asarray(found), np.asarray(picture))
  for bad in (head[:9], head, head + picture.tobytes()[:-1]):
    with pytest.raises(ValueError, match="a picture of 7 x 5|cut short"):
      column.decode(bad)
  with pytest.raises(ValueError, match="mode 'CMYK', which is not read"):
    column.decode(struct.pack("<III", 1, 1, 4) + b"CMYK1234")


@pytest.mark.parametrize("packed", [False, True])
def test_mds(tmp_path, packed):
  shards = [(3, mds_shard([0, 1, 2])), (2, mds_shard([3, 4]))]
  mds(tmp_path / "val", shards, packed)
  source = open_source(f"mds:{tmp_path}", "validation")
  assert source.length == 5 and ("compressed" in source.note) == packed
  assert (
    source.name(4).endswith("1" + ".mds.zstd" * packed + ":1") or not packed
  )
  rows = source.read(np.array([4, 0, 3]))
  assert rows["s"].tolist() == ["ß4", "ß0", "ß3"]
  assert rows["jpg"].tolist() == [b"picture 4", b"picture 0", b"picture 3"]
  assert rows["i"].tolist() == [-4, 0, -3] and rows["i"].dtype == np.int64
  assert rows["f"].tolist() == [2, 0, 1.5] and rows["f"].dtype == np.float32
  assert rows["u"].tolist() == [204, 200, 203] and rows["u"].dtype == np.uint8
  assert rows["j"].tolist() == [{"k": 4}, {"k": 0}, {"k": 3}]
  assert rows["fixed"][2].tolist() == [[3, 1], [2, 3]]
  assert rows["any"].tolist() == [[4, 0.5], [0, 0.5], [3, 0.5]]
  assert [v.shape for v in rows["var"]] == [(5, 2), (1, 2), (4, 2)]
  assert rows["var"][1].tolist() == [[0, 1]]


@pytest.mark.parametrize(
  ("column", "value", "error"),
  [
    ("s", b"\xff", "the column 's': not UTF-8 at byte 0"),
    ("j", b"{", "the column 'j': not JSON"),
    ("any", b"\x03", "the column 'any': an array of an unknown type"),
    ("any", b"\x42\x04\x09" + bytes(16), "16 bytes are not of shape"),
    ("any", b"\x42\xff\x09", "an array without a shape"),
    ("u", b"", "the column 'var': cut short"),
  ],
)
def test_a_damaged_value_of_mds_is_named(tmp_path, column, value, error):
  bad = mds_shard([1], lambda values: {**values, column: value})
  mds(tmp_path, [(2, mds_shard([1, 2])), (1, bad)])
  source = open_source(f"mds:{tmp_path}", "all")
  with pytest.raises(ValueError, match=error) as found:
    source.read(np.array([0, 2]))
  assert str(found.value).startswith(f"{tmp_path}/shard.00001.mds:0: ")
  assert "\n" not in str(found.value)


@pytest.mark.parametrize(
  ("changes", "error"),
  [
    ({"column_encodings": ["pkl"] * 9}, "'any' is 'pkl'.*runs its code"),
    ({"column_encodings": ["ndarray:object"] * 9}, "which is not read"),
    ({"format": "csv"}, "a shard is 'csv', not mds"),
    ({"raw_data": {"basename": "../x", "bytes": 1}}, "names the file '../x'"),
    ({"raw_data": None}, "index.json: damaged"),
    ({"raw_data": {"basename": "gone", "bytes": 1}}, "gone: No such file"),
    ({"samples": -1}, "index.json: damaged"),
    ({"samples": 3}, "shard.00000.mds:0: damaged: not a shard of 3"),
  ],
)
def test_a_damaged_index_of_mds_is_one_line(tmp_path, changes, error):
  mds(tmp_path, [(2, mds_shard([1, 2]))], **changes)
  with pytest.raises(ValueError, match=error):
    open_source(f"mds:{tmp_path}", "all")


def test_a_shard_of_mds_that_unpacks_to_more_is_refused(tmp_path):
  shard = mds_shard([1, 2])
  raw = {"basename": "shard.00000.mds", "bytes": len(shard) - 9}
  mds(tmp_path, [(2, shard)], packed=True, raw_data=raw)
  with pytest.raises(ValueError, match="does not hold the index's"):
    open_source(f"mds:{tmp_path}", "all")


def megatron(stem, documents, dtype="<u2", code=8, edit=lambda index: index):
  """Writes documents, lists of sequences, which are lists of tokens."""
  sequences = [sequence for document in documents for sequence in document]
  sizes = [len(sequence) for sequence in sequences]
  width = np.dtype(dtype).itemsize
  at = np.cumsum([0, *sizes])[:-1] * width
  borders = np.cumsum([0, *map(len, documents)])
  index = b"MMIDIDX\0\0" + struct.pack("<QB", 1, code)
  index += struct.pack("<QQ", len(sizes), len(borders))
  index += np.array(sizes, "<i4").tobytes() + at.astype("<i8").tobytes()
  index += borders.astype("<i8").tobytes()
  stem.with_suffix(".idx").write_bytes(edit(index))
  stem.with_suffix(".bin").write_bytes(
    b"".join(np.array(each, dtype).tobytes() for each in sequences)
  )


DOCUMENTS = [[[5, 6, 7]], [[1], [2, 3]], [[]], [[65000]]]


@pytest.mark.parametrize(("dtype", "code"), [("<u2", 8), ("<i4", 4)])
def test_megatron(tmp_path, dtype, code):
  megatron(tmp_path / "x", DOCUMENTS, dtype, code)
  source = open_source(f"megatron:{tmp_path}/x", "all")
  assert source.note.endswith("4 documents of 7 tokens")
  rows = source.read(np.array([3, 1, 2, 0]))["tokens"]
  assert [row.tolist() for row in rows] == [[65000], [1, 2, 3], [], [5, 6, 7]]
  assert rows[0].dtype == np.dtype(dtype)


def test_a_language_model_trains_on_the_tokens_of_megatron(tmp_path):
  megatron(tmp_path / "x", DOCUMENTS)
  uri = f"megatron:{tmp_path}/x.idx"
  source = open_source(uri, "all")
  where = {"uri": uri, "split": "all", "cache_dir": str(tmp_path)}
  ids = get_tokenizer("ids?vocab_size=65001", uri)
  file = token_file(source, ids, **where)
  assert file.tokens.tolist() == [5, 6, 7, 1, 2, 3, 65000]
  assert file.ends.tolist() == [3, 6, 6, 7]
  # The last document ends with eos, and the others are separated by it.
  ended = get_tokenizer("ids?vocab_size=65001&eos=65000", uri)
  file = token_file(source, ended, **where)
  assert file.tokens.tolist() == [5, 6, 7, *[65000, 1, 2, 3], *[65000] * 2]
  assert ended.ends == (65000,) and not ended.byte_lengths[65000]
  with pytest.raises(ValueError, match="eos=9 is not an id below 9"):
    get_tokenizer("ids?vocab_size=9&eos=9", uri)
  assert ids.encode(ids.decode([5, 1000, 65000])).tolist() == [5, 1000, 65000]
  assert ids.byte_lengths[[0, 9, 10, 65000]].tolist() == [2, 2, 3, 6]
  with pytest.raises(ValueError, match="65000"):
    token_file(source, get_tokenizer("ids?vocab_size=65000", uri), **where)
  with pytest.raises(ValueError, match="needs an N"):
    get_tokenizer("ids?vocab_size=1", uri)
  with pytest.raises(ValueError, match="'x' is not an id below"):
    ids.encode("1 x")


@pytest.mark.parametrize(
  ("edit", "error"),
  [
    (lambda i: b"x" + i[1:], "x.idx: not an index of Megatron"),
    (lambda i: i[:20], "x.idx: not an index of Megatron"),
    (lambda i: i[:9] + b"\2" + i[10:], "x.idx: is of version 2"),
    (lambda i: i[:17] + b"\7" + i[18:], "x.idx: type 7 of tokens"),
    (lambda i: i[:-8], "x.idx: damaged: "),
    (lambda i: i[:24] + b"\xff" + i[25:], "x.idx: damaged: "),
    (lambda i: i[:-8] + bytes(8), "x.idx: damaged: the borders"),
    (lambda i: i[:34] + b"\x09" + i[35:], "x.bin: damaged or cut short: seq"),
    (
      lambda i: i[:17] + b"\x03" + i[18:],
      "x.bin: document 3: has the token -5",
    ),
  ],
)
def test_a_damaged_index_of_megatron_is_one_line(tmp_path, edit, error):
  megatron(tmp_path / "x", DOCUMENTS, edit=edit)
  with pytest.raises(ValueError, match=error) as found:
    open_source(f"megatron:{tmp_path}/x", "all").read(np.arange(4))
  assert "\n" not in str(found.value)


def message(number, content):
  """A field of a message of Protocol Buffers that holds bytes."""
  assert len(content) < 2**14
  low, high = len(content) & 127, len(content) >> 7
  size = bytes([low | 128, high]) if high else bytes([low])
  return bytes([number << 3 | 2]) + size + content


def varint(value):
  value %= 2**64
  found = []
  while value > 127:
    found.append(value & 127 | 128)
    value >>= 7
  return bytes([*found, value])


def example(features):
  entries = b""
  for key, values in features.items():
    if all(isinstance(value, bytes) for value in values):
      feature = message(1, b"".join(message(1, value) for value in values))
    elif all(isinstance(value, int) for value in values):
      packed = b"".join(map(varint, values))
      feature = message(3, message(1, packed))
    else:  # not packed, each as a field of 4 bytes
      floats = b"".join(b"\x0d" + struct.pack("<f", x) for x in values)
      feature = message(2, floats)
    entries += message(1, message(1, key.encode()) + message(2, feature))
  return message(1, entries)


def array_record(path, records):
  module = pytest.importorskip("array_record.python.array_record_module")
  writer = module.ArrayRecordWriter(str(path), "group_size:1")
  for record in records:
    writer.write(record)
  writer.close()


def features(i):
  return {
    "image": [b"picture %d" % i],
    "label": [-i],
    "big": [2**40 + i, -(2**63)],
    "boxes": [k + 0.5 for k in range(i)] or [0.25],
    "names": [b"a", b"b"],
  }


def test_arrayrecord(tmp_path):
  array_record(tmp_path / "a", [example(features(i)) for i in range(3)])
  array_record(tmp_path / "b", [example(features(3)), b"\x0a\xff\x01"])
  source = open_source(f"arrayrecord:{tmp_path}/?", "all")
  assert source.length == 5 and "no batch can hold names" in source.note
  rows = source.read(np.array([3, 0, 2]))
  assert rows["image"].tolist() == [b"picture 3", b"picture 0", b"picture 2"]
  assert rows["label"].tolist() == [-3, 0, -2]
  assert rows["big"][0].tolist() == [2**40 + 3, -(2**63)]
  found = [row.tolist() for row in rows["boxes"]]
  assert found == [[0.5, 1.5, 2.5], [0.25], [0.5, 1.5]]
  assert rows["boxes"][0].dtype == np.float32
  with pytest.raises(ValueError, match="b:1: not a tf.train.Example"):
    source.read(np.array([4]))
  (tmp_path / "c").write_bytes(b"x" * 2**16)
  with pytest.raises(ValueError, match="/c: damaged, or not a file of array"):
    open_source(f"arrayrecord:{tmp_path}/?", "all")
  skipped = open_source(f"arrayrecord:{tmp_path}/?", "all", Policy(skip=True))
  with pytest.raises(ValueError, match="/c: damaged, or not a file of array"):
    skipped.read(np.array([5]))


def test_a_message_cut_anywhere_is_damaged_or_has_fewer_features():
  whole = example(features(3))
  for stop in range(len(whole)):
    try:
      assert not tf_example.features(whole[:stop])
    except ValueError as error:
      assert str(error) == "not a tf.train.Example"
