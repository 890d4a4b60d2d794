import gzip
import re
import sys
import zlib

import numpy as np
import pytest

from input_pipeline import charset
from input_pipeline.bad_records import Policy
from input_pipeline.document import Bad
from input_pipeline.preparation import tally
from input_pipeline.quality import dataset
from input_pipeline.reading import http_response
from input_pipeline.reading.open import reader
from input_pipeline.sources import open_source

HTML = b"<html><head><title>T</title></head><body>%s</body></html>" % (
  b"<p>tide tables</p>" * 30
)


def page_of(text: str, codec: str, head: str = "") -> bytes:
  html = f"<html><head>{head}<title>T</title></head><p>{text}</p></html>"
  return html.encode(codec)


def warc(path, *blocks: bytes, kind="response", head="") -> str:
  """Writes each block as a record, one gzip member each; its URI."""
  with open(path, "wb") as file:
    for n, block in enumerate(blocks):
      record = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:{n}>\r\n"
        "WARC-Date: 2024-01-01T00:00:00Z\r\n"
        f"WARC-Target-URI: http://x/{n}\r\n{head}"
        f"Content-Length: {len(block)}\r\n\r\n"
      )
      file.write(gzip.compress(record.encode() + block + b"\r\n\r\n"))
  return f"warc:{path}" if kind == "response" else f"wet:{path}"


def response(body: bytes, *headers: str, status="HTTP/1.1 200 OK") -> bytes:
  lines = [status, "Content-Type: text/html", *headers]
  return "\r\n".join([*lines, "", ""]).encode() + body


def read(uri: str, **policy) -> list:
  return list(reader(uri, "text", Policy(**policy))(uri.partition(":")[2]))


# Encodings.


JAPANESE = "港町の潮汐についての文章です。①㈱"
CHINESE = "联通的潮汐表镕€"
RUSSIAN = "Это таблица приливов и отливов."
CASES = [
  ("Shift_JIS", "", JAPANESE, "cp932"),
  ("windows-31j", "", JAPANESE, "cp932"),
  ("", "x-sjis", JAPANESE, "cp932"),
  ("EUC-JP", "", JAPANESE.replace("①㈱", ""), "euc_jp"),
  ("ISO-2022-JP", "", JAPANESE.replace("①㈱", ""), "iso2022_jp"),
  ("", "iso-2022-jp", JAPANESE.replace("①㈱", ""), "iso2022_jp"),
  ("gb2312", "", CHINESE, "gb18030"),
  ("gbk", "utf-8", "一些", "gb18030"),  # valid UTF-8 by accident
  ("hz-gb-2312", "", "潮汐表", "hz"),
  ("utf-8", "gbk", CHINESE, "gb18030"),  # HTTP is wrong
  ("gbk", "", CHINESE * 4, "utf-8"),  # HTTP is wrong
  ("iso-8859-1", "", "Où étiez-vous ?", "utf-8"),  # a server's default
  ("big5", "", "繁體中文網頁", "big5"),
  ("ks_c_5601-1987", "", "조석표 똠", "cp949"),
  ("ISO-8859-1", "", "« 50 € » – l’été", "cp1252"),
  ('"us-ascii"', "", "« 50 € » – l’été", "cp1252"),
  ("iso-8859-2", "utf-8", "Příliš žluťoučký kůň", "iso8859-2"),
  ("ISO-8859-9", "", "Şu köşe “yaz” köşesi", "cp1254"),
  ("x-cp1251", "koi8-r", RUSSIAN, "cp1251"),
  ("koi8-ru", "", RUSSIAN, "koi8-u"),
  ("no-such-label", "koi8-r", RUSSIAN, "koi8-r"),
  ("", "<!-- <meta charset=koi8-r> -->windows-1251", RUSSIAN, "cp1251"),
  ("tis-620", "", "ยก", "cp874"),  # valid UTF-8 by accident
  ("utf-16", "", RUSSIAN, "utf-16-le"),
  ("utf-16be", "", RUSSIAN, "utf-16-be"),
  ("utf-16", "", "<p>" + RUSSIAN, "utf-8"),  # HTTP is wrong
  ("shift_jis", "koi8-r", RUSSIAN, "utf-8-sig"),  # a byte order mark
  ("shift_jis", "", RUSSIAN, "utf-16"),
]


@pytest.mark.parametrize(("http", "meta", "text", "codec"), CASES)
def test_a_page_is_decoded_as_declared(http, meta, text, codec):
  """By the byte order mark, HTTP, the page: each encoded by Python's codec."""
  comment, _, label = meta.rpartition(">")
  head = f"{comment}{'>' if comment else ''}<meta charset='{label}'>"
  html = page_of(text, codec, head if meta else "")
  label = charset.of_content_type(f"text/html; Charset = {http}")
  found = charset.page(html, label)
  assert found == page_of(text, "utf-8", head if meta else "").decode()


