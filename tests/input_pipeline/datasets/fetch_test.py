"""Data sets fetched: downloads, local copies, and what is refused."""

import errno
import hashlib
import io
import os
import pathlib
import pickle
import re
import signal
import stat
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
import zlib

import file_server
import numpy as np
import pytest
from PIL import Image

from common import names
from common.errors import UserError
from input_pipeline import fetch
from input_pipeline.datasets import Dataset, File
from input_pipeline.datasets.parts import archives, cifar, download, png
from input_pipeline.sources import open_source

ROOT = pathlib.Path(__file__).parents[3]
CONTENT = bytes(range(256)) * 40
ALL = sorted(names.discover("input_pipeline.datasets"))


def sha256(content: bytes) -> str:
  return hashlib.sha256(content).hexdigest()


@pytest.fixture
def server(monkeypatch):
  monkeypatch.setattr(download, "_WAIT", 0.0)
  with file_server.serving() as files:
    files.content["/a.bin"] = CONTENT
    yield files


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv("TESSERA_CACHE", str(tmp_path / "cache"))
  return tmp_path / "cache"


def file_of(server, **given) -> File:
  expected = dict(size=len(CONTENT), sha256=sha256(CONTENT)) | given
  return File(f"{server.url}/a.bin", "folder/a.bin", **expected)


def dataset_of(*files: File, write=None, holds=("a.jsonl",)) -> Dataset:
  def copied(paths):
    for name, path in paths.items():
      yield "a.jsonl", f'{{"{name}": {path.stat().st_size}}}\n'.encode()

  return Dataset(
    what="bytes",
    licence="public domain",
    origin="http://localhost/",
    digests="computed",
    files=files,
    holds=holds,
    write=write or copied,
    configs=(),
  )


def left(folder: pathlib.Path) -> list[str]:
  """All files below a folder."""
  return sorted(
    str(path.relative_to(folder))
    for path in folder.rglob("*")
    if path.is_file()
  )


# Archives of repositories, whose files are verified, and some of their members.
ARCHIVED = {
  "bccd": [
    "BCCD/Annotations/a.xml",
    "BCCD/ImageSets/Main/train.txt",
    "BCCD/JPEGImages/a.jpg",
  ],
  "camvid": [
    f"CamVid/{split}{kind}/a.png"
    for split in ("train", "val", "test")
    for kind in ("", "annot")
  ],
  "fsdd": ["recordings/0_george_0.wav"],
  "nuclei": ["stage1_train/a/images/a.png"],
}


def archived(path: pathlib.Path, members: list[str]) -> None:
  """Writes what GitHub makes of a repository, each file with its own name."""
  with tarfile.open(path, "w:gz") as archive:
    for member in members:
      info = tarfile.TarInfo(f"repository-26eb/{member}")
      info.size = len(member)
      archive.addfile(info, io.BytesIO(member.encode()))


# Downloads.


def test_a_file_is_downloaded_once(server, tmp_path):
  path = tmp_path / "new" / "a.bin"
  for _ in range(2):
    download.download(file_of(server), path, print)
    assert path.read_bytes() == CONTENT
  assert server.asked == [("/a.bin", None)]
  assert left(tmp_path / "new") == ["a.bin"]
  path.write_bytes(b"changed")
  download.download(file_of(server), path, print)
  assert path.read_bytes() == CONTENT


def test_what_was_interrupted_is_continued(server, tmp_path):
  path = tmp_path / "a.bin"
  (tmp_path / "a.bin.part").write_bytes(CONTENT[:1000])
  said = []
  download.download(file_of(server), path, said.append)
  assert server.asked == [("/a.bin", "bytes=1000-")]
  assert path.read_bytes() == CONTENT
  assert "continues after 1,000 bytes" in said[0]


def test_a_server_without_ranges_begins_anew(server, tmp_path):
  server.ranges = False
  (tmp_path / "a.bin.part").write_bytes(b"x" * 1000)
  download.download(file_of(server), tmp_path / "a.bin", print)
  assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_an_answer_that_is_cut_off_is_continued(server, tmp_path):
  server.cut = 3000
  said = []
  download.download(file_of(server), tmp_path / "a.bin", said.append)
  assert server.asked == [("/a.bin", None), ("/a.bin", "bytes=3000-")]
  assert (tmp_path / "a.bin").read_bytes() == CONTENT
  assert any("it ends after 3,000 of 10,240 bytes" in line for line in said)


