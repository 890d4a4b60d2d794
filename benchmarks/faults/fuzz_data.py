"""Hostile files: small valid ones, mutated and read as in a run.

  python benchmarks/faults/fuzz_data.py --files=10000

Prints a table with, for each format, the number of files tried, read, refused
in one line (under "stop") or skipped (under "skip"); anything else is a
failure: another exception, or a line break in the message. "documents" are read
as `prepare` reads them, pages with their main text. A mutation is one of: bytes
flipped, truncated, repeated or inserted at random, numbers at the limits of
their range, or entirely different bytes. The exit code is 1 if there is a
failure.
"""

import argparse
import collections
import contextlib
import functools
import gzip
import io
import itertools
import json
import os
import pathlib
import resource
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator

import numpy as np

from input_pipeline.batching import pipeline
from input_pipeline.cleaning.extract import extract
from input_pipeline.document import Bad, Document
from input_pipeline.reading.open import files, reader

# Numbers at which headers and counters overflow, in both byte orders.
_EDGES = [
  struct.pack(order + kind, value)
  for order in "<>"
  for kind, value in (
    ("H", 0),
    ("H", 0xFFFF),
    ("H", 60_000),
    ("I", 0),
    ("I", 60_000),
    ("I", 2**31 - 1),
    ("I", 2**31),
    ("I", 2**32 - 1),
  )
]
_JSON_PARTS = [
  b"NaN",
  b"-Infinity",
  b"1e999",
  b"9" * 40,
  b"9" * 5000,
  b"[" * 100_000,
  b'{"x":' * 50_000,
  b'"\\ud800"',
  b"null",
  b"true",
  b"[]",
  b"[1,[2]]",
  b"\x00",
  b"\xff\xfe",
  b"\n",
]


def mutate(data: bytes, rng: np.random.Generator, parts: list[bytes]) -> bytes:
  """Applies one or two mutations to a file; `parts` are inserted at random."""
  for _ in range(rng.integers(1, 3)):
    at = int(rng.integers(0, len(data) + 1))
    # Headers are short: a third of all mutations go there.
    at = min(at, int(rng.integers(1, 64))) if rng.random() < 0.3 else at
    size = int(rng.integers(1, 16))
    match rng.integers(0, 8):
      case 0:
        data = data[:at]
      case 1:
        data = data[:at] + rng.bytes(size) + data[at + size :]
      case 2:
        data = data[:at] + rng.bytes(size) + data[at:]
      case 3:
        data = data[:at] + data[at + size :]
      case 4:
        data = data[:at] + data[max(at - size, 0) :]
      case 5 | 6:
        part = parts[rng.integers(len(parts))]
        skipped = len(part) if rng.random() < 0.7 else 0
        data = data[:at] + part + data[at + skipped :]
      case 7:
        flipped = bytearray(data)
        if flipped:
          flipped[at % len(flipped)] ^= 1 << int(rng.integers(8))
        data = bytes(flipped)
  return rng.bytes(200) if rng.random() < 0.02 else data


def _jsonl(rng) -> bytes:
  records = [
    {"x": [i / 2, 1.0], "label": i % 3, "text": f"línea {i}", "more": "a"}
    for i in range(6)
  ]
  return "\n".join(json.dumps(r, ensure_ascii=False) for r in records).encode()


def _text(rng) -> bytes:
  return "".join(chr(0xE0 + i % 23) + "ab\n"[i % 3] for i in range(90)).encode()


def _labels(folder: pathlib.Path) -> None:
  labels = bytes(i % 3 for i in range(6))
  header = struct.pack(">ii", 0x0801, len(labels))
  (folder / "train-labels-idx1-ubyte").write_bytes(header + labels)


def _idx(rng) -> bytes:
  pixels = rng.integers(0, 256, (6, 5, 4), np.uint8)
  return struct.pack(">i3i", 0x0803, *pixels.shape) + pixels.tobytes()


