"""Which files a URI names, what they are called, and where they come from."""

import gzip
import http.server
import importlib.util
import pathlib
import pickle
import subprocess
import sys
import threading
import zlib

import numpy as np
import pytest

from input_pipeline.bad_records import Policy
from input_pipeline.document import Bad
from input_pipeline.reading import files as raw_files
from input_pipeline.reading import remote
from input_pipeline.reading.open import files, reader
from input_pipeline.sources import open_source

ROOT = pathlib.Path(__file__).parents[3]


def all_of(uri: str, text_key: str = "text", **policy) -> list:
  read = reader(uri, text_key, Policy(**policy))
  return [each for path in files(uri) for each in read(path)]


@pytest.fixture
def pages(tmp_path):
  for name in ("b.html", "a.htm", "sub/c.html", "sub/deep/d.html", "x.txt"):
    path = tmp_path / "pages" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(f"<p>{name}".encode())
  return tmp_path / "pages"


@pytest.mark.parametrize(
  ("pattern", "names"),
  [
    ("*.html", ["b.html"]),
    ("b.html", ["b.html"]),
    ("./sub/../*.htm*", ["a.htm", "b.html"]),
    ("**/*.html", ["b.html", "sub/c.html", "sub/deep/d.html"]),
    ("sub/**/*.html", ["c.html", "deep/d.html"]),
    ("s?b/*.html", ["sub/c.html"]),
    ("[s]ub/deep/*", ["sub/deep/d.html"]),
  ],
)
@pytest.mark.parametrize("home", ["absolute", "relative", "~"])
def test_an_id_is_the_path_behind_what_is_fixed(
  pages, monkeypatch, pattern, names, home
):
  monkeypatch.chdir(pages)
  monkeypatch.setenv("HOME", str(pages))
  start = {"absolute": f"{pages}/", "relative": "", "~": "~/"}[home]
  uri = f"html:{start}{pattern}"
  read = pickle.loads(pickle.dumps(reader(uri, "")))
  found = [document for path in files(uri) for document in read(path)]
  assert [document.id for document in found] == names
  for document in found:
    assert document.fields == {"file": document.id.rpartition("/")[2]}
    assert document.html.endswith(document.fields["file"].encode())


def test_the_reason_does_not_tell_where_the_data_lies(pages):
  (pages / "b.html").unlink()
  (pages / "b.html").symlink_to("gone")
  (found,) = all_of(f"html:{pages}/b.html")
  assert found == Bad("b.html", "b.html: No such file or directory")
  (found,) = all_of(f"text:{pages}/x.txt", max_record_bytes=3)
  assert found.reason.startswith("x.txt: 8 bytes are more than")


def test_text_is_unchanged_and_may_be_compressed(tmp_path):
  zstandard = pytest.importorskip("zstandard")
  content = "\ufeffa\r\nlínea \n".encode()
  (tmp_path / "a.txt").write_bytes(content)
  (tmp_path / "b.txt.gz").write_bytes(gzip.compress(content))
  (tmp_path / "c.txt.zst").write_bytes(zstandard.compress(content))
  (tmp_path / "d.txt").write_bytes(b"a\xff")
  found = all_of(f"text:{tmp_path}/*")
  assert [x.text for x in found[:3]] == [content.decode()] * 3
  assert found[3].reason.startswith("d.txt: not UTF-8 at byte 1; ")


def test_the_library_is_read_like_any_text():
  found = all_of("stdlib:")
  source = open_source("stdlib:", "all")
  assert [x.text for x in found] == list(
    source.read(np.arange(source.length))["text"]
  )
  assert "json/decoder.py" in {x.id for x in found}


