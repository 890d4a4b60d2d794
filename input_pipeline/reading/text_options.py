"""Settings of text files at the end of a source: csv:GLOB?encoding=gbk.

encoding: of the files, a name of Python's codecs; the default is UTF-8.
header: of CSV files: yes (the default), no, or names of the columns, separated
  by commas, of a file that has no header.
"""

import codecs
import re
from typing import NamedTuple

_KEYS = ("encoding", "header")
_OPTIONS = re.compile(rf"(?:[?&](?:{'|'.join(_KEYS)})=[^?&]*)+$")
_ASCII = bytes(range(32, 127)) + b"\t\r\n"


class Options(NamedTuple):
  """How text files are read.

  encoding: a name of Python's codecs.
  header: whether the first row of a table names the columns, or their names.
  """

  encoding: str = "utf-8"
  header: bool | tuple[str, ...] = True


def split(
  rest: str, scheme: str, valid: tuple[str, ...] = ("encoding",)
) -> tuple[str, Options]:
  """Returns (the pattern, its Options) of what follows the scheme in a URI.

  Args:
    rest: of the URI.
    scheme: for error messages.
    valid: the settings that the scheme has.

  Raises:
    ValueError: a setting is unknown to the scheme or has an invalid value.
  """
  found = _OPTIONS.search(rest)
  if not found:
    return rest, Options()
  options = Options()
  uri = f"{scheme}:{rest}"
  for each in re.split("[?&]", found[0])[1:]:
    key, _, value = each.partition("=")
    if key not in valid:
      raise ValueError(f"{uri}: {key}= is not a setting of {scheme}:")
    if key == "encoding":
      options = options._replace(encoding=_encoding(value, uri))
    else:
      options = options._replace(header=_header(value))
  return rest[: found.start()], options


def check_lines(options: Options, uri: str) -> None:
  """Raises ValueError for an encoding whose lines do not end in one byte."""
  name = options.encoding
  try:
    alike = _ASCII.decode(name) == _ASCII.decode("ascii")
  except UnicodeDecodeError:
    alike = False
  if not alike or "\n".encode(name) != b"\n":
    raise ValueError(
      f"{uri}: encoding={name} has no random access to lines; convert the"
      f" files: iconv -f {name} -t utf-8"
    )


def _encoding(value: str, uri: str) -> str:
  for name in (value, value.lower().removeprefix("x-")):
    try:
      found = codecs.lookup(name)
      "a".encode(found.name)  # some codecs turn bytes into bytes
    except (LookupError, ValueError):
      continue
    return "utf-8" if found.name == "utf-8-sig" else found.name
  raise ValueError(f"{uri}: encoding={value!r} is not an encoding of Python's")


def _header(value: str) -> bool | tuple[str, ...]:
  known = {"yes": True, "true": True, "no": False, "false": False}
  return known.get(value.lower(), tuple(value.split(",")))
