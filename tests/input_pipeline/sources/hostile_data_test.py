"""Hostile files: one line or a skip, never a crash, never the memory."""

import gzip
import importlib.util
import os
import pathlib
import re
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest

from input_pipeline.bad_records import Policy
from input_pipeline.batching import pipeline
from input_pipeline.reading import bounded, inflate
from input_pipeline.reading.image_size import check_image, image_size
from input_pipeline.sources import open_source

ROOT = pathlib.Path(__file__).parents[3]
_spec = importlib.util.spec_from_file_location(
  "fuzz_data", ROOT / "benchmarks" / "faults" / "fuzz_data.py"
)
fuzz_data = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fuzz_data)


NEEDED = {
  "parquet": "pyarrow",
  "warc": "warcio",
  "wet": "warcio",
  "html": "trafilatura",
}


@pytest.mark.parametrize(
  "files", [40, pytest.param(200, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", fuzz_data.FORMATS)
def test_a_mutated_file_is_read_refused_or_skipped(name, files, monkeypatch):
  monkeypatch.setenv("TESSERA_CACHE", os.environ["TESSERA_CACHE"])
  if name in ("png", "jpg", "bmp", "gif"):
    pytest.importorskip("tensorflow")
  for kind, needed in NEEDED.items():
    if kind in name:
      pytest.importorskip(needed)
  found = fuzz_data.fuzz(name, files, seed=7)
  assert found.total() == files
  assert set(found) <= {"read", "skipped", "refused"}, found
  # Neither were all of them destroyed, nor none.
  # A page is a page whatever is in it.
  if files == 200 or "html" not in name:
    few = 1 if "html" in name else files // 4
    assert found["skipped"] + found["refused"] >= few
  assert found["read"] + found["skipped"] >= files // 20


def memory_of(code: str, *arguments) -> tuple[str, int]:
  """(what it prints, MiB above what the imports took) of a fresh process."""
  script = (
    "import sys\n"
    "from input_pipeline.batching import pipeline\n"
    "from input_pipeline.sources.parts import documents\n"
    "from input_pipeline.packing import token_file\n"
    "def peak():\n"
    "  lines = open('/proc/self/status').read().splitlines()\n"
    "  line = next(l for l in lines if l.startswith('VmHWM'))\n"
    "  return int(line.split()[1]) // 1024\n"
    "before = peak()\n"
    f"{code}\n"
    "print(peak() - before)\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", script, *map(str, arguments)],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  *lines, figure = done.stdout.strip().splitlines()
  return "\n".join(lines), int(figure)


READ = """
policies = ({}, dict(on_bad_record='skip', max_bad_share=1))
for policy in policies[int(sys.argv[2]) if sys.argv[2:] else 0 :]:
  try:
    data = pipeline.train(source=sys.argv[1], split='all', tokenizer='byte',
      seq_len=4, batch_size=2, **policy)
    next(data.batches(0))
    print(data.skipped())
  except ValueError as error:
    print(error)
"""

linux = pytest.mark.skipif(
  not pathlib.Path("/proc/self/status").exists(), reason="reads /proc"
)


def sparse(path, head=b"", tail=b"") -> None:
  """A gigabyte that takes no place on the disk."""
  with open(path, "wb") as file:
    file.write(head)
    file.truncate(2**30)
    file.seek(0, os.SEEK_END)
    file.write(tail)


@linux
def test_a_line_of_a_gigabyte_stays_on_the_disk(tmp_path):
  path = tmp_path / "a.jsonl"
  sparse(path, b'{"text": "before"}\n', b'\n{"text": "after"}\n')
  said, peak = memory_of(READ, f"jsonl:{path}")
  stopped, skipped = said.splitlines()
  assert f"{path}:2: 1,073,741,805 bytes are more than" in stopped
  assert "max_record_bytes=268,435,456" in stopped
  assert skipped == f"1 of 3 records skipped: {path}:2"
  assert peak < 200


@linux
def test_a_text_of_a_gigabyte_stays_on_the_disk(tmp_path):
  sparse(tmp_path / "b.txt")
  for name in "ac":
    (tmp_path / f"{name}.txt").write_text("a few words")
  said, peak = memory_of(READ, f"text:{tmp_path}/*.txt")
  stopped, skipped = said.splitlines()
  assert f"{tmp_path}/b.txt: 1,073,741,824 bytes are more than" in stopped
  assert skipped == f"1 of 3 records skipped: {tmp_path}/b.txt"
  assert peak < 100


def zeros(mebibytes: int) -> bytes:
  """Members of a gzip file that inflate to so many zeros."""
  return gzip.compress(bytes(2**24), 9) * (mebibytes // 16)


@pytest.mark.slow
@linux
def test_a_bomb_is_not_inflated_into_memory(tmp_path):
  good = gzip.compress(b'{"text": "a few words"}\n')
  (tmp_path / "a.jsonl.gz").write_bytes(good)
  # One line of 272 MiB, which is left out; and two gigabytes, the whole of it.
  (tmp_path / "b.jsonl.gz").write_bytes(
    good + zeros(272) + gzip.compress(b"\n") + good
  )
  (tmp_path / "c.jsonl.gz").write_bytes(good + zeros(2048))
  said, peak = memory_of(READ, f"jsonl:{tmp_path}/*.jsonl.gz")
  stopped, skipped = said.splitlines()
  assert (
    f"{tmp_path}/c.jsonl.gz: inflates to more than 1,073,741,824" in stopped
  )
  names = f"{tmp_path}/b.jsonl.gz:2, {tmp_path}/c.jsonl.gz"
  assert skipped == f"2 of 5 records skipped: {names}"
  assert peak < 200


def test_a_bomb_is_named(tmp_path, monkeypatch):
  monkeypatch.setattr(bounded, "MAX_INFLATED", 2**22)
  path = tmp_path / "a.jsonl.gz"
  path.write_bytes(zeros(16))
  with pytest.raises(
    ValueError, match=f"^{path}: inflates to more than 4,194,"
  ):
    open_source(f"jsonl:{path}", "all")


@pytest.mark.slow
@linux
def test_newlines_without_end_take_no_memory(tmp_path):
  with open(tmp_path / "a.jsonl", "wb") as file:
    for _ in range(8):
      file.write(b"\n" * 2**24)
    file.write(b'{"text": "a few words"}')
  said, peak = memory_of(READ, f"jsonl:{tmp_path}/a.jsonl")
  assert "skipped" in said and peak < 200
  source = open_source(f"jsonl:{tmp_path}/a.jsonl", "all")
  assert source.name(0).endswith(f":{8 * 2**24 + 1}")


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 64])
def test_lines_are_found_whatever_the_chunks(tmp_path, monkeypatch, chunk):
  content = b'\n \n\n{"a": 1}\n\t\r\n{"a": 22}\r\n {}\n{\n}\n  \n{"a": 3}'
  monkeypatch.setattr(inflate, "_PIECE", chunk)
  expected = {
    i + 1: line.decode()
    for i, line in enumerate(content.split(b"\n"))
    if len(line) > 2 or line.strip()
  }
  for name in ("a.jsonl", "a.jsonl.gz"):
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if "gz" in name else content)
    lines = open_lines(path)
    assert lines == expected


def open_lines(path) -> dict[int, str]:
  from input_pipeline.sources import jsonl

  lines = jsonl.lines(str(path), Policy())
  texts = lines._read(np.arange(len(lines.starts)))
  return {
    int(number): text.decode()
    for number, text in zip(lines.numbers, texts, strict=True)
  }


def test_a_compressed_shard_without_its_long_lines(tmp_path):
  """What is held is the rest, each line in its place."""
  lines = [f'{{"a": {i}, "s": "{"x" * (i * 37 % 90)}"}}' for i in range(60)]
  path = tmp_path / "a.jsonl.gz"
  path.write_bytes(gzip.compress("\n".join(lines).encode()))
  policy = Policy(skip=True, max_record_bytes=60)
  source = open_source(f"jsonl:{path}", "all", policy)
  for i, line in enumerate(lines):
    if len(line) > 60:
      with pytest.raises(ValueError, match=f"gz:{i + 1}: {len(line)} bytes"):
        source.read(np.array([i]))
    else:
      assert source.read(np.array([i]))["a"][0] == i


def png_of(width: int, height: int) -> bytes:
  def chunk(kind: bytes, data: bytes) -> bytes:
    sum_of = zlib.crc32(kind + data).to_bytes(4, "big")
    return len(data).to_bytes(4, "big") + kind + data + sum_of

  header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
  data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b""))
  return b"\x89PNG\r\n\x1a\n" + data + chunk(b"IEND", b"")


