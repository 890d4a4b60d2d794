import csv
import datetime
import decimal
import gzip
import io
import json
import os
import pathlib
import random
import re
import zlib

import numpy as np
import pytest

from input_pipeline.bad_records import Policy
from input_pipeline.document import Bad, Document
from input_pipeline.reading import inflate
from input_pipeline.reading.open import files, reader
from input_pipeline.reading.streams import Stream
from input_pipeline.sources import open_source

ROOT = pathlib.Path(__file__).parents[3]


def packed(data: bytes, kind: str) -> bytes:
  """The bytes as a file of that kind holds them; .gz in three members."""
  if kind == ".zst":
    zstandard = pytest.importorskip("zstandard")
    half = len(data) // 2
    one = zstandard.ZstdCompressor(write_checksum=True)
    return one.compress(data[:half]) + one.compress(data[half:])
  if kind == ".gz":
    a, b = len(data) // 3, len(data) // 2
    return b"".join(map(gzip.compress, (data[:a], data[a:b], data[b:])))
  return data


def all_of(uri: str, text_key: str = "text", **policy) -> list:
  read = reader(uri, text_key, Policy(**policy))
  return [each for path in files(uri) for each in read(path)]


def ids(found: list) -> list[str]:
  return [x.id if isinstance(x, Document) else f"-{x.name}" for x in found]


# What is compressed.


@pytest.mark.parametrize("piece", [1, 7, 2**20])
def test_pieces_are_what_the_libraries_inflate(monkeypatch, piece):
  zstandard = pytest.importorskip("zstandard")
  monkeypatch.setattr(inflate, "_PIECE", piece)
  rng = random.Random(piece)
  for _ in range(5 if piece < 9 else 40):
    parts = [
      bytes(rng.choices(range(9), k=rng.randrange(300))) * rng.randint(1, 9)
      for _ in range(rng.randint(1, 4))
    ]
    whole = b"".join(parts)
    gz = b"".join(map(gzip.compress, parts)) + b"\0" * rng.randrange(9)
    found = list(inflate.pieces(io.BytesIO(gz), "a.gz"))
    assert b"".join(p for _, p in found) == whole == gzip.decompress(gz)
    assert max((len(p) for _, p in found), default=0) <= piece
    for start in {start for start, _ in found}:
      inside = b"".join(p for at, p in found if at == start)
      assert inside == zlib.decompressobj(31).decompress(gz[start:])
    frames = [
      zstandard.ZstdCompressor(
        level=rng.choice([1, 9]),
        write_checksum=rng.random() < 0.5,
        write_content_size=rng.random() < 0.5,
      ).compress(part)
      for part in parts
    ]
    # A frame to be skipped, as pzstd writes them.
    frames.insert(1, b"\x53\x2a\x4d\x18\x03\x00\x00\x00abc")
    zst, ends, size = b"".join(frames), set(), 0
    for frame in frames:
      size += len(frame)
      ends.add(size)
    assert inflated(zst, "a.zst") == whole
    for cut in rng.sample(range(1, len(zst)), min(8, len(zst) - 1)):
      if cut in ends:
        inflated(zst[:cut], "a.zst")
      else:
        with pytest.raises(ValueError, match=r"^a\.zst: broken zstd file: "):
          inflated(zst[:cut], "a.zst")


def inflated(data: bytes, name: str) -> bytes:
  return b"".join(p for _, p in inflate.pieces(io.BytesIO(data), name))


