"""Random access to the records of web archives."""

import functools
import io

import numpy as np

from input_pipeline.bad_records import Policy, error_line
from input_pipeline.document import Document
from input_pipeline.reading import (
  bounded,
  inflate,
  line_records,
  web_archive,
)
from input_pipeline.reading.columns import strings
from input_pipeline.reading.line_records import Spans
from input_pipeline.reading.paths import find_files, fingerprint
from input_pipeline.reading.streams import opened
from input_pipeline.sources import Source


def records(
  uri: str, field: str, kind: str, decode: web_archive.Decode, policy: Policy
) -> dict[str, Source]:
  """Opens records of one kind, each with "url", "date", "mime" and `field`.

  Pages have "charset" too, what HTTP declares: "" where it does not.

  Args:
    uri: SCHEME:GLOB.
    field: "html" or "text", the field that `decode` fills.
    kind: the WARC-Type of the records: "response", "conversion".
    decode: (a record's bytes) -> Document.
    policy: how bad records are handled.
  """
  paths = find_files(uri.partition(":")[2], uri)
  files = [_spans(path, kind, decode, policy) for path in paths]
  files = [file for file in files if len(file.starts)]
  if not files:
    raise ValueError(f"{uri} holds no {kind} record of {field}")
  members = {
    f.path for f in files if inflate.is_compressed(f.path) and f.held is None
  }
  documents = line_records.joined(
    files, policy, functools.partial(_document, decode, members, policy)
  )

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    found = documents.read(indices)
    rows = {field: strings([getattr(each, field) for each in found])}
    for name in ("url", "date", "mime", *["charset"][: field == "html"]):
      rows[name] = strings([each.fields.get(name, "") for each in found])
    return rows

  source = Source(documents.length, read, documents.name)
  return {"all": source._replace(fingerprint=fingerprint(paths))}


def _document(
  decode: web_archive.Decode,
  members: set[str],
  policy: Policy,
  name: str,
  content: bytes,
) -> Document:
  """Decodes one record of a file from its bytes."""
  path = name.rpartition("#")[0]
  if path in members:
    pieces = inflate.pieces(io.BytesIO(content), path)
    content = b"".join(piece for _, piece in pieces)
  found = decode(name, content.lstrip(b"\r\n"), policy)
  if found is None:
    raise ValueError(f"{path}: was changed while it was read")
  return found


def _spans(
  path: str, kind: str, decode: web_archive.Decode, policy: Policy
) -> Spans:
  """Locates the records of a file that are documents, or bad."""
  kept: list[web_archive.Frame] = []
  members: list[int] = []
  errors: dict[int, str] = {}
  end = ""
  apart = path.endswith(".gz")  # One gzip member per record.
  try:
    with opened(path) as stream:
      for frame in web_archive.frames(stream, kind, policy):
        apart = apart and not frame.within
        members.append(frame.member)
        name = f"{path}#{frame.number}"
        reason = frame.reason
        try:
          if frame.content and decode(name, frame.content, policy) is None:
            continue
        except ValueError as error:
          reason = str(error)
        if reason:
          errors[len(kept)] = error_line(name, reason)
        if reason or frame.content:
          kept.append(frame._replace(content=b""))
  except ValueError as error:
    if not policy.skip:
      raise
    end = str(error)
  return _placed(path, kept, members, errors, end, apart, policy)


def _placed(
  path: str,
  kept: list[web_archive.Frame],
  members: list[int],
  errors: dict[int, str],
  end: str,
  apart: bool,
  policy: Policy,
) -> Spans:
  """Returns the Spans of the records kept of a file.

  Args:
    path: of the file.
    kept: the frames of documents and of bad records.
    members: the start of the gzip member of each of all frames.
    errors: {place among the kept: what is wrong}.
    end: why the file cannot be read to its end, or "".
    apart: whether each record is a gzip member of its own.
    policy: under "skip" an unreadable end is one more place.
  """
  numbers = np.array([frame.number for frame in kept], np.int64)
  starts = np.array([frame.start for frame in kept], np.int64)
  sizes = np.array([frame.size for frame in kept], np.int64)
  if apart:
    borders = np.array([*members, bounded.size_of(path)], np.int64)
    starts, sizes = borders[numbers - 1], np.diff(borders)[numbers - 1]
  spans = Spans(path, starts, sizes, numbers, None, errors, "#", False)
  if inflate.is_compressed(path) and not apart and len(kept):
    bad = np.zeros(len(kept), bool)
    bad[list(errors)] = True
    try:
      return line_records.hold(spans, bad)
    except ValueError as error:
      if not policy.skip:
        raise
      return line_records.broken(path, error)
  if not end:
    return spans
  return spans._replace(
    starts=np.append(starts, 0),
    sizes=np.append(sizes, 0),
    numbers=np.append(numbers, 0),
    errors={**errors, len(kept): end},
  )