def test_what_ends_too_early_every_time_is_kept_apart(
  server, tmp_path, monkeypatch
):
  monkeypatch.setattr(download, "_TRIES", 1)
  server.cut = 3000
  with pytest.raises(ValueError, match="3,000 bytes are kept") as error:
    download.download(file_of(server), tmp_path / "a.bin", print)
  assert "\n" not in str(error.value)
  assert left(tmp_path) == ["a.bin.part"]
  download.download(file_of(server), tmp_path / "a.bin", print)
  assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_file_that_is_not_the_recorded_one_is_not_kept(server, tmp_path):
  given = file_of(server, sha256=sha256(b"another"))
  with pytest.raises(ValueError, match="SHA-256") as error:
    download.download(given, tmp_path / "a.bin", print)
  assert sha256(CONTENT) in str(error.value)
  assert sha256(b"another") in str(error.value)
  assert left(tmp_path) == []
  assert len(server.asked) == 1


def test_a_part_of_something_else_is_not_kept(server, tmp_path):
  (tmp_path / "a.bin.part").write_bytes(b"x" * 1000)
  with pytest.raises(ValueError, match="changed or damaged"):
    download.download(file_of(server), tmp_path / "a.bin", print)
  assert left(tmp_path) == []


@pytest.mark.parametrize("known", [100, len(CONTENT) - 1])
def test_more_bytes_than_expected_are_refused(server, tmp_path, known):
  with pytest.raises(ValueError, match=f"{known:,} are expected"):
    download.download(file_of(server, size=known), tmp_path / "a.bin", print)
  assert left(tmp_path) == []


def test_a_file_of_unknown_digest_is_described(server, tmp_path):
  (tmp_path / "a.bin.part").write_bytes(b"x" * 1000)
  said = []
  given = file_of(server, size=None, sha256=None)
  download.download(given, tmp_path / "a.bin", said.append)
  assert (tmp_path / "a.bin").read_bytes() == CONTENT
  assert f"SHA-256 {sha256(CONTENT)}, not verified" in said[-1]


def test_what_is_not_there_is_asked_for_once(server, tmp_path):
  del server.content["/a.bin"]
  with pytest.raises(ValueError, match=r"a\.bin: HTTP status 404") as error:
    download.download(file_of(server), tmp_path / "a.bin", print)
  assert len(server.asked) == 1
  assert "\n" not in str(error.value)
  assert left(tmp_path) == []


def test_no_network_is_one_line(tmp_path, monkeypatch):
  monkeypatch.setattr(download, "_WAIT", 0.0)
  with file_server.serving() as files:
    given = file_of(files)  # The port is free again after this.
  with pytest.raises(UserError, match="cannot be reached") as error:
    fetch.fetch("bytes", dataset_of(given), str(tmp_path / "data"))
  assert "--from=DIR" in str(error.value)
  assert not (tmp_path / "data").exists()


def test_a_full_disk_names_the_file(server, tmp_path, monkeypatch):
  def full(self, function, *args):
    if args:
      raise OSError(errno.ENOSPC, "No space left on device", self._path)
    function()  # closes the file

  monkeypatch.setattr(download._Output, "_named", full)
  with pytest.raises(OSError, match="No space left") as error:
    download.download(file_of(server), tmp_path / "a.bin", print)
  assert error.value.filename == str(tmp_path / "a.bin.part")
  assert not (tmp_path / "a.bin").exists()


# Folders.


def test_a_folder_is_written_from_a_download(server, tmp_path, cache):
  said = []
  output = tmp_path / "data"
  dataset = dataset_of(file_of(server))
  fetch.fetch("bytes", dataset, str(output), say=said.append)
  assert left(output) == ["bytes/a.jsonl"]
  assert (output / "bytes" / "a.jsonl").read_bytes() == b'{"a.bin": 10240}\n'
  assert left(cache) == ["downloads/bytes/a.bin"]
  text = "\n".join(said)
  # The licence comes before the first byte.
  assert text.index("public domain") < text.index(server.url)
  assert said[-1].endswith("a.jsonl: 1 records")
  fetch.fetch("bytes", dataset, str(output), say=said.append)
  assert "is there already" in said[-1]
  assert len(server.asked) == 1


