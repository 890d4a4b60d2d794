"""What a page shows of texts that are made to break it."""

import base64
import html.parser

import pytest

from input_pipeline.reporting import page


class Reader(html.parser.HTMLParser):
  """The tags, attributes and visible text of a page."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.values, self.texts, self.open = [], [], [], []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.values += [(tag, name, value) for name, value in attrs]
    if tag not in ("meta", "img", "link", "br"):
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if not self.open or self.open[-1] != "style":
      self.texts.append(data)


HOSTILE = "</pre><script>alert(1)</script><img src=http://evil/x onerror=y>\"'"


def everywhere(text):
  return page.render(
    text,
    [text, "ok " + text],
    [
      page.Section(
        text,
        [
          page.Text(text),
          page.Table((text, "n"), [(text, 1)], text),
          page.Figure(b"\x89PNG", text),
          page.Figure(f"<svg><script>{text}</script></svg>", text),
          page.Examples(text, [text, (text, text)]),
        ],
      ),
      page.Section("second", []),
    ],
  )


def test_markup_in_any_text_is_text():
  read = Reader(everywhere(HOSTILE))
  plain = Reader(everywhere("x"))
  assert read.tags == plain.tags
  assert "script" not in read.tags
  assert not read.open
  shown = "".join(read.texts)
  assert shown.count(HOSTILE) == "".join(plain.texts).count("x") - (
    "".join(Reader(everywhere("")).texts).count("x")
  )


def test_nothing_is_loaded():
  read = Reader(everywhere(HOSTILE))
  links = [v for _, name, v in read.values if name in ("href", "src")]
  assert len(links) == 4  # two sections in the contents, two pictures
  assert all(v.startswith(("#s", "data:image/")) for v in links)
  policy = [v for _, n, v in read.values if n == "content" and "none" in v]
  assert policy[0].startswith("default-src 'none'")
  assert "url(" not in everywhere("") and "@import" not in everywhere("")


def test_each_entry_of_the_contents_has_its_heading():
  read = Reader(everywhere("x"))
  ids = {v for tag, name, v in read.values if (tag, name) == ("h2", "id")}
  assert ids == {v[1:] for t, n, v in read.values if (t, n) == ("a", "href")}


@pytest.mark.parametrize(
  "character", ["\x00", "\x1b", "\x7f", "\u202e", "\u2066", "\ufeff", "\u2028"]
)
def test_what_cannot_be_seen_is_shown_by_its_code(character):
  text = everywhere(f"a{character}b")
  assert character not in text
  assert f"U+{ord(character):04X}" in "".join(Reader(text).texts)


def test_a_lone_surrogate_can_be_written():
  assert b"U+D800" in everywhere("a\ud800").encode()


def test_ordinary_writing_stays():
  for text in ("价格 便宜", "👩‍👧", "a\n\tb", "naïve"):
    assert page.shown(text).replace("<bdi>", "").startswith(text)


def test_a_long_text_is_cut_and_says_by_how_much():
  text = page.render("t", [], [page.Section("s", [page.Text("é" * 10**6)])])
  assert len(text) < 20_000
  assert f"{10**6 - 5000:,} more characters" in text


def test_long_tables_and_examples_are_folded_then_cut():
  rows = [(f"row{i}", i) for i in range(1500)]
  items = [f"item{i}." for i in range(250)]
  parts = [page.Table(("a", "b"), rows), page.Examples("e", items)]
  text = page.render("t", [], [page.Section("s", parts)])
  open_rows, rest = text.split("<details>", 1)
  assert "row39<" in open_rows and "row40<" not in open_rows
  assert "row999<" in rest and "row1000<" not in rest
  assert "500 more rows" in rest
  assert "item199." in rest and "item200." not in rest
  assert "50 more are not shown" in rest


def test_numbers():
  assert [
    page.number(x) for x in (48842, 0.240812, 1.2e-5, 1234567.8, float("nan"))
  ] == ["48,842", "0.2408", "1.2e-05", "1,234,568", "–"]
  cells = page.render(
    "t", [], [page.Section("s", [page.Table(("a",), [(True,), (None,)])])]
  )
  assert "<td>yes</td>" in cells and "<td>–</td>" in cells


def test_verdicts_are_coloured_and_only_they():
  rows = [("fail",), ("failure",)]
  text = page.render(
    "t", ["warn: x", "warning"], [page.Section("s", [page.Table(("v",), rows)])]
  )
  assert '<td class="fail">fail</td>' in text
  assert '<td class="short">failure</td>' in text
  assert '<span class="warn">warn</span>: x' in text
  assert "<li>warning</li>" in text


def test_a_picture_is_in_the_file():
  png = b"\x89PNG\r\n\x1a\n123"
  text = page.render("t", [], [page.Section("s", [page.Figure(png, "c")])])
  assert f"data:image/png;base64,{base64.b64encode(png).decode()}" in text
