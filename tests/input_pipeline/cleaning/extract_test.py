import functools
import importlib.util
import json
import multiprocessing
import pathlib
import pickle
import threading

import pytest

pytest.importorskip("trafilatura")

from input_pipeline.cleaning import extract as stage  # noqa: E402
from input_pipeline.cleaning.extract import extract  # noqa: E402
from input_pipeline.cleaning.parts import extract_page  # noqa: E402
from input_pipeline.document import Document, Dropped

ROOT = pathlib.Path(__file__).parents[3]

ARTICLE = "The quick brown fox jumps over the lazy dog, again and again. " * 8
PAGE = f"""<!DOCTYPE html><html><head><title>Of foxes | News</title></head>
<body><nav><ul><li><a href="/">Home</a></li><li><a href="/x">Subscribe now</a>
</li></ul></nav><article><h1>Of foxes and dogs</h1><p>{ARTICLE}</p>
<p>Ein Fuchs überquerte die Straße.</p></article>
<footer><p>Copyright 2020, all rights reserved, imprint</p></footer></body>
</html>"""


def of(html: bytes, **settings):
  return extract(**settings)(Document("a.html", "", {"url": "u"}, html))


def benchmark():
  spec = importlib.util.spec_from_file_location(
    "extraction", ROOT / "benchmarks" / "data" / "extraction.py"
  )
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_the_main_text_and_the_title_are_taken():
  found = of(PAGE.encode())
  assert found.id == "a.html" and found.html == b""
  assert found.fields == {"url": "u", "title": "Of foxes and dogs"}
  assert ARTICLE.strip() in found.text and "überquerte" in found.text
  assert "Subscribe" not in found.text and "Copyright" not in found.text


def test_what_has_a_text_passes_unchanged():
  document = Document("a", "a text", {"x": 1})
  assert extract()(document) is document
  assert extract()(document._replace(text="")) == Dropped("no_main_text")


@pytest.mark.parametrize(
  "html",
  [b"<html><body></body></html>", b"\0\1\2\3", b"<html", b" ", b"{}" * 99],
)
def test_a_page_without_text_is_dropped(html):
  assert of(html) == Dropped("no_main_text")


def test_the_limits_are_exact():
  html = PAGE.encode()
  tags = html.count(b"<")
  kept = of(html)
  assert of(html, max_bytes=len(html), max_tags=tags) == kept
  assert of(html, max_bytes=len(html) - 1) == Dropped("too_large")
  assert of(html, max_tags=tags - 1) == Dropped("too_large")


CHINESE = "中文网页的正文，用来检验编码是否正确地识别出来。" * 12
SPELT = {
  "utf-8": ("", "utf-8"),
  "gb2312": ('<meta charset="gb2312">', "gb18030"),
  "big5": (
    '<meta http-equiv="Content-Type" content="text/html; charset=Big5">',
    "big5hkscs",
  ),
  "utf-16": ("", "utf-16"),
}


@pytest.mark.parametrize("encoding", SPELT)
def test_a_page_is_read_in_its_encoding(encoding):
  """As declared; the euro sign and a rare character are not in GB 2312."""
  said, codec = SPELT[encoding]
  text = CHINESE
  if encoding == "big5":
    text = "繁體中文網頁的內文，用來檢驗編碼是否正確地識別出來。" * 12
  if encoding == "gb2312":
    text += "朱镕基€喆"
  html = f"<html><head>{said}</head><body><p>{text}</p><p>b</p></body></html>"
  assert text in of(html.encode(codec)).text


def test_one_broken_byte_does_not_change_the_encoding():
  text = CHINESE * 5
  html = f"<html><meta charset=gbk><body><p>{text}</p><p>b</p></body></html>"
  data = bytearray(html.encode("gb18030"))
  data[-30] = 0xFF
  assert CHINESE[:200] in of(bytes(data)).text


def test_a_name_that_is_wrong_for_the_bytes_is_not_believed():
  html = f"<html><meta charset=ascii-8><body><p>{CHINESE}</p><p>b</p></html>"
  assert CHINESE in of(html.encode("gb18030")).text
  assert CHINESE in of(html.encode()).text