def test_what_fails_half_way_leaves_no_folder(server, tmp_path):
  def write(paths):
    yield "a.jsonl", b"{}\n"
    raise KeyError("label")

  dataset = dataset_of(file_of(server), write=write)
  with pytest.raises(UserError, match="bytes: KeyError"):
    fetch.fetch("bytes", dataset, str(tmp_path / "data"))
  assert list((tmp_path / "data").iterdir()) == []


def test_another_folder_of_the_name_is_not_touched(tmp_path):
  other = tmp_path / "data" / "bytes"
  other.mkdir(parents=True)
  (other / "mine.txt").write_text("mine")
  with pytest.raises(UserError, match=r"has no a\.jsonl"):
    fetch.fetch("bytes", dataset_of(), str(tmp_path / "data"))
  assert left(tmp_path / "data") == ["bytes/mine.txt"]


@pytest.mark.parametrize("inside", ["folder/a.bin", "a.bin"])
def test_local_files_are_compared_and_used(tmp_path, inside):
  path = tmp_path / "mine" / inside
  path.parent.mkdir(parents=True)
  path.write_bytes(CONTENT)
  for digest, told in (
    (sha256(CONTENT), "1 of 1 files is verified"),
    (sha256(b""), f"{sha256(CONTENT)}, not the published file"),
    (None, f"{sha256(CONTENT)}, not verified"),
  ):
    file = File("http://localhost/", "folder/a.bin", 10, digest)
    said = []
    output = tmp_path / str(digest)
    source = str(tmp_path / "mine")
    fetch.fetch("b", dataset_of(file), str(output), source, said.append)
    assert left(output) == ["b/a.jsonl"]
    assert told in "\n".join(said)


def test_local_files_that_are_missing_are_named(tmp_path):
  file = File("http://localhost/", "folder/a.bin")
  for source, told in (
    (tmp_path, "b needs folder/a.bin"),
    (tmp_path / "none", "no such folder"),
  ):
    with pytest.raises(UserError, match=told):
      fetch.fetch("b", dataset_of(file), str(tmp_path / "o"), str(source))


def test_sst2_of_a_small_folder(tmp_path):
  folder = tmp_path / "cls_sst2_trec"
  folder.mkdir()
  for split in ("train", "dev", "test"):
    text = f"1 good {split}\n0 bad é\n"
    (folder / f"stsa.binary.{split}").write_bytes(text.encode())
  fetch.fetch("sst2", fetch.find("sst2"), str(tmp_path / "data"), str(tmp_path))
  uri = f"jsonl:{tmp_path}/data/sst2/validation.jsonl"
  read = open_source(uri, "all").read(np.arange(2))
  assert list(read["text"]) == ["good dev", "bad é"]
  assert list(read["label"]) == [1, 0]


# Archives.


def archive_of(path: pathlib.Path, name: str, kind: bytes = tarfile.REGTYPE):
  with tarfile.open(path, "w:gz") as archive:
    for each in ("x/first.txt", name):
      info = tarfile.TarInfo(each)
      info.size = 3 if kind == tarfile.REGTYPE or each != name else 0
      info.type = tarfile.REGTYPE if each != name else kind
      info.linkname = "x/first.txt"
      archive.addfile(info, io.BytesIO(b"abc"))


@pytest.mark.parametrize(
  "name", ["../a.txt", "x/../../a.txt", "/etc/a.txt", "C:/a.txt", "x\\..\\a"]
)
def test_a_tar_may_not_leave_its_folder(tmp_path, name):
  path = tmp_path / "a.tar.gz"
  archive_of(path, name)
  with pytest.raises(ValueError, match="outside of the archive's folder"):
    list(archives.members(path, ".*"))