def jpeg_of(width: int, height: int) -> bytes:
  # A thumbnail of a tiny size stands in the header of the large image.
  thumbnail = b"\xff\xd8\xff\xc0" + struct.pack(">HBHH", 11, 8, 1, 1)
  app = b"\xff\xe1" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail
  frame = struct.pack(">HBHHB", 17, 8, height, width, 3)
  tables = bytes((1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0))
  return b"\xff\xd8" + app + b"\xff\xff\xc2" + frame + tables + b"\xff\xd9"


def gif_of(width: int, height: int, frames: int = 1) -> bytes:
  frame = b"\x2c" + struct.pack("<4HB", 0, 0, width, height, 0)
  frame += b"\x02\x02\x4c\x01\x00"
  screen = struct.pack("<HHBBB", width, height, 0x80, 0, 0)
  return b"GIF89a" + screen + bytes(6) + frame * frames + b"\x3b"


def bmp_of(width: int, height: int) -> bytes:
  header = struct.pack("<IiiHHIIiiII", 40, width, -height, 1, 24, *[0] * 6)
  return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header


HUGE = {
  "png": png_of(60_000, 60_000),
  "jpg": jpeg_of(60_000, 60_000),
  "gif": gif_of(60_000, 60_000),
  "bmp": bmp_of(60_000, 60_000),
}


