"""tar:GLOB, on archives that Python's tarfile writes."""

import io
import os
import tarfile

import numpy as np
import pytest

from input_pipeline.bad_records import Policy
from input_pipeline.batching import pipeline
from input_pipeline.sources import open_source

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def png(seed, size=6):
  """A real image; each has other pixels, and so another length."""
  tf = pytest.importorskip("tensorflow")
  pixels = np.random.default_rng(seed).integers(0, 256, (size, size + 1, 3))
  return tf.io.encode_png(pixels.astype(np.uint8)).numpy()


def archive(files, format=tarfile.PAX_FORMAT):
  """The bytes of a tar of {name: content, or a TarInfo as it is}."""
  out = io.BytesIO()
  with tarfile.open(fileobj=out, mode="w", format=format) as tar:
    for name, content in files.items():
      info = content
      if isinstance(content, bytes):
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
      else:
        tar.addfile(info)
  return out.getvalue()


def imagenet(classes=3, each=4):
  """(a tar of tars, {name in the inner tar: content})."""
  images = {
    f"n{c:08}/{c}_{i}.JPEG": png(10 * c + i)
    for c in range(classes)
    for i in range(each)
  }
  inner = {}
  for c in range(classes):
    mine = {
      os.path.basename(k): v
      for k, v in images.items()
      if k.startswith(f"n{c:08}")
    }
    inner[f"n{c:08}.tar"] = archive(mine)
  return archive(inner), images


def by_content(source):
  found = source.read(np.arange(source.length))
  return dict(zip(found["image"], found["label"].tolist(), strict=True))


@pytest.mark.parametrize("format", FORMATS)
def test_images_of_folders(format, tmp_path):
  deep = "d" * 60 + "/" + "e" * 80
  files = {
    "images/README.txt": b"none of them",
    "images/cat/1.png": png(1),
    "images/dog/2.PNG": png(2),
    f"images/{deep}/dog/3.png": png(3),
    "images/大/4.png": png(4),
    "images/cat/empty.png": b"",
  }
  folder = tarfile.TarInfo("images/cat")
  folder.type = tarfile.DIRTYPE
  content = archive({"images/cat": folder, **files}, format)
  (tmp_path / "x.tar").write_bytes(content)
  source = open_source(f"tar:{tmp_path}/x.tar", "all")
  assert source.class_names == ("cat", "dog", "大")
  assert by_content(source) == {
    png(1): 0,
    png(2): 1,
    png(3): 1,
    png(4): 2,
    b"": 0,
  }
  names = {source.name(i).partition(": ")[2] for i in range(source.length)}
  assert names == set(files) - {"images/README.txt"}
  assert source.name(0).startswith(str(tmp_path / "x.tar"))


def test_a_large_size_and_a_pax_size_are_read(tmp_path):
  """GNU's base-256 and pax's decimal sizes, as files of 8 GiB have them."""
  info = tarfile.TarInfo("a/1.png")
  image = png(1)
  info.size = len(image)
  gnu = bytearray(archive({"a/1.png": image, "b/2.png": png(2)}))
  gnu[124:136] = b"\x80" + len(image).to_bytes(11, "big")
  gnu[148:156] = b" " * 8
  gnu[148:156] = b"%06o\0 " % sum(gnu[:512])
  (tmp_path / "gnu.tar").write_bytes(bytes(gnu))
  with tarfile.open(
    tmp_path / "pax.tar", "w", format=tarfile.PAX_FORMAT
  ) as tar:
    info.pax_headers = {"size": str(len(image)), "comment": "ünlike"}
    tar.addfile(info, io.BytesIO(image))
    info = tarfile.TarInfo("b/2.png")
    info.size = len(png(2))
    tar.addfile(info, io.BytesIO(png(2)))
  for name in ("gnu", "pax"):
    source = open_source(f"tar:{tmp_path}/{name}.tar", "all")
    assert by_content(source) == {image: 0, png(2): 1}


