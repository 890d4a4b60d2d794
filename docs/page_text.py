"""Markdown of docstrings, tables and settings."""

import re
import textwrap

import source_text


def table(header: tuple[str, ...], rows) -> str:
  """A Markdown table; "|" and newlines in a cell are made harmless."""
  lines = [header, ("---",) * len(header), *rows]
  cells = [
    [str(c).replace("|", "\\|").replace("\n", " ") for c in row]
    for row in lines
  ]
  return "\n".join("| " + " | ".join(row) + " |" for row in cells) + "\n"


def code(text: str) -> str:
  """Inline code, or nothing."""
  return f"`{text}`" if text else ""


def prose(text: str) -> str:
  """A docstring as Markdown: indented blocks become code."""
  found = []
  for block in source_text.paragraphs(text):
    first, *rest = block.split("\n")
    if rest or block.startswith("  "):
      lines = [block] if not rest else block.split("\n")
      if not first.startswith("  "):
        found.append(escaped(first))
        lines = rest
      body = textwrap.dedent("\n".join(lines))
      found.append(f"```text\n{body}\n```")
    else:
      found.append(escaped(block))
  return "\n\n".join(found) + "\n"


def escaped(text: str) -> str:
  """Text in which Markdown sees no emphasis, link or HTML."""
  pieces = re.split(r"(`[^`]*`)", text)
  pieces[::2] = [re.sub(r"([*<\[\]])", r"\\\1", p) for p in pieces[::2]]
  return "".join(pieces)


def settings(function: source_text.Function, given=()) -> str:
  """The arguments of a function as a table of keys."""
  rows = [
    (
      code(each.name),
      "required" if each.default is None else code(each.default),
      escaped(each.meaning),
    )
    for each in function.settings
    if each.name not in given
  ]
  if not rows:
    return "No settings.\n"
  return table(("key", "default", "meaning"), rows)
