"""A report as one HTML file without external resources."""

import base64
import html
import numbers
import unicodedata
from typing import NamedTuple

# Longer texts are cut, and the number of remaining characters is shown.
_LONGEST_TEXT = 5000
_LONGEST_CELL, _SHORT_CELL = 200, 24
_LONGEST_EXAMPLE = 2000
# Further items are folded, and after the second limit only counted.
_OPEN_ROWS, _MOST_ROWS = 40, 1000
_OPEN_EXAMPLES, _MOST_EXAMPLES = 5, 200
_MOST_COLUMNS = 60

# Only embedded images and styles are allowed: no scripts, no network.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_NUMBER = ' class="number"'
# Cells with these texts are coloured.
_VERDICTS = ("ok", "warn", "fail")
# Invisible characters of ordinary text: emoji, Persian, Indic scripts.
_JOINERS = "\u200c\u200d"
_CATEGORIES = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2329; --dim: #5c6670;
  --paper: #fff; --card: #f4f6f8; --rule: #d7dde3; --link: #0b62b8;
  --ok: #14713d; --warn: #8a5a00; --fail: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e7eb; --dim: #9aa5b0;
  --paper: #14181c; --card: #1d2329; --rule: #353d46; --link: #78b7f5;
  --ok: #62c98b; --warn: #e2b04a; --fail: #f28b82; }
  img.drawn { filter: invert(1) hue-rotate(180deg); } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; color: var(--ink);
  background: var(--paper); line-height: 1.5;
  font-family: system-ui, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans",
    "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", "Noto Sans SC",
    sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0;
  overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; padding-top: .6rem;
  border-top: 1px solid var(--rule); overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
p { margin: .5rem 0; white-space: pre-wrap; overflow-wrap: anywhere; }
a { color: var(--link); }
nav { background: var(--card); border-radius: .5rem; padding: .6rem 1rem;
  margin: 1rem 0; }
nav ol { margin: 0; padding-left: 1.4rem; columns: 16rem; }
ul.lines { list-style: none; padding: 0; margin: .5rem 0; }
ul.lines li { overflow-wrap: anywhere; white-space: pre-wrap; }
.scroll { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .25rem .7rem .25rem 0; text-align: left;
  vertical-align: top; border-bottom: 1px solid var(--rule);
  max-width: 22rem; overflow-wrap: break-word; overflow: hidden; }
th { color: var(--dim); font-weight: 600; white-space: nowrap;
  text-overflow: ellipsis; }
