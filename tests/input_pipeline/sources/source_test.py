import gzip
import json
import struct

import numpy as np
import pytest

from input_pipeline.sources import open_source
from input_pipeline.sources.parts import splits as source_splits


def all_of(source):
  return source.read(np.arange(source.length))


@pytest.fixture
def many(tmp_path):
  for i in range(30):
    (tmp_path / f"{i:02}.txt").write_text(f"document {i}")
  return f"text:{tmp_path}/*.txt"


def write_idx(path, array, compress):
  header = struct.pack(f">i{array.ndim}i", 0x0800 + array.ndim, *array.shape)
  write = gzip.open if compress else open
  with write(f"{path}{'.gz' if compress else ''}", "wb") as file:
    file.write(header + array.tobytes())


def write_mnist(folder, compress=False):
  rng = np.random.default_rng(0)
  arrays = {}
  for prefix, n in (("train", 20), ("t10k", 6)):
    images = rng.integers(0, 256, (n, 5, 4), np.uint8)
    labels = (np.arange(n) % 7).astype(np.uint8)
    write_idx(folder / f"{prefix}-images-idx3-ubyte", images, compress)
    write_idx(folder / f"{prefix}-labels-idx1-ubyte", labels, compress)
    arrays[prefix] = (images, labels)
  return arrays


@pytest.mark.parametrize(
  "split",
  [
    "train",
    "train[:90%]",
    "train[10%:-5%]",
    "train[:100]",
    "train[-7:]",
    "train[33%:66%]",
    "train+test",
    "train[90%:]+test[:50%]",
  ],
)
@pytest.mark.parametrize("n", [1000, 1037])
def test_splits_mean_what_they_mean_in_tfds(split, n):
  tfds = pytest.importorskip("tensorflow_datasets")
  lengths = {"train": n, "test": 101}
  infos = {
    name: tfds.core.SplitInfo(
      name=name,
      shard_lengths=[length],
      num_bytes=0,
      filename_template=tfds.core.ShardedFileTemplate(
        dataset_name="x",
        data_dir="/x",
        split=name,
        filetype_suffix="tfrecord",
      ),
    )
    for name, length in lengths.items()
  }
  splits = tfds.core.splits.SplitDict(list(infos.values()))
  parts, note = source_splits.resolve(split, lengths)
  assert note == ""
  assert sum(b - a for _, a, b in parts) == splits[split].num_examples
  for part, (name, start, stop) in zip(split.split("+"), parts, strict=True):
    (info,) = splits[part].file_instructions
    assert info.skip == start
    assert info.examples_in_shard == lengths[name]
    assert info.take in (stop - start, -1)


@pytest.mark.parametrize(
  ("split", "named"),
  [
    ("train[", "malformed at 'train\\['"),
    ("train[a:b]", "'a'"),
    ("", "malformed"),
    ("trian", "unknown split 'trian'.*train"),
    ("train[:99999]", "beyond"),
    ("train[50%:50%]", "holds 0 of "),
  ],
)
def test_a_wrong_split_is_named(many, split, named):
  with pytest.raises(ValueError, match=named) as error:
    open_source(many, split)
  assert "\n" not in str(error.value)
  assert many in str(error.value)


def test_a_tenth_is_held_out(many):
  train, validation, test, everything = (
    set(all_of(open_source(many, s))["text"])
    for s in ("train", "validation", "test", "all")
  )
  assert len(train) == 27
  assert validation == test
  assert not train & validation
  assert (
    train | validation == everything == {f"document {i}" for i in range(30)}
  )


def test_slices_partition_a_split(many):
  parts = [
    set(all_of(open_source(many, s))["text"])
    for s in ("train[:40%]", "train[40%:]")
  ]
  assert not parts[0] & parts[1]
  joined = open_source(many, "train[40%:]+train[:40%]")
  assert set(all_of(joined)["text"]) == parts[0] | parts[1]
  # Any subset in any order reads the same rows.
  rows = np.array([26, 0, 13, 13])
  np.testing.assert_array_equal(
    joined.read(rows)["text"], all_of(joined)["text"][rows]
  )
  assert joined.name(0).endswith(".txt")


def test_a_single_document_is_cut_by_characters(tmp_path):
  document = "".join(chr(0x4E00 + i) for i in range(105))
  path = tmp_path / "one.txt"
  path.write_text(document, encoding="utf-8")
  cases = {
    "train": [document[:94]],
    "validation": [document[94:]],
    "test": [document[94:]],
    "all": [document],
    "train[:50%]": [document[:47]],
    "train[:10]": [document[:10]],
    "train+validation": [document],
    "train[:5]+train[10:12]": [document[:5], document[10:12]],
  }
  for split, expected in cases.items():
    source = open_source(f"text:{path}", split)
    assert list(all_of(source)["text"]) == expected, split