def test_a_member_is_given_when_its_sum_is_right():
  """What a flipped bit or a cut leaves of it is not taken for content."""
  first, second = os.urandom(5000), os.urandom(3 * 2**20)
  whole = gzip.compress(first) + gzip.compress(second)
  for broken in (
    whole[:-6] + bytes([whole[-6] ^ 1]) + whole[-5:],
    whole[: len(whole) // 2],
    whole + b"no member",
  ):
    found, data = b"", (first + second)
    with pytest.raises(ValueError, match=r"^a\.gz: broken gzip file: "):
      for _, piece in inflate.pieces(io.BytesIO(broken), "a.gz"):
        found += piece
    assert data.startswith(found) and found.startswith(first)
    assert len(found) < len(data) or broken.endswith(b"no member")


def test_a_stream_is_read_like_a_file():
  rng = random.Random(0)
  content = bytes(rng.choices(b"ab\n", weights=[5, 5, 2], k=2000))
  for _ in range(20):
    cuts = sorted(rng.sample(range(1, len(content)), 30))
    pieces = [
      content[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)
    ]
    stream, file = Stream((0, p) for p in pieces), io.BytesIO(content)
    while stream.more():
      assert stream.place() == (0, file.tell())
      size = rng.randrange(12)
      match rng.randrange(3):
        case 0:
          assert stream.read(size) == file.read(size)
        case 1:
          assert stream.skip(size) == len(file.read(size))
        case 2:
          line, length = stream.line(size)
          expected = file.readline()
          fits = len(expected.rstrip(b"\n")) <= size
          assert line == (expected if fits else b"")
          assert length == len(expected)
    assert file.read() == b""


# Lines and tables.


@pytest.mark.parametrize("kind", ["", ".gz", ".zst"])
def test_jsonl_is_what_json_reads(tmp_path, kind):
  lines = [
    json.dumps({"text": f"línea {i}\n", "n": i, "more": {"a": [i, None]}})
    for i in range(40)
  ]
  lines[3] = "{broken"
  lines[5] = ""
  lines[7] = "[1]"
  lines[9] = '{"n": 1}'
  lines[11] = '{"text": 7}'
  lines[13] = '{"text": "\\ud800"}'
  lines[15] = '{"text": "a", "x": NaN}'
  lines[17] = '{"text": "a", "x": ' + "[" * 90 + "]" * 90 + "}"
  lines[19] = '{"text": "a", "\\udfff": 1}'
  lines[21] = '{"text": "a", "x": 1e999}'
  path = tmp_path / f"a.jsonl{kind}"
  path.write_bytes(packed("\n".join(lines).encode(), kind))
  found = all_of(f"jsonl:{tmp_path}/*")
  assert [x for x in found if isinstance(x, Document)] == [
    Document(
      f"{path.name}:{i + 1}",
      f"línea {i}\n",
      {"n": i, "more": {"a": [i, None]}},
    )
    for i in range(40)
    if i not in range(3, 23, 2)
  ]
  bad = {x.name.split(":")[1]: x.reason for x in found if isinstance(x, Bad)}
  assert list(bad) == ["4", "8", "10", "12", "14", "16", "18", "20", "22"]
  for line, said in {
    "4": "not JSON",
    "8": "not a JSON object",
    "10": "no field 'text'",
    "12": "'text' is not text",
    "14": "'text' is not Unicode",
    "16": "'x' is not finite",
    "18": "'x' is nested too deeply",
    "20": "is not Unicode",
    "22": "'x' is not finite",
  }.items():
    assert bad[line].startswith(f"{path.name}:{line}: ")
    assert said in bad[line] and "\n" not in bad[line]
  for document in found:
    if isinstance(document, Document):
      json.dumps([document.text, document.fields], ensure_ascii=False).encode()


def test_a_line_of_the_largest_size_is_read_and_no_larger(tmp_path):
  line = json.dumps({"text": "x" * 50})
  (tmp_path / "a.jsonl").write_text(f"{line}\n{line} \n{line}")
  found = all_of(f"jsonl:{tmp_path}/*", max_record_bytes=len(line))
  assert ids(found) == ["a.jsonl:1", "-a.jsonl:2", "a.jsonl:3"]
  assert found[1].reason == (
    f"a.jsonl:2: {len(line) + 1} bytes are more than "
    f"max_record_bytes={len(line)}"
  )


def write_table(path, rows, kind="", **format) -> None:
  text = io.StringIO()
  csv.writer(text, **format).writerows(rows)
  path.write_bytes(packed(text.getvalue().encode(), kind))


CELLS = {
  "0": 0,
  "-17": -17,
  "+5": 5,
  "999999999999999999": 999999999999999999,
  "1234567890123456789": "1234567890123456789",
  "007": "007",
  "1_000": "1_000",
  "1.5": 1.5,
  "-.5e-3": -0.0005,
  "2.": 2.0,
  "1e3": 1000.0,
  "1e999": "1e999",
  "nan": "nan",
  "Infinity": "Infinity",
  "0x1f": "0x1f",
  "٣": "٣",
  "1,5": "1,5",
  "?": "?",
  "": None,
  "a\n\nb": "a\n\nb",
  '"q"': '"q"',
  " 8 ": 8,
}


@pytest.mark.parametrize("kind", ["", ".gz", ".zst"])
@pytest.mark.parametrize("delimiter", list(",;\t|"))
def test_csv_is_what_the_csv_module_reads(tmp_path, kind, delimiter):
  path = tmp_path / f"a.csv{kind}"
  rows = [[cell, f"text {i}, {cell}"] for i, cell in enumerate(CELLS)]
  write_table(path, [["cell", "text"], *rows], kind, delimiter=delimiter)
  found = all_of(f"csv:{path}")
  assert [x.text for x in found] == [row[1] for row in rows]
  values = [x.fields["cell"] for x in found]
  assert values == list(CELLS.values())
  assert list(map(type, values)) == list(map(type, CELLS.values()))
  # A row that spans lines has the number of its first one.
  assert [x.id for x in found][-3:] == [
    f"{path.name}:21",
    f"{path.name}:26",
    f"{path.name}:27",
  ]


def test_a_table_without_a_text_has_none(tmp_path):
  (tmp_path / "a.csv").write_text("\ufeffa,b,\n1,x,\n", encoding="utf-8")
  (found,) = all_of(f"csv:{tmp_path}/a.csv", text_key="")
  assert found == Document("a.csv:2", "", {"a": 1, "b": "x", "column_3": None})
  (wrong,) = all_of(f"csv:{tmp_path}/a.csv", text_key="c")
  assert wrong.reason == "a.csv:2: no field 'c'; there are: a, b, column_3"


def test_the_spaces_of_a_table_that_is_spaced_are_no_part_of_it(tmp_path):
  (tmp_path / "a.csv").write_text("a, b\n1, x\n2,  ?\n3,y\n")
  (tmp_path / "b.csv").write_text("a,b\n1, x\n")
  found = all_of(f"csv:{tmp_path}/*", text_key="")
  assert [x.fields["b"] for x in found] == ["x", "?", "y", " x"]


def test_rows_that_are_bad_cost_no_other(tmp_path):
  path = tmp_path / "a.csv"
  path.write_bytes(
    b"a,text\n1,x\n2\n3,x,y\n4,\xff\n5,a\rb\n6,x\n\n7," + b"x" * 80 + b"\n8,"
    b'"x\ny"\n9,"never closed\n10,x\n11,' + b"x" * 40 + b"\n12,x\n13,y\n"
  )
  found = all_of(f"csv:{path}", max_record_bytes=60)
  # The quote takes in what follows, up to the largest size of a record.
  assert ids(found) == [
    "a.csv:2",
    "-a.csv:3",
    "-a.csv:4",
    "-a.csv:5",
    "-a.csv:6",
    "a.csv:7",
    "-a.csv:9",
    "a.csv:10",
    "-a.csv:12",
    "a.csv:15",
    "a.csv:16",
  ]
  reasons = [x.reason for x in found if isinstance(x, Bad)]
  for reason, said in zip(
    reasons,
    ["1 cells, but", "3 cells, but", "not UTF-8", "not CSV", "83", "6"],
    strict=True,
  ):
    assert said in reason.split(": ", 1)[1] and "\n" not in reason


@pytest.mark.parametrize(
  ("content", "said"),
  [
    (b"", "has no header"),
    (b"\n\n", "has no header"),
    (b"a,b,a\n1,2,3\n", "its header names the column 'a' twice"),
    (b"\xff\xfe\n", "not UTF-8"),
    (b"a" * 99 + b"\n1\n", "more than max_record_bytes"),
  ],
)
def test_a_table_without_a_header_is_one_bad_record(tmp_path, content, said):
  (tmp_path / "a.csv").write_bytes(content)
  (found,) = all_of(f"csv:{tmp_path}/*", max_record_bytes=50)
  assert found.name == "a.csv" and said in found.reason


def parquet_table():
  pa = pytest.importorskip("pyarrow")
  n = 50
  return pa.table(
    {
      "text": pa.array(["a", None, "línea"] * n)[:n],
      "i": pa.array([1, None, 3] * n)[:n],
      "label": pa.array(range(n), pa.int32()),
      "f": pa.array([0.5, float("nan"), None] * n)[:n],
      "b": pa.array([b"\xff\x00", b"x", None] * n)[:n],
      "list": [[i, i + 1] for i in range(n)],
      "struct": [{"day": datetime.date(2020, 1, 1), "x": [None]}] * n,
      "when": [datetime.datetime(2020, 1, 2, 3, 4, 5)] * n,
      "money": [decimal.Decimal("1.50")] * n,
      "yes": [i % 2 == 0 for i in range(n)],
    }
  )


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_parquet_is_what_pyarrow_reads(tmp_path, compression):
  table = parquet_table()
  from pyarrow import parquet

  path = tmp_path / "a.parquet"
  parquet.write_table(table, path, row_group_size=7, compression=compression)
  found = all_of(f"parquet:{path}")
  assert ids(found) == [f"a.parquet:{i}" for i in range(50)]
  assert [x.text for x in found] == [t or "" for t in table["text"].to_pylist()]
  expected = {
    "i": table["i"].to_pylist(),
    "label": list(range(50)),
    "f": [0.5, None, None] * 16 + [0.5, None],
    "b": ["/wA=", "x", None] * 16 + ["/wA=", "x"],
    "list": [[i, i + 1] for i in range(50)],
    "struct": [{"day": "2020-01-01", "x": [None]}] * 50,
    "when": ["2020-01-02T03:04:05"] * 50,
    "money": ["1.50"] * 50,
    "yes": table["yes"].to_pylist(),
  }
  for field, values in expected.items():
    assert [x.fields[field] for x in found] == values
  assert json.loads(json.dumps(found[0].fields)) == found[0].fields
  rows = open_source(f"parquet:{path}", "all").read(np.array([49, 7, 0]))
  assert list(rows["text"]) == ["", "", "a"]
  np.testing.assert_array_equal(rows["label"], np.int32([49, 7, 0]))
  assert rows["label"].dtype == np.int32 and rows["yes"].dtype == bool
  assert list(rows["i"]) == [None, None, 1]
  np.testing.assert_array_equal(rows["list"], [[49, 50], [7, 8], [0, 1]])
  assert list(rows["b"]) == [b"x", b"x", b"\xff\x00"]


def test_a_row_group_that_is_broken_costs_no_other(tmp_path):
  table = parquet_table()
  from pyarrow import parquet

  path = tmp_path / "a.parquet"
  parquet.write_table(
    table,
    path,
    row_group_size=10,
    write_page_checksum=True,
    use_dictionary=False,
  )
  data = bytearray(path.read_bytes())
  group = parquet.ParquetFile(path).metadata.row_group(2)
  for i in range(group.num_columns):
    chunk = group.column(i)
    at = chunk.data_page_offset
    data[at : at + chunk.total_compressed_size] = bytes(
      chunk.total_compressed_size
    )
  path.write_bytes(data)
  found = all_of(f"parquet:{path}")
  assert ids(found) == [
    *(f"a.parquet:{i}" for i in range(20)),
    "-a.parquet:20",
    *(f"a.parquet:{i}" for i in range(30, 50)),
  ]
  assert "broken Parquet file" in found[20].reason
  source = open_source(f"parquet:{path}", "all")
  assert source.read(np.array([0, 45]))["label"].tolist() == [0, 45]
  with pytest.raises(ValueError, match="a.parquet:20: broken Parquet file"):
    source.read(np.array([5, 25]))


# Web archives.


def record(kind: str, url: str, body: bytes, status="200 OK", **headers):
  """(writer) -> the record that warcio makes of it."""
  from warcio.statusandheaders import StatusAndHeaders

  def make(writer):
    payload = io.BytesIO(body)
    if kind != "response":
      return writer.create_warc_record(
        url, kind, payload, warc_content_type="text/plain"
      )
    pairs = [(k.replace("_", "-"), v) for k, v in headers.items()]
    http = StatusAndHeaders(status, pairs, protocol="HTTP/1.1")
    return writer.create_warc_record(url, kind, payload, http_headers=http)

  return make


def chunked(body: bytes) -> bytes:
  parts = [body[i : i + 7] for i in range(0, len(body), 7)]
  return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"


def html_of(i: int) -> bytes:
  return f"<html><body><p>página {i}</p></body></html>".encode("latin-1")


def raw_deflate(data: bytes) -> bytes:
  deflater = zlib.compressobj(wbits=-15)
  return deflater.compress(data) + deflater.flush()


def records():
  url = "http://example.org/"
  html = dict(Content_Type="text/html; charset=latin-1")
  return [
    record("warcinfo", "", b"software: x\r\n"),
    record("request", url, b"GET / HTTP/1.0\r\n\r\n"),
    record("response", f"{url}0", html_of(0), **html),
    record("response", f"{url}1", html_of(1), status="404 Not Found", **html),
    record("response", f"{url}2", b"\x89PNG", Content_Type="image/png"),
    record(
      "response",
      f"{url}3",
      chunked(html_of(3)),
      Content_Type="application/xhtml+xml",
      Transfer_Encoding="chunked",
    ),
    record(
      "response",
      f"{url}4",
      chunked(gzip.compress(html_of(4))),
      Content_Encoding="gzip",
      Transfer_Encoding="Chunked",
      **html,
    ),
    record("response", f"{url}5", html_of(5), Content_Encoding="gzip", **html),
    record(
      "response",
      f"{url}6",
      zlib.compress(html_of(6)),
      Content_Encoding="deflate",
      **html,
    ),
    record(
      "response",
      f"{url}7",
      raw_deflate(html_of(7)),
      Content_Encoding="deflate",
      **html,
    ),
    record("response", f"{url}8", b"\0\1\2", Content_Encoding="zzz", **html),
    record("conversion", f"{url}9", "texto de la página\n".encode()),
    record("conversion", f"{url}10", "línea".encode("latin-1")),
    record("response", f"{url}11", html_of(11), **html),
  ]


PAGES = [(3, 0), (6, 3), (7, 4), (8, 5), (9, 6), (10, 7), (14, 11)]


def archive(which=None, gz=True) -> list[bytes]:
  """Each record as warcio writes it."""
  writers = pytest.importorskip("warcio.warcwriter")
  found = []
  for make in records() if which is None else which:
    file = io.BytesIO()
    writer = writers.WARCWriter(file, gzip=gz)
    # Those on disk it leaves open.
    writer._create_temp_file = io.BytesIO
    writer.write_record(make(writer))
    found.append(file.getvalue())
  return found


def containers() -> dict[str, bytes]:
  """The records in a file of each kind."""
  plain = b"".join(archive(gz=False))
  return {
    "a.warc": plain,
    "a.warc.gz": b"".join(archive()),
    "one.warc.gz": gzip.compress(plain),
    "cut.warc.gz": packed(plain, ".gz"),
    "a.warc.zst": packed(plain, ".zst"),
  }


KINDS = ["a.warc", "a.warc.gz", "one.warc.gz", "cut.warc.gz", "a.warc.zst"]


@pytest.mark.parametrize("name", KINDS)
def test_the_pages_of_an_archive(tmp_path, name):
  (tmp_path / name).write_bytes(containers()[name])
  found = all_of(f"warc:{tmp_path}/*")
  good = [x for x in found if isinstance(x, Document)]
  assert [x.id for x in good] == [f"{name}#{n}" for n, _ in PAGES]
  assert [x.html for x in good] == [html_of(i) for _, i in PAGES]
  assert [x.fields["url"][-1] for x in good[:-1]] == list("034567")
  assert {x.text for x in good} == {""}
  assert good[0].fields["mime"] == "text/html"
  assert re.fullmatch(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", good[0].fields["date"]
  )
  (bad,) = [x for x in found if isinstance(x, Bad)]
  assert bad == Bad(
    f"{name}#11", f"{name}#11: Content-Encoding 'zzz' is unknown"
  )
  source = open_source(f"warc:{tmp_path}/*", "all")
  assert source.length == 8
  rows = source.read(np.array([7, 2, 0]))
  assert list(rows["html"]) == [html_of(11), html_of(4), html_of(0)]
  with pytest.raises(ValueError, match=f"{name}#11: Content-Encoding 'zzz'"):
    source.read(np.array([0, 6]))


@pytest.mark.parametrize("name", KINDS)
def test_the_texts_of_an_archive(tmp_path, name):
  (tmp_path / name).write_bytes(containers()[name])
  found = all_of(f"wet:{tmp_path}/*")
  assert ids(found) == [f"{name}#12", f"-{name}#13"]
  assert found[0].text == "texto de la página\n"
  assert found[0].fields["url"] == "http://example.org/9"
  assert found[1].reason == f"{name}#13: not UTF-8 at byte 1"


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize(
  "broken",
  [
    b"junk\r\nmore junk\r\n\r\n",
    b"WARC/1.0\r\nWARC-Type: response\r\n\r\n",
    b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: x\r\n\r\nabc\r\n\r\n",
    b"WARC/1.0\r\nWARC-Type: response\r\n" + b"a: b\r\n" * 60_000 + b"\r\n",
    b"WARC/1.0\r\nWARC-Type: response\r\n" + b"a" * 300_000 + b"\r\n\r\n",
    b"WARC/1.0\r\nWARC-Type: response\r\n",
    b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: 3\r\n\r\nabc\r\n\r\n",
  ],
)
def test_a_record_that_is_broken_costs_no_other(tmp_path, gz, broken):
  pages = [
    record("response", f"http://x/{i}", html_of(i), Content_Type="text/html")
    for i in range(2)
  ]
  first, second = archive(pages, gz)
  middle = gzip.compress(broken) if gz else broken
  path = tmp_path / ("a.warc.gz" if gz else "a.warc")
  path.write_bytes(first + middle + second)
  found = all_of(f"warc:{path}")
  assert ids(found) == [f"{path.name}#1", f"-{path.name}#2", f"{path.name}#3"]
  assert "\n" not in found[1].reason and len(found[1].reason) < 200
  assert [found[0].html, found[2].html] == [html_of(0), html_of(1)]


def test_a_record_that_is_too_large_is_passed_over(tmp_path):
  pages = [
    record("response", "http://x/", b"x" * n, Content_Type="text/html")
    for n in (100, 5000, 50)
  ]
  (tmp_path / "a.warc").write_bytes(b"".join(archive(pages, gz=False)))
  found = all_of(f"warc:{tmp_path}/*", max_record_bytes=1000)
  assert ids(found) == ["a.warc#1", "-a.warc#2", "a.warc#3"]
  assert "bytes are more than max_record_bytes=1,000" in found[1].reason


@pytest.mark.parametrize("kind", ["warc", "jsonl", "csv", "text", "html"])
def test_a_broken_tail_is_one_bad_record(tmp_path, kind):
  """What is whole before it is read."""
  if kind == "warc":
    pages = [
      record("response", f"http://x/{i}", html_of(i), Content_Type="text/html")
      for i in range(4)
    ]
    parts = archive(pages)
    name, good = "a.warc.gz", [f"a.warc.gz#{i}" for i in (1, 2, 3)]
  else:
    head = b"text\n" if kind == "csv" else b""
    line = b'{"text": "x"}\n' if kind == "jsonl" else b"x\n"
    parts = [gzip.compress(head + line * 3), gzip.compress(line * 5)]
    name = f"a.{kind}.gz"
    lines = {"jsonl": (1, 2, 3), "csv": (2, 3, 4)}.get(kind, ())
    good = [f"{name}:{i}" for i in lines]
  path = tmp_path / name
  for tail in (parts[-1][:-5], parts[-1][:5], b"junk", parts[-1][:-5] + b"!!"):
    path.write_bytes(b"".join(parts[:-1]) + tail)
    found = all_of(f"{kind}:{path}")
    assert ids(found)[: len(good)] == good
    assert isinstance(found[-1], Bad)
    assert len([x for x in found if isinstance(x, Bad)]) == 1
    assert found[-1].reason.startswith(f"{name}: broken gzip file: ")


# The stream and the random access.


def hostile_lines(kind: str, rng: random.Random) -> bytes:
  """Good and bad records of a format, one after another."""
  if kind == "jsonl":
    parts = [
      b'{"text": "l\xc3\xad%d", "n": %d}' % (rng.randrange(99), 1),
      b'{"text": "', b"[]", b"", b" ", b"\t\r", b"   ", b"\xff",
      b'{"n": 1}', b'{"text": "' + b"x" * 200 + b'", "n": 2}',
    ]  # fmt: skip
    ends = [b"\n", b"\r\n", b"\n"]
  elif kind == "csv":
    parts = [
      b"%d,text" % rng.randrange(99), b'7,"a\nb"', b"1", b"", b'1,"',
      b"3,\xff", b"x" * 200 + b",1", b"4,\xc3\xad", b'5,"q""q"', b" ",
    ]  # fmt: skip
    ends = [b"\n", b"\r\n", b"\n"]
  else:
    html = dict(Content_Type="text/html")
    parts = archive(
      [
        *records()[:1],
        record("response", "http://x/a", html_of(1), **html),
        record("conversion", "http://x/b", b"text"),
        record("conversion", "http://x/b", b"\xff"),
        record("response", "http://x/c", b"x" * 1000, **html),
        record("response", "http://x/d", b"x", Content_Encoding="y", **html),
      ],
      gz=False,
    )
    parts += [b"junk\r\n", b"WARC/1.0\r\n\r\n", b"\r\n"]
    ends = [b"", b"\r\n"]
  found = [rng.choice(parts) + rng.choice(ends) for _ in range(40)]
  return (
    {"csv": b"n,text\n"}.get(kind, b"") + parts[0] + b"\n" + b"".join(found)
  )


@pytest.mark.parametrize("kind", ["jsonl", "csv", "warc", "wet"])
@pytest.mark.parametrize("form", ["", ".gz", ".zst"])
def test_the_random_access_reads_what_the_stream_reads(tmp_path, kind, form):
  """The same records, good or bad, under the same names, in any order."""
  rng = random.Random(f"{kind}{form}")
  for trial in range(4):
    for i in range(3):
      path = tmp_path / f"{i}.{kind}{form}"
      path.write_bytes(packed(hostile_lines(kind, rng), form))
    uri = f"{kind}:{tmp_path}/*.{kind}{form}"
    most = 800 if kind in ("warc", "wet") else 90
    stream = all_of(uri, max_record_bytes=most)
    policy = Policy(skip=True, max_record_bytes=most)
    source = open_source(uri, "all", policy)
    names = [pathlib.Path(source.name(i)).name for i in range(source.length)]
    assert names == [
      x.id if isinstance(x, Document) else x.name for x in stream
    ]
    order = rng.sample(range(source.length), source.length)
    for i in order:
      expected = stream[i]
      try:
        row = source.read(np.array([i]))
      except ValueError as error:
        assert isinstance(expected, Bad), (trial, i, error)
        assert "\n" not in str(error)
        assert str(error).removeprefix(f"{tmp_path}/") == expected.reason
      else:
        if kind == "jsonl" and row["text"][0] is None:
          # It is bad only for a run that uses the field.
          assert expected.reason.endswith("no field 'text'")
          continue
        assert isinstance(expected, Document)
        field = "html" if kind == "warc" else "text"
        assert row[field][0] == getattr(expected, field)


def test_the_members_of_an_archive_are_read_where_they_lie(tmp_path):
  """Not held: each read is of its own member alone."""
  parts = archive()
  data = bytearray(b"".join(parts))
  (tmp_path / "a.warc.gz").write_bytes(data)
  source = open_source(f"warc:{tmp_path}/*", "all")
  sizes = np.cumsum(list(map(len, parts)))
  data[: sizes[4]] = bytes(sizes[4])
  data[sizes[6] :] = bytes(len(data) - sizes[6])
  (tmp_path / "a.warc.gz").write_bytes(data)
  assert source.read(np.array([1]))["html"][0] == html_of(3)
  with pytest.raises(ValueError, match="a.warc.gz"):
    source.read(np.array([7]))


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "warc"])
def test_a_file_that_is_broken_is_told_or_skipped(tmp_path, kind):
  """Under "stop" it is an error, under "skip" one bad record."""
  name = f"b.{kind}" if kind == "parquet" else f"b.{kind}.gz"
  (tmp_path / name).write_bytes(b"\x1f\x8bno such thing")
  good = {
    "jsonl": b'{"text": "a"}',
    "csv": b"text\na\n",
    "warc": containers()["a.warc"],
  }
  if kind == "parquet":
    table = parquet_table()
    from pyarrow import parquet

    parquet.write_table(table, tmp_path / "a.parquet")
  else:
    (tmp_path / f"a.{kind}").write_bytes(good[kind])
  uri = f"{kind}:{tmp_path}/*"
  with pytest.raises(ValueError, match=f"{name}: broken ") as error:
    open_source(uri, "all")
  assert "\n" not in str(error.value)
  source = open_source(uri, "all", Policy(skip=True))
  assert source.name(source.length - 1) == str(tmp_path / name)
  with pytest.raises(ValueError, match=f"{name}: broken "):
    source.read(np.array([0, source.length - 1]))
  assert len(source.read(np.array([0, 0]))) >= 1


