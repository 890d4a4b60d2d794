"""What passes through `prepare`, and what a stage may do with it.

A stage is a file in input_pipeline/cleaning/ with a function of the same name,
which takes the stage's settings as keyword arguments and returns

- a `Stage`: (Document) -> Document, Counted or Dropped; or
- a `Global`, where no document can be judged before all have been seen.

Both are pure: nothing but the document, the settings and, for a Global, the
documents of the whole corpus decides. They hold no open files and can be
pickled, so that Beam may send them to another machine.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple


class Document(NamedTuple):
  """One record on its way.

  id: the file's or the record's name; unique within the corpus.
  text: what is cleaned; "" for a row of a table.
  fields: what else is known, as JSON can hold it: the record's other fields
    ("url", "label", ...), and what stages found out ("lang", "split", ...).
  html: the raw page, from which `extract` has yet to take the text.
  """

  id: str
  text: str
  fields: Mapping[str, Any] = {}
  html: bytes = b""


def split_of(document: Document) -> str:
  """The split that a document is in: a name that a file's name may hold.

  It may come from a stranger's record, so what is no letter, digit, "-" or "_"
  becomes "_".
  """
  name = str(document.fields.get("split") or "train")
  return re.sub(r"[^A-Za-z0-9_-]", "_", name[:64])


class Dropped(NamedTuple):
  """A document that ends here.

  rule: which of the stage's rules it broke; a short name in snake_case.
  """

  rule: str


class Counted(NamedTuple):
  """A document that goes on, and what the stage counted in it.

  counts: {name in snake_case: how many}, added up over the corpus.
  """

  document: Document
  counts: Mapping[str, int]


Result = Document | Counted | Dropped
Stage = Callable[[Document], Result]


class Conclusion(NamedTuple):
  """What a Global found out about the corpus.

  verdicts: for each shard what `judge` needs to know, as bytes.
  summary: for the report, as JSON can hold it.
  files: {name: content} that are left beside the output, such as statistics.
  """

  verdicts: list[bytes]
  summary: Mapping[str, Any] = {}
  files: Mapping[str, bytes] = {}


class Global(NamedTuple):
  """A stage that must see the whole corpus first, cut for many workers.

  The corpus is shards in a fixed order, each an ordered list of documents;
  a document is known by (shard, place in the shard). The order of calls and
  the number of workers change nothing.

  partitions: among how many the comparing is divided.
  summarize: (the documents of a shard, in order) -> for each partition what it
    must know of the shard, as bytes. Reads them once.
  combine: (partition, for each shard its bytes) -> what the partition found.
  conclude: (for each partition its bytes, for each shard its number of
    documents) -> Conclusion. The one step that runs in one place.
  judge: (a shard's verdict) -> (place in the shard, Document) -> Result.
  """

  partitions: int
  summarize: Callable[[Iterable[Document]], list[bytes]]
  combine: Callable[[int, list[bytes]], bytes]
  conclude: Callable[[list[bytes], list[int]], Conclusion]
  judge: Callable[[bytes], Callable[[int, Document], Result]]


class Bad(NamedTuple):
  """A record that could not be read; `reason` is one line that names it."""

  name: str
  reason: str
