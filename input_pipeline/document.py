"""The documents that pass through `prepare`, and the stages that process them.

A stage is a file in input_pipeline/cleaning/ with a function of the same name,
which takes the stage's settings as keyword arguments and returns

- a `Stage`: (Document) -> Document, Counted or Dropped; or
- a `Global`, if no document can be judged before all have been seen.

Both are pure: they depend only on the document, the settings and, for a Global,
the documents of the entire corpus. They hold no open files and can be pickled,
so that Beam can send them to another machine.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple


class Document(NamedTuple):
  """One record being processed.

  id: the name of the file or record; unique within the corpus.
  text: the text to clean; "" for a row of a table.
  fields: further values, as JSON can hold them: the record's other fields
    ("url", "label", ...), and the results of stages ("lang", "split", ...).
  html: the raw page, from which `extract` takes the text.
  """

  id: str
  text: str
  fields: Mapping[str, Any] = {}
  html: bytes = b""


def split_of(document: Document) -> str:
  """Returns the split of a document, as a valid part of a file name.

  It may come from an untrusted record, so any character other than a letter,
  digit, "-" or "_" becomes "_".
  """
  name = str(document.fields.get("split") or "train")
  return re.sub(r"[^A-Za-z0-9_-]", "_", name[:64])


class Dropped(NamedTuple):
  """The result for a document that is removed.

  rule: the stage's rule that it broke; a short name in snake_case.
  language: an ISO 639-1 code for the report, where the stage identified it; the
    field "lang" of the document is used otherwise.
  """

  rule: str
  language: str = ""


class Counted(NamedTuple):
  """A document that is kept, with the stage's counts.

  counts: {name in snake_case: count}, summed over the corpus.
  """

  document: Document
  counts: Mapping[str, int]


Result = Document | Counted | Dropped
Stage = Callable[[Document], Result]


class Conclusion(NamedTuple):
  """The result of a Global for the corpus.

  verdicts: the input of `judge` for each shard, as bytes.
  summary: for the report, as JSON can hold it.
  files: {name: content} to write beside the output, such as statistics.
  """

  verdicts: list[bytes]
  summary: Mapping[str, Any] = {}
  files: Mapping[str, bytes] = {}


class Global(NamedTuple):
  """A stage that must see the entire corpus first, divided among workers.

  The corpus consists of shards in a fixed order, each an ordered list of
  documents; a document is identified by (shard, place in the shard). The result
  does not depend on the order of calls or the number of workers.

  partitions: the number of partitions into which the comparison is divided.
  summarize: (the documents of a shard, in order) -> for each partition, what it
    needs of the shard, as bytes. Reads them once.
  combine: (partition, its bytes of each shard) -> the partition's result, as
    bytes.
  conclude: (the bytes of each partition, the number of documents of each shard)
    -> Conclusion. The only step that runs in one place.
  judge: (a shard's verdict) -> (place in the shard, Document) -> Result.
  """

  partitions: int
  summarize: Callable[[Iterable[Document]], list[bytes]]
  combine: Callable[[int, list[bytes]], bytes]
  conclude: Callable[[list[bytes], list[int]], Conclusion]
  judge: Callable[[bytes], Callable[[int, Document], Result]]


class Bad(NamedTuple):
  """A record that could not be read.

  reason: one line that names it.
  lost: whether the rest of its file could not be read either.
  """

  name: str
  reason: str
  lost: bool = False