@pytest.mark.parametrize("kind", HUGE)
def test_a_claim_of_60_000_by_60_000_pixels(tmp_path, kind):
  """Refused before a decoder sees it: by the source, without any op."""
  for i in range(3):
    path = tmp_path / "a" / f"{i}.{kind}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(HUGE[kind] if i == 1 else fuzz_data._image(kind, rng()))
  source = open_source(f"folder:{tmp_path}", "all")
  with pytest.raises(ValueError) as error:
    source.read(np.arange(3))
  assert re.search(
    rf"/a/1\.{kind}: an image of 60,000 x 60,000 pixels, 1\d,\d{{3}},\d{{3}},"
    r"\d{3} bytes are more than max_record_bytes=268,435,456",
    str(error.value),
  )
  data = pipeline.evaluation(
    source=f"folder:{tmp_path}",
    split="all",
    ops="decode|resize(4)",
    batch_size=3,
    on_bad_record="skip",
  )
  (batch,) = data.batches(0)
  assert batch["mask"].sum() == 2
  assert [name[-5:] for name in data.skipped().names] == [f"1.{kind}"]


def rng():
  return np.random.default_rng(0)


def test_the_size_is_the_decoders_own():
  """Of valid images, as TensorFlow decodes them."""
  tf = pytest.importorskip("tensorflow")
  for kind in ("png", "jpg", "bmp", "gif"):
    data = fuzz_data._image(kind, rng())
    image = tf.io.decode_image(data, 3, expand_animations=False)
    width, height, frames = image_size(data)
    assert (height, width) == tuple(image.shape[:2])
    assert frames == (12 if kind == "gif" else 0)
  jpeg = tf.io.encode_jpeg(
    np.zeros((5, 9, 3), np.uint8), format="rgb", progressive=True
  ).numpy()
  assert image_size(jpeg)[:2] == (9, 5)
  check_image(jpeg, "x", Policy(max_record_bytes=135))
  with pytest.raises(ValueError, match="9 x 5 pixels, 135 bytes"):
    check_image(jpeg, "x", Policy(max_record_bytes=134))


