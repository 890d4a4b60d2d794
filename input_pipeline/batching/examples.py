"""The examples that batches are gathered from: records or rows of tokens."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from common.leaf import Axes
from input_pipeline import rows as rows_lib
from input_pipeline.bad_records import Policy, Tally
from input_pipeline.batching import added_tokens
from input_pipeline.batching.components import Part
from input_pipeline.batching.second import Second
from input_pipeline.batching.unlabeled import Unlabeled, without_labels
from input_pipeline.packing import windows as windows_lib
from input_pipeline.packing.token_file import token_file
from input_pipeline.packing.whole_documents import packed
from input_pipeline.sources import Source, open_source
from input_pipeline.tokenizers import Tokenizer, get_tokenizer


class Examples(NamedTuple):
  """The examples that batches are gathered from.

  read: (int64 [n]) -> {field: array [n, ...]}; ValueError for a bad record.
  tally: counts bad records, and holds the policy.
  planned: whether every record was read, and counted in `tally`, when the
    examples were planned, so that reading an example is not reading a record.
  texts: values that evaluators need besides the arrays, see rows.Rows.
  class_names: in the order of the labels, or ().
  axes: {leaf: the names of its axes}, of rows and windows; see common/leaf.py.
  units: {leaf: what its first axis is counted as}.
  record: (index) -> the name of the record; None if that is `name`.
  unscaled: see rows.Rows.
  uniform: fields that must have one value in all records; see sources.Source.
  ragged: how many axes of ragged fields differ; see sources.Source.
  second: the source whose records the ops mix into the examples, or None.
  sizes: see rows.Rows.
  fingerprint: changes when the files change; "" if that is not known.
  """

  length: int
  read: Callable[[np.ndarray], dict[str, np.ndarray]]
  name: Callable[[int], str]
  num_classes: int | None = None
  tokenizer: Tokenizer | None = None
  note: str = ""
  tally: Tally = Tally()
  planned: bool = False
  texts: Callable[[np.ndarray], dict[str, Sequence]] | None = None
  class_names: tuple[str, ...] = ()
  axes: Axes = {}
  units: Mapping[str, str] = {}
  record: Callable[[int], str] | None = None
  unscaled: Callable[[np.ndarray], np.ndarray] | None = None
  uniform: tuple[str, ...] = ()
  ragged: Mapping[str, int] = {}
  second: Second | None = None
  sizes: Mapping[str, int] = {}
  fingerprint: str = ""


def leaf_names(
  rows: Mapping | None, tokenizer: str | None
) -> tuple[Axes, Mapping[str, str]]:
  """Returns (axes, units) of the leaves that rows or windows have."""
  if rows:
    return rows_lib.described(rows)
  return (windows_lib.AXES, windows_lib.UNITS) if tokenizer else ({}, {})


def of_parts(
  parts: Sequence[Part],
  tokenizer: str | None,
  seq_len: int | None,
  packing: bool,
  rows: Mapping | None,
  cache_dir: str | None,
  workdir: str | None,
  partial: bool,
  policy: Policy,
  unlabeled: Unlabeled | None = None,
) -> list[Examples]:
  """Returns the examples of each part; one tally counts their bad records.

  Args:
    parts: the result of components.parts.
    tokenizer: the string of the tokenizer, or None for the sources' own
      examples.
    seq_len: T, if there is a tokenizer.
    packing: whether to make rows of whole documents instead of windows.
    rows: a kind of rows/ and its settings, instead of either; or None.
    cache_dir: the folder in which tokens are cached.
    workdir: the folder that keeps a tokenizer learned from the data.
    partial: whether the last window of a part may be short.
    policy: how bad records are handled.
    unlabeled: what a prediction knows of the labels that its records lack.

  Raises:
    ValueError: a setting or a part is wrong; one line that names it.
  """
  if not isinstance(packing, bool):
    raise ValueError(f"packing={packing!r} is not True or False")
  if packing and tokenizer is None:
    raise ValueError("packing=True packs tokens; set a tokenizer")
  of_text = not rows or rows_lib.needs_tokenizer(rows)
  if rows_lib.ignores_tokenizer(rows):
    tokenizer = None
  if rows and (packing or (tokenizer is None and of_text)):
    wrong = "packing has its own" if packing else "set a tokenizer"
    raise ValueError(f"rows={dict(rows)!r} makes rows of tokens: {wrong}")
  if tokenizer is not None and not of_text:
    raise ValueError(f"rows={dict(rows)!r} reads no text: leave out tokenizer")
  sources = [open_source(part.source, part.split, policy) for part in parts]
  if unlabeled is not None:
    leaves = {} if rows or tokenizer is not None else unlabeled.leaves
    sources = [without_labels(s, unlabeled, leaves) for s in sources]
  tally = Tally(policy)
  if tokenizer is None and not rows:
    return [
      Examples(
        s.length,
        s.read,
        s.name,
        s.num_classes,
        note=s.note,
        tally=tally,
        class_names=tuple(s.class_names or ()),
        uniform=s.uniform,
        ragged=s.ragged,
        fingerprint=s.fingerprint,
      )
      for s in sources
    ]
  learned, fitted = None, None
  if of_text:
    if not isinstance(seq_len, int) or seq_len < 1:
      raise ValueError(f"seq_len {seq_len!r} is not a positive integer")
    corpus = [
      (part.source, key)
      for part in parts
      for key in rows_lib.text_keys(rows, part.text_key)
    ]
    learned = get_tokenizer(
      tokenizer, corpus, cache_dir=cache_dir, workdir=workdir, policy=policy
    )
  if rows:
    if learned is not None:
      learned = added_tokens.of_rows(learned, rows)
    titles = [str(part) for part in parts]
    learning = rows_lib.Learning(sources, titles, not partial, workdir, policy)
    fitted = rows_lib.fit(rows, learning)

  def of_rows(part: Part, source: Source) -> Examples:
    given = rows_lib.Given(
      source=source,
      tokenizer=learned,
      seq_len=seq_len,
      text_key=part.text_key,
      training=not partial,
      title=str(part),
      uri=part.source,
      split=part.split,
      cache_dir=cache_dir,
      tally=tally,
      fitted=fitted,
    )
    made = rows_lib.make(rows, given)
    return Examples(
      made.length,
      made.read,
      (lambda index: f"{part} row {index}") if made.planned else source.name,
      made.num_classes,
      learned,
      "; ".join(note for note in (source.note, made.note) if note),
      tally,
      made.planned,
      made.texts,
      made.class_names,
      *leaf_names(rows, tokenizer),
      made.record or source.name,
      made.unscaled,
      sizes=made.sizes,
      fingerprint=source.fingerprint,
    )

  def of_tokens(part: Part, source: Source) -> Examples:
    file = token_file(
      source,
      learned,
      uri=part.source,
      split=part.split,
      text_key=part.text_key,
      cache_dir=cache_dir,
      tally=tally,
    )
    title = str(part)
    if packing:
      length, read = packed(file, learned, seq_len, title)
    else:
      length, read = windows_lib.windows(
        file.tokens, learned, seq_len, partial, title
      )
    kind = "row" if packing else "window"
    axes, units = leaf_names(rows, tokenizer)
    return Examples(
      length,
      read,
      lambda index: f"{title} {kind} {index}",
      tokenizer=learned,
      note=source.note,
      tally=tally,
      planned=True,
      axes=axes,
      units=units,
      fingerprint=source.fingerprint,
    )

  of_part = of_rows if rows else of_tokens
  return [of_part(*each) for each in zip(parts, sources, strict=True)]
