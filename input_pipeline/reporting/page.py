"""A report as one HTML file that needs no network: sections in, text out."""

from typing import NamedTuple


class Text(NamedTuple):
  """A paragraph."""

  text: str


class Table(NamedTuple):
  """Rows under a header; numbers are set to the right.

  note: a line below it, or "".
  """

  columns: tuple[str, ...]
  rows: list[tuple]
  note: str = ""


class Figure(NamedTuple):
  """A picture: the text of an SVG, or a PNG's bytes, and what it shows."""

  picture: str | bytes
  caption: str


class Examples(NamedTuple):
  """Texts as they were found; folded away where they are many.

  items: a text, or (before, after).
  """

  title: str
  items: list[str | tuple[str, str]]


class Section(NamedTuple):
  """A heading and what stands below it."""

  title: str
  parts: list[Text | Table | Figure | Examples]