@pytest.mark.parametrize(
  "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_a_tar_may_not_hold_links_or_devices(tmp_path, kind):
  path = tmp_path / "a.tar.gz"
  archive_of(path, "x/second", kind)
  with pytest.raises(ValueError, match="'x/second' is a link or a device"):
    list(archives.members(path, ".*"))


def test_a_zip_is_held_to_the_same(tmp_path):
  path = tmp_path / "a.zip"
  link = zipfile.ZipInfo("link")
  link.external_attr = (stat.S_IFLNK | 0o777) << 16
  for name, told in ((link, "is a link"), ("../a", "outside of")):
    with zipfile.ZipFile(path, "w") as archive:
      archive.writestr(name, "target")
    with pytest.raises(ValueError, match=told):
      list(archives.members(path, ".*"))


def test_archives_are_read_within_limits(tmp_path):
  path = tmp_path / "a.zip"
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
    for name in ("x/a.txt", "x/b.txt", "./x/c.bin"):
      archive.writestr(name, b"0" * 1000)
  found = dict(archives.members(path, r"x/.*\.txt", most_bytes=2000))
  assert found == {"x/a.txt": b"0" * 1000, "x/b.txt": b"0" * 1000}
  with pytest.raises(ValueError, match="inflates to more than 1,999 bytes"):
    list(archives.members(path, r"x/.*\.txt", most_bytes=1999))
  with pytest.raises(ValueError, match="more than 2 members"):
    list(archives.members(path, ".*", most_members=2))


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar"])
def test_a_damaged_archive_is_one_line(tmp_path, name):
  whole = tmp_path / f"whole_{name}"
  if name == "a.zip":
    with zipfile.ZipFile(whole, "w") as archive:
      archive.writestr("x/a.txt", os.urandom(5000))
  else:
    mode = "w:gz" if name.endswith("gz") else "w"
    with tarfile.open(whole, mode) as archive:
      info = tarfile.TarInfo("x/a.txt")
      info.size = 5000
      archive.addfile(info, io.BytesIO(os.urandom(5000)))
  content = whole.read_bytes()
  for broken in (content[:2000], b"", b"nothing", content[700:]):
    path = tmp_path / name
    path.write_bytes(broken)
    with pytest.raises(ValueError, match="damaged archive") as error:
      list(archives.members(path, ".*"))
    assert "\n" not in str(error.value)


# CIFAR-10.


def batches(path: pathlib.Path, labels: np.ndarray, pixels: np.ndarray):
  """cifar-10-binary.tar.gz of 60,000 images that repeat a few."""
  records = np.concatenate([labels[:, None], pixels], 1).astype(np.uint8)
  content = np.tile(records, (10_000 // len(records), 1)).tobytes()
  with tarfile.open(path, "w:gz", compresslevel=1) as archive:
    for name in (
      "test_batch",
      *(f"data_batch_{i}" for i in (2, 1, 3, 4, 5)),
      "readme",
    ):
      end = "html" if name == "readme" else "bin"
      info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.{end}")
      info.size = len(content)
      archive.addfile(info, io.BytesIO(content))


def pixels_of(content: bytes) -> np.ndarray:
  """The pixels of a PNG without filters, by its specification."""
  assert content[:8] == b"\x89PNG\r\n\x1a\n"
  at, chunks = 8, {}
  while at < len(content):
    size, kind = struct.unpack(">I4s", content[at : at + 8])
    body = content[at + 8 : at + 8 + size]
    (check,) = struct.unpack(">I", content[at + 8 + size : at + 12 + size])
    assert check == zlib.crc32(kind + body)
    chunks[kind] = body
    at += 12 + size
  width, height, depth, color = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
  assert (depth, color) == (8, 2)
  rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8)
  rows = rows.reshape(height, 1 + 3 * width)
  assert (rows[:, 0] == 0).all()
  return rows[:, 1:].reshape(height, width, 3)


def test_png_keeps_every_pixel():
  image = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)
  found = pixels_of(png.rgb(image.tobytes(), 5, 3))
  np.testing.assert_array_equal(found, image)
  tf = pytest.importorskip("tensorflow")
  decoded = tf.io.decode_png(png.rgb(image.tobytes(), 5, 3)).numpy()
  np.testing.assert_array_equal(decoded, image)


def test_cifar10n_out_of_the_published_files(tmp_path):
  rng = np.random.default_rng(0)
  labels = np.array([6, 9, 9, 4])
  pixels = rng.integers(0, 256, (4, 3072))
  folder = tmp_path / "files"
  folder.mkdir()
  batches(folder / "cifar-10-binary.tar.gz", labels, pixels)
  given = {
    name: (np.tile(labels, 12_500) + i) % 10
    for i, name in enumerate(cifar.LABELS)
  }
  with zipfile.ZipFile(folder / "CIFAR-10_human.pt", "w") as archive:
    archive.writestr("archive/data.pkl", pickle.dumps(given, protocol=2))
  fetch.fetch("cifar10n", fetch.find("cifar10n"), str(tmp_path), str(folder))
  source = open_source(f"folder:{tmp_path / 'cifar10n'}", "train")
  assert source.length == 10_000
  assert source.class_names == ("deer", "frog", "truck")
  test = open_source(f"folder:{tmp_path / 'cifar10n'}", "test")
  assert test.length == 600  # 200 of each class
  lines = (tmp_path / "cifar10n" / "labels.csv").read_text().splitlines()
  assert lines[0] == (
    "official_index,path,clean_label,aggre_label,worse_label,"
    "random_label1,random_label2,random_label3"
  )
  assert lines[1:4] == [
    "0,train/frog/0000.png,6,7,8,9,0,1",
    "1,train/truck/0000.png,9,0,1,2,3,4",
    "2,train/truck/0001.png,9,0,1,2,3,4",
  ]
  assert len(lines) == 10_001
  second = (tmp_path / "cifar10n" / "train/truck/0001.png").read_bytes()
  np.testing.assert_array_equal(
    pixels_of(second), pixels[2].reshape(3, 32, 32).transpose(1, 2, 0)
  )


def test_labels_are_not_unpickled(tmp_path):
  """A pickle that would run code when it is loaded."""

  class Evil:
    def __reduce__(self):
      return os.mkdir, (str(tmp_path / "ran"),)

  with zipfile.ZipFile(tmp_path / "l.pt", "w") as archive:
    archive.writestr("archive/data.pkl", pickle.dumps(Evil()))
  with pytest.raises(ValueError, match="does not hold clean_label"):
    cifar.human_labels(tmp_path / "l.pt")
  assert not (tmp_path / "ran").exists()


# The table, the verb, and the configs.


def test_every_entry_can_be_verified():
  for name in ALL:
    dataset = fetch.find(name)
    for file in dataset.files:
      assert re.fullmatch(r"https?://[\w.-]+/[\w./%~-]+", file.address), name
      if name in ARCHIVED:  # Its content is verified, see below.
        assert file.sha256 is None
        continue
      assert re.fullmatch("[0-9a-f]{64}", file.sha256), name
      assert 0 < file.size < 2**28, name
    assert dataset.licence and dataset.digests and dataset.holds, name


@pytest.mark.parametrize("name", ARCHIVED)
def test_files_other_than_the_published_are_refused(tmp_path, name):
  dataset = fetch.find(name)
  archived(tmp_path / dataset.files[0].name, ARCHIVED[name])
  with pytest.raises(UserError, match="are not those of the commit"):
    fetch.fetch(name, dataset, str(tmp_path / "data"), str(tmp_path))
  assert not (tmp_path / "data" / name).exists()


@pytest.mark.parametrize("name", ["bccd", "camvid"])
def test_archives_of_pictures_become_folders(tmp_path, monkeypatch, name):
  """A stand-in for the archive, with the digest of its own files."""
  dataset, members = fetch.find(name), ARCHIVED[name]
  archived(tmp_path / dataset.files[0].name, [*members, "README.md"])
  lines = "".join(f"{m} {sha256(m.encode())}\n" for m in sorted(members))
  module = sys.modules[dataset.write.__module__]
  monkeypatch.setattr(module, "_CONTENT", sha256(lines.encode()))
  fetch.fetch(name, dataset, str(tmp_path / "data"), str(tmp_path))
  written = [member.partition("/")[2] for member in members]
  assert left(tmp_path / "data" / name) == sorted(written)
  monkeypatch.chdir(tmp_path)
  missing = {"bccd": "voc:data/camvid", "camvid": "masks:data/bccd?classes=11"}
  hint = "get it with: python -m input_pipeline.fetch"
  with pytest.raises(ValueError, match=hint):
    open_source(missing[name], "train")


def png_of(pixels: np.ndarray) -> bytes:
  content = io.BytesIO()
  Image.fromarray(pixels).save(content, "PNG")
  return content.getvalue()


def test_nuclei_become_pictures_with_numbers(tmp_path, monkeypatch):
  """Masks of objects become one PNG; pictures of other sizes are left out."""
  rng = np.random.default_rng(0)
  seen, members = {}, {}
  for name, size in (("a", (256, 256)), ("b", (256, 320)), ("c", (360, 360))):
    seen[name] = rng.integers(0, 256, (*size, 4), np.uint8)
    folder = f"stage1_train/{name}"
    members[f"{folder}/images/{name}.png"] = png_of(seen[name])
    for i in (1, 2):
      mask = np.zeros(size, np.uint8)
      mask[9 * i : 9 * i + 10, 7:30] = 255  # one row is in both
      members[f"{folder}/masks/{i}-.png"] = png_of(mask)
  dataset = fetch.find("nuclei")
  path = tmp_path / dataset.files[0].name
  with tarfile.open(path, "w:gz") as archive:
    for member, content in members.items():
      info = tarfile.TarInfo(f"repository/{member}")
      info.size = len(content)
      archive.addfile(info, io.BytesIO(content))
  lines = "".join(f"{m} {sha256(members[m])}\n" for m in sorted(members))
  module = sys.modules[dataset.write.__module__]
  monkeypatch.setattr(module, "_CONTENT", sha256(lines.encode()))
  fetch.fetch("nuclei", dataset, str(tmp_path / "data"), str(tmp_path))
  splits = {"a": "train", "b": "test"}  # sha256(b) is a multiple of 5
  written = [
    f"{split}/{kind}/{name}.png"
    for name, split in splits.items()
    for kind in ("images", "instances")
  ]
  nuclei = tmp_path / "data" / "nuclei"
  assert left(nuclei) == sorted(written)
  for name, split in splits.items():
    with Image.open(nuclei / split / "images" / f"{name}.png") as image:
      assert (np.asarray(image) == seen[name][..., :3]).all()
    with Image.open(nuclei / split / "instances" / f"{name}.png") as image:
      numbers = np.asarray(image)
    assert numbers[18, 8] == 1 and numbers[19, 8] == 2  # the first one's row
    assert np.bincount(numbers.ravel()).tolist()[1:] == [230, 207]


@pytest.mark.parametrize("below", ["", "det_bccd"])
def test_a_copy_of_the_folder_is_taken(tmp_path, below):
  said, dataset = [], fetch.find("bccd")
  files = [f"{entry}/a/b.txt" for entry in dataset.holds]
  for file in [*files, "README.md"]:
    path = tmp_path / "from" / below / file
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(file)
  output, source = str(tmp_path / "data"), str(tmp_path / "from")
  fetch.fetch("bccd", dataset, output, source, said.append)
  assert left(tmp_path / "data" / "bccd") == files
  assert any("a copy of the data set, used as it is" in line for line in said)


def folders_of(config) -> set[str]:
  """NAME of each data/NAME that a config names."""
  if hasattr(config, "items"):
    config = list(config.values())
  if isinstance(config, (list, tuple)):
    return set().union(*map(folders_of, config))
  return set(re.findall(r"\bdata/(\w+)", str(config)))


def test_the_configs_are_listed_with_what_they_read():
  expected: dict[str, set[str]] = {name: set() for name in ALL}
  for stem, module in names.discover("configs").items():
    config = __import__(module, fromlist=["get_config"]).get_config()
    for folder in folders_of(config) & set(ALL):
      expected[folder].add(stem)
  assert expected == {n: set(fetch.find(n).configs) for n in ALL}


def test_the_docstring_of_a_config_fetches_what_it_reads():
  for stem, module in names.discover("configs").items():
    loaded = __import__(module, fromlist=["get_config"])
    text = loaded.__doc__.replace("\\\n", " ")
    fetched = " ".join(re.findall(r"input_pipeline\.fetch (.*)", text)).split()
    assert set(fetched) <= set(ALL), stem
    needed = folders_of(loaded.get_config()) & set(ALL)
    assert needed <= set(fetched), stem


def run(*args: str, **env: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, "-m", "input_pipeline.fetch", *args],
    cwd=ROOT,
    env={**os.environ, **env},
    capture_output=True,
    text=True,
  )


