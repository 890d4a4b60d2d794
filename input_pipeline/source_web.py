"""html:GLOB, warc:GLOB and wet:GLOB, read at random."""

import functools
import io

import numpy as np

from input_pipeline import bounded, inflate, source_lines
from input_pipeline.bad_records import Policy, told
from input_pipeline.preparation.document import Bad, Document
from input_pipeline.reading import html as pages
from input_pipeline.reading import web_archive
from input_pipeline.reading.streams import opened
from input_pipeline.source import Source
from input_pipeline.source_lines import Spans
from input_pipeline.source_text import find_files, fingerprint, strings


def html(pattern: str, policy: Policy = Policy()) -> dict[str, Source]:
  """html:GLOB, each page a record: "html" its bytes, "file" its name."""
  paths = find_files(pattern, f"html:{pattern}")

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    found = []
    for index in indices:
      (page,) = pages.read(paths[index], text_key="", policy=policy)
      if isinstance(page, Bad):
        raise ValueError(page.reason)
      found.append(page)
    return {
      "html": strings([page.html for page in found]),
      "file": strings([page.fields["file"] for page in found]),
    }

  name = paths.__getitem__
  source = Source(len(paths), read, name, fingerprint=fingerprint(paths))
  return {"all": source}


def warc(pattern: str, policy: Policy = Policy()) -> dict[str, Source]:
  """warc:GLOB, each response with status 200 that is HTML a record.

  "html" its bytes; "url", "date" and "mime" as its headers say. A .gz file of
  a member for each record is read where it lies; one of many records in a
  member, and a .zst file, is held in memory. A file that cannot be read to its
  end is an error; under "skip" its end is one bad record.
  """
  uri = f"warc:{pattern}"
  return _archive(uri, "html", "response", web_archive.page, policy)


def wet(pattern: str, policy: Policy = Policy()) -> dict[str, Source]:
  """wet:GLOB, each conversion record one; "text", and the rest as of warc:."""
  uri = f"wet:{pattern}"
  return _archive(uri, "text", "conversion", web_archive.conversion, policy)


def _archive(
  uri: str, field: str, kind: str, decode: web_archive.Decode, policy: Policy
) -> dict[str, Source]:
  paths = find_files(uri.partition(":")[2], uri)
  files = [_spans(path, kind, decode, policy) for path in paths]
  files = [file for file in files if len(file.starts)]
  if not files:
    raise ValueError(f"{uri} holds no {kind} record of {field}")
  members = {
    f.path for f in files if inflate.is_compressed(f.path) and f.held is None
  }
  records = source_lines.joined(
    files, policy, functools.partial(_document, decode, members, policy)
  )

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    found = records.read(indices)
    rows = {field: strings([getattr(each, field) for each in found])}
    for name in ("url", "date", "mime"):
      rows[name] = strings([each.fields[name] for each in found])
    return rows

  source = Source(records.length, read, records.name)
  return {"all": source._replace(fingerprint=fingerprint(paths))}


def _document(
  decode: web_archive.Decode,
  members: set[str],
  policy: Policy,
  name: str,
  content: bytes,
) -> Document:
  """A record of a file, out of what lies there of it."""
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
  """Where the records of a file are that are documents, or bad."""
  kept: list[web_archive.Frame] = []
  members: list[int] = []
  errors: dict[int, str] = {}
  end = ""
  apart = path.endswith(".gz")  # A member for each record.
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
          errors[len(kept)] = told(name, reason)
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
  """The Spans of what is kept of a file.

  Args:
    path: of the file.
    kept: the frames of documents, and of bad ones.
    members: where the gzip member of each of all frames begins.
    errors: {place among the kept: what is wrong}.
    end: why the file cannot be read to its end, or "".
    apart: whether each record is a gzip member of its own.
    policy: under "skip" the end is one more place, if it is bad.
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
      return source_lines.hold(spans, bad)
    except ValueError as error:
      if not policy.skip:
        raise
      return source_lines.broken(path, error)
  if not end:
    return spans
  return spans._replace(
    starts=np.append(starts, 0),
    sizes=np.append(sizes, 0),
    numbers=np.append(numbers, 0),
    errors={**errors, len(kept): end},
  )