@pytest.mark.parametrize(
  ("name", "content"),
  [
    ("a.csv", "text,kind\nA text.,1\n"),
    ("a.jsonl", '{"text": "A text.", "label": "x"}\n'),
  ],
)
def test_a_single_labelled_text_is_an_example(tmp_path, name, content):
  (tmp_path / name).write_text(content)
  uri = f"{name.partition('.')[2]}:{tmp_path / name}"
  assert len(all_of(open_source(uri, "all"))) == 2
  with pytest.raises(ValueError, match="split train holds 0 of 1 records"):
    open_source(uri)


def test_a_single_record_keeps_its_other_fields(tmp_path):
  record = {"text": "0123456789", "lang": "en"}
  (tmp_path / "a.jsonl").write_text(json.dumps(record))
  parts = {"all": ["0123456789"], "train[:3]+train[5:9]": ["012", "5678"]}
  for split, texts in parts.items():
    found = all_of(open_source(f"jsonl:{tmp_path}/a.jsonl", split))
    assert {key: list(value) for key, value in found.items()} == {
      "text": texts,
      "lang": ["en"] * len(texts),
    }


def test_text_is_unchanged_to_the_byte(tmp_path):
  content = "a\r\nb\n\n\tü\u2028".encode()
  for name in "ab":
    (tmp_path / name).write_bytes(content)
  source = open_source(f"text:{tmp_path}/*", "all")
  assert all_of(source)["text"][0].encode() == content


def test_stdlib_has_the_library_and_not_its_tests():
  source = open_source("stdlib:", "all")
  names = [source.name(i) for i in range(source.length)]
  assert any(name.endswith("/json/decoder.py") for name in names)
  assert not any("/test/" in name or "-packages/" in name for name in names)
  assert names == sorted(names)


@pytest.mark.parametrize("compress", [False, True])
def test_jsonl_reads_records_at_random(tmp_path, compress):
  records = [
    {"id": i, "x": [i / 2, 1.0], "text": f"línea {i}", "more": {"a": i}}
    for i in range(25)
  ]
  lines = [json.dumps(r, ensure_ascii=False) for r in records]
  write = gzip.open if compress else open
  suffix = ".jsonl.gz" if compress else ".jsonl"
  with write(tmp_path / f"a{suffix}", "wb") as file:
    file.write("\n".join([*lines[:10], "", "  ", *lines[10:20]]).encode())
  with write(tmp_path / f"b{suffix}", "wb") as file:
    file.write(("\n".join(lines[20:]) + "\n").encode())
  source = open_source(f"jsonl:{tmp_path}/*", "all")
  assert source.length == 25
  rows = np.array([24, 3, 12, 3])
  found = source.read(rows)
  np.testing.assert_array_equal(found["id"], rows)
  np.testing.assert_array_equal(found["x"][:, 0], rows / 2)
  assert list(found["text"]) == [f"línea {i}" for i in rows]
  assert found["more"][0] == {"a": 24}
  # Two empty lines stand before record 10 of the first file.
  assert source.name(10).endswith(f"a{suffix}:13")