def test_imagenet_as_it_is_distributed(tmp_path):
  content, images = imagenet()
  (tmp_path / "ILSVRC2012_img_train.tar").write_bytes(content)
  flat = {f"ILSVRC2012_val_{i:08}.JPEG": png(100 + i) for i in range(5)}
  (tmp_path / "ILSVRC2012_img_val.tar").write_bytes(archive(flat))
  # None of class 0: its number in the other split must not move.
  ids = ["n00000002", "n00000001", "n00000001", "n00000002", "n00000001"]
  wanted = {png(100 + i): int(name[-1]) for i, name in enumerate(ids)}
  train = {v: int(k.split("/")[0][1:]) for k, v in images.items()}
  plain = tmp_path / "ids.txt"
  plain.write_text("".join(f"{x}\n" for x in ids))
  kaggle = tmp_path / "LOC_val_solution.csv"
  rows = [f"ILSVRC2012_val_{i:08},{x} 3 4 {i} 9" for i, x in enumerate(ids)]
  kaggle.write_text("\n".join(["ImageId,PredictionString", *rows[::-1]]))
  for labels in (plain, kaggle):
    uri = f"tar:{tmp_path}/ILSVRC2012_img_[tv][ra]*.tar?labels={labels}"
    assert by_content(open_source(uri, "train")) == train
    validation = open_source(uri, "validation")
    assert by_content(validation) == wanted
    assert validation.num_classes == 3
  alone = open_source(f"tar:{tmp_path}/ILSVRC2012_img_train.tar", "all")
  assert by_content(alone) == train
  # A slice of the training archive, sorted by class, holds every class.
  assert set(by_content(open_source(uri, "train[:70%]")).values()) == {0, 1, 2}


def test_it_trains_through_decode(tmp_path):
  content, images = imagenet()
  (tmp_path / "train.tar").write_bytes(content)
  data = pipeline.train(
    source=f"tar:{tmp_path}/train.tar",
    split="all",
    ops="decode(3)|resize(4, antialias=False)",
    batch_size=len(images),
    seed=0,
  )
  batch = next(data.batches(0))
  assert batch["image"].shape == (12, 4, 4, 3)
  assert sorted(batch["label"].tolist()) == [0] * 4 + [1] * 4 + [2] * 4
  assert data.num_classes == 3


def test_archives_as_classes_and_labels_by_number(tmp_path):
  for c in "ba":
    (tmp_path / f"{c}.tar").write_bytes(archive({"1.png": png(ord(c))}))
  found = by_content(open_source(f"tar:{tmp_path}/*.tar", "all"))
  assert found == {png(ord("a")): 0, png(ord("b")): 1}

  flat = archive({f"{i}.png": png(i) for i in range(3)})
  (tmp_path / "flat.tar").write_bytes(flat)
  uri = f"tar:{tmp_path}/flat.tar"
  source = open_source(uri, "all")
  assert set(source.read(np.arange(3))) == {"image"}
  assert "?labels=FILE" in source.note
  labels = tmp_path / "labels.txt"
  labels.write_text("0.png 4\n1.png 0\n2.png 4\n")
  source = open_source(f"{uri}?labels={labels}", "all")
  assert by_content(source) == {png(0): 4, png(1): 0, png(2): 4}
  assert source.num_classes == 5


def test_folders_named_by_numbers_are_sorted_as_names(tmp_path):
  """As folder: has them."""
  files = {f"{i}/x.png": png(i) for i in (2, 10, 1)}
  (tmp_path / "x.tar").write_bytes(archive(files))
  found = by_content(open_source(f"tar:{tmp_path}/x.tar", "all"))
  assert found == {png(1): 0, png(10): 1, png(2): 2}


def test_a_label_that_no_training_image_has(tmp_path):
  """It would move the numbers of all classes after it."""
  (tmp_path / "x_train.tar").write_bytes(imagenet()[0])
  (tmp_path / "x_val.tar").write_bytes(archive({"1.png": png(1)}))
  uri = f"tar:{tmp_path}/x_*.tar"
  (tmp_path / "labels").write_text("n00000001x\n")
  with pytest.raises(ValueError, match="'n00000001x', .* not a class"):
    open_source(f"{uri}?labels={tmp_path}/labels")
  with pytest.raises(
    ValueError, match=r"val\.tar: '1\.png' is not in a folder"
  ):
    open_source(uri)