@pytest.mark.parametrize(
  ("uri", "said"),
  [
    ("wrc:x", "unknown scheme 'wrc'; did you mean \"warc\""),
    ("x", "unknown scheme"),
    ("tfds:x", "unknown scheme"),
    ("html:{}/no/*.html", "matches no file"),
    ("warc:{}/no.paths.gz?base=x", "matches no file"),
    ("warc:{}/empty.paths", "lists no file"),
    ("warc:{}/twice.paths", "lists .*/a twice"),
  ],
)
def test_a_wrong_uri_is_one_line(tmp_path, uri, said):
  (tmp_path / "empty.paths").write_bytes(b"\n\n")
  (tmp_path / "twice.paths").write_bytes(b"a\nb\n./a\n")
  with pytest.raises(ValueError, match=said) as error:
    files(uri.format(tmp_path))
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("base", ["", "?base={}/data", "?base={}/data/"])
def test_a_list_of_files(tmp_path, gz, base):
  listed = ["crawl/b.html", "crawl/a.html", "c.html"]
  home = tmp_path / "data" if base else tmp_path
  for name in listed:
    (home / name).parent.mkdir(parents=True, exist_ok=True)
    (home / name).write_text(name)
  (home / "not_listed.html").write_text("x")
  text = "\n".join(listed).encode() + b"\n"
  path = tmp_path / ("html.paths" + ".gz" * gz)
  path.write_bytes(gzip.compress(text) if gz else text)
  uri = f"html:{path}{base.format(tmp_path)}"
  # In the order of the list.
  assert files(uri) == [str(home / name) for name in listed]
  found = all_of(uri)
  assert [x.id for x in found] == listed
  assert [x.html.decode() for x in found] == listed
  rows = open_source(uri, "all").read(np.arange(3))
  assert [page.decode() for page in rows["html"]] == listed
  (home / "c.html").unlink()
  assert all_of(uri)[2] == Bad("c.html", "c.html: No such file or directory")


@pytest.mark.parametrize(
  "entry",
  [
    b"../x",
    b"a/../../x",
    b"/etc/passwd",
    b"http://a/b",
    b"a\0b",
    b"\xff\xff\xff",
  ],
)
@pytest.mark.parametrize("base", ["/data", "http://127.0.0.1:9/x"])
def test_a_list_does_not_lead_out_of_its_base(tmp_path, entry, base):
  path = tmp_path / "a.paths"
  path.write_bytes(b"a.html\n" + entry + b"\n")
  with pytest.raises(ValueError, match="not a path") as error:
    files(f"html:{path}?base={base}")
  assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_what_is_behind_an_address_is_not_read_at_random(tmp_path):
  (tmp_path / "a.paths").write_bytes(b"a.html\n")
  uri = f"html:{tmp_path}/a.paths?base=http://127.0.0.1:1"
  with pytest.raises(ValueError, match="needs local files"):
    open_source(uri)


def test_a_missing_library_is_told_before_any_record(tmp_path, monkeypatch):
  for name in ("a.warc.gz", "a.parquet", "a.txt.zst"):
    (tmp_path / name).write_bytes(b"")
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  for uri, module in (
    ("warc:{}/*.gz", "warcio"),
    ("wet:{}/*.gz", "warcio"),
    ("parquet:{}/*.parquet", "pyarrow"),
    ("text:{}/*.zst", "zstandard"),
  ):
    with pytest.raises(ValueError, match=rf"needs {module}, .*-e '.\[clean"):
      files(uri.format(tmp_path))


class Server(http.server.BaseHTTPRequestHandler):
  """Serves `content`, and breaks off as `faults` says, a fault an answer."""

  content = b""
  faults: list = []
  ranges = True
  asked: list = []

  def do_GET(self):  # noqa: D102
    fault = self.faults.pop(0) if self.faults else None
    start = self.headers.get("Range") if self.ranges else None
    self.asked.append((self.path, start))
    if isinstance(fault, str):
      self.send_error(int(fault))
      return
    at = int(start.removeprefix("bytes=").rstrip("-")) if start else 0
    self.send_response(206 if start else 200)
    self.send_header("Content-Length", str(len(self.content) - at))
    self.end_headers()
    stop = len(self.content) if fault is None else at + fault
    self.wfile.write(self.content[at:stop])

  def log_message(self, *args):  # noqa: D102
    pass