def test_jsonl_names_the_line_that_is_not_json(tmp_path):
  (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": \n')
  source = open_source(f"jsonl:{tmp_path}/a.jsonl", "all")
  with pytest.raises(ValueError, match=r"a\.jsonl:2: not JSON"):
    source.read(np.array([1]))


@pytest.mark.parametrize("compress", [False, True])
def test_idx_gives_the_arrays(tmp_path, compress):
  arrays = write_mnist(tmp_path, compress)
  for split, prefix in (("train", "train"), ("test", "t10k")):
    source = open_source(f"idx:{tmp_path}", split)
    images, labels = arrays[prefix]
    found = all_of(source)
    assert found["image"].dtype == np.uint8
    np.testing.assert_array_equal(found["image"], images[..., None])
    np.testing.assert_array_equal(found["label"], labels)
    assert source.num_classes == 7
    assert source.note == ""
  validation = open_source(f"idx:{tmp_path}", "validation")
  np.testing.assert_array_equal(all_of(validation)["label"], arrays["t10k"][1])
  assert "using 'test' instead" in validation.note


def test_idx_gives_some_classes_with_new_labels(tmp_path):
  images, labels = write_mnist(tmp_path)["train"]
  few = [int(c) for c in np.unique(labels)[[2, 0]]]
  source = open_source(f"idx:{tmp_path}?classes={few[0]},{few[1]}", "train")
  kept = np.flatnonzero(np.isin(labels, few))
  found = all_of(source)
  assert source.length == len(kept) > 0 and source.num_classes == 2
  np.testing.assert_array_equal(found["image"], images[kept][..., None])
  np.testing.assert_array_equal(np.array(few)[found["label"]], labels[kept])
  assert source.name(1).endswith(f"image {kept[1]}")
  for wrong, line in (("1,1", "different"), ("a", "different"), ("99", "99")):
    with pytest.raises(ValueError, match=line):
      open_source(f"idx:{tmp_path}?classes={wrong}", "train")


def test_broken_idx_files_are_named(tmp_path):
  write_mnist(tmp_path)
  path = tmp_path / "train-images-idx3-ubyte"
  whole = path.read_bytes()
  path.write_bytes(whole[:-3])
  source = open_source(f"idx:{tmp_path}", "train")
  with pytest.raises(ValueError, match="397 bytes .* header specifies 400"):
    source.read(np.array([0]))
  path.write_bytes(b"\x00\x00\x08\x01" + whole[4:])
  with pytest.raises(ValueError, match="train-images.*magic number 0x00000803"):
    open_source(f"idx:{tmp_path}")
  path.unlink()
  with pytest.raises(ValueError, match="no train-images"):
    open_source(f"idx:{tmp_path}")


def make_folder(root, n):
  for name in ("cat", "ant", "bee"):
    (root / name).mkdir(parents=True)
    for i in range(n):
      (root / name / f"{i}.png").write_bytes(f"{name} {i}".encode())
  (root / "ant" / "notes.txt").write_text("not an image")


def test_folder_labels_by_sorted_name(tmp_path):
  make_folder(tmp_path, 40)
  source = open_source(f"folder:{tmp_path}", "all")
  assert source.class_names == ("ant", "bee", "cat")
  found = all_of(source)
  assert len(set(found["image"])) == source.length == 120
  for image, label in zip(found["image"], found["label"], strict=True):
    assert image.decode().startswith(source.class_names[label])
  # Each class is in every split and slice, though the files lie by class.
  for split in ("validation", "train[:20%]"):
    labels = all_of(open_source(f"folder:{tmp_path}", split))["label"]
    assert set(labels) == {0, 1, 2}


def test_class_folders_one_level_too_deep_are_refused(tmp_path):
  make_folder(tmp_path / "images" / "all", 4)
  uri = f"folder:{tmp_path / 'images'}"
  with pytest.raises(ValueError, match=f"did you mean {uri}/all\\?$"):
    open_source(uri)
  assert open_source(f"{uri}/all", "all").num_classes == 3
  make_folder(tmp_path / "flat" / "train" / "one", 1)
  with pytest.raises(ValueError, match="move these folders up"):
    open_source(f"folder:{tmp_path / 'flat'}")


def test_folder_uses_the_splits_that_are_there(tmp_path):
  make_folder(tmp_path / "train", 4)
  make_folder(tmp_path / "val", 2)
  assert open_source(f"folder:{tmp_path}", "train").length == 12
  validation = open_source(f"folder:{tmp_path}", "validation")
  assert validation.length == 6
  assert validation.note == ""
  assert "using 'val' instead" in open_source(f"folder:{tmp_path}", "test").note


def test_tfds_is_read_at_random(tmp_path):
  tfds = pytest.importorskip("tensorflow_datasets")
  pytest.importorskip("array_record")
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (10, 6, 5, 3), np.uint8)

  class Tiny(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
      return tfds.core.DatasetInfo(
        builder=self,
        features=tfds.features.FeaturesDict(
          {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=["no", "yes"]),
            "id": np.int64,
            "ragged": tfds.features.Sequence(np.int64),
            "objects": tfds.features.Sequence(
              {"bbox": tfds.features.BBoxFeature(), "kind": np.int32}
            ),
            "names": tfds.features.Sequence(tfds.features.Text()),
          }
        ),
      )

    def _split_generators(self, dl_manager):
      return {
        "train": self._generate_examples(0, 7),
        "test": self._generate_examples(7, 10),
      }

    def _generate_examples(self, start, stop):
      for i in range(start, stop):
        box = tfds.features.BBox(0.0, 0.25, 0.5, 1.0)
        yield (
          i,
          {
            "image": pixels[i],
            "label": i % 2,
            "id": i,
            "ragged": [i] * i,
            "objects": [{"bbox": box, "kind": i}] * i,
            "names": ["a"] * i,
          },
        )

  builder = Tiny(data_dir=tmp_path)
  builder.download_and_prepare(file_format="array_record")
  source = open_source(f"tfds:tiny?data_dir={tmp_path}", "train")
  assert source.length == 7
  assert source.class_names == ("no", "yes")
  found = all_of(source)
  nested = {"ragged", "objects/bbox", "objects/kind"}
  assert set(found) == {"image", "label", "id"} | nested
  assert "names" in source.note and "bbox" not in source.note
  for i, ids, boxes in zip(
    *(found[k] for k in ("id", "ragged", "objects/bbox")), strict=True
  ):
    assert ids.tolist() == [i] * i and ids.dtype == np.int64
    np.testing.assert_array_equal(boxes, [[0, 0.25, 0.5, 1]] * i or boxes)
    assert boxes.shape == (i, 4)
  assert sorted(found["id"]) == list(range(7))
  np.testing.assert_array_equal(found["label"], found["id"] % 2)
  tf = pytest.importorskip("tensorflow")
  for image, i in zip(found["image"], found["id"], strict=True):
    np.testing.assert_array_equal(tf.io.decode_png(image), pixels[i])