@pytest.mark.parametrize(
  ("text", "named"),
  [
    ("a\nb\n", "2 labels for 3 images"),
    ("1\n2\n3\n", "run from 1 to 3"),
    ("0.png 4\n1.png 0\n", "no label for 1 of 3 images: 2.png"),
    ("0.png 4\n0.png 0\n", "occurs twice"),
    ("0.png 4\n9.png 0\n", "'9.png' names no image"),
    ("0\n1\n99999999\n", "not a valid class number"),
    ("\xff\n", "not UTF-8"),
  ],
)
def test_wrong_labels_are_named(text, named, tmp_path):
  flat = archive({f"{i}.png": png(i) for i in range(3)})
  (tmp_path / "flat.tar").write_bytes(flat)
  (tmp_path / "labels.txt").write_bytes(text.encode("latin-1"))
  with pytest.raises(ValueError, match=named) as error:
    open_source(f"tar:{tmp_path}/flat.tar?labels={tmp_path}/labels.txt")
  assert "\n" not in str(error.value)


def test_folders_of_splits(tmp_path):
  files = {
    f"set/{split}/{label}/{i}.png": png(i + 10 * (split == "val"))
    for split, n in (("train", 6), ("val", 2))
    for i, label in zip(range(n), "abcabc", strict=False)
  }
  (tmp_path / "x.tar").write_bytes(archive(files))
  uri = f"tar:{tmp_path}/x.tar"
  assert open_source(uri, "train").length == 6
  assert by_content(open_source(uri, "validation")) == {png(10): 0, png(11): 1}


def header(name, size, kind=b"0", **fields):
  info = tarfile.TarInfo(name)
  info.size, info.type = size, kind
  for key, value in fields.items():
    setattr(info, key, value)
  return info.tobuf(tarfile.GNU_FORMAT)


def negative():
  block = bytearray(header("a/1.png", 0))
  block[124:136] = b"\xff" * 12
  block[148:156] = b" " * 8
  block[148:156] = b"%06o\0 " % sum(block)
  return bytes(block) + bytes(1024)


def nested(depth):
  content = archive({"a/1.png": png(1)})
  for _ in range(depth):
    content = archive({"in.tar": content})
  return content


@pytest.mark.parametrize(
  ("content", "named"),
  [
    (b"", "cut short"),
    (b"hello", "cut short"),
    (b"\x1f\x8b\x08" + bytes(2000), "compressed.*decompress"),
    (b"x" * 5000, "damaged"),
    (archive({"a/1.png": b"1" * 600})[:900], "cut short"),
    (archive({"a/1.png": b"1" * 600})[:1536], "cut short"),
    (header("a/1.png", 2**33 - 1) + bytes(1024), "cut short in 'a/1.png'"),
    (header("a/1.png", 2**70) + bytes(1024), "cut short in 'a/1.png'"),
    (negative(), "negative size"),
    (header("x", 2**30, b"L") + bytes(1024), "a name of"),
    (header("x", 2**30, b"x") + bytes(1024), "a name of"),
    (header("x", 600, b"x") + b"9" * 600 + bytes(1448), "damaged"),
    (header("x", 512, b"x") + b"5 a=b" + bytes(2000), "damaged"),
    (
      header("x", 512, b"x")
      + b"12 size=-99\n".ljust(512, b"\0")
      + header("a/1.png", 3)
      + bytes(2000),
      "'-99' is no number",
    ),
    (archive({"README": b"none"}), "holds no image"),
    (archive({"in.tar": b"no tar" * 200}), r"in\.tar: damaged"),
    (archive({"in.tar": archive({"1.png": b"1" * 999})[:1024]}), "cut short"),
  ],
)
def test_what_is_no_archive_is_one_line(content, named, tmp_path):
  (tmp_path / "x.tar").write_bytes(content)
  with pytest.raises(ValueError, match=named) as error:
    open_source(f"tar:{tmp_path}/x.tar", "all")
  assert "\n" not in str(error.value)
  assert str(tmp_path / "x.tar") in str(error.value)


def test_headers_of_names_without_end(tmp_path):
  """tarfile recurses for each of them."""
  long = header("././@LongLink", 10, b"L") + b"a/b.png".ljust(512, b"\0")
  content = long * 3000 + header("short", 0) + bytes(1024)
  (tmp_path / "x.tar").write_bytes(content)
  source = open_source(f"tar:{tmp_path}/x.tar", "all")
  assert source.length == 1
  assert source.name(0).endswith("a/b.png")


