"""conll:GLOB: a word and its tag per line, a blank line between sentences.

Columns are separated by tabs or, in a line without tabs, by spaces: the first
is the word and the last the tag (CoNLL-2002 and 2003, WNUT). CoNLL-U comments
and lines that begin with -DOCSTART- are ignored.
"""

import functools

import numpy as np

from input_pipeline.bad_records import Policy
from input_pipeline.reading import line_records, text_options
from input_pipeline.reading.columns import strings
from input_pipeline.reading.inflate import is_compressed
from input_pipeline.reading.line_records import Spans
from input_pipeline.reading.paths import find_files, fingerprint
from input_pipeline.reading.utf8 import decode
from input_pipeline.sources import Source
from input_pipeline.sources.jsonl import lines

_DOCUMENT = "-DOCSTART-"


def conll(rest: str, policy: Policy = Policy()) -> dict[str, Source]:
  """conll:GLOB: {"words": [str, …], "tags": [str, …]} of each sentence.

  conll:GLOB?encoding=NAME: files in another encoding than UTF-8, such as
  latin-1 for CoNLL-2002. In a prediction a line may be a word alone.
  """
  pattern, options = text_options.split(rest, "conll")
  text_options.check_lines(options, f"conll:{rest}")
  paths = find_files(pattern, f"conll:{pattern}")
  files = [_sentences(path, policy) for path in paths]
  decode = functools.partial(
    parse, encoding=options.encoding, tagged=policy.labels
  )
  records = line_records.joined(files, policy, decode)

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    found = records.read(indices)
    return {k: strings([each[k] for each in found]) for k in ("words", "tags")}

  source = Source(records.length, read, records.name)
  return {"all": source._replace(fingerprint=fingerprint(paths, options))}


def _sentences(path: str, policy: Policy) -> Spans:
  """Groups consecutive lines into one record each."""
  if is_compressed(path):
    raise ValueError(
      f"{path}: conll: cannot read compressed files; decompress it"
    )
  found = lines(path, policy)
  if found.errors:
    return found
  begins = np.flatnonzero(np.diff(found.numbers, prepend=-1) != 1)
  ends = np.append(begins[1:], len(found.starts)) - 1
  kept = ~_document_marks(found, begins, ends)
  begins, ends = begins[kept], ends[kept]
  if not len(begins):
    raise ValueError(f"{path}: holds no sentence")
  starts = found.starts[begins]
  sizes = found.starts[ends] + found.sizes[ends] - starts
  return found._replace(
    starts=starts, sizes=sizes, numbers=found.numbers[begins]
  )


def _document_marks(found: Spans, begins, ends) -> np.ndarray:
  """Returns which records are a single line that marks a new document."""
  marks = np.zeros(len(begins), bool)
  short = np.flatnonzero((begins == ends) & (found.sizes[begins] < 100))
  content = found.records(begins[short], Policy(), lambda name, line: line)
  marks[short] = [line.startswith(_DOCUMENT.encode()) for line in content]
  return marks


def parse(
  name: str, content: bytes, encoding: str = "utf-8", tagged: bool = True
) -> dict[str, list[str]]:
  """Parses the words and tags of a sentence.

  Raises:
    ValueError: a line has no tag, and `tagged` is set.
  """
  words, tags = [], []
  text = decode(name, content, encoding).removeprefix("\ufeff")
  for line in text.split("\n"):
    columns = line.rstrip("\r").split("\t" if "\t" in line else " ")
    columns = [column for column in columns if column.strip()]
    if not columns or columns[0] == _DOCUMENT or _comment(columns):
      continue
    if len(columns) < 2 and tagged:
      raise ValueError(f"{name}: the line {line[:50]!r} has no tag")
    words.append(columns[0])
    tags.append(columns[-1].strip())
  return {"words": words, "tags": tags}


def _comment(columns: list[str]) -> bool:
  """Returns whether a line is "# key = value", not the word "#" and a tag."""
  return columns[0].startswith("# ") or (columns[0] == "#" and "=" in columns)