def test_what_python_cannot_decode_is_decoded_as_browsers_do():
  """Row 13 of NEC, the euro of GBK and Big5, the holes of code pages."""
  for label, data, text in [
    ("euc-jp", b"\xad\xa1\xad\xea", "①㈱"),
    ("iso-2022-jp", b"\x1b$B\x2d\x21\x1b(Ba", "①a"),
    ("gbk", b"\x80\xc4\xfa", "€您"),
    ("big5", b"\xa3\xe1\xa4\xa4", "€中"),
    ("latin1", b"\x81\x93a\x94", "\x81“a”"),
  ]:
    assert charset.page(data, label) == text


def test_a_page_without_a_charset_is_left_to_detection():
  html = page_of(RUSSIAN, "cp1251")
  assert charset.page(html) is None
  assert charset.page(html, "utf-7") is None
  assert charset.page(html, "unicode_escape") is None
  one_broken = page_of(RUSSIAN * 30, "utf-8").replace(b"</p>", b"\xff</p>")
  assert charset.page(one_broken, "utf-8").count("\ufffd") == 1


@pytest.mark.parametrize("label", ["iso-8859-12", "utf-7", "idna", "x", ""])
def test_an_unknown_label_is_none(label):
  assert charset.codec(label) == ""


def test_the_charset_of_http_reaches_all_readers(tmp_path):
  html = page_of(JAPANESE, "cp932")
  typed = "HTTP/1.1 200 OK\r\nContent-Type: text/html;charset=Shift_JIS"
  block = typed.encode() + b"\r\n\r\n" + html
  uri = warc(tmp_path / "a.warc.gz", block, response(HTML))
  page, plain = read(uri)
  assert page.html == html and page.fields["charset"] == "Shift_JIS"
  assert "charset" not in plain.fields
  rows = open_source(uri, "all").read(np.arange(2))
  assert list(rows["charset"]) == ["Shift_JIS", ""]
  assert JAPANESE in tally._start(page)
  judged = dataset.open_dataset(uri)
  assert JAPANESE in dataset.describe(judged, 0)


def test_a_text_of_an_archive_is_read_in_its_charset(tmp_path):
  for label, data in [
    ("Shift_JIS", JAPANESE.encode("cp932")),
    ("utf-8", JAPANESE.encode("utf-8-sig")),
  ]:
    head = f"Content-Type: text/plain; charset={label}\r\n"
    uri = warc(tmp_path / "a.wet.gz", data, kind="conversion", head=head)
    (found,) = read(uri)
    assert found.text == JAPANESE and found.fields["mime"] == "text/plain"


# Responses and their bodies.


def raw(data: bytes) -> bytes:
  deflater = zlib.compressobj(wbits=-15)
  return deflater.compress(data) + deflater.flush()


def chunked(body: bytes, size: int = 100, line: str = "%x\r\n") -> bytes:
  parts = [body[i : i + size] for i in range(0, len(body), size)]
  return b"".join(
    (line % len(part)).encode() + part + b"\r\n" for part in parts
  ) + (b"0\r\n\r\n")


def br(data: bytes) -> bytes:
  return pytest.importorskip("brotli").compress(data)


def zstd(data: bytes) -> bytes:
  return pytest.importorskip("zstandard").compress(data)


GZ = gzip.compress(HTML)
TWO = gzip.compress(HTML[:300]) + b"\0\0" + gzip.compress(HTML[300:])
CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.parametrize(
  ("body", "codings"),
  [
    (HTML, []),
    *((HTML, [each]) for each in ("none", "identity", "zzz", "UTF-8", "")),
    *((HTML, [each]) for each in ("br", "gzip", "deflate", "zstd", "x-gzip")),
    (GZ, ["gzip"]),
    (GZ, ["identity"]),
    (GZ, []),
    (TWO, ["x-gzip"]),
    (TWO + b"trailing garbage", ["gzip"]),
    (b"".join(gzip.compress(bytes([b])) for b in HTML), ["GZIP"]),
    (zlib.compress(HTML), ["deflate"]),
    (raw(HTML), ["deflate"]),
    (GZ, ["deflate"]),
    (lambda: br(HTML), ["br"]),
    (lambda: zstd(HTML), ["zstd"]),
    (lambda: zstd(HTML[:300]) + zstd(HTML[300:]), ["zstd"]),
    (lambda: br(GZ), ["gzip, br"]),
    (gzip.compress(GZ), ["gzip", "gzip"]),
  ],
)
@pytest.mark.parametrize("transfer", ["", "chunked", "kept", "extended"])
def test_a_body_is_decoded(body, codings, transfer):
  """Also one of which the archive kept the headers, but not the form."""
  body = body() if callable(body) else body
  headers = [f"Content-Encoding: {each}" for each in codings]
  headers += [CHUNKED] if transfer else []
  if transfer == "chunked":
    body = chunked(body)
  elif transfer == "extended":
    body = chunked(body, 64, "%X ;a=b\r\n")
  found = http_response.parse(response(body, *headers))
  assert http_response.content(found, "a", Policy()) == HTML