@pytest.fixture
def server(monkeypatch):
  monkeypatch.setattr(remote, "_WAIT", 0.001)
  for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setenv("no_proxy", "127.0.0.1")

  class Own(Server):
    faults, asked = [], []

  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Own) as server:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    Own.url = f"http://127.0.0.1:{server.server_address[1]}/base"
    yield Own
    server.shutdown()
    thread.join()


def listed(tmp_path, server, name="a/b.jsonl.gz") -> str:
  (tmp_path / "x.paths").write_text(f"{name}\n")
  return f"jsonl:{tmp_path}/x.paths?base={server.url}/"


LINES = b"".join(b'{"text": "%d"}\n' % i for i in range(50_000))


@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_behind_an_address_is_taken_up_where_it_broke(
  tmp_path, server, ranges
):
  server.content, server.ranges = gzip.compress(LINES), ranges
  # More tries than one read has, and each brings something.
  server.faults = ["503", 1000, 0, 40_000, "500", "429", 10, *[5000] * 8]
  if not ranges:
    server.faults = ["503", 1000, 0, 40_000]
  uri = listed(tmp_path, server)
  found = all_of(uri)
  assert [x.text for x in found] == [str(i) for i in range(50_000)]
  assert found[-1].id == "a/b.jsonl.gz:50000"
  assert {path for path, _ in server.asked} == {"/base/a/b.jsonl.gz"}
  assert not server.faults and (server.asked[-1][1] is not None) == ranges


@pytest.mark.parametrize(
  ("faults", "said", "asked"),
  [
    (["404"], "HTTP status 404", 1),
    (["503"] * 9, "HTTP status 503", 5),
    ([0] * 9, "it ends too early", 5),
  ],
)
def test_a_file_that_cannot_be_had_is_one_bad_record(
  tmp_path, server, faults, said, asked
):
  server.content, server.faults = b'{"text": "a"}\n', faults
  (found,) = all_of(listed(tmp_path, server, "b.jsonl"))
  assert found == Bad("b.jsonl", f"b.jsonl: {said}", True)
  assert len(server.asked) == asked


def test_a_server_that_is_not_there_is_one_bad_record(tmp_path, server):
  server.url = "http://127.0.0.1:1"
  (found,) = all_of(listed(tmp_path, server, "b.jsonl"))
  assert found.name == "b.jsonl" and "refused" in found.reason


READ = """
import sys
from input_pipeline.bad_records import Policy
from input_pipeline.document import Bad
from input_pipeline.reading.open import files, reader
def peak():
  # Not getrusage's: it begins with that of the process that started this one.
  lines = open("/proc/self/status").read().splitlines()
  line = next(line for line in lines if line.startswith("VmHWM"))
  return int(line.split()[1]) // 1024
uri = sys.argv[1]
read = reader(uri, "text", Policy(max_record_bytes=2**20))
for warm in read(sys.argv[2]):
  pass
before = peak()
for path in files(uri):
  for found in read(path):
    print(found.reason if isinstance(found, Bad) else f"read {found.id}")
print(peak() - before)
"""
linux = pytest.mark.skipif(
  not pathlib.Path("/proc/self/status").exists(), reason="reads /proc"
)