def test_a_column_is_typed_as_a_whole(tmp_path):
  pa = pytest.importorskip("pyarrow")
  from pyarrow import csv as arrow

  columns = {
    "int": ["1", "-2", "30"],
    "float": ["1", "2.5", "1e3"],
    "gaps": ["1", "", "3"],
    "missing": ["1", "?", "3"],
    "name": ["007", "8", "9"],
    "empty": ["", "", ""],
  }
  rows = [list(columns), *zip(*columns.values(), strict=True)]
  write_table(tmp_path / "a.csv", rows[:3])
  write_table(tmp_path / "b.csv", [rows[0], rows[3]])
  source = open_source(f"csv:{tmp_path}/*", "all")
  found = source.read(np.array([2, 0, 1]))
  assert {k: v.dtype.kind for k, v in found.items()} == {
    "int": "i", "float": "f", "gaps": "O",
    "missing": "O", "name": "O", "empty": "O",
  }  # fmt: skip
  assert list(found["gaps"]) == [3, 1, None]
  assert source.read(np.array([2]))["gaps"].dtype == np.int64
  assert list(found["missing"]) == ["3", "1", "?"]
  assert list(found["name"]) == ["9", "007", "8"]
  write_table(tmp_path / "whole.csv", rows)
  types = pa.schema([("name", pa.string()), ("empty", pa.string())])
  table = arrow.read_csv(
    tmp_path / "whole.csv",
    convert_options=arrow.ConvertOptions(column_types=types),
  )
  for name in ("int", "float"):
    np.testing.assert_array_equal(
      found[name], table[name].to_numpy()[[2, 0, 1]]
    )
    assert found[name].dtype == table[name].to_numpy().dtype
  assert [source.name(i).rpartition("/")[2] for i in range(3)] == [
    "a.csv:2",
    "a.csv:3",
    "b.csv:2",
  ]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_files_of_other_columns_are_told(tmp_path, kind):
  if kind == "csv":
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    (tmp_path / "b.csv").write_text("a,c\n1,2\n")
  else:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table({"a": [1], "b": [2]}), tmp_path / "a.parquet")
    parquet.write_table(
      pa.table({"a": [1], "b": [2.0]}), tmp_path / "b.parquet"
    )
  with pytest.raises(
    ValueError, match=f"b.{kind}:? (has the columns|its columns differ)"
  ):
    open_source(f"{kind}:{tmp_path}/*", "all")


