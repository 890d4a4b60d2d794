"""hf:DIR: data sets of the Hugging Face Hub, saved on disk."""

import json
import os
import re
from typing import Any

import numpy as np

from common import bounded_file
from input_pipeline.bad_records import Policy, check_size
from input_pipeline.reading import bounded, image_size
from input_pipeline.reading.formats import parquet as files
from input_pipeline.reading.paths import fingerprint
from input_pipeline.sources import Source
from input_pipeline.sources import parquet as parquet_lib
from input_pipeline.sources.parts import arrow

_MOST_BYTES = 2**26
_LABEL = "label"
# Files of a snapshot: data/train-00000-of-00002.parquet, train.parquet.
_SHARD = re.compile(r"(?P<split>\w+?)(-\d+(-of-\d+)?(-\w+)?)?\.parquet")


def hf(rest: str, policy: Policy = Policy()) -> dict[str, Source]:
  """hf:DIR: a folder of `save_to_disk`, or a snapshot of the Hub.

  Both are read without the library `datasets`. A folder of `save_to_disk` holds
  Arrow files, which are mapped into memory, or a folder of them for each split.
  A snapshot has Parquet files, in DIR or DIR/data, whose names begin with their
  split; DIR may also be its folder in the cache of the Hub,
  datasets--ORG--NAME, of which the snapshot of refs/main is read.

  Fields are those of parquet:FILES, and lists of numbers whose lengths differ
  are ragged fields. hf:NAME, for which there is no such folder, is loaded by
  `datasets`, which downloads it.

  Raises:
    ValueError: the folder holds neither, a file is damaged, or `datasets` is
      needed and not installed; one line that names it.
  """
  uri, root = f"hf:{rest}", os.path.expanduser(rest)
  if not os.path.isdir(root):
    return _loaded(rest, uri, policy)
  splits = _json(os.path.join(root, "dataset_dict.json"), "splits")
  if splits is not None:
    found = {}
    for split in splits:
      if not re.fullmatch(r"\w[\w.-]*", str(split)):
        raise ValueError(f"{uri}: dataset_dict.json names the split {split!r}")
      found[split] = _saved(os.path.join(root, split), uri, policy)
    return found
  if os.path.exists(os.path.join(root, "state.json")):
    return {"all": _saved(root, uri, policy)}
  return _snapshot(root, uri, policy)


def _json(path: str, key: str) -> list | None:
  """Returns a list in a JSON file, or None if there is no such file."""
  if not os.path.exists(path):
    return None
  try:
    found = json.loads(bounded_file.read(path, _MOST_BYTES))[key]
  except (ValueError, KeyError, TypeError, RecursionError):
    found = None
  if not isinstance(found, list) or not found:
    raise ValueError(f"{path}: has no list {key!r}: the folder is damaged")
  return found


def _saved(folder: str, uri: str, policy: Policy) -> Source:
  """Returns one Dataset of `save_to_disk`."""
  listed = _json(os.path.join(folder, "state.json"), "_data_files")
  if listed is None:
    raise ValueError(f"{uri}: {folder} has no state.json")
  paths = []
  for each in listed:
    name = each.get("filename") if isinstance(each, dict) else None
    if not isinstance(name, str) or os.path.basename(name) != name:
      raise ValueError(f"{folder}/state.json: names the file {name!r}")
    paths.append(os.path.join(folder, name))
  tables = [_table(path) for path in paths]
  for path, table in zip(paths, tables, strict=True):
    if not table.schema.equals(tables[0].schema):
      raise ValueError(f"{path}: its columns differ from those of {paths[0]}")
  return _source(tables, paths, policy)


def _table(path: str) -> Any:
  """Returns the table of a file of Arrow's stream format, mapped."""
  try:
    import pyarrow
  except ModuleNotFoundError:
    raise ValueError(
      f"{path}: an Arrow file needs pyarrow, which is not installed: "
      "pip install -e '.[data]'"
    ) from None
  bounded.size_of(path)  # refuses a pipe or a device
  with _readable(path):
    return pyarrow.ipc.open_stream(pyarrow.memory_map(path)).read_all()


def _readable(name: str):
  return files.readable(name, "Arrow file")


def _source(tables: list, paths: list[str], policy: Policy) -> Source:
  import pyarrow

  whole = pyarrow.concat_tables(tables)
  ends = np.cumsum([table.num_rows for table in tables], dtype=np.int64)
  with _readable(paths[0]):
    kinds = {n: arrow.kind_in(whole[n]) for n in whole.column_names}

  def name(index: int) -> str:
    file = int(np.searchsorted(ends, index, side="right"))
    return f"{paths[file]}:{index - (ends[file] - tables[file].num_rows)}"

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    found = {}
    for column, kind in kinds.items():
      values = []
      for index in np.asarray(indices, np.int64):
        with _readable(name(int(index))):
          values.append(whole[column][int(index)].as_py())
      found[column] = leaf = arrow.column_of(values, kind)
      for index, value in zip(indices, leaf, strict=True):
        if kind == b"":
          image_size.check_image(value, name(int(index)), policy)
        elif isinstance(value, (str, np.ndarray)):
          size = len(value) if isinstance(value, str) else value.nbytes
          check_size(size, name(int(index)), policy)
    return found

  names = arrow.class_names(whole.schema.metadata, _LABEL)
  return Source(
    whole.num_rows,
    read,
    name,
    num_classes=len(names) if names else None,
    class_names=names,
    fingerprint=fingerprint(paths),
  )


def _snapshot(root: str, uri: str, policy: Policy) -> dict[str, Source]:
  """Returns the splits of a snapshot's Parquet files."""
  reference = os.path.join(root, "refs", "main")
  if os.path.exists(reference):
    commit = bounded_file.read(reference, 1024).decode(errors="replace").strip()
    if not re.fullmatch(r"[0-9a-f]{6,64}", commit):
      raise ValueError(f"{reference}: holds no commit")
    root = os.path.join(root, "snapshots", commit)
  shards: dict[str, list[str]] = {}
  for folder in (root, os.path.join(root, "data")):
    for file in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
      found = _SHARD.fullmatch(file)
      if found:
        path = os.path.join(folder, file)
        shards.setdefault(found["split"], []).append(path)
  if not shards:
    raise ValueError(
      f"{uri}: the folder holds neither a data set of save_to_disk"
      " (dataset_dict.json or state.json) nor Parquet files of a snapshot"
      " (SPLIT-*.parquet, also in data/)"
    )
  return {
    split: parquet_lib.of_files(paths, policy)
    for split, paths in shards.items()
  }


def _loaded(name: str, uri: str, policy: Policy) -> dict[str, Source]:
  """Returns a data set that the library `datasets` loads."""
  try:
    import datasets
  except ImportError:
    raise ValueError(
      f"{uri}: there is no such folder, and a name on the Hub needs the"
      " library datasets (pip install datasets) and a network"
    ) from None
  try:
    found = datasets.load_dataset(*name.split("?", 1)[:1])
  except Exception as error:  # it raises many kinds
    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    raise ValueError(f"{uri}: datasets cannot load it: {said[:300]}") from None
  return {
    split: _source([each.data.table], [f"{uri} {split}"], policy)
    for split, each in found.items()
  }
