"""Counts and samples of the documents, stage by stage.

A tally is plain JSON, and tallies of shards add up to the same sum in any
order. The samples are the documents whose ids have the smallest hashes.
"""

import hashlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from input_pipeline import charset
from input_pipeline.document import Document, split_of

# The number of samples for each rule, each stage's changes, and bad records.
_SAMPLES = 3
_SHOWN = 400  # characters of a sample
UNKNOWN = "unknown"
# The number of values that are counted separately.
_VALUES = 10_000
_REST = "(others)"

Tally = dict[str, Any]


def stage() -> Tally:
  """An empty tally of one stage."""
  return {
    "seen": 0,
    "kept": 0,
    "changed": 0,
    "dropped": {},
    "counts": {},
    "characters_in": 0,
    "characters_out": 0,
    "languages": {},
    "samples": {"changed": [], "dropped": {}},
  }


def profile() -> Tally:
  """An empty tally of the properties of documents."""
  return {
    "documents": 0,
    "characters": 0,
    "bytes": 0,
    "languages": {},
    "lengths": {},
    "sources": {},
    "domains": {},
    "splits": {},
  }


def add_profile(tally: Tally, document: Document) -> None:
  """Counts a document in a profile."""
  size = len(document.text)
  tally["documents"] += 1
  tally["characters"] += size
  tally["bytes"] += len(document.text.encode(errors="replace"))
  fields = document.fields
  _count(tally["lengths"], str(size.bit_length()))
  _count_two(tally["languages"], str(fields.get("lang") or UNKNOWN), size)
  _count_two(tally["splits"], split_of(document), size)
  _count_two(tally["sources"], document.id.rsplit("#", 1)[0], size)
  if domain := domain_of(fields):
    _count_two(tally["domains"], domain, size)


def domain_of(fields: Mapping[str, Any]) -> str:
  """The host of the field "url", or ""."""
  try:
    return urlsplit(str(fields.get("url") or "")).hostname or ""
  except ValueError:
    return ""


def add(
  tally: Tally,
  before: Document,
  after: Document | None,
  rule: str = "",
  counts: Mapping[str, int] | None = None,
  language: str = "",
) -> None:
  """Counts the effect of a stage; `after` is None for a dropped document.

  language: of the document, if it is known; its field "lang" otherwise.
  """
  tally["seen"] += 1
  tally["characters_in"] += len(before.text)
  languages = tally["languages"].setdefault(
    language or str((after or before).fields.get("lang") or UNKNOWN), [0, 0]
  )
  languages[0] += 1
  for name, count in (counts or {}).items():
    _count(tally["counts"], name, count)
  if after is None:
    languages[1] += 1
    _count(tally["dropped"], rule)
    kept = tally["samples"]["dropped"].setdefault(rule, [])
    _sample(kept, before.id, lambda: {"text": _start(before)})
    return
  tally["characters_out"] += len(after.text)
  # `is` first: most stages return the document that they were given.
  same = after is before or (
    after.text == before.text
    and after.fields == before.fields
    and after.html == before.html
  )
  tally["kept" if same else "changed"] += 1
  if not same and after.text != before.text:
    _sample(
      tally["samples"]["changed"], before.id, lambda: _difference(before, after)
    )


def bad() -> Tally:
  """An empty tally of records that could not be read or processed."""
  return {"records": 0, "bad": 0, "samples": []}


def add_bad(tally: Tally, name: str, reason: str) -> None:
  """Counts a bad record."""
  tally["bad"] += 1
  _sample(tally["samples"], name, lambda: {"reason": reason[:_SHOWN]})


def add_lost(tally: Tally, name: str, reason: str) -> None:
  """Counts a file that could not be read to its end."""
  tally["lost"] = tally.get("lost", 0) + 1
  kept = tally.setdefault("lost_samples", [])
  _sample(kept, name, lambda: {"reason": reason[:_SHOWN]})


def lost(tally: Tally) -> str:
  """What is wrong with the first few files of `add_lost`; "" for none."""
  found = tally.get("lost_samples", [])
  left = tally.get("lost", 0) - len(found)
  more = [f"and {left:,} more"] if left else []
  return "; ".join([*(each["reason"] for each in found), *more])


def merge(a: Any, b: Any) -> Any:
  """The sum of two tallies of the same kind."""
  if isinstance(a, dict):
    merged = {k: merge(a[k], b[k]) if k in b else a[k] for k in a}
    merged |= {k: b[k] for k in b if k not in a}
    return merged
  if isinstance(a, list):
    if a and b and isinstance(a[0], int):
      return [x + y for x, y in zip(a, b, strict=True)]
    return sorted(a + b, key=lambda sample: sample["key"])[:_SAMPLES]
  return a + b


def largest(values: Mapping[str, Any]) -> dict[str, Any]:
  """The values with the largest first figures, and the sum of the others."""
  ranked = sorted(values.items(), key=lambda item: (-_first(item[1]), item[0]))
  top = dict(ranked[:_VALUES])
  for _, value in ranked[_VALUES:]:
    top[_REST] = merge(top[_REST], value) if _REST in top else value
  return top


def _first(value: Any) -> int:
  return value[0] if isinstance(value, list) else value


def _count(counts: dict[str, int], name: str, count: int = 1) -> None:
  counts[name] = counts.get(name, 0) + count


def _count_two(counts: dict[str, list[int]], name: str, size: int) -> None:
  both = counts.setdefault(name, [0, 0])
  both[0] += 1
  both[1] += size


def _sample(kept: list[Tally], name: str, make) -> None:
  key = hashlib.blake2b(name.encode(errors="replace"), digest_size=8)
  key = key.hexdigest()
  if len(kept) < _SAMPLES or key < kept[-1]["key"]:
    kept.append({"key": key, "id": name, **make()})
    kept.sort(key=lambda sample: sample["key"])
    del kept[_SAMPLES:]


def _start(document: Document) -> str:
  if document.text:
    return document.text[:_SHOWN]
  html, label = document.html, document.fields.get("charset")
  text = charset.page(html, label if isinstance(label, str) else "")
  return (text or html[:_SHOWN].decode(errors="replace"))[:_SHOWN]


def _difference(before: Document, after: Document) -> dict[str, str]:
  """Both texts from shortly before their first difference."""
  if not before.text:
    return {"before": _start(before), "after": after.text[:_SHOWN]}
  # The length of the common prefix, by bisection.
  low, high = 0, min(len(before.text), len(after.text))
  while low < high:
    middle = (low + high + 1) // 2
    if before.text[low:middle] == after.text[low:middle]:
      low = middle
    else:
      high = middle - 1
  start = max(0, low - _SHOWN // 4)
  return {
    "before": before.text[start : start + _SHOWN],
    "after": after.text[start : start + _SHOWN],
  }