HOSTILE = {
  "deep": b"<html><body>" + b"<div>" * 60_000 + b"text",
  "deep inline": b"<html><body><p>" + b"<b>text" * 60_000,
  "deep lists": b"<html><body>" + b"<ul><li>text" * 30_000,
  "deep tables": b"<html><body>" + b"<table><tr><td>x" * 20_000,
  "entities": b"<html><body>" + b"&amp;" * 500_000,
  "zeros": b"<html><body>" + b"\0" * 1_000_000,
  "open": b"<" * 60_000,
  "quoted": b"<html><body class='" + b"a " * 100_000,
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_page_ends_no_process(case):
  apply = extract()
  before = apply(Document("a", "", {}, PAGE.encode()))
  found = apply(Document("a", "", {}, HOSTILE[case]))
  assert isinstance(found, (Document, Dropped))
  assert apply(Document("a", "", {}, PAGE.encode())) == before


def impatient(tmp_path, monkeypatch, patch: str) -> None:
  """The parser with a change to its code, in place of the real one."""
  source = pathlib.Path(extract_page.__file__).read_text()
  path = tmp_path / "extract_page.py"
  path.write_text(source.replace('if __name__ == "__main__":', patch))
  stage._end_all()
  monkeypatch.setattr(extract_page, "__file__", str(path))


def test_a_page_that_takes_too_long_is_dropped_alone(tmp_path, monkeypatch):
  """libxml2 compares each attribute of an element with all others."""
  impatient(
    tmp_path, monkeypatch, '_CPU_SECONDS = 1\nif __name__ == "__main__":'
  )
  slow = b"".join(b" a%d=1" % i for i in range(400_000))
  apply = extract()
  kept = apply(Document("a", "", {}, PAGE.encode()))
  assert ARTICLE.strip() in kept.text
  found = apply(Document("a", "", {}, b"<html><body><p" + slow + b">text"))
  assert found == Dropped("unparsable")
  assert apply(Document("a", "", {}, PAGE.encode())) == kept
  stage._end_all()


@pytest.mark.parametrize(
  "crash",
  [
    "os.kill(os.getpid(), 11)",
    "raise MemoryError",
    "sys.stdout.buffer.write(b'half'); sys.exit()",
  ],
)
def test_a_page_that_breaks_the_parser_is_dropped_alone(
  tmp_path, monkeypatch, crash
):
  impatient(
    tmp_path,
    monkeypatch,
    "import os\nwhole = main_text\n"
    "def main_text(html, settings):\n"
    f"  if b'crash' in html:\n    {crash}\n"
    "  return whole(html, settings)\n"
    'if __name__ == "__main__":',
  )
  apply = extract()
  kept = apply(Document("a", "", {}, PAGE.encode()))
  for _ in range(2):
    assert of(b"<html>crash</html>") == Dropped("unparsable")
    assert apply(Document("a", "", {}, PAGE.encode())) == kept
  stage._end_all()


def test_threads_do_not_mix_their_pages():
  apply = pickle.loads(pickle.dumps(extract()))
  found = {}

  def work(i: int) -> None:
    for j in range(5):
      name = f"Number {i}, {j} says this. "
      html = f"<html><body><p>{name * 20}</p><p>.</p></body></html>".encode()
      found[i, j] = name in apply(Document("a", "", {}, html)).text

  threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(found) == 15 and all(found.values())


def ask(apply, html: bytes, answers) -> None:
  answers.put(apply(Document("a", "", {}, html)).text)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:os.fork.*:RuntimeWarning")
def test_a_fork_gets_a_parser_of_its_own():
  apply = extract()
  before = apply(Document("a", "", {}, PAGE.encode())).text
  context = multiprocessing.get_context("fork")
  answers = context.Queue()
  forks = [
    context.Process(target=ask, args=(apply, PAGE.encode(), answers))
    for _ in range(2)
  ]
  for fork in forks:
    fork.start()
  assert apply(Document("a", "", {}, PAGE.encode())).text == before
  assert [answers.get(timeout=60) for _ in forks] == [before] * 2
  for fork in forks:
    fork.join()


@pytest.mark.parametrize(
  ("settings", "said"), [(dict(favor="preccision"), "balanced, precision")]
)
def test_a_wrong_setting_is_one_line(settings, said):
  with pytest.raises(ValueError, match=said) as error:
    extract(**settings)
  assert "\n" not in str(error.value)


def test_the_counts_are_trafilaturas():
  """By hand: of 3 wanted snippets 2 are there, of 2 unwanted one."""
  gold = [
    {"file": "a", "with": ["x", "y"], "without": ["z"]},
    {"file": "b", "with": ["q"], "without": ["r"]},
  ]
  extraction = benchmark()
  counts = extraction.score({"a": "x and z", "b": "q"}, gold)
  assert counts == (2, 1, 1, 1)
  assert extraction.f1(counts) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))


@pytest.mark.slow
@pytest.mark.shared_data
def test_real_pages_are_extracted_as_well_as_by_trafilatura(shared_data):
  """Micro F1 over gold snippets, at least its own less 0.005."""
  import trafilatura

  extraction = benchmark()
  folder = shared_data / "web_html_gold"
  gold = list(json.loads((folder / "evaldata.json").read_text()).values())
  own = functools.partial(trafilatura.extract, include_comments=False)
  ours, theirs, apply = {}, {}, extract()
  for page in gold:
    html = (folder / "html" / page["file"]).read_bytes()
    document = apply(Document(page["file"], "", {}, html))
    ours[page["file"]] = getattr(document, "text", "")
    theirs[page["file"]] = own(html) or ""
  # What came before a page has no say in it.
  for page in reversed(gold):
    html = (folder / "html" / page["file"]).read_bytes()
    document = apply(Document(page["file"], "", {}, html))
    assert getattr(document, "text", "") == ours[page["file"]]
  f1 = extraction.f1(extraction.score(ours, gold))
  assert f1 >= extraction.f1(extraction.score(theirs, gold)) - 0.005
  assert f1 > 0.94