def _image(kind: str, rng) -> bytes:
  from input_pipeline.tensorflow_cpu import import_tensorflow

  tf = import_tensorflow()
  pixels = rng.integers(0, 256, (9, 7, 3), np.uint8)
  if kind == "png":
    return tf.io.encode_png(pixels).numpy()
  if kind == "jpg":
    return tf.io.encode_jpeg(pixels).numpy()
  if kind == "bmp":
    rows = b"".join(row.tobytes() + b"\0" * 3 for row in pixels)
    sizes = struct.pack("<IHHI", 54 + len(rows), 0, 0, 54)
    return b"BM" + sizes + _bmp_header(7, 9, len(rows)) + rows
  frame = b"\x2c" + struct.pack("<4HB", 0, 0, 3, 2, 0) + b"\x02\x03"
  frame += b"\x84\x8f\x59" + b"\x00"
  header = b"GIF89a" + struct.pack("<HHBBB", 3, 2, 0x80, 0, 0)
  return header + bytes(range(6)) + frame * 2 + b"\x3b"


def _bmp_header(width: int, height: int, size: int) -> bytes:
  return struct.pack(
    "<IiiHHIIiiII", 40, width, height, 1, 24, 0, size, *[0] * 4
  )


def _checked_again(data: bytes) -> bytes:
  """Returns a PNG with the checksums of its chunks corrected."""
  place, found = 8, data[:8]
  while place + 8 <= len(data):
    size = int.from_bytes(data[place : place + 4], "big")
    chunk = data[place + 4 : place + 8 + size]
    found += data[place : place + 4] + chunk
    found += zlib.crc32(chunk).to_bytes(4, "big")
    place += 12 + size
  return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Discards the decoders' messages about bad images."""
  kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
  os.dup2(nowhere, 2)
  try:
    yield
  finally:
    os.dup2(kept, 2)
    os.close(kept)
    os.close(nowhere)