def test_the_frames_of_a_gif_count():
  many = gif_of(2000, 2000, frames=100)
  assert image_size(many) == (2000, 2000, 400_000_000)
  with pytest.raises(ValueError, match="412,000,000 bytes"):
    check_image(many, "x", Policy())
  check_image(gif_of(2000, 2000), "x", Policy())


JSON = {
  "truncated": (b'{"x": 1', "not JSON"),
  "random": (b"\x93\x00\xffabc", "not JSON"),
  "NULs": (b"\0" * 40, "not JSON"),
  "a list": (b"[1, 2, 3]", "not a JSON object"),
  "nested lists": (b'{"x": ' + b"[" * 100_000, "nested too deeply"),
  "nested objects": (b'{"x":' * 100_000, "nested too deeply"),
  "deep but whole": (b'{"x": ' + b"[" * 200 + b"]" * 200 + b"}", "'x'"),
  "40 digits": (b'{"x": ' + b"9" * 40 + b"}", "'x' is not of the first"),
  "5,000 digits": (b'{"x": ' + b"9" * 5000 + b"}", "not JSON"),
  "NaN": (b'{"x": NaN}', "'x' is not finite"),
  "Infinity": (b'{"x": -Infinity}', "'x' is not finite"),
  "1e999": (b'{"x": 1e999}', "'x' is not finite"),
  "1e300": (b'{"x": 1e300}', "'x' is not finite in float32"),
  "text": (b'{"x": "1"}', "'x' is not of the first"),
  "null": (b'{"x": null}', r"no field 'x' \(missing, null"),
  "list": (b'{"x": [1.0]}', "'x' is not of the first"),
  "ragged": (b'{"x": [[1], [1, 2]]}', "'x' is not of the first"),
  "missing": (b'{"y": 1}', "no field 'x'"),
}


@pytest.mark.parametrize("case", JSON)
@pytest.mark.parametrize("ops", ["", "keep('x')"])
def test_json_that_is_hostile(tmp_path, case, ops):
  line, said = JSON[case]
  path = tmp_path / "a.jsonl"
  path.write_bytes(b'{"x": 0.5}\n' * 3 + line + b'\n{"x": 2}\n')
  settings = dict(source=f"jsonl:{path}", split="all", batch_size=5, ops=ops)
  with pytest.raises(ValueError, match=said) as error:
    list(pipeline.evaluation(**settings).batches(0))
  assert f"{path}:4: " in str(error.value) and "\n" not in str(error.value)
  assert len(str(error.value)) < 500
  data = pipeline.evaluation(**settings, on_bad_record="skip")
  (batch,) = data.batches(0)
  np.testing.assert_array_equal(batch["index"], [0, 1, 2, -1, 4])
  np.testing.assert_array_equal(batch["x"], np.float32([0.5, 0.5, 0.5, 0, 2]))
  assert batch["x"].dtype == np.float32


def test_a_first_record_that_float32_does_not_hold(tmp_path):
  """Refused in one line, and skipped, as one anywhere else is."""
  path = tmp_path / "a.jsonl"
  path.write_bytes(b'{"x": 1e300}\n{"x": 0.5}\n{"x": 2}\n')
  settings = dict(source=f"jsonl:{path}", split="all", batch_size=3)
  with pytest.raises(ValueError, match=r"a\.jsonl:1: .*not finite in float32"):
    list(pipeline.evaluation(**settings).batches(0))
  data = pipeline.evaluation(
    **settings, on_bad_record="skip", max_bad_share=1.0
  )
  (batch,) = data.batches(0)
  np.testing.assert_array_equal(batch["mask"], [0, 1, 1])