@pytest.mark.parametrize(
  "status",
  [
    *("HTTP/2 200", "HTTP/2.0 200 ", "HTTP/3 200 OK", "http/1.1 200"),
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK",
  ],
)
def test_a_status_line_of_any_version_is_read(tmp_path, status):
  (found,) = read(warc(tmp_path / "a.warc.gz", response(HTML, status=status)))
  assert found.html == HTML


@pytest.mark.parametrize(
  ("block", "reason"),
  [
    (response(HTML, status="HTTP/1.1 OK"), "status line b'HTTP/1.1 OK'"),
    (b"<html>", "no HTTP status line"),
    (response(b"\0\1", "Content-Encoding: zzz"), "'zzz' is unknown"),
    (response(b"\0\1" * 9, "Content-Encoding: deflate"), "body is broken"),
    (response(GZ[:50] + b"\0" * 50, "Content-Encoding: gzip"), "is broken"),
    (
      response(GZ + GZ[:-8] + b"\0" * 8, "Content-Encoding: gzip"),
      "body is broken",
    ),
    (response(b"5\r\nabcde\r\n?\r\nabc", CHUNKED), "broken at byte 10"),
    (response(b"\0", "Content-Encoding: a,b,c,d,e"), "5 content encodings"),
  ],
)
def test_a_broken_response_is_one_bad_record(tmp_path, block, reason):
  uri = warc(tmp_path / "a.warc.gz", block, response(HTML))
  bad, good = read(uri)
  assert isinstance(bad, Bad) and reason in bad.reason, bad
  assert bad.reason.startswith("a.warc.gz#1: ") and "\n" not in bad.reason
  assert good.html == HTML


@pytest.mark.parametrize(
  ("name", "make"), [("brotli", br), ("zstandard", zstd)]
)
def test_a_codec_that_is_missing_is_one_line(tmp_path, monkeypatch, name, make):
  uri = warc(
    tmp_path / "a.warc.gz",
    response(make(HTML), f"Content-Encoding: {make.__name__}"),
  )
  monkeypatch.setitem(sys.modules, name, None)
  (bad,) = read(uri)
  assert re.fullmatch(
    rf"a\.warc\.gz#1: Content-Encoding '{make.__name__}' needs {name}, which "
    r"is not installed: pip install -e '\.\[clean\]'",
    bad.reason,
  )


@pytest.mark.parametrize("make", [gzip.compress, zlib.compress, raw, br, zstd])
def test_a_body_that_inflates_to_too_much_is_bad(tmp_path, make):
  coding = {br: "br", zstd: "zstd", gzip.compress: "gzip"}.get(make, "deflate")
  body = chunked(make(bytes(10**6)), 1000)
  uri = warc(
    tmp_path / "a.warc.gz",
    response(body, f"Content-Encoding: {coding}", CHUNKED),
  )
  (bad,) = read(uri, max_record_bytes=100_000)
  assert "at least 100,001 bytes are more than max_record" in bad.reason


def test_many_members_are_bounded_together():
  body = b"".join(gzip.compress(bytes(1000)) for _ in range(200))
  found = http_response.parse(response(body, "Content-Encoding: gzip"))
  with pytest.raises(ValueError, match="at least 100,001 bytes"):
    http_response.content(found, "a", Policy(max_record_bytes=100_000))


def test_what_is_intact_of_a_body_that_was_cut_is_kept():
  for make, coding in ((gzip.compress, "gzip"), (zlib.compress, "deflate")):
    text = bytes(np.random.default_rng(0).integers(97, 122, 9000, np.uint8))
    body = b"<p>" + text
    cut = chunked(make(body)[:4000])[:-60]
    found = http_response.parse(
      response(cut, f"Content-Encoding: {coding}", CHUNKED)
    )
    html = http_response.content(found, "a", Policy())
    assert body.startswith(html) and 3000 < len(html) < len(body)