def test_tfds_without_data_says_so(tmp_path):
  pytest.importorskip("tensorflow_datasets")
  with pytest.raises(ValueError, match="tfds:no_such_thing") as error:
    open_source(f"tfds:no_such_thing?data_dir={tmp_path}")
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  "uri", ["fake:text?documents=12", "fake:image?n=40&size=8", "fake:linear"]
)
def test_fake_examples_depend_on_their_index_alone(uri):
  source = open_source(uri, "all")
  whole = all_of(source)
  rows = np.array([5, 2, 11])
  for field, values in open_source(uri, "all").read(rows).items():
    np.testing.assert_array_equal(values, whole[field][rows])


def test_fake_linear_lies_on_its_line():
  found = all_of(open_source("fake:linear?n=50&slope=3&intercept=1", "all"))
  fitted = np.polyfit(found["x"][:, 0], found["y"][:, 0], 1)
  np.testing.assert_allclose(fitted, [3, 1], atol=1e-5)


def test_fake_image_shows_its_class():
  source = open_source("fake:image?n=200&size=8&channels=3&classes=4", "all")
  found = all_of(source)
  images = found["image"].reshape(200, -1)
  assert found["image"].shape == (200, 8, 8, 3)
  assert np.abs(images).max() <= 1
  means = np.stack([images[found["label"] == c].mean(0) for c in range(4)])
  nearest = ((images[:, None] - means[None]) ** 2).sum(-1).argmin(1)
  np.testing.assert_array_equal(nearest, found["label"])


@pytest.mark.parametrize(
  ("uri", "named"),
  [
    ("text:/nowhere/*.txt", "text:/nowhere/.* matches no file"),
    ("jsonl:/nowhere/*.jsonl", "matches no file"),
    ("folder:/nowhere", "is not a folder"),
    ("idx:/nowhere", "no train-images"),
    ("test:x", 'did you mean "text"'),
    ("stdlib", "unknown scheme"),
    ("fake:cube", "unknown kind 'cube'; valid: text, labeled_text, "),
    ("fake:image?sice=3", "unknown option 'sice'"),
    ("fake:image?size=big", "size=big is not of type int"),
  ],
)
def test_a_source_that_matches_nothing_is_named(uri, named):
  with pytest.raises(ValueError, match=named) as error:
    open_source(uri)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("uri", "fetched"),
  [
    ("idx:data/fashion_mnist", "fashion_mnist"),
    ("jsonl:data/sst2/train.jsonl", "sst2"),
    ("folder:data/cifar10", "cifar10"),
    ("text:data/unknown/*.txt", None),
    ("text:data/tang/*.txt", None),  # the folder is there
  ],
)
def test_missing_data_that_can_be_fetched_is_said_how(
  tmp_path, monkeypatch, uri, fetched
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "data" / "tang").mkdir(parents=True)
  with pytest.raises(ValueError, match="data/") as error:
    open_source(uri)
  wanted = f"; get it with: python -m input_pipeline.fetch {fetched}"
  assert str(error.value).endswith(wanted) == bool(fetched)
  assert ("get it" in str(error.value)) == bool(fetched)


@pytest.mark.parametrize(
  ("path", "meant"),
  [
    ("empty", "folder:empty"),
    ("images", "folder:images"),
    ("tables", "csv:tables/*.csv"),
    ("tables/a.csv", "csv:tables/a.csv"),
    ("b.jsonl.gz", "jsonl:b.jsonl.gz"),
    ("notes", "text:notes"),
  ],
)
def test_the_scheme_of_a_bare_path_is_named(tmp_path, monkeypatch, path, meant):
  monkeypatch.chdir(tmp_path)
  for folder in ("empty", "images/cat", "tables"):
    (tmp_path / folder).mkdir(parents=True)
  for file in ("tables/a.csv", "b.jsonl.gz", "notes"):
    (tmp_path / file).touch()
  with pytest.raises(ValueError, match=r"without a scheme") as error:
    open_source(path)
  assert f'did you mean "{meant}"?' in str(error.value)