def test_the_verb(tmp_path):
  done = run("--list")
  assert done.returncode == 0, done.stderr
  for name in ALL:
    assert f"\n{name} " in f"\n{done.stdout}"
  for args, told in (
    (["sst-2"], 'did you mean "sst2"?'),
    ([], "give --list"),
    (["sst2", f"--from={tmp_path}"], "sst2 needs cls_sst2_trec/"),
  ):
    done = run(*args, f"--output={tmp_path / 'data'}")
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


VERB = """
import sys
from common import cli
from input_pipeline import fetch
from input_pipeline.datasets import Dataset, File

def write(files):
  yield "a.jsonl", b"{{}}\\n"

file = File("{url}/a.bin", "f/a.bin", {size}, "{sha256}")
fetch.find = lambda name: Dataset(
  "bytes", "none", "here", "computed", (file,), ("a.jsonl",), write, ()
)
fetch.define_flags()
sys.exit(cli.run(fetch.main, positional=True))
"""


def test_ctrl_c_keeps_what_has_arrived(server, tmp_path, cache):
  """The same command then asks for the rest alone."""
  code = VERB.format(url=server.url, size=len(CONTENT), sha256=sha256(CONTENT))
  command = [sys.executable, "-c", code, "bytes", f"--output={tmp_path}/data"]
  server.cut, server.hold = 5000, threading.Event()
  environment = {**os.environ, "PYTHONPATH": str(ROOT)}
  process = subprocess.Popen(
    command, env=environment, stderr=subprocess.PIPE, text=True
  )
  part = cache / "downloads" / "bytes" / "a.bin.part"
  deadline = time.monotonic() + 60
  while not server.asked or not part.exists():
    assert process.poll() is None and time.monotonic() < deadline
    time.sleep(0.02)
  time.sleep(0.2)  # until it waits for the rest
  process.send_signal(signal.SIGINT)
  _, said = process.communicate(timeout=60)
  server.hold.set()
  server.hold = None
  assert process.returncode == 130
  assert said.splitlines() == [
    "interrupted; the same command continues from what was downloaded"
  ]
  assert left(tmp_path) == ["cache/downloads/bytes/a.bin.part"]
  kept = part.stat().st_size
  subprocess.run(command, env=environment, check=True, capture_output=True)
  assert server.asked[-1] == ("/a.bin", f"bytes={kept}-" if kept else None)
  assert left(tmp_path / "data") == ["bytes/a.jsonl"]