# Real files.


@pytest.mark.shared_data
def test_a_real_archive_is_what_warcio_reads(shared_data):
  """299 responses; those that are HTML with status 200, byte for byte."""
  iterator = pytest.importorskip("warcio.archiveiterator")
  path = shared_data / "web_warc_wet" / "aut" / "example.warc.gz"
  expected, responses = [], 0
  with open(path, "rb") as file:
    for number, each in enumerate(iterator.ArchiveIterator(file), 1):
      responses += each.rec_type == "response"
      http = each.http_headers if each.rec_type == "response" else None
      if http is None or http.get_statuscode() != "200":
        continue
      if (http.get_header("Content-Type") or "").startswith("text/html"):
        url = each.rec_headers.get_header("WARC-Target-URI")
        body = each.content_stream().read()
        expected.append((f"example.warc.gz#{number}", url, body))
  found = all_of(f"warc:{path}")
  assert responses == 299 and len(expected) == 94
  assert [(x.id, x.fields["url"], x.html) for x in found] == expected
  source = open_source(f"warc:{path}", "all")
  rows = source.read(np.arange(source.length))
  assert list(rows["html"]) == [body for *_, body in expected]
  assert list(rows["url"]) == [url for _, url, _ in expected]


@pytest.mark.shared_data
def test_a_page_of_common_crawl_in_both_forms(shared_data):
  folder = shared_data / "web_warc_wet" / "commoncrawl"
  (page,) = all_of(f"warc:{folder}/*.warc.gz")
  (text,) = all_of(f"wet:{folder}/*.wet.gz")
  assert page.fields["url"] == text.fields["url"]
  assert page.fields["url"] == "https://an.wikipedia.org/wiki/Escopete"
  title = text.text.partition("\n")[0]
  assert f"<title>{title}</title>".encode() in page.html


@pytest.mark.shared_data
def test_a_real_table_is_what_pyarrow_reads(shared_data):
  pytest.importorskip("pyarrow")
  from pyarrow import csv as arrow

  path = shared_data / "tab_adult" / "adult.data"
  table = arrow.read_csv(path)
  source = open_source(f"csv:{path}", "all")
  rows = source.read(np.arange(source.length))
  assert source.length == 32_561 and len(rows) == 15
  for name, column in zip(table.column_names, table.columns, strict=True):
    expected = column.to_pylist()
    if isinstance(expected[0], str):
      expected = [value.strip() for value in expected]
    assert rows[name.strip()].tolist() == expected
  assert sum((values == "?").sum() for values in rows.values()) == 4262