def test_long_strings_are_not_padded_to_the_longest(tmp_path):
  """A field of one long and many short texts is as large as its texts."""
  lines = [b'{"text": "a"}'] * 63 + [b'{"text": "' + b"b" * 2**22 + b'"}']
  (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
  _, peak = memory_of(READ, f"jsonl:{tmp_path}/a.jsonl")
  assert peak < 150  # 64 x 16 MiB, were they padded


def write_idx(folder, images: bytes, labels: bytes, gz=False) -> str:
  for name, data in (("images-idx3", images), ("labels-idx1", labels)):
    path = folder / f"train-{name}-ubyte{'.gz' if gz else ''}"
    path.write_bytes(gzip.compress(data) if gz else data)
  return f"idx:{folder}"


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize(
  "shape",
  [
    (2**31, 28, 28),
    (2**32 - 1, 2**32 - 1, 2**32 - 1),
    (2**31, 2**31, 4),  # 0 modulo 2^64
    (7, 2, 2),
  ],
)
def test_an_idx_header_that_lies(tmp_path, shape, gz):
  """Of the images: each is a bad record, where the labels are as many."""
  header = struct.pack(">4I", 0x0803, *shape)
  labels = struct.pack(">2I", 0x0801, 6) + bytes(6)
  uri = write_idx(tmp_path, header + bytes(24), labels, gz)
  with pytest.raises(ValueError, match="train-images.*but 6 labels"):
    open_source(uri, "all")
  lying = struct.pack(">4I", 0x0803, 6, *shape[1:])
  write_idx(tmp_path, lying + bytes(23), labels, gz)
  said = "its header specifies|inflates to more than"
  with pytest.raises(ValueError, match=rf"train-images\S*: .*({said})"):
    open_source(uri, "all").read(np.arange(2))
  with pytest.raises(ValueError, match="no record can be read.*train-images"):
    pipeline.train(source=uri, batch_size=2, on_bad_record="skip")
  lying = struct.pack(">2I", 0x0801, shape[0]) + bytes(6)
  write_idx(tmp_path, header + bytes(24), lying, gz)
  with pytest.raises(ValueError, match=rf"train-labels\S*: .*({said})"):
    open_source(uri, "all")


@pytest.mark.slow
@linux
def test_an_idx_bomb_is_not_inflated_into_memory(tmp_path):
  """Neither beyond what its header says, nor where that is too much."""
  labels = gzip.compress(struct.pack(">2I", 0x0801, 6) + bytes(6))
  (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(labels)
  code = """
from input_pipeline.sources import open_source
try:
  open_source(sys.argv[1], 'all').read(__import__('numpy').arange(2))
except ValueError as error:
  print(error)
"""
  for shape, said in (
    ((6, 2, 2), "more bytes of data, but its header specifies 24"),
    ((6, 2**16, 2**16), "inflates to more than"),
  ):
    header = gzip.compress(struct.pack(">4I", 0x0803, *shape))
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(header + zeros(2048))
    told, peak = memory_of(code, f"idx:{tmp_path}")
    assert said in told and peak < 100


@pytest.mark.slow
def test_what_is_no_file_is_not_waited_for(tmp_path):
  """A pipe has no end, a link may lead outside, a loop leads nowhere."""
  outside = tmp_path / "outside.png"
  outside.write_bytes(b"an image")
  folder = tmp_path / "images" / "a"
  folder.mkdir(parents=True)
  (folder / "0.png").symlink_to(outside)
  os.mkfifo(folder / "1.png")
  (folder / "2.png").symlink_to("/dev/zero")
  (folder / "3.png").symlink_to("3.png")
  source = open_source(f"folder:{tmp_path}/images", "all")
  said = {
    "0.png": None,
    "1.png": "not a regular file",
    "2.png": "not a regular file",
    "3.png": "Too many levels of symbolic links",
  }
  assert source.length == 4
  for i in range(4):
    reason = said[os.path.basename(source.name(i))]
    if reason is None:
      assert source.read(np.array([i]))["image"][0] == b"an image"
    else:
      with pytest.raises(ValueError, match=f"^{source.name(i)}: {reason}"):
        source.read(np.array([i]))