@pytest.mark.shared_data
def test_real_data_is_where_the_configs_read_it(
  shared_data, tmp_path, monkeypatch
):
  for name in ALL:
    if name != "cifar10":  # 60,000 files take too long
      fetch.fetch(name, fetch.find(name), str(tmp_path / "data"), shared_data)
  monkeypatch.chdir(tmp_path)
  counts = {
    "jsonl:data/hotel/fold0_train.jsonl": 6212,
    "jsonl:data/hotel/fold0_test.jsonl": 1553,
    "jsonl:data/multi30k/train.jsonl": 29_000,
    "jsonl:data/multi30k/validation.jsonl": 1014,
    "jsonl:data/multi30k/test.jsonl": 1000,
    "jsonl:data/newwiki/train.jsonl": 7126,
    "jsonl:data/newwiki/validation.jsonl": 812,
    "jsonl:data/sst2/train.jsonl": 6920,
    "jsonl:data/sst2/validation.jsonl": 872,
    "jsonl:data/sst2/test.jsonl": 1821,
    "jsonl:data/tang/train.jsonl": 9008,
    "jsonl:data/tang/validation.jsonl": 1000,
    "jsonl:data/trec/train.jsonl": 5452,
    "jsonl:data/trec/test.jsonl": 500,
    "jsonl:data/wnut17/train.jsonl": 3394,
    "jsonl:data/wnut17/validation.jsonl": 1009,
    "jsonl:data/wnut17/test.jsonl": 1287,
    "jsonl:data/xquad_en/test.jsonl": 291,
    "jsonl:data/xquad_zh/train.jsonl": 899,
    "jsonl:data/xquad_zh/test.jsonl": 291,
    "csv:data/adult/adult.data": 32_561,
    "idx:data/fashion_mnist": 25_000,
    "masks:data/camvid?classes=11": 600,
    "masks:data/nuclei?instances=true": 445,
    "voc:data/bccd": 277,
    "folder:data/cifar10n": 12_000,
    "audio:data/fsdd": 3_000,
  }
  for uri, count in counts.items():
    split = "all" if uri.startswith(("jsonl", "csv")) else "train+test"
    assert open_source(uri, split).length == count, uri
  text = open_source("text:data/tinyshakespeare/input.txt", "all")
  assert len(text.read(np.zeros(1, np.int64))["text"][0]) == 1_115_394
  for name, size in (("valid", 1_121_681), ("test", 1_256_449)):
    assert pathlib.Path(f"data/wikitext2/{name}.txt").stat().st_size == size
