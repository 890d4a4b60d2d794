"""Vectors of records, written as NPY or Parquet."""

import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from common.errors import UserError
from train import trained
from train.prediction import Piece
from train.prediction.parts import preparation, records

ENDINGS = (".npy", ".parquet")
# Predictions that are vectors, the first of which a task has is taken.
KINDS = ("embeddings", "features")
_CHUNK = 2**20  # bytes


class Vectors(NamedTuple):
  """Vectors that have not been computed yet.

  rows: their number, at least that of the records.
  width: D.
  pieces: yields their Pieces, in the order of the data.
  """

  rows: int
  width: int
  pieces: Iterator[Piece]


def embedded(
  found: trained.Trained,
  workdir: str,
  wanted: preparation.Wanted,
  of: str | None,
  say: Callable[[str], None],
  advance: Callable[[int], None] = lambda rows: None,
) -> Vectors:
  """Returns the vectors of new data, which need no labels.

  Args:
    found: see records.predicted, also for the others.
    workdir: of the run.
    wanted: the data.
    of: the prediction; None for the first of KINDS that the task has.
    say: (line) -> None.
    advance: (number of rows) -> None.

  Raises:
    UserError: the task has no such prediction or it gives no vectors, or the
      data do not suit it.
  """
  task = found.parts.task
  kind = of or next((k for k in KINDS if k in task.predict), None)
  if kind not in task.predict:
    there = ", ".join(sorted(task.predict)) or "none"
    lacks = f"no prediction {kind!r}" if kind else f"none of {', '.join(KINDS)}"
    raise UserError(
      f"--workdir: the task of this run has {lacks} (there are: {there})"
    )
  try:
    ready = preparation.prepared(found, wanted, kind)
  except UserError:
    raise
  except (TypeError, ValueError, AttributeError) as error:
    # As of a classifier whose model has no method of this name.
    raise UserError(f"--workdir: no {kind} of this run: {error}") from error
  abstract = ready.context.abstract
  if not isinstance(abstract, jax.ShapeDtypeStruct) or len(abstract.shape) != 2:
    raise UserError(f"--of={kind}: it gives no vector for each record")
  given = records.reading(found, workdir, wanted, ready, say, advance)
  return Vectors(given.data.num_examples, abstract.shape[1], given.pieces)


def content(vectors: Vectors, path: str) -> Iterator[bytes]:
  """Yields the content of a file whose ending is one of ENDINGS.

  .npy is float32 [records, D]. .parquet has the columns "record", the name of
  the file, line or row, and "embedding", a list of D float32.

  Raises:
    UserError: the path has another ending, or pyarrow is not installed.
  """
  if not path.lower().endswith(ENDINGS):
    raise UserError(f"--output={path}: end it in {' or '.join(ENDINGS)}")
  write = _parquet if path.lower().endswith(".parquet") else _npy
  with tempfile.TemporaryFile(dir=os.path.dirname(path) or ".") as file:
    head = write(vectors, file)
    file.seek(0)
    yield head
    while chunk := file.read(_CHUNK):
      yield chunk


def _values(piece: Piece) -> np.ndarray:
  return np.ascontiguousarray(piece.values, np.float32)


def _npy(vectors: Vectors, file: Any) -> bytes:
  """Writes the numbers; returns the header, which states how many they are."""
  import io

  count = 0
  for piece in vectors.pieces:
    file.write(_values(piece).tobytes())
    count += len(piece.records)
  head = io.BytesIO()
  shape = {"descr": "<f4", "fortran_order": False}
  np.lib.format.write_array_header_1_0(
    head, {**shape, "shape": (count, vectors.width)}
  )
  return head.getvalue()


def _parquet(vectors: Vectors, file: Any) -> bytes:
  try:
    import pyarrow
    from pyarrow import parquet
  except ImportError as error:
    raise UserError(
      "a .parquet file needs pyarrow, which is not installed: pip install -e"
      " '.[clean]'"
    ) from error
  kind = pyarrow.list_(pyarrow.float32(), vectors.width)
  fields = [("record", pyarrow.string()), ("embedding", kind)]
  with parquet.ParquetWriter(file, pyarrow.schema(fields)) as writer:
    for piece in vectors.pieces:
      flat = pyarrow.array(_values(piece).ravel())
      lists = pyarrow.FixedSizeListArray.from_arrays(flat, vectors.width)
      columns = [pyarrow.array(piece.records, pyarrow.string()), lists]
      writer.write_batch(
        pyarrow.record_batch(columns, schema=pyarrow.schema(fields))
      )
  return b""