def memory_of(uri: str, small) -> tuple[list[str], int]:
  """(what became of each record, MiB that reading them took)."""
  done = subprocess.run(
    [sys.executable, "-c", READ, uri, str(small)],
    cwd=ROOT,
    env={"PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  *lines, size = done.stdout.splitlines()
  return lines, int(size)


def bomb(head: bytes, tail: bytes, size: int) -> bytes:
  """A gzip file of a few kilobytes, of `size` MiB of x between the others."""
  deflater = zlib.compressobj(9, wbits=31)
  parts = [deflater.compress(head)]
  parts += [deflater.compress(b"x" * 2**20) for _ in range(size)]
  parts += [deflater.compress(tail), deflater.flush()]
  return b"".join(parts)


WARC = (
  b"WARC/1.0\r\nWARC-Type: %s\r\nWARC-Target-URI: http://x/\r\n"
  b"Content-Length: %d\r\n\r\n%s\r\n\r\n"
)
BOMBS = {
  "jsonl": (b'{"text": "', b'"}\n{"text": "end"}', ":2"),
  "csv": (b"text,x\n1,", b"\nend,1\n", ":3"),
  "csv quoted": (b'text,x\n1,"\n\n', b"\nend,1\n", None),
  "text": (b"", b"", None),
  "html": (b"", b"", None),
  "wet": (
    WARC[:-6] % (b"conversion", 64 * 2**20),
    b"\r\n\r\n" + WARC % (b"conversion", 3, b"end"),
    "#2",
  ),
  "wet lying": (WARC[:-6] % (b"conversion", 10**15), b"", None),
  "wet header": (
    b"WARC/1.0\r\na: ",
    b"\r\n\r\n" + WARC % (b"conversion", 3, b"end"),
    "#2",
  ),
}


@linux
@pytest.mark.parametrize("case", BOMBS)
def test_memory_is_bounded_by_the_largest_record(tmp_path, case):
  """64 MiB out of a file of 64 KB, 1 MiB a record: one bad record."""
  head, tail, rest = BOMBS[case]
  kind = case.partition(" ")[0]
  small = tmp_path / f"small.{kind}"
  small.write_bytes(b"text\n")
  path = tmp_path / f"a.{kind}.gz"
  path.write_bytes(bomb(head, tail, 64))
  assert path.stat().st_size < 2**19
  lines, size = memory_of(f"{kind}:{path}", small)
  reads = [line for line in lines if line.startswith("read")]
  assert len(lines) - len(reads) == 1
  if rest:
    assert reads == [f"read a.{kind}.gz{rest}"]
  assert size < 24, lines


@linux
def test_a_dictionary_bomb_of_parquet_is_not_unfolded(tmp_path):
  """A text of a megabyte that 100,000 rows share: 100 GB, were it copied."""
  pa = pytest.importorskip("pyarrow")
  from pyarrow import parquet

  text = pa.array(["x" * 2**20])
  column = pa.DictionaryArray.from_arrays(np.zeros(100_000, np.int32), text)
  parquet.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
  parquet.write_table(pa.table({"text": ["a"]}), tmp_path / "b.parquet")
  code = READ.replace(
    "for found in read(path):",
    "for found in __import__('itertools').islice(read(path), 3000):",
  )
  done = subprocess.run(
    [
      sys.executable,
      "-c",
      code,
      f"parquet:{tmp_path}/a.parquet",
      str(tmp_path / "b.parquet"),
    ],
    cwd=ROOT,
    env={"PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()
  assert len(lines) == 3001 and lines[2999] == "read a.parquet:2999"
  assert int(lines[-1]) < 100


ODD = ("run [v2]", "a*b", "a?b", "[!a]", "**", "100% {x} #1 $a é")


@pytest.mark.parametrize("name", ODD)
def test_what_exists_as_it_is_written_is_no_pattern(name, tmp_path):
  """Beside files that the same text would match as a glob."""
  for folder in (name, "axb", "a"):
    (tmp_path / folder).mkdir()
    for file in (f"{name}.txt", "axb.txt"):
      (tmp_path / folder / file).write_text("ab")
  where = tmp_path / name
  assert files(f"text:{where}/{name}.txt") == [str(where / f"{name}.txt")]
  whole = sorted(map(str, where.iterdir()))
  assert files(f"text:{where}/*.txt") == whole
  found = all_of(f"text:{where}/*.txt")
  assert [each.id for each in found] == [pathlib.Path(p).name for p in whole]
  assert open_source(f"text:{where}/{name}.txt", "all").length == 1
  if name == "a*b":
    (tmp_path / "a" / "a*b.txt").unlink()  # the name is now a glob
    assert files(f"text:{tmp_path}/a/a*b.txt") == [f"{tmp_path}/a/axb.txt"]


def test_a_folder_of_a_bucket_is_no_pattern(monkeypatch):
  """Only its escaped name is given to Beam, whose globs have the same signs."""
  seen = []
  monkeypatch.setattr(raw_files, "matching", lambda p: seen.append(p) or [])
  raw_files.names("gs://bucket/out [v2]")
  assert seen == ["gs://bucket/out [[]v2]/*"]