def one_by_one(
  make: Callable, path: str, uri: str, parts: list[bytes], **settings
) -> Callable:
  """(folder, count, rng) -> outcomes, with a data set for each file."""

  def outcomes(folder: pathlib.Path, count: int, rng) -> Iterator[str]:
    valid = make(rng)
    file = folder / path
    for i in range(count):
      data = mutate(valid, rng, parts)
      # Half of the compressed files are intact, with mutated content.
      if path.endswith(".gz") and i % 2:
        data = gzip.compress(data, 1)
      elif path.endswith(".gz"):
        data = mutate(gzip.compress(valid, 1), rng, _EDGES)
      file.write_bytes(data)
      policy = ("stop", "skip")[i // 2 % 2]
      yield _outcome(
        source=uri.format(folder), on_bad_record=policy, **settings
      )

  return outcomes


def _outcome(**settings) -> str:
  try:
    data = pipeline.evaluation(
      split="all", batch_size=4, max_bad_share=1.0, **settings
    )
    rows = collections.Counter()
    for batch in data.batches(0):
      rows.update({"mask": batch["mask"].sum()})
      if any(
        batch[name].shape[1:] != leaf.shape or batch[name].dtype != leaf.dtype
        for name, leaf in data.spec.items()
      ):
        return "failed: a batch unlike its spec"
    return "skipped" if data.skipped().count else "read"
  except ValueError as error:
    return _told(error)
  except Exception as error:
    return f"failed: {type(error).__name__}: {str(error)[:200]}"


def _told(error: ValueError) -> str:
  lines = str(error).splitlines()
  return "refused" if len(lines) == 1 else f"failed: {len(lines)} lines"


def images(kind: str) -> Callable:
  """(folder, count, rng) -> outcomes, with all files in one data set."""

  def outcomes(folder: pathlib.Path, count: int, rng) -> Iterator[str]:
    valid = _image(kind, rng)
    (folder / "a").mkdir()
    (folder / "a" / f"valid.{kind}").write_bytes(valid)
    for i in range(count):
      path = folder / "a" / f"{i:06}.{kind}"
      image = mutate(valid, rng, _EDGES)
      # Otherwise a wrong checksum would hide all other mutations.
      again = kind == "png" and i % 4
      path.write_bytes(_checked_again(image) if again else image)
    data = pipeline.evaluation(
      source=f"folder:{folder}",
      split="all",
      ops="decode|resize(4)|scale",
      batch_size=64,
      on_bad_record="skip",
      max_bad_share=1.0,
    )
    try:
      with _quiet():
        for batch in data.batches(0):
          good = batch["mask"] == 1
          if (
            not np.isfinite(batch["image"]).all()
            or ((batch["index"] >= 0) != good).any()
          ):
            yield "failed: a batch with wrong values"
    except Exception as error:
      yield f"failed: {type(error).__name__}: {str(error)[:200]}"
      return
    skipped = data.skipped().count
    yield from itertools.repeat("skipped", skipped)
    yield from itertools.repeat("read", count - skipped)

  return outcomes


def _csv(rng) -> bytes:
  rows = [f'{i / 2},{i % 3},"línea\n{i}, ""{i}"""' for i in range(6)]
  return "\n".join(["x,label,text", *rows]).encode()


def _parquet(rng) -> bytes:
  import pyarrow
  from pyarrow import parquet

  table = pyarrow.table(
    {
      "x": [i / 2 for i in range(12)],
      "label": [i % 3 for i in range(12)],
      "text": [f"línea {i % 4}" for i in range(12)],
      "more": ["a", None] * 6,
    }
  )
  kinds = ("none", "snappy", "gzip", "zstd")
  file = io.BytesIO()
  parquet.write_table(
    table,
    file,
    row_group_size=5,
    compression=kinds[rng.integers(len(kinds))],
    data_page_version=("1.0", "2.0")[rng.integers(2)],
  )
  return file.getvalue()


_HTML = (
  "<!DOCTYPE html><html><head><meta charset=utf-8><title>One</title></head>"
  "<body><nav><a href=/>Home</a></nav><article><h1>Título</h1><p>A text that "
  "is long enough to be taken for the main text of its page.</p><ul><li>a</li>"
  "<li>b</li></ul><table><tr><td>1</td></tr></table></article></body></html>"
).encode()


def _html(rng) -> bytes:
  return _HTML


def _warc(kind: str, rng) -> bytes:
  found = []
  for i in range(5):
    block = f"línea {i}".encode()
    if kind == "response":
      body = zlib.compress(_HTML) if i % 2 else _HTML
      coded = "Content-Encoding: deflate\r\n" if i % 2 else ""
      head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n{coded}\r\n"
      block = head.encode() + body
    head = (
      f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: http://x/{i}\r\n"
      f"Content-Length: {len(block)}\r\n\r\n"
    )
    found.append(head.encode() + block + b"\r\n\r\n")
  return b"".join(found)


_TABLE_PARTS = [
  b'"',
  b'""',
  b",",
  b";",
  b"\r",
  b"\n",
  b"\x00",
  b"\xff\xfe",
  b"1e999",
  b"9" * 40,
  b"nan",
]
_WEB_PARTS = [
  b"WARC/1.0\r\n",
  b"\r\n\r\n",
  b"Content-Length: 99999999999999\r\n",
  b"Content-Length: -1\r\n",
  b"Transfer-Encoding: chunked\r\n",
  b"Content-Encoding: gzip\r\n",
  b"\xff\xfe",
  b"\x00",
  b"<" * 1000,
  b"<div>" * 1000,
  b"<table><tr><td>" * 300,
  b"<![CDATA[",
  b"<!--",
  b"<meta charset=utf-16>",
  b"&#1114112;",
]


def streamed(
  make: Callable, path: str, uri: str, parts: list[bytes], stage=None
) -> Callable:
  """(folder, count, rng) -> outcomes, each file read as `prepare` reads it.

  `stage` is () -> the stage that the documents pass through.
  """

  def outcomes(folder: pathlib.Path, count: int, rng) -> Iterator[str]:
    valid = make(rng)
    file = folder / path
    apply = stage() if stage else lambda document: document
    for i in range(count):
      data = mutate(valid, rng, parts)
      if path.endswith(".gz") and i % 2:
        data = gzip.compress(data, 1)
      elif path.endswith(".gz"):
        data = mutate(gzip.compress(valid, 1), rng, _EDGES)
      file.write_bytes(data)
      yield _documents(uri.format(folder), apply)

  return outcomes


def _documents(uri: str, apply: Callable) -> str:
  read, skipped = reader(uri, "text"), False
  try:
    for path in files(uri):
      for found in read(path):
        if isinstance(found, Document):
          found = apply(found)
        if isinstance(found, Document):
          # A value that cannot be written would end a run at its last step.
          json.dumps(
            [found.id, found.text, found.fields],
            ensure_ascii=False,
            allow_nan=False,
          ).encode()
        elif isinstance(found, Bad) and len(found.reason.splitlines()) != 1:
          return "failed: a reason that is not one line"
        else:
          skipped = True
    return "skipped" if skipped else "read"
  except Exception as error:
    return f"failed: {type(error).__name__}: {str(error)[:200]}"


FORMATS: dict[str, Callable] = {
  "jsonl": one_by_one(_jsonl, "a.jsonl", "jsonl:{}/a.jsonl", _JSON_PARTS),
  "jsonl, its text": one_by_one(
    _jsonl,
    "a.jsonl",
    "jsonl:{}/a.jsonl",
    _JSON_PARTS,
    tokenizer="byte",
    seq_len=4,
  ),
  "jsonl.gz": one_by_one(
    _jsonl, "a.jsonl.gz", "jsonl:{}/a.jsonl.gz", _JSON_PARTS
  ),
  "text": one_by_one(
    _text, "a.txt", "text:{}/*", _EDGES, tokenizer="char", seq_len=4
  ),
  "idx": one_by_one(_idx, "train-images-idx3-ubyte", "idx:{}", _EDGES),
  "idx.gz": one_by_one(_idx, "train-images-idx3-ubyte.gz", "idx:{}", _EDGES),
  "png": images("png"),
  "jpg": images("jpg"),
  "bmp": images("bmp"),
  "gif": images("gif"),
  "csv": one_by_one(_csv, "a.csv", "csv:{}/a.csv", _TABLE_PARTS),
  "parquet": one_by_one(_parquet, "a.parquet", "parquet:{}/a.parquet", _EDGES),
  "warc.gz": one_by_one(
    functools.partial(_warc, "response"),
    "a.warc.gz",
    "warc:{}/*",
    _WEB_PARTS,
    tokenizer="byte",
    text_key="html",
    seq_len=4,
  ),
  "wet, its text": one_by_one(
    functools.partial(_warc, "conversion"),
    "a.wet",
    "wet:{}/*",
    _WEB_PARTS,
    tokenizer="byte",
    seq_len=4,
  ),
  "documents: jsonl": streamed(_jsonl, "a.jsonl", "jsonl:{}/*", _JSON_PARTS),
  "documents: csv": streamed(_csv, "a.csv.gz", "csv:{}/*", _TABLE_PARTS),
  "documents: parquet": streamed(_parquet, "a.parquet", "parquet:{}/*", _EDGES),
  "documents: warc": streamed(
    functools.partial(_warc, "response"), "a.warc", "warc:{}/*", _WEB_PARTS
  ),
  "documents: wet": streamed(
    functools.partial(_warc, "conversion"),
    "a.wet.gz",
    "wet:{}/*",
    _WEB_PARTS,
  ),
  "documents: html": streamed(
    _html, "a.html", "html:{}/*", _WEB_PARTS, stage=extract
  ),
}


def fuzz(name: str, count: int, seed: int = 0) -> collections.Counter:
  """Counts the outcomes of `count` mutated files of a format."""
  rng = np.random.default_rng([seed, *name.encode()])
  with (
    tempfile.TemporaryDirectory() as folder,
    tempfile.TemporaryDirectory() as cache,
  ):
    os.environ["TESSERA_CACHE"] = cache
    folder = pathlib.Path(folder)
    if name.startswith("idx"):
      _labels(folder)
    if name == "text":
      (folder / "valid.txt").write_bytes(_text(rng))
    return collections.Counter(FORMATS[name](folder, count, rng))


def main() -> int:
  """Prints the table; returns the exit code."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument(
    "--files", type=int, default=10_000, help="of all formats"
  )
  parser.add_argument("--seed", type=int, default=0)
  args = parser.parse_args()
  count = -(-args.files // len(FORMATS))
  failures = 0
  print(
    f"{'format':20}{'tried':>8}{'read':>8}{'skipped':>9}{'refused':>9}"
    f"{'failed':>8}{'seconds':>9}"
  )
  for name in FORMATS:
    start = time.perf_counter()
    found = fuzz(name, count, args.seed)
    failed = {k: n for k, n in found.items() if k.startswith("failed")}
    failures += sum(failed.values())
    print(
      f"{name:20}{found.total():8,}{found['read']:8,}{found['skipped']:9,}"
      f"{found['refused']:9,}{sum(failed.values()):8,}"
      f"{time.perf_counter() - start:9.1f}",
      *(f"\n  {n:,} x {what}" for what, n in failed.items()),
      flush=True,
    )
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
  print(f"peak memory {peak:,.0f} MiB")
  return 1 if failures else 0


if __name__ == "__main__":
  sys.exit(main())