td.short { white-space: nowrap; }
td.text { min-width: 8rem; white-space: pre-wrap; }
.number { text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
.note, figcaption { color: var(--dim); font-size: .9rem; }
figure { margin: .8rem 0; }
figure img { max-width: 100%; height: auto; }
pre { background: var(--card); border-radius: .4rem; padding: .5rem .8rem;
  margin: .4rem 0; white-space: pre-wrap; overflow-wrap: anywhere;
  overflow: hidden; font: .85rem/1.5 ui-monospace, Menlo, Consolas,
    "Noto Sans Mono", "Noto Sans Mono CJK SC", monospace; }
.pair { display: grid; gap: 0 .6rem;
  grid-template-columns: repeat(auto-fit, minmax(min(16rem, 100%), 1fr)); }
summary { cursor: pointer; color: var(--link); }
.code { font: .75em ui-monospace, Menlo, Consolas, monospace;
  border: 1px solid var(--rule); border-radius: .2rem; color: var(--fail);
  padding: 0 .15em; white-space: nowrap; }
.cut { color: var(--dim); font-style: italic; }
.ok { color: var(--ok); } .warn { color: var(--warn); }
.fail { color: var(--fail); }
.ok, .warn, .fail { font-weight: 600; }
@media print { details > * { display: block; } body { max-width: none; } }
"""


class Text(NamedTuple):
  """A paragraph."""

  text: str


class Table(NamedTuple):
  """A table with a header; numbers are aligned to the right.

  note: a line below the table, or "".
  """

  columns: tuple[str, ...]
  rows: list[tuple]
  note: str = ""


class Figure(NamedTuple):
  """An image, as the text of an SVG or the bytes of a PNG, with a caption."""

  picture: str | bytes
  caption: str


class Examples(NamedTuple):
  """Example texts, of which later ones are folded.

  items: texts, or pairs (before, after).
  """

  title: str
  items: list[str | tuple[str, str]]


class Section(NamedTuple):
  """A heading and the parts below it."""

  title: str
  parts: list[Text | Table | Figure | Examples]


def render(title: str, lines: list[str], sections: list[Section]) -> str:
  """The HTML of a report, to be written as UTF-8.

  Every text may be hostile: markup is escaped, and characters that are
  invisible or change the direction of writing are shown by their codes. Long
  texts are cut and long tables folded, with the number of omitted items. The
  content security policy of the page forbids the browser to load anything.

  Args:
    title: the heading.
    lines: the main results, below the heading. The first word of a line is
      coloured if it is "ok", "warn" or "fail".
    sections: each has a heading and an entry in the table of contents.
  """
  entries = "".join(
    f'<li><a href="#s{i}">{shown(section.title, _LONGEST_CELL)}</a></li>'
    for i, section in enumerate(sections, 1)
  )
  contents = f'<nav aria-label="Contents"><ol>{entries}</ol></nav>'
  body = [
    f"<h1>{shown(title, _LONGEST_CELL)}</h1>",
    f'<ul class="lines">{"".join(map(_line, lines))}</ul>' if lines else "",
    contents if len(sections) > 1 else "",
  ]
  for i, section in enumerate(sections, 1):
    heading = shown(section.title, _LONGEST_CELL)
    body.append(f'<section><h2 id="s{i}">{heading}</h2>')
    body += [_part(part) for part in section.parts]
    body.append("</section>")
  return "\n".join(
    [
      '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
      f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
      '<meta name="viewport" content="width=device-width, initial-scale=1">',
      f"<title>{html.escape(visible(title)[:_LONGEST_CELL])}</title>",
      f"<style>{_STYLE}</style></head><body>",
      *filter(None, body),
      "</body></html>\n",
    ]
  )


def shown(text: str, most: int = _LONGEST_TEXT) -> str:
  """The HTML of any text, cut after `most` characters."""
  text = str(text)
  kept = "".join(
    f'<span class="code">{_code(c)}</span>' if _hidden(c) else html.escape(c)
    for c in text[:most]
  )
  # <bdi>: right-to-left text must not reorder the text around it.
  kept = f"<bdi>{kept}</bdi>" if not kept.isascii() else kept
  if len(text) <= most:
    return kept
  left = len(text) - most
  return f'{kept}<span class="cut"> … {left:,} more characters</span>'


def visible(text: str) -> str:
  """The text with invisible characters written as U+XXXX."""
  return "".join(_code(c) if _hidden(c) else c for c in str(text))


def _code(character: str) -> str:
  return f"U+{ord(character):04X}"


def _hidden(c: str) -> bool:
  if c.isprintable() or c in "\n\t" or c in _JOINERS:
    return False
  return unicodedata.category(c) in _CATEGORIES


def _line(line: str) -> str:
  verdict = next(
    (v for v in _VERDICTS if line.startswith((f"{v} ", f"{v}:"))), ""
  )
  if not verdict:
    return f"<li>{shown(line)}</li>"
  rest = shown(line[len(verdict) :])
  return f'<li><span class="{verdict}">{verdict}</span>{rest}</li>'


def _part(part: Text | Table | Figure | Examples) -> str:
  if isinstance(part, Text):
    return f"<p>{shown(part.text)}</p>"
  if isinstance(part, Table):
    return _table(part)
  if isinstance(part, Figure):
    return _figure(part)
  if isinstance(part, Examples):
    return _examples(part)
  raise TypeError(f"{type(part).__name__} is not a part of a page")


def _table(table: Table) -> str:
  columns = table.columns[:_MOST_COLUMNS]
  width = len(columns)
  numeric = [
    any(_is_number(row[i]) for row in table.rows[:_MOST_ROWS])
    for i in range(width)
  ]
  head = "".join(
    f'<th scope="col"{_NUMBER if number else ""}>{shown(column, 80)}</th>'
    for column, number in zip(columns, numeric, strict=True)
  )
  rows = [
    f"<tr>{''.join(map(_cell, row[:width]))}</tr>"
    for row in table.rows[:_MOST_ROWS]
  ]

  def grid(rows: list[str]) -> str:
    return (
      f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
      f"<tbody>{''.join(rows)}</tbody></table></div>"
    )

  notes = [shown(table.note)] if table.note else []
  if len(table.rows) > _MOST_ROWS:
    notes.append(f"{len(table.rows) - _MOST_ROWS:,} more rows are not shown")
  if len(table.columns) > width:
    notes.append(f"{len(table.columns) - width:,} more columns are not shown")
  footer = f'<p class="note">{"; ".join(notes)}</p>' if notes else ""
  return grid(rows[:_OPEN_ROWS]) + _folded(rows[_OPEN_ROWS:], grid) + footer


def _is_number(value) -> bool:
  return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _cell(value) -> str:
  if value is None:
    return "<td>–</td>"
  if isinstance(value, bool):
    return f"<td>{'yes' if value else 'no'}</td>"
  if _is_number(value):
    return f"<td{_NUMBER}>{number(value)}</td>"
  if isinstance(value, str) and value in _VERDICTS:
    return f'<td class="{value}">{value}</td>'
  # Names are not broken at hyphens, as tables can be scrolled.
  kind = "short" if len(str(value)) <= _SHORT_CELL else "text"
  return f'<td class="{kind}">{shown(value, _LONGEST_CELL)}</td>'


def number(value: float) -> str:
  """A number in a readable form: 48,842, 0.2408, 1.2e-05."""
  if isinstance(value, numbers.Integral):
    return f"{int(value):,}"
  value = float(value)
  if value != value:
    return "–"
  return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"


def _folded(items: list[str], join) -> str:
  if not items:
    return ""
  return (
    f"<details><summary>{len(items):,} more</summary>{join(items)}</details>"
  )


def _figure(figure: Figure) -> str:
  # An SVG is embedded as an image, so that no script in it can run.
  svg = isinstance(figure.picture, str)
  data = figure.picture.encode("utf-8", "replace") if svg else figure.picture
  kind, style = ("svg+xml", ' class="drawn"') if svg else ("png", "")
  encoded = base64.b64encode(data).decode()
  alt = html.escape(visible(figure.caption)[:_LONGEST_CELL])
  return (
    f'<figure><img{style} alt="{alt}" src="data:image/{kind};base64,{encoded}">'
    f"<figcaption>{shown(figure.caption)}</figcaption></figure>"
  )


def _examples(examples: Examples) -> str:
  items = [_example(item) for item in examples.items[:_MOST_EXAMPLES]]
  left = len(examples.items) - len(items)
  note = f'<p class="note">{left:,} more are not shown</p>' if left else ""
  return (
    f"<h3>{shown(examples.title, _LONGEST_CELL)}</h3>"
    + "".join(items[:_OPEN_EXAMPLES])
    + _folded(items[_OPEN_EXAMPLES:], "".join)
    + note
  )


def _example(item: str | tuple[str, str]) -> str:
  if isinstance(item, str):
    return f"<pre>{shown(item, _LONGEST_EXAMPLE)}</pre>"
  pair = "".join(f"<pre>{shown(each, _LONGEST_EXAMPLE)}</pre>" for each in item)
  return f'<div class="pair">{pair}</div>'