@pytest.mark.parametrize(
  ("name", "fields", "named"),
  [
    ("a/link.png", {"type": tarfile.SYMTYPE, "linkname": "/etc/hosts"}, "link"),
    ("a/link.png", {"type": tarfile.LNKTYPE, "linkname": "a/1.png"}, "link"),
    ("a/../../b.png", {}, "leaves the archive"),
    ("/a/b.png", {}, "leaves the archive"),
    ("../in.tar", {}, None),
  ],
)
def test_a_hostile_member_is_a_bad_record(name, fields, named, tmp_path):
  info = tarfile.TarInfo(name)
  for key, value in fields.items():
    setattr(info, key, value)
  good = {f"a/{i}.png": png(i) for i in range(3)}
  (tmp_path / "x.tar").write_bytes(archive({**good, name: info}))
  uri = f"tar:{tmp_path}/x.tar"
  source = open_source(uri, "all", Policy(max_bad_share=0.5))
  if named is None:
    assert source.length == 3 and source.unread == ((".tar", 1),)
    with pytest.raises(ValueError, match="1 of 4 files are not read: 1 .tar"):
      open_source(uri, "all")
    return
  place = next(i for i in range(4) if source.name(i).endswith(name))
  with pytest.raises(ValueError, match=f"{name}: .*{named}"):
    source.read(np.array([place]))
  data = pipeline.train(
    source=uri,
    split="all",
    ops="decode(3)|resize(4)",
    batch_size=4,
    on_bad_record="skip",
    max_bad_share=0.5,
  )
  batch = next(data.batches(0))
  assert batch["mask"].sum() == 3
  assert data.skipped().count == 1


def test_tars_nested_deeper_are_not_followed(tmp_path):
  (tmp_path / "x.tar").write_bytes(nested(2))
  with pytest.raises(ValueError, match="holds no image"):
    open_source(f"tar:{tmp_path}/x.tar", "all")


def test_a_broken_archive_is_one_bad_record_under_skip(tmp_path):
  for c in "ab":
    (tmp_path / f"{c}.tar").write_bytes(archive({"1.png": png(ord(c))}))
  (tmp_path / "c.tar").write_bytes(b"broken" * 500)
  with pytest.raises(ValueError, match=r"c\.tar: damaged"):
    open_source(f"tar:{tmp_path}/*.tar", "all")
  policy = Policy(skip=True)
  source = open_source(f"tar:{tmp_path}/*.tar", "all", policy)
  names = [source.name(i) for i in range(source.length)]
  assert source.length == 3
  with pytest.raises(ValueError, match=r"c\.tar: damaged"):
    source.read(np.array([names.index(str(tmp_path / "c.tar"))]))


def test_the_index_is_kept_and_follows_the_file(tmp_path, monkeypatch):
  monkeypatch.setenv("TESSERA_CACHE", str(tmp_path / "cache"))
  path = tmp_path / "x.tar"
  path.write_bytes(archive({"a/1.png": png(1), "b/2.png": png(2)}))
  uri = f"tar:{path}"
  assert by_content(open_source(uri, "all")) == {png(1): 0, png(2): 1}
  (kept,) = (tmp_path / "cache").iterdir()
  time = path.stat().st_mtime_ns
  # The same name, size and time: headers that are gone are not missed.
  with open(path, "r+b") as file:
    file.write(b"x" * 512)
  os.utime(path, ns=(time, time))
  assert by_content(open_source(uri, "all")) == {png(1): 0, png(2): 1}
  # What is damaged is made anew.
  kept.write_bytes(kept.read_bytes()[:-100])
  with pytest.raises(ValueError, match="is no number"):
    open_source(uri, "all")
  path.write_bytes(archive({"a/3.png": png(3), "c/2.png": png(2)}))
  assert by_content(open_source(uri, "all")) == {png(3): 0, png(2): 1}


def test_a_file_cut_short_after_it_was_opened(tmp_path):
  path = tmp_path / "x.tar"
  path.write_bytes(archive({"a/1.png": png(1)}))
  source = open_source(f"tar:{path}", "all")
  path.write_bytes(path.read_bytes()[:600])
  with pytest.raises(ValueError, match=r"a/1\.png: cut short"):
    source.read(np.array([0]))
  with pytest.raises(ValueError, match="more than max_record_bytes=10"):
    path.write_bytes(archive({"a/1.png": png(1)}))
    policy = Policy(max_record_bytes=10)
    open_source(f"tar:{path}", "all", policy).read(np.array([0]))
