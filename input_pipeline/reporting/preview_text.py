"""A batch as lines of text."""

from collections.abc import Iterator, Mapping

import numpy as np

from common.leaf import Spec
from input_pipeline.tokenizers import Tokenizer

Batch = Mapping[str, np.ndarray]


def leaves(spec: Spec, batch_size: int) -> Iterator[str]:
  """A line for each leaf of the batch with its name, shape and dtype."""
  width = max(map(len, spec))
  for name, leaf in sorted(spec.items()):
    yield f"{name:{width}}  {[batch_size, *leaf.shape]}  {leaf.dtype}"


def rows(batch: Batch, tokenizer: Tokenizer | None, count: int) -> list[str]:
  """The first rows of a batch, with tokens decoded and other leaves as numbers.

  Args:
    batch: of a pipeline.Data, with leaves [B, ...].
    tokenizer: of the same Data, or None.
    count: the number of rows.
  """
  found = []
  for i in range(min(count, len(batch["index"]))):
    row = {name: leaf[i] for name, leaf in batch.items()}
    index = int(row.pop("index"))
    found.append(f"row {i}, example {index}" if index >= 0 else f"row {i}")
    if index < 0:
      found[-1] += ": padding"
    elif tokenizer is not None and "inputs" in row:
      found += [f"  {line}" for line in _window(row, tokenizer)]
    elif tokenizer is not None and "segments" in row and _is_text(row):
      found += [f"  {line}" for line in _encoded(row, tokenizer)]
    else:
      found += [f"  {name}: {_plain(row[name])}" for name in sorted(row)]
  return found


def _plain(value: np.ndarray) -> str:
  """A leaf in one line, without the middle of a long one."""
  text = np.array2string(
    np.asarray(value), precision=4, threshold=16, edgeitems=3, separator=", "
  )
  return " ".join(text.split())


def visible(ids: np.ndarray, tokenizer: Tokenizer) -> str:
  """The quoted text of tokens, with special tokens and line ends visible."""
  parts, run = [], []
  for i in [*map(int, ids), None]:
    special = i is None or i == tokenizer.eos or not tokenizer.byte_lengths[i]
    if not special:
      run.append(i)
      continue
    parts.append(_escaped(tokenizer.decode(run)) if run else "")
    run = []
    if i is not None:
      parts.append(_name(i, tokenizer))
  return f'"{"".join(parts)}"'


def _name(i: int, tokenizer: Tokenizer) -> str:
  if i == tokenizer.eos:
    return "⟨eos⟩"
  return _escaped(tokenizer.decode([i])) or f"⟨{i}⟩"


def _escaped(text: str) -> str:
  return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _window(row: Batch, tokenizer: Tokenizer) -> Iterator[str]:
  """The lines of a window, or of the pieces of a packed row."""
  mask = row["mask"] > 0
  if "segments" in row:
    yield from _pieces(row, mask, tokenizer)
  else:
    given = "inputs_mask" in row
    real = row["inputs_mask"] > 0 if given else _real(row, mask)
    yield f"inputs   {visible(row['inputs'][real], tokenizer)}"
    if not real.all():
      yield f"padding  {np.sum(~real)}"
    yield from _targets(row["targets"], mask, tokenizer)
  rest = set(row) - {
    *("inputs", "inputs_mask", "targets", "mask"),
    *("segments", "positions"),
  }
  for name in sorted(rest):
    yield f"{name}: {_plain(row[name])}"


def _encoded(row: Batch, tokenizer: Tokenizer) -> Iterator[str]:
  """The lines of an encoded text and of the other leaves."""
  real = row["segments"] > 0
  yield f"tokens   {visible(row['tokens'][real], tokenizer)}"
  if not real.all():
    yield f"padding  {np.sum(~real)}"
  for name in sorted(set(row) - {"tokens", "segments"}):
    yield f"{name}: {_plain(row[name])}"


def _is_text(row: Batch) -> bool:
  """Whether a row has tokens, rather than features of words."""
  return "tokens" in row and row["tokens"].ndim == 1


def _real(row: Batch, mask: np.ndarray) -> np.ndarray:
  """Which positions hold tokens; padding consists of zeros at the end."""
  there = mask | (row["inputs"] != 0) | (row["targets"] != 0)
  return np.arange(len(there)) < len(there) - np.argmax(there[::-1])


def _pieces(
  row: Batch, mask: np.ndarray, tokenizer: Tokenizer
) -> Iterator[str]:
  for number in range(1, int(row["segments"].max()) + 1):
    at = np.flatnonzero(row["segments"] == number)
    if not len(at):
      continue
    line = f"segment {number}: tokens {at[0]} to {at[-1]}"
    if "positions" in row:
      first, last = row["positions"][at[0]], row["positions"][at[-1]]
      line += f", positions {first} to {last}"
    yield line
    yield f"  inputs   {visible(row['inputs'][at], tokenizer)}"
    for target in _targets(row["targets"][at], mask[at], tokenizer):
      yield f"  {target}"
  padding = np.sum(row["segments"] == 0)
  if padding:
    yield f"padding  {padding}"


def _targets(
  targets: np.ndarray, mask: np.ndarray, tokenizer: Tokenizer
) -> Iterator[str]:
  """The targets at which the mask is 1."""
  at = np.flatnonzero(mask)
  share = f"mask 1 on {len(at)} of {len(mask)}"
  runs = np.split(at, np.flatnonzero(np.diff(at) > 1) + 1) if len(at) else []
  if len(runs) > 1:
    texts = (f"{run[0]}: {visible(targets[run], tokenizer)}" for run in runs)
    yield f"targets  {' | '.join(texts)}"
  else:
    yield f"targets  {visible(targets[at], tokenizer)}"
  yield f"         {share}"
